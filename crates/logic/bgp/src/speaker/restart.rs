//! Graceful restart (RFC 4724), both roles.
//!
//! Receiving role, for each peer and family:
//!   session lost -> paths stale, restart timer | back without F bit -> stale ones go | End-of-RIB -> stale ones go |
//!   timer -> stale ones go | lost again before End-of-RIB -> those stale before stay too, unless the first loss is too
//!   long ago. (By RFC 4724 section 4.2 they would go at once, so that a node that is killed while it starts would lose
//!   what it had no time to tell again; time bounds them here as well.)
//! With long-lived graceful restart (RFC 9494) the timer only makes the paths the least preferred ones, marked by a
//! community; they go at the end of a second, longer time, or at once if a community says so.
//! Restarting role: while `recovery` defers, OPENs carry the R bit, peers are told our own routes only, and no
//! End-of-RIB is sent; that ends when every peer's End-of-RIB is in (of peers that restart too, or know no graceful
//! restart, some seconds of a session stand for it), or at the deadline. Nobody knows which hosts of a range are still to
//! come: deferring ends at the earliest when none has come for a quarter of the restart time, and recovery at its
//! deadline. The initial sync is done when the End-of-RIBs of
//! those that restart are in as well: they come, as two that restart do not defer because of each other.
//! Invariant: no stale path outlives its deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tortie_desired::Community;
use tortie_net::Family;

use super::Speaker;
use super::event::SessionEnd;
use super::peer::Peer;
use crate::attribute::{Attributes, LLGR_STALE, NO_LLGR};
use crate::family::Families;
use crate::policy;
use crate::rib::SourceId;
use crate::rib::raw::Raw;
use crate::session::established::Established;

/// How long a peer that is back may take until its End-of-RIB.
const END_OF_RIB_PATIENCE: Duration = Duration::from_secs(180);

/// How long a peer that will not say when it is done may take to tell its routes after our restart.
pub(crate) const UNMARKED_PATIENCE: Duration = Duration::from_secs(3);

/// What part of the restart time must pass without a new host of a range, until no more are waited for.
const HOSTS_SHARE: u32 = 4;

/// Paths kept for a peer's return.
#[derive(Debug)]
pub(crate) struct Stale {
    pub(crate) families: Families,
    pub(crate) deadline: Instant,
    /// Until then a further loss adds to these paths; after it, it ends those that were stale before.
    pub(crate) add_until: Instant,
    /// Seconds that follow the deadline, IPv4 and IPv6.
    pub(crate) long_lived_secs: [u32; 2],
}

/// Our own restart, until it is over.
#[derive(Debug)]
pub(crate) struct Recovery {
    pub(crate) deadline: Instant,
    /// The peers are known.
    pub(crate) configured: bool,
    /// Some of them still lack what they need.
    pub(crate) awaits: bool,
    /// Until when hosts of ranges may come; `None`: that is over.
    pub(crate) open_until: Option<Instant>,
    /// Peers are told our own routes only.
    pub(crate) defers: bool,
    /// The restart time.
    time: Duration,
}

impl Recovery {
    pub(crate) fn start(now: Instant, restart_time_secs: u16) -> Recovery {
        let time = Duration::from_secs(u64::from(restart_time_secs));
        let (deadline, open_until) = (now + time, Some(now + time / HOSTS_SHARE));
        Recovery { deadline, configured: false, awaits: false, open_until, defers: true, time }
    }

    /// A host of a range came, so that others may follow.
    pub(crate) fn saw_host(&mut self, now: Instant) {
        let until = now + self.time / HOSTS_SHARE;
        self.open_until = self.open_until.map(|before| before.max(until));
    }
}

impl Speaker {
    /// Whether all that peers have to say after our restart was heard, or the time for it is over. From then on a
    /// kernel route that is not in the table is stale. Always true if we did not restart.
    pub fn initial_sync_done(&self) -> bool {
        self.recovery.is_none()
    }

    /// Whether what peers told must not be passed on yet.
    pub(crate) fn defers(&self) -> bool {
        self.recovery.as_ref().is_some_and(|recovery| recovery.defers)
    }

    /// An established session ended: keep or drop the peer's paths.
    pub(crate) fn session_lost(&mut self, now: Instant, id: SourceId, session: &Established, end: &SessionEnd) {
        let (negotiated, refreshing) = (&session.negotiated, session.refreshing);
        let before = self.peer(id).and_then(|peer| peer.stale.as_ref()).map(|stale| stale.add_until);
        let add_until = before.filter(|until| now < *until);
        let keep = if end.keeps_routes() { negotiated.restartable() } else { Families::NONE };
        for family in Family::ALL {
            let dropped = if keep.contains(family) {
                // Between the marks of a refresh, stale only means not told again yet.
                let keep_stale = end.is_takeover() || refreshing.contains(family) || add_until.is_some();
                self.with_raw(id, |raw| raw.mark_stale(family, keep_stale));
                self.rib.mark_stale(id, family, keep_stale)
            } else {
                self.with_raw(id, |raw| raw.drop_family(family));
                self.rib.drop_family(id, family)
            };
            self.note_dropped(id, &dropped);
        }
        let secs = negotiated.graceful_restart.as_ref().map_or(0, |restart| restart.restart_time_secs);
        let deadline = now + Duration::from_secs(u64::from(secs));
        if let Some(peer) = self.peer_mut(id) {
            let long_lived_secs = negotiated.long_lived_secs;
            let add_until = add_until.unwrap_or(deadline + END_OF_RIB_PATIENCE);
            peer.stale = (!keep.is_empty()).then_some(Stale { families: keep, deadline, add_until, long_lived_secs });
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
        stale.long_lived_secs = [0; 2];
        self.sweep(id, lost);
    }

    /// The peer's End-of-RIB of a family is in.
    pub(crate) fn end_of_rib(&mut self, now: Instant, id: SourceId, family: Family) {
        if let Some(session) = self.peer_mut(id).and_then(Peer::session_mut) {
            session.synced.set(family, true);
            if session.negotiated.families.without(session.synced).is_empty() {
                session.settles_at = None;
            }
        }
        self.sweep(id, Families::only(family));
        self.check_recovery(now);
    }

    /// The time for a lost peer's return is over: its paths go, or stay for long as the least preferred ones.
    pub(crate) fn stale_timeout(&mut self, now: Instant, id: SourceId) {
        let Some(stale) = self.peer_mut(id).and_then(|peer| peer.stale.as_mut()) else { return };
        let mut long = Families::NONE;
        let mut shortest = u32::MAX;
        for family in stale.families.iter() {
            let secs = std::mem::take(&mut stale.long_lived_secs[family as usize]);
            if secs > 0 {
                long.set(family, true);
                shortest = shortest.min(secs);
            }
        }
        stale.deadline = now + Duration::from_secs(u64::from(shortest));
        let over = stale.families.without(long);
        for family in long.iter() {
            self.keep_for_long(id, family);
        }
        self.sweep(id, over);
    }

    fn keep_for_long(&mut self, id: SourceId, family: Family) {
        let stale = self.rib.paths_of(id).filter(|(prefix, path)| path.stale && Family::of_net(*prefix) == family);
        let held: Vec<_> = stale.map(|(prefix, path)| (prefix, Arc::clone(&path.attributes))).collect();
        let mut gone = Vec::new();
        for (prefix, attributes) in held {
            if attributes.has_community(NO_LLGR) {
                self.rib.withdraw(id, prefix);
                self.with_raw(id, |raw| raw.0.remove(prefix));
                gone.push(prefix);
                continue;
            }
            let marked = marked(&attributes);
            let marked = self.attributes.intern(marked);
            if let Some(path) = self.rib.path_mut(id, prefix) {
                path.attributes = marked;
            }
            self.note_change(prefix);
        }
        let Speaker { slots, attributes, .. } = self;
        if let Some(raw) = slots.get_mut(id.index()).and_then(Option::as_mut).and_then(|peer| peer.raw.as_mut()) {
            for path in raw.0.values_mut().filter(|path| path.stale) {
                path.attributes = attributes.intern(self::marked(&path.attributes));
            }
        }
        self.note_dropped(id, &gone);
    }

    /// Removes stale paths of these families.
    pub(crate) fn sweep(&mut self, id: SourceId, families: Families) {
        let Some(stale) = self.peer_mut(id).and_then(|peer| peer.stale.as_mut()) else { return };
        let due = stale.families.and(families);
        stale.families = stale.families.without(families);
        let done = stale.families.is_empty();
        for family in due.iter() {
            self.sweep_family(id, family);
        }
        if done && let Some(peer) = self.peer_mut(id) {
            peer.stale = None;
        }
    }

    fn sweep_family(&mut self, id: SourceId, family: Family) {
        self.with_raw(id, |raw| raw.sweep_stale(family));
        let dropped = self.rib.sweep_stale(id, family);
        self.note_dropped(id, &dropped);
    }

    /// The peer begins to tell a family again, or is done with that (RFC 7313).
    pub(crate) fn refresh_mark(&mut self, id: SourceId, family: Family, begins: bool) {
        let Some(session) = self.peer_mut(id).and_then(Peer::session_mut) else { return };
        if !session.negotiated.enhanced_refresh || session.refreshing.contains(family) == begins {
            return;
        }
        session.refreshing.set(family, begins);
        if begins {
            self.with_raw(id, |raw| raw.mark_stale(family, true));
            self.rib.mark_stale(id, family, true);
        } else {
            self.sweep_family(id, family);
        }
    }

    /// Changes what the peer sent, if that is kept.
    pub(crate) fn with_raw(&mut self, id: SourceId, change: impl FnOnce(&mut Raw)) {
        if let Some(raw) = self.peer_mut(id).and_then(|peer| peer.raw.as_mut()) {
            change(raw);
        }
    }

    /// Ends deferring, and recovery, if nothing is waited for any more.
    pub(crate) fn check_recovery(&mut self, now: Instant) {
        let Some(recovery) = &mut self.recovery else { return };
        recovery.open_until.take_if(|until| *until <= now);
        let (known, ranges) = (recovery.configured && !recovery.awaits, !self.ranges.is_empty());
        let all = |test: fn(&Peer) -> bool| known && self.slots.iter().flatten().all(test);
        let over = now >= recovery.deadline;
        let open = ranges && recovery.open_until.is_some();
        let (defers, recovers) = (!over && (open || !all(is_settled)), !over && (ranges || !all(is_heard)));
        let deferred = recovery.defers;
        self.recovery.take_if(|_| !recovers && !defers);
        if let Some(recovery) = &mut self.recovery {
            recovery.defers &= defers;
        }
        if !deferred || self.defers() {
            return;
        }
        let ids: Vec<SourceId> = self.by_address.values().copied().collect();
        for id in ids {
            self.queue_all(id);
        }
    }
}

/// The attributes of a path that is kept for long.
fn marked(attributes: &Attributes) -> Attributes {
    let mut marked = attributes.clone();
    policy::add(&mut marked, Community::Standard(LLGR_STALE));
    marked
}

/// Whether a restarted speaker need not defer because of this peer (any more).
fn is_settled(peer: &Peer) -> bool {
    let Some((_, session)) = peer.established() else { return false };
    if session.marks_its_end() { session.is_synced() } else { session.settles_at.is_none() }
}

/// Whether a peer has told all that it has of itself.
fn is_heard(peer: &Peer) -> bool {
    let Some((_, session)) = peer.established() else { return false };
    if session.negotiated.graceful_restart.is_some() { session.is_synced() } else { session.settles_at.is_none() }
}
