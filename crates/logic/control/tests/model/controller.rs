//! A controller: pictures of its own, which may be old, and a round that is advanced by one access at a time.

use std::sync::Arc;
use std::time::Duration;

use tortie_control::{Course, Got, Leaks, Ledger, Round, Summary, Users, Want};
use tortie_ipam::{Now, Settings};
use tortie_store::{MemoryStore, Reader};

use crate::job::{Access, Batch};
use crate::world::Bug;

pub const GRACE: Duration = Duration::from_secs(15 * 60);

#[derive(Default)]
pub struct Controller {
    leaks: Leaks,
    users: Users,
    ledger: Ledger,
    /// Until when its picture of users, or of blocks, stays as it is.
    pub deaf_until: [u64; 2],
    round: Option<Round>,
    batch: Batch,
    next_look: u64,
    next_sweep: u64,
    seen: bool,
}

/// What a step of a controller did.
pub enum Did {
    Nothing,
    Read,
    /// How many suspects the second look refuted.
    Looked(usize),
    Wrote(tortie_facts::Key),
    Ended(Summary),
}

pub fn users(store: &MemoryStore) -> Users {
    let listing = store.list(&Users::filter()).expect("it is up");
    let facts = listing.entries.iter().map(|entry| (&entry.key, &entry.value));
    Users::new(facts, listing.invalid.iter().map(|one| one.path.as_str()))
}

pub fn ledger(store: &MemoryStore) -> Ledger {
    let listing = store.list(&Ledger::filter()).expect("it is up");
    Ledger::new(listing.entries.iter().map(|entry| (&entry.key, &entry.value)))
}

impl Controller {
    pub fn is_torn(&self) -> bool {
        self.batch.is_torn()
    }

    pub fn is_idle(&self) -> bool {
        self.round.is_none()
    }

    /// Its pictures become what the store holds, as far as it hears of it.
    pub fn refresh(&mut self, store: &MemoryStore, clock: u64) {
        if clock >= self.deaf_until[0] {
            self.users = users(store);
        }
        if clock >= self.deaf_until[1] {
            self.ledger = ledger(store);
        }
        self.seen = true;
    }

    pub fn step(
        &mut self,
        store: &MemoryStore,
        settings: &Arc<Settings>,
        clock: u64,
        every: u64,
        bug: Option<Bug>,
    ) -> Did {
        let Some(round) = &mut self.round else {
            if clock >= self.next_look && self.seen {
                self.look(settings, clock, every, bug);
            }
            return Did::Nothing;
        };
        if !self.batch.is_torn() {
            match round.next() {
                None => {
                    let summary = self.round.take().map(Round::into_summary).unwrap_or_default();
                    return Did::Ended(summary);
                }
                Some(Want::Look) => {
                    let before = self.leaks.suspected().count();
                    let fresh = match bug {
                        Some(Bug::OldLook) => (self.users.clone(), self.ledger.clone()),
                        _ => (users(store), ledger(store)),
                    };
                    round.answer(&mut self.leaks, Got::Looked(fresh.0, fresh.1));
                    return Did::Looked(before - self.leaks.suspected().count());
                }
                Some(Want::Ipam(_)) => {}
            }
        }
        let ask = || match round.next() {
            Some(Want::Ipam(ask)) => ask,
            other => panic!("{other:?} after a step of IPAM"),
        };
        let access = self.batch.access(store, ask, bug == Some(Bug::BlindBlock));
        match access {
            Access::Read(answer) => {
                round.answer(&mut self.leaks, Got::Ipam(answer));
                Did::Read
            }
            Access::Wrote(key, answer) => {
                if let Some(answer) = answer {
                    round.answer(&mut self.leaks, Got::Ipam(answer));
                }
                Did::Wrote(key)
            }
        }
    }

    fn look(&mut self, settings: &Arc<Settings>, clock: u64, every: u64, bug: Option<Bug>) {
        let grace = if bug == Some(Bug::NoGrace) { Duration::ZERO } else { GRACE };
        self.next_look = clock + every;
        let at = Duration::from_nanos(clock);
        let (suspects, _) = self.leaks.look(&self.users, &self.ledger, Course::Forward, at, Some(grace));
        let sweep = clock >= self.next_sweep;
        if sweep {
            self.next_sweep = clock + 300_000_000_000;
        }
        if sweep || !suspects.is_empty() {
            self.round = Some(Round::new(suspects, sweep, Arc::clone(settings), Now(clock)));
        }
    }
}
