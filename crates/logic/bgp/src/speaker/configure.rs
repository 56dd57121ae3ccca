//! Configuration in: peers and routes of our own.
//!
//! Invariant: applying the same configuration twice changes nothing; a session is bounced only if its own peer changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tortie_desired::BgpPolicy;
use tortie_net::{Family, IpNet};

use super::Speaker;
use super::event::SessionEnd;
use super::peer::Peer;
use crate::attribute::Attributes;
use crate::config::{LocalRoute, PeerConfig, PeerId, SpeakerConfig};
use crate::message::notification::Notification;
use crate::rib::{Announced, SourceId};
use crate::session::ConnId;

impl Speaker {
    /// Makes the peers exactly these: new ones are dialled, missing ones told "de-configured" and forgotten with their
    /// routes. Of a changed one the session starts anew only if it must: changed filters are applied to what is held.
    pub fn set_peers(&mut self, now: Instant, peers: BTreeMap<PeerId, PeerConfig>) {
        if self.stopped {
            return;
        }
        let configured = |id: &SourceId| !self.dynamic.contains(id);
        let old = self.by_address.iter().filter(|(_, id)| configured(id)).map(|(address, _)| *address);
        let gone: Vec<PeerId> = old.filter(|address| !peers.contains_key(address)).collect();
        // Who is to have no peer at all stops speaking.
        let lingers = !peers.is_empty();
        for address in gone {
            let lingers = lingers && !self.barred.contains(&IpNet::from(address));
            if !(lingers && self.let_go(now, address)) {
                self.remove_peer(now, address, Notification::PEER_DECONFIGURED);
            }
        }
        for (address, config) in peers {
            match self.by_address.get(&address).copied() {
                Some(id) => {
                    self.dynamic.remove(&id);
                    self.stays_after_all(now, id);
                    self.change_peer(now, id, config);
                }
                None => {
                    self.add_peer(now, address, config);
                }
            }
        }
        self.forget_lists();
        if let Some(recovery) = &mut self.recovery {
            recovery.configured = true;
        }
        self.check_recovery(now);
    }

    /// Whether some peers or ranges are left out only until what they need is known, such as a password. Recovery from a
    /// restart waits for them. To be said before `set_ranges` and `set_peers`.
    pub fn await_more(&mut self, more: bool) {
        if let Some(recovery) = &mut self.recovery {
            recovery.awaits = more;
        }
    }

    /// Changes who we are. Sessions start anew; peers that know graceful restart keep our routes, and we theirs.
    pub fn set_config(&mut self, now: Instant, config: SpeakerConfig) {
        if self.stopped || self.config == config {
            return;
        }
        self.config = config;
        let ids: Vec<SourceId> = self.by_address.values().copied().collect();
        for id in ids {
            self.restart_session(now, id);
        }
    }

    /// Who we are.
    pub fn config(&self) -> &SpeakerConfig {
        &self.config
    }

    /// Makes every route change be told again.
    pub fn tell_all(&mut self) {
        self.rib.touch_all();
    }

    /// Sets what may be told to peers, and what they are told with it.
    pub fn set_policy(&mut self, policy: Arc<BgpPolicy>) {
        let old = std::mem::replace(&mut self.policy, policy);
        let new = &self.policy;
        let rules = (&new.export, &new.communities, new.normal_priority);
        if rules != (&old.export, &old.communities, old.normal_priority) {
            self.requeue_all();
        }
    }

    /// Sets through which interfaces next hops are reached. Filters that look at interfaces are asked again.
    pub fn set_links(&mut self, links: BTreeMap<IpNet, Arc<str>>) {
        if self.links == links {
            return;
        }
        self.links = links;
        let concerned = self.slots.iter().flatten().filter(|peer| peer.config.filters_interfaces());
        let concerned: Vec<PeerId> = concerned.map(|peer| peer.address).collect();
        for address in concerned {
            if let Some(id) = self.by_address.get(&address).copied() {
                self.refilter(id);
                self.requeue(id);
            }
        }
    }

    /// BFD says that the peer is gone: its routes go at once.
    pub fn handle_bfd_down(&mut self, now: Instant, peer: PeerId) {
        let Some(id) = self.by_address.get(&peer).copied() else { return };
        for conn in self.conns_of(id) {
            self.end(now, id, conn, SessionEnd::Sent(Notification::BFD_DOWN));
        }
    }

    /// Takes a new configuration of a peer; its session stays if it may.
    pub(crate) fn change_peer(&mut self, now: Instant, id: SourceId, config: PeerConfig) {
        let config = self.lingering(now, id, config);
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.config == config {
            return;
        }
        let same = peer.config.same_session(&config);
        let old = std::mem::replace(&mut peer.config, config);
        let new = &peer.config;
        let (filters, loops) = (old.filters != new.filters, old.allowed_local_as != new.allowed_local_as);
        let told = filters
            || (old.next_hop, old.next_hop_v4, old.next_hop_v6) != (new.next_hop, new.next_hop_v4, new.next_hop_v6);
        let clusters = old.reflector_cluster != new.reflector_cluster;
        let address = peer.address;
        if filters {
            self.refilter(id);
        }
        if !same || (loops && !self.ask_again(address)) {
            self.restart_session(now, id);
        } else if told {
            self.requeue(id);
        }
        if clusters {
            self.requeue_all();
        }
    }

    /// Starts a peer's session anew. If both know graceful restart, TCP just ends, and both keep the routes.
    fn restart_session(&mut self, now: Instant, id: SourceId) {
        let keeps = self
            .peer(id)
            .and_then(Peer::established)
            .is_some_and(|(_, session)| !session.negotiated.restartable().is_empty());
        for conn in self.conns_of(id) {
            let end =
                if keeps { SessionEnd::Reconfigured } else { SessionEnd::Sent(Notification::CONFIGURATION_CHANGED) };
            self.end(now, id, conn, end);
        }
        let Speaker { slots, config, .. } = self;
        if let Some(peer) = slots.get_mut(id.index()).and_then(Option::as_mut) {
            peer.shut_until = None;
            peer.dial_now(now, config);
            peer.refresh_state(now);
        }
        self.dial_if_due(now, id);
    }

    /// A peer that was to go is one again.
    fn stays_after_all(&mut self, now: Instant, id: SourceId) {
        let Speaker { slots, config, .. } = self;
        let Some(peer) = slots.get_mut(id.index()).and_then(Option::as_mut) else { return };
        if peer.leaving.take().is_some() && peer.conns.is_empty() {
            peer.dial_now(now, config);
        }
        self.dial_if_due(now, id);
    }

    pub(crate) fn conns_of(&self, id: SourceId) -> Vec<ConnId> {
        self.peer(id).map_or_else(Vec::new, |peer| peer.conns.iter().map(|conn| conn.id).collect())
    }

    pub(crate) fn add_peer(&mut self, now: Instant, address: PeerId, config: PeerConfig) -> SourceId {
        let free = self.slots.iter().skip(1).position(Option::is_none).map(|at| at + 1);
        let index = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let id = SourceId(u32::try_from(index).expect("peers fit 32 bits"));
        self.slots[index] = Some(Peer::new(now, id, address, config, &self.config));
        self.by_address.insert(address, id);
        self.dial_if_due(now, id);
        id
    }

    pub(crate) fn remove_peer(&mut self, now: Instant, address: PeerId, reason: Notification) {
        let Some(id) = self.by_address.get(&address).copied() else { return };
        for conn in self.conns_of(id) {
            self.end(now, id, conn, SessionEnd::Sent(reason.clone()));
        }
        self.forget_peer(id);
    }

    /// Forgets a peer that has no connection any more, with its routes.
    pub(crate) fn forget_peer(&mut self, id: SourceId) {
        self.dynamic.remove(&id);
        let Some(address) = self.peer(id).map(|peer| peer.address) else { return };
        self.by_address.remove(&address);
        for family in Family::ALL {
            let dropped = self.rib.drop_family(id, family);
            self.note_dropped(id, &dropped);
        }
        self.rib.set_source(id, None);
        self.slots[id.index()] = None;
        self.ready.remove(&id);
    }

    /// Makes the routes that we originate exactly these. Peers get our own address as their next hop.
    pub fn set_local_routes(&mut self, _now: Instant, routes: BTreeMap<IpNet, LocalRoute>) {
        if self.stopped {
            return;
        }
        let own = routes.iter().map(|(prefix, route)| (prefix.trunc(), route.interface.clone())).collect();
        let old = std::mem::replace(&mut self.own, own);
        let gone: Vec<IpNet> = old.keys().filter(|prefix| !self.own.contains_key(prefix)).copied().collect();
        for prefix in gone {
            if self.rib.withdraw(SourceId::LOCAL, prefix) {
                self.note_change(prefix);
            }
        }
        for (prefix, route) in routes {
            let prefix = prefix.trunc();
            let LocalRoute { communities, large_communities, local_pref, med, interface, yields } = route;
            let moved = old.get(&prefix).is_some_and(|old| *old != interface);
            let attributes = self.attributes.intern(Attributes {
                communities: communities.into(),
                large_communities: large_communities.into(),
                local_pref,
                med,
                ..Attributes::default()
            });
            if self.rib.announce_own(prefix, &attributes, yields) != Announced::Same || moved {
                self.note_change(prefix);
            }
        }
    }
}
