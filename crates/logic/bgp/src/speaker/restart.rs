//! Graceful restart (RFC 4724), both roles.
//!
//! Receiving role, for each peer and family:
//!   session lost -> paths stale, restart timer | back without F bit -> stale ones go | End-of-RIB -> stale ones go |
//!   timer -> stale ones go | lost again before End-of-RIB -> those stale before go.
//! Restarting role: while `recovery` is set, OPENs carry the R bit, peers are told our own routes only, and no
//! End-of-RIB is sent; it ends when every peer's End-of-RIB is in (peers that restart too, or know no graceful
//! restart, do not count), or at its deadline. Invariant: no stale path outlives its deadline.

use std::time::{Duration, Instant};

use tortie_net::Family;

use super::Speaker;
use super::event::SessionEnd;
use super::peer::Peer;
use crate::family::Families;
use crate::rib::SourceId;
use crate::session::negotiate::Negotiated;

/// How long a peer that is back may take until its End-of-RIB.
const END_OF_RIB_PATIENCE: Duration = Duration::from_secs(180);

/// Paths kept for a peer's return.
#[derive(Debug)]
pub(crate) struct Stale {
    pub(crate) families: Families,
    pub(crate) deadline: Instant,
}

/// Our own restart, until it is over.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) deadline: Instant,
    /// The peers are known.
    pub(crate) configured: bool,
}

impl Recovery {
    pub(crate) fn start(now: Instant, restart_time_secs: u16) -> Recovery {
        Recovery { deadline: now + Duration::from_secs(u64::from(restart_time_secs)), configured: false }
    }
}

impl Speaker {
    /// Whether all that peers have to say after our restart was heard, or the time for it is over. From then on a
    /// kernel route that is not in the table is stale. Always true if we did not restart.
    pub fn initial_sync_done(&self) -> bool {
        self.recovery.is_none()
    }

    /// An established session ended: keep or drop the peer's paths.
    pub(crate) fn session_lost(&mut self, now: Instant, id: SourceId, negotiated: &Negotiated, end: &SessionEnd) {
        let keep = if end.keeps_routes() { negotiated.restartable() } else { Families::NONE };
        for family in Family::ALL {
            let dropped = if keep.contains(family) {
                self.rib.mark_stale(id, family, end.is_takeover())
            } else {
                self.rib.drop_family(id, family)
            };
            self.note_dropped(id, &dropped);
        }
        let secs = negotiated.graceful_restart.as_ref().map_or(0, |restart| restart.restart_time_secs);
        let deadline = now + Duration::from_secs(u64::from(secs));
        if let Some(peer) = self.peer_mut(id) {
            peer.stale = (!keep.is_empty()).then_some(Stale { families: keep, deadline });
        }
    }

    /// A session is up: keep only what the peer says it preserved.
    pub(crate) fn session_back(&mut self, now: Instant, id: SourceId) {
        let Some(peer) = self.peer_mut(id) else { return };
        let Some((_, session)) = peer.established() else { return };
        let preserved = session.negotiated.graceful_restart.as_ref().map_or(Families::NONE, |gr| gr.preserved());
        let kept = preserved.and(session.negotiated.families);
        let Some(stale) = &mut peer.stale else { return };
        let lost = stale.families.without(kept);
        stale.deadline = now + END_OF_RIB_PATIENCE;
        self.sweep(id, lost);
    }

    /// The peer's End-of-RIB of a family is in.
    pub(crate) fn end_of_rib(&mut self, now: Instant, id: SourceId, family: Family) {
        if let Some(session) = self.peer_mut(id).and_then(Peer::session_mut) {
            session.synced.set(family, true);
        }
        self.sweep(id, Families::only(family));
        self.check_recovery(now);
    }

    /// Removes stale paths of these families.
    pub(crate) fn sweep(&mut self, id: SourceId, families: Families) {
        let Some(stale) = self.peer_mut(id).and_then(|peer| peer.stale.as_mut()) else { return };
        let due = stale.families.and(families);
        stale.families = stale.families.without(families);
        let done = stale.families.is_empty();
        for family in due.iter() {
            let dropped = self.rib.sweep_stale(id, family);
            self.note_dropped(id, &dropped);
        }
        if done && let Some(peer) = self.peer_mut(id) {
            peer.stale = None;
        }
    }

    /// Ends recovery if nothing is waited for any more.
    pub(crate) fn check_recovery(&mut self, now: Instant) {
        let Some(recovery) = &self.recovery else { return };
        let heard_all = recovery.configured && self.slots.iter().flatten().all(is_settled);
        if !heard_all && now < recovery.deadline {
            return;
        }
        self.recovery = None;
        let ids: Vec<SourceId> = self.by_address.values().copied().collect();
        for id in ids {
            self.queue_all(id);
        }
    }
}

/// Whether a restarted speaker need not wait for this peer (any more).
fn is_settled(peer: &Peer) -> bool {
    let Some((_, session)) = peer.established() else { return false };
    match &session.negotiated.graceful_restart {
        None => true,
        Some(restart) => restart.restarted || session.negotiated.restartable().without(session.synced).is_empty(),
    }
}
