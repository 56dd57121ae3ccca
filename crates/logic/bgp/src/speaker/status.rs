//! What a peer looks like from outside.
//!
//! Invariant: a status is a copy; nothing in it changes later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::Speaker;
use super::event::SessionEnd;
use super::peer::Peer;
use crate::attribute::Attributes;
use crate::config::PeerId;
use crate::session::negotiate::Negotiated;
use crate::session::{Connection, Phase};
use tortie_net::{AsNumber, IpNet};

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
    /// Prefixes from the peer that filters keep out.
    pub prefixes_filtered: usize,
    /// Prefixes that the peer was told.
    pub prefixes_sent: usize,
    /// Routes of a lost session are kept for the peer's return (RFC 4724).
    pub keeps_stale: bool,
    /// UPDATEs treated as withdrawals because an attribute was broken (RFC 7606).
    pub faulty_updates: u64,
    /// The reason for the last of them.
    pub last_fault: Option<String>,
    /// The range that let it in, if it is not configured by its address.
    pub range: Option<IpNet>,
    /// Its AS is not ours.
    pub external: bool,
}

/// A route as a peer told it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The prefix.
    pub prefix: IpNet,
    /// Its attributes after filters; before, if they keep it out.
    pub attributes: Arc<Attributes>,
    /// Filters keep it out.
    pub filtered: bool,
    /// It is the best path of its prefix.
    pub best: bool,
    /// It is kept from a lost session, or just being told again.
    pub stale: bool,
}

/// A route as a peer was told it.
#[derive(Clone, Debug)]
pub struct Told {
    /// The prefix.
    pub prefix: IpNet,
    /// Its attributes; `None` while it is just being told again.
    pub attributes: Option<Arc<Attributes>>,
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

    fn of(peer: &Peer, external: bool, prefixes_sent: usize) -> PeerStatus {
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
            prefixes_filtered: peer.announced().saturating_sub(peer.received),
            prefixes_sent,
            keeps_stale: peer.stale.is_some(),
            faulty_updates: peer.faults,
            last_fault: peer.last_fault.clone(),
            range: peer.range,
            external,
        }
    }
}

impl Speaker {
    /// The status of every peer, by address.
    pub fn peers(&self) -> Vec<PeerStatus> {
        let peers = self.by_address.values().filter_map(|id| self.peer(*id));
        peers.map(|peer| PeerStatus::of(peer, peer.external(&self.config), self.told.len(peer.id))).collect()
    }

    /// What a peer tells us, by prefix; `None` if there is no such peer.
    pub fn seen(&self, peer: PeerId) -> Option<Vec<Seen>> {
        let id = *self.by_address.get(&peer)?;
        let held = self.rib.paths_of(id).map(|(prefix, path)| {
            let best = self.rib.best(prefix).is_some_and(|best| best.source == id);
            let attributes = Arc::clone(&path.attributes);
            (prefix, Seen { prefix, attributes, filtered: false, best, stale: path.stale })
        });
        let mut seen: BTreeMap<IpNet, Seen> = held.collect();
        for (prefix, path) in self.peer(id)?.raw.iter().flat_map(|raw| raw.0.iter()) {
            seen.entry(prefix).or_insert_with(|| {
                let attributes = Arc::clone(&path.attributes);
                Seen { prefix, attributes, filtered: true, best: false, stale: path.stale }
            });
        }
        Some(seen.into_values().collect())
    }

    /// What a peer was told, by prefix; `None` if there is no such peer.
    pub fn told(&self, peer: PeerId) -> Option<Vec<Told>> {
        let told = self.told.of(*self.by_address.get(&peer)?);
        let mut told: Vec<Told> =
            told.map(|(prefix, attributes)| Told { prefix, attributes: attributes.cloned() }).collect();
        told.sort_unstable_by_key(|told| told.prefix);
        Some(told)
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
