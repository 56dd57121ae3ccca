//! What a peer looks like from outside.
//!
//! Invariant: a status is a copy; nothing in it changes later.

use std::time::Instant;

use super::Speaker;
use super::event::SessionEnd;
use super::peer::Peer;
use crate::config::PeerId;
use crate::session::negotiate::Negotiated;
use crate::session::{Connection, Phase};
use tortie_net::AsNumber;

/// The state of a peer: that of its furthest connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerState {
    /// No connection, and we only wait for the peer to dial.
    Passive,
    /// No connection; the next dial waits for its time.
    Active,
    /// TCP is being dialled.
    Connect,
    /// OPEN sent.
    OpenSent,
    /// OPENs exchanged.
    OpenConfirm,
    /// Routes flow.
    Established,
}

impl PeerState {
    pub(crate) fn of(conns: &[Connection], passive: bool) -> PeerState {
        let furthest = conns.iter().map(|conn| match conn.phase {
            Phase::Connect(_) => PeerState::Connect,
            Phase::OpenSent(_) => PeerState::OpenSent,
            Phase::OpenConfirm(_) => PeerState::OpenConfirm,
            Phase::Established(_) => PeerState::Established,
        });
        furthest.max().unwrap_or(if passive { PeerState::Passive } else { PeerState::Active })
    }

    /// The word that BIRD shows for it.
    pub fn name(self) -> &'static str {
        match self {
            PeerState::Passive => "Passive",
            PeerState::Active => "Active",
            PeerState::Connect => "Connect",
            PeerState::OpenSent => "OpenSent",
            PeerState::OpenConfirm => "OpenConfirm",
            PeerState::Established => "Established",
        }
    }
}

/// A peer at one moment.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// Its address.
    pub address: PeerId,
    /// Its kind, as configured.
    pub kind: String,
    /// Its AS.
    pub remote_as: AsNumber,
    /// The state.
    pub state: PeerState,
    /// When the session came up, or since when it is not up (as BIRD counts: attempts in between change nothing).
    pub since: Instant,
    /// Why the last session or dial ended; `None` if there was none, or while a session is up.
    pub last_end: Option<SessionEnd>,
    /// What was negotiated, from OpenConfirm on.
    pub negotiated: Option<Negotiated>,
    /// Prefixes held from the peer.
    pub prefixes_received: usize,
    /// Prefixes that the peer was told.
    pub prefixes_sent: usize,
    /// Routes of a lost session are kept for the peer's return (RFC 4724).
    pub keeps_stale: bool,
    /// UPDATEs treated as withdrawals because an attribute was broken (RFC 7606).
    pub faulty_updates: u64,
    /// The reason for the last of them.
    pub last_fault: Option<String>,
}

impl PeerStatus {
    /// The info column of upstream's `calicoctl node status`: the state, then the last error, as BIRD prints them.
    pub fn info(&self) -> String {
        match (&self.state, &self.last_end) {
            (PeerState::Established, _) | (_, None) => self.state.name().to_owned(),
            (state, Some(end)) => format!("{} {end}", state.name()),
        }
    }

    /// The state column of upstream's `calicoctl node status`: `up` or `start`.
    pub fn word(&self) -> &'static str {
        if self.state == PeerState::Established { "up" } else { "start" }
    }

    fn of(peer: &Peer) -> PeerStatus {
        let established = peer.established();
        let furthest = peer.conns.iter().filter_map(Connection::negotiated).next();
        PeerStatus {
            address: peer.address,
            kind: peer.config.kind.clone(),
            remote_as: peer.config.remote_as,
            state: peer.state,
            since: peer.since,
            last_end: if established.is_some() { None } else { peer.last_end.clone() },
            negotiated: established.map(|(_, state)| &state.negotiated).or(furthest).cloned(),
            prefixes_received: peer.received,
            prefixes_sent: established.map_or(0, |(_, state)| state.out.told.len()),
            keeps_stale: peer.stale.is_some(),
            faulty_updates: peer.faults,
            last_fault: peer.last_fault.clone(),
        }
    }
}

impl Speaker {
    /// The status of every peer, by address.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.by_address.values().filter_map(|id| self.peer(*id)).map(PeerStatus::of).collect()
    }

    /// Prefixes in the table, those of our own included.
    pub fn prefix_count(&self) -> usize {
        self.rib.len()
    }

    /// Distinct attribute sets in memory.
    pub fn attribute_set_count(&self) -> usize {
        self.attributes.len()
    }
}
