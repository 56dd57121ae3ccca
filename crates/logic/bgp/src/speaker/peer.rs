//! One peer: its configuration, its connections, and what is remembered between sessions.
//!
//! Invariant: at most one connection is established.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use tortie_net::{Family, IpNet};

use super::event::SessionEnd;
use super::linger::Leaving;
use super::restart::Stale;
use super::status::PeerState;
use crate::config::{PeerConfig, PeerId, SpeakerConfig};
use crate::export::{self, Target};
use crate::rib::SourceId;
use crate::rib::raw::Raw;
use crate::session::established::Established;
use crate::session::idle::Retry;
use crate::session::negotiate::LocalSide;
use crate::session::{ConnId, Connection, Phase};

/// A configured peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: SourceId,
    pub(crate) address: PeerId,
    pub(crate) config: PeerConfig,
    pub(crate) conns: Vec<Connection>,
    pub(crate) retry: Retry,
    /// Export's view of the established session.
    pub(crate) target: Option<Target>,
    /// Routes kept from a lost session.
    pub(crate) stale: Option<Stale>,
    /// A session was up since this speaker started.
    pub(crate) was_up: bool,
    pub(crate) last_end: Option<SessionEnd>,
    pub(crate) state: PeerState,
    pub(crate) since: Instant,
    /// Prefixes held from this peer, stale ones included.
    pub(crate) received: usize,
    /// UPDATEs whose routes were treated as withdrawn (RFC 7606), and the last reason.
    pub(crate) faults: u64,
    pub(crate) last_fault: Option<String>,
    /// What the peer sent, if its filters look at that.
    pub(crate) raw: Option<Raw>,
    /// The range that let the peer in, if it is not configured by its address.
    pub(crate) range: Option<IpNet>,
    /// Set: it is no peer any more, and goes when it is safe.
    pub(crate) leaving: Option<Leaving>,
    /// Set: it is no client of ours any more, and counts as one until then.
    pub(crate) client_until: Option<Instant>,
    /// Until then the peer is neither dialled nor let in.
    pub(crate) shut_until: Option<Instant>,
}

impl Peer {
    pub(crate) fn new(
        now: Instant,
        id: SourceId,
        address: PeerId,
        config: PeerConfig,
        speaker: &SpeakerConfig,
    ) -> Peer {
        Peer {
            id,
            address,
            retry: Retry::new(skew(speaker, address), (!config.passive).then_some(now)),
            state: PeerState::of(&[], config.passive),
            raw: config.filters_imports().then(Raw::default),
            config,
            conns: Vec::new(),
            target: None,
            stale: None,
            was_up: false,
            last_end: None,
            since: now,
            received: 0,
            faults: 0,
            last_fault: None,
            range: None,
            leaving: None,
            client_until: None,
            shut_until: None,
        }
    }

    /// Prefixes that the peer announces, whether filters let them in or not.
    pub(crate) fn announced(&self) -> usize {
        self.raw.as_ref().map_or(self.received, |raw| raw.0.len())
    }

    /// Dials at once, unless the peer is to dial.
    pub(crate) fn dial_now(&mut self, now: Instant, speaker: &SpeakerConfig) {
        self.retry = Retry::new(skew(speaker, self.address), (!self.config.passive).then_some(now));
    }

    pub(crate) fn conn_mut(&mut self, id: ConnId) -> Option<&mut Connection> {
        self.conns.iter_mut().find(|conn| conn.id == id)
    }

    /// The connection that is established, with its state.
    pub(crate) fn established(&self) -> Option<(&Connection, &Established)> {
        self.conns.iter().find_map(|conn| match &conn.phase {
            Phase::Established(state) => Some((conn, state)),
            Phase::Connect(_) | Phase::OpenSent(_) | Phase::OpenConfirm(_) => None,
        })
    }

    /// The state of the established session.
    pub(crate) fn session_mut(&mut self) -> Option<&mut Established> {
        self.conns.iter_mut().find_map(|conn| match &mut conn.phase {
            Phase::Established(state) => Some(state),
            Phase::Connect(_) | Phase::OpenSent(_) | Phase::OpenConfirm(_) => None,
        })
    }

    pub(crate) fn external(&self, speaker: &SpeakerConfig) -> bool {
        self.config.remote_as != self.config.local_as.unwrap_or(speaker.local_as)
    }

    /// What we say to this peer in an OPEN.
    pub(crate) fn local_side(&self, speaker: &SpeakerConfig, restarted: bool) -> LocalSide {
        LocalSide {
            asn: self.config.local_as.unwrap_or(speaker.local_as),
            remote_as: self.config.remote_as,
            router_id: speaker.router_id,
            hold_time_secs: self.config.hold_time_secs.unwrap_or(speaker.hold_time_secs),
            keepalive_secs: self.config.keepalive_secs,
            families: self.config.families,
            restart_time_secs: self.config.restart_time_secs.unwrap_or(speaker.restart_time_secs),
            long_lived_secs: self.config.long_lived_secs,
            restarted,
            // What this process put into the kernel stays there while a session is down.
            preserved: speaker.restarting || self.was_up,
        }
    }

    /// Export's view of a session whose local end is `local`.
    pub(crate) fn export_target(&self, speaker: &SpeakerConfig, local: Option<SocketAddr>) -> Target {
        let own = |family, configured| export::own_address(family, local, configured);
        let session = self.established().map(|(_, state)| &state.negotiated);
        let families = session.map(|negotiated| negotiated.families).unwrap_or_default();
        let long_lived = session.is_some_and(|negotiated| negotiated.long_lived_secs != [0; 2]);
        Target {
            id: self.id,
            external: self.external(speaker),
            local_as: self.config.local_as.unwrap_or(speaker.local_as),
            cluster: self.config.reflector_cluster,
            next_hop: self.config.next_hop,
            own_v4: own(Family::V4, self.config.next_hop_v4.map(IpAddr::V4)),
            own_v6: own(Family::V6, self.config.next_hop_v6.map(IpAddr::V6)),
            long_lived,
            families,
        }
    }

    /// Brings `state` and `since` up to date with the connections.
    pub(crate) fn refresh_state(&mut self, now: Instant) {
        let was_up = self.state == PeerState::Established;
        self.state = PeerState::of(&self.conns, self.config.passive);
        if was_up != (self.state == PeerState::Established) {
            self.since = now;
        }
    }
}

/// A number that differs between the two ends of a session, and between the peers of one speaker.
fn skew(speaker: &SpeakerConfig, peer: PeerId) -> u8 {
    let own = speaker.router_id.octets();
    let other = match peer {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    let hash = own
        .iter()
        .chain(&other)
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (hash >> 16) as u8
}
