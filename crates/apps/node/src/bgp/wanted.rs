//! From what is wanted to what the speaker, its sockets and BFD are told.
//!
//! Invariant: telling the same twice changes nothing, so it is done again whenever a password or an interface may differ.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tortie_bgp::{BfdState, Speaker, SpeakerConfig};
use tortie_desired::BgpSpeaker;
use tortie_net::IpNet;
use tracing::{info, warn};

use super::bfd::{Bfd, Watched};
use super::listen::Place;
use super::status;
use super::worker::Worker;
use super::{Command, Wanted, config};
use crate::autodetect::Interface;
use crate::host;

/// How often files of passwords and interfaces are looked at, if they matter.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Worker {
    pub(super) fn want(&mut self, wanted: Wanted) {
        if self.wanted != wanted {
            self.reconfigured = status::now();
        }
        self.wanted = wanted;
        self.configure();
    }

    /// Brings the speaker to what is wanted; also when a password or an interface may have changed.
    pub(super) fn configure(&mut self) {
        let now = Instant::now();
        self.look_again = None;
        let Some(own) = self.wanted.speaker.clone() else { return self.stop_speaking(now) };
        if self.speaker.is_none() {
            let config = SpeakerConfig { restarting: std::mem::take(&mut self.restarting), ..config::speaker(&own) };
            self.speaker = Some(Speaker::new(config, now));
            info!(router_id = %own.router_id, asn = %own.asn, port = own.listen_port, "BGP speaker started");
        }
        let place = Place::of(&own, &self.wanted.policy);
        if self.listeners.as_ref().is_none_or(|listeners| listeners.place != place) {
            self.listen();
        }
        self.read_peers(&own);
        self.watch(&own);
        let direct = self.direct();
        let links = self.links();
        let routes = config::routes(&self.wanted, direct);
        let Some(speaker) = &mut self.speaker else { return };
        let identity = (speaker.config().router_id, speaker.config().local_as);
        if identity != (own.router_id, own.asn) {
            let restarting = speaker.config().restarting;
            info!(router_id = %own.router_id, asn = %own.asn, "BGP speaker has another identity; sessions start anew");
            speaker.set_config(now, SpeakerConfig { restarting, ..config::speaker(&own) });
        }
        if self.policy.as_deref() != Some(&self.wanted.policy) {
            let policy = Arc::new(self.wanted.policy.clone());
            let retell = self.policy.as_ref().is_some_and(|old| {
                (&old.unprogrammed, old.normal_priority) != (&policy.unprogrammed, policy.normal_priority)
            });
            self.policy = Some(policy.clone());
            speaker.set_policy(policy);
            if retell {
                speaker.tell_all();
            }
        }
        speaker.await_more(self.unusable.values().any(|missing| missing.awaited));
        speaker.set_barred(self.unusable.keys().copied().collect());
        speaker.set_links(links);
        speaker.set_local_routes(now, routes);
        speaker.set_ranges(now, self.ranges.clone());
        speaker.set_peers(now, self.configs.clone());
    }

    /// Watches the peers that are to be watched.
    fn watch(&mut self, own: &BgpSpeaker) {
        let watched = self.wanted.peers.iter().filter_map(|(address, peer)| {
            let external = peer.asn != peer.local_asn.unwrap_or(own.asn);
            Some((*address, Watched::of(peer, external)?))
        });
        let watched: BTreeMap<IpAddr, Watched> = watched.collect();
        self.bfd_states.retain(|address, _| watched.contains_key(address));
        if self.bfd.is_none() && !watched.is_empty() {
            let (own, waker) = (self.own.clone(), self.waker.clone());
            let tell = move |peer, state| {
                // The worker outlives its BFD thread.
                let _ = own.send(Command::Bfd(peer, state));
                let _ = waker.wake();
            };
            self.bfd = Bfd::start(tell).inspect_err(|error| warn!(%error, "BFD can't start")).ok();
        }
        if let Some(bfd) = &self.bfd {
            bfd.watch(watched);
        }
    }

    pub(super) fn bfd_told(&mut self, peer: IpAddr, state: BfdState) {
        let before = self.bfd_states.insert(peer, state);
        let failed = matches!(state, BfdState::Down | BfdState::Init);
        if before == Some(BfdState::Up)
            && failed
            && let Some(speaker) = &mut self.speaker
        {
            speaker.handle_bfd_down(Instant::now(), peer);
        }
    }

    fn stop_speaking(&mut self, now: Instant) {
        if let Some(speaker) = &mut self.speaker {
            speaker.set_peers(now, BTreeMap::new());
            speaker.set_ranges(now, BTreeMap::new());
            self.act();
            self.tell_routes();
        }
        self.connections.clear();
        self.tokens.clear();
        self.configs.clear();
        self.ranges.clear();
        self.unusable.clear();
        // The next speaker knows none of it.
        self.policy = None;
        self.bfd = None;
        (self.speaker, self.listeners, self.listen_again, self.fault) = (None, None, None, None);
    }

    /// Peers and ranges with their passwords. A peer whose password can't be read gets no session.
    fn read_peers(&mut self, own: &BgpSpeaker) {
        let (mut configs, mut ranges) = (BTreeMap::new(), BTreeMap::new());
        let hosts = self.wanted.peers.iter().map(|(address, peer)| (IpNet::from(*address), false, peer));
        let all = hosts.chain(self.wanted.policy.ranges.iter().map(|(net, peer)| (*net, true, peer)));
        let old = std::mem::take(&mut self.unusable);
        for (net, range, peer) in all {
            let password = match peer.password.as_ref().map(|key| self.secrets.read(key)).transpose() {
                Ok(password) => password,
                Err(missing) => {
                    let said = old.get(&net).is_some_and(|before| missing.awaited || !before.awaited);
                    if !said {
                        warn!(peer = %net, problem = missing.problem, "no BGP session without its password");
                    }
                    self.unusable.insert(net, missing);
                    continue;
                }
            };
            let config = config::peer(own, net.addr(), peer, password);
            if range {
                ranges.insert(net, config);
            } else {
                configs.insert(net.addr(), config);
            }
        }
        let peers = self.wanted.peers.values().chain(self.wanted.policy.ranges.values());
        let used: BTreeSet<&str> = peers.filter_map(|peer| Some(&*peer.password.as_ref()?.name)).collect();
        self.secrets.keep(|name| used.contains(name));
        if !used.is_empty() && self.secrets.must_be_looked_at() {
            self.look_again = Some(Instant::now() + LOOK_AGAIN);
        }
        (self.configs, self.ranges) = (configs, ranges);
        if let Some(listeners) = &mut self.listeners {
            listeners.expect(&self.configs, &self.ranges);
        }
    }

    /// Which interfaces prefixes are reached through, if a filter asks.
    fn links(&mut self) -> BTreeMap<IpNet, Arc<str>> {
        if !config::filters_interfaces(&self.wanted) {
            return BTreeMap::new();
        }
        self.look_again = Some(Instant::now() + LOOK_AGAIN);
        let mut links = host::interfaces_of_routes().unwrap_or_else(|error| {
            warn!("routes can't be read, so filters see no interface of what is learned: {error:#}");
            BTreeMap::new()
        });
        links.extend(self.wanted.policy.workloads.iter().map(|(net, interface)| (*net, interface.clone())));
        links
    }

    /// Subnets of this host's interfaces, if a filter might let them out.
    fn direct(&mut self) -> Vec<(IpNet, String)> {
        if !config::filters_exports(&self.wanted) {
            return Vec::new();
        }
        self.look_again = Some(Instant::now() + LOOK_AGAIN);
        match host::interfaces() {
            Ok(interfaces) => {
                let nets = |i: Interface| i.addresses.into_iter().map(move |net| (net, i.name.clone()));
                interfaces.into_iter().flat_map(nets).collect()
            }
            Err(error) => {
                warn!("interfaces can't be read, so their subnets are not announced: {error:#}");
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::mpsc::channel;

    use tortie_bgp::ConnId;
    use tortie_bgp::attribute::{AsPath, Attributes};
    use tortie_bgp::message::capability::Capability;
    use tortie_bgp::message::keepalive;
    use tortie_bgp::message::open::Open;
    use tortie_bgp::message::update::encode_announcements;
    use tortie_desired::{BgpPeer, BgpPolicy, ExportRule, PeerOrigin, SecretKey};
    use tortie_net::{AsNumber, Family};
    use tortie_store_kubernetes::{Cluster, Options};

    use super::*;
    use crate::bgp::SecretSource;

    const OWN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn peer(last: u8) -> (IpAddr, AsNumber) {
        (IpAddr::from([127, 0, 0, last]), AsNumber(65000 + u32::from(last)))
    }

    /// A node whose peers, each of another AS, never get a call.
    fn wanted(peers: &[u8]) -> Wanted {
        let peers = peers.iter().map(|last| {
            let (address, asn) = peer(*last);
            (address, BgpPeer { passive: true, ..BgpPeer::new(asn, 179, PeerOrigin::Global, "peer".into()) })
        });
        let speaker = BgpSpeaker {
            router_id: [192, 0, 2, 1].into(),
            asn: AsNumber(64512),
            listen_port: 0,
            ipv4: Some(OWN),
            ipv6: None,
        };
        let policy = BgpPolicy { bind_to_node: true, ..Default::default() };
        Wanted { speaker: Some(speaker), peers: peers.collect(), policy, announcements: BTreeSet::new() }
    }

    fn worker(restarting: bool, secrets: SecretSource) -> Worker {
        Worker::new(restarting, secrets, channel(), Box::new(drop)).expect("a worker").0
    }

    /// With a password in a Secret.
    fn locked(mut peer: BgpPeer) -> BgpPeer {
        peer.password = Some(SecretKey { name: "bgp".into(), key: "word".into() });
        peer
    }

    impl Worker {
        fn speaker(&mut self) -> &mut Speaker {
            self.speaker.as_mut().expect("it speaks")
        }

        /// A peer connects and tells a prefix.
        fn hear(&mut self, last: u8, prefix: &str) -> Option<ConnId> {
            let (now, (address, asn)) = (Instant::now(), peer(last));
            let (_, conn) = self.speaker().handle_accepted(now, address, SocketAddr::new(OWN, 179))?;
            let router_id = Ipv4Addr::from([192, 0, 2, last]);
            let open = Open { asn, hold_time_secs: 90, router_id, capabilities: vec![Capability::FourByteAs(asn)] };
            let attributes =
                Attributes { next_hop: address, as_path: AsPath::sequence(&[asn]), ..Attributes::default() };
            let mut bytes = [open.encode(), keepalive()].concat();
            let prefix = prefix.parse().expect("a literal");
            encode_announcements(Family::V4, &attributes, &[prefix], true, &mut bytes);
            self.speaker().handle_bytes(now, conn, &bytes);
            self.act();
            Some(conn)
        }
    }

    /// Nobody answers at the API server's address.
    fn silent() -> SecretSource {
        let options = Options { endpoint: "http://127.0.0.1:9".to_owned(), ..Options::default() };
        SecretSource::Kubernetes(Arc::new(Cluster::open(options).expect("a client")), "kube-system".to_owned())
    }

    #[test]
    fn a_speaker_that_comes_back_tells_what_it_told_before() {
        let mut worker = worker(false, SecretSource::None);
        let mut wanted = wanted(&[2, 3]);
        wanted.policy.export = vec![ExportRule::Tell("10.2.0.0/16".parse().expect("a literal"))];
        for _ in 0..2 {
            worker.want(wanted.clone());
            assert!(worker.hear(2, "10.2.0.0/16").is_some() && worker.hear(3, "10.3.0.0/16").is_some());
            for (last, expected) in [(2, 0), (3, 1)] {
                let (seen, told) = (worker.speaker().seen(peer(last).0), worker.speaker().told(peer(last).0));
                assert_eq!((seen.map(|seen| seen.len()), told.map(|told| told.len())), (Some(1), Some(expected)));
            }
            worker.want(Wanted::default());
            assert!(worker.speaker.is_none());
        }
    }

    #[test]
    fn a_peer_whose_session_of_bfd_begins_anew_stays() {
        let mut worker = worker(false, SecretSource::None);
        worker.want(wanted(&[2]));
        worker.hear(2, "10.2.0.0/16");
        let mut held = |states: &[BfdState]| {
            states.iter().for_each(|state| worker.bfd_told(peer(2).0, *state));
            worker.speaker().peers()[0].prefixes_received
        };
        assert_eq!(held(&[BfdState::Init, BfdState::Up, BfdState::AdminDown, BfdState::Down, BfdState::Init]), 1);
        assert_eq!(held(&[BfdState::Up, BfdState::Down]), 0);
    }

    #[test]
    fn who_lacks_a_password_is_not_let_in_by_a_range() {
        let mut worker = worker(false, SecretSource::None);
        let open = wanted(&[2, 3]);
        let around = |range: &str| range.parse::<IpNet>().expect("a literal");
        let mut shut = open.clone();
        let peers = std::mem::take(&mut shut.peers);
        shut.peers.insert(peer(2).0, locked(peers[&peer(2).0].clone()));
        shut.policy.ranges.insert(around("127.0.0.3/32"), locked(peers[&peer(3).0].clone()));
        for last in [2, 3] {
            let wide = around("127.0.0.0/29");
            shut.policy.ranges.insert(wide, peers[&peer(last).0].clone());
            worker.want(shut.clone());
            assert!(worker.hear(last, "10.2.0.0/16").is_none());
            shut.policy.ranges.remove(&wide);
        }
        worker.want(open);
        assert!(worker.hear(2, "10.2.0.0/16").is_some());
    }

    #[test]
    fn a_restart_is_not_over_before_passwords_are_known() {
        for (secrets, over) in [(silent(), false), (SecretSource::None, true)] {
            let mut worker = worker(true, secrets);
            let mut wanted = wanted(&[2]);
            wanted.peers.entry(peer(2).0).and_modify(|peer| *peer = locked(peer.clone()));
            worker.want(wanted);
            assert_eq!(worker.speaker().initial_sync_done(), over);
        }
    }
}
