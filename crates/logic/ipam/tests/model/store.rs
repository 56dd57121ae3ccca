//! A compare-and-swap store in memory, and the bugs that can be planted between it and an operation.

use std::collections::BTreeMap;

use tortie_api::ipam::{AffinityState, Block};
use tortie_facts::{Filter, Key, Revision, Value};
use tortie_ipam::{Ask, CasWrite, Expect, Fact, Outcome};

/// A bug that is planted to show that the checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Blocks are written whatever their revision is.
    BlindBlock,
    /// Handles are written whatever their revision is.
    BlindHandle,
    /// Affinities are confirmed whatever happened since they were pending.
    BlindConfirm,
    /// A block is written before the handle that gains its addresses.
    HandleLast,
    /// Writes that only change a block's revision are left out.
    NoTouch,
    /// Releases carry no evidence.
    Unguarded,
    /// An affinity is confirmed at once instead of pending first.
    NeverPending,
}

impl Bug {
    pub const ALL: [Bug; 7] = [
        Bug::BlindBlock,
        Bug::BlindHandle,
        Bug::BlindConfirm,
        Bug::HandleLast,
        Bug::NoTouch,
        Bug::Unguarded,
        Bug::NeverPending,
    ];
}

#[derive(Clone, Debug, Default)]
pub struct Store {
    pub facts: BTreeMap<Key, (Value, Revision)>,
    pub revision: u64,
}

fn covers(filter: &Filter, key: &Key) -> bool {
    match (filter, key) {
        (Filter::Blocks, Key::Block(_)) | (Filter::Handles, Key::Handle(_)) => true,
        (Filter::Affinities(kind, owner), Key::Affinity(key)) => key.kind == *kind && key.owner == *owner,
        (Filter::AllAffinities(kind), Key::Affinity(key)) => key.kind == *kind,
        _ => false,
    }
}

fn same_but_sequence(a: &Block, b: &Block) -> bool {
    let mut b = b.clone();
    b.sequence_number = a.sequence_number;
    *a == b
}

impl Store {
    pub fn get(&self, key: &Key) -> Option<Fact> {
        let (value, revision) = self.facts.get(key)?;
        Some(Fact { key: key.clone(), value: value.clone(), revision: *revision })
    }

    pub fn list(&self, filter: &Filter) -> Vec<Fact> {
        self.facts.keys().filter(|key| covers(filter, key)).filter_map(|key| self.get(key)).collect()
    }

    pub fn block(&self, cidr: ipnet::IpNet) -> Option<&Block> {
        self.facts.get(&Key::Block(cidr)).and_then(|(value, _)| value.as_block()).map(|block| &**block)
    }

    fn blind(&self, write: &CasWrite, bug: Option<Bug>) -> bool {
        match (bug, &write.key, &write.value) {
            (Some(Bug::BlindBlock), Key::Block(_), _) | (Some(Bug::BlindHandle), Key::Handle(_), _) => true,
            (Some(Bug::BlindConfirm), Key::Affinity(_), Some(Value::Affinity(affinity))) => {
                affinity.state == AffinityState::Confirmed
            }
            _ => false,
        }
    }

    fn touches(&self, write: &CasWrite) -> bool {
        let (Key::Block(cidr), Some(Value::Block(next))) = (&write.key, &write.value) else { return false };
        self.block(*cidr).is_some_and(|now| same_but_sequence(now, next))
    }

    pub fn write(&mut self, write: &CasWrite, bug: Option<Bug>) -> Outcome {
        let found = self.facts.get(&write.key).map(|(_, revision)| *revision);
        let fits = match write.expect {
            Expect::Absent => found.is_none(),
            Expect::Revision(wanted) => found == Some(wanted),
        };
        if !fits && !self.blind(write, bug) {
            return Outcome::Conflict;
        }
        if bug == Some(Bug::NoTouch) && self.touches(write) {
            return Outcome::Done(found.unwrap_or_default());
        }
        self.revision += 1;
        let revision = Revision(self.revision);
        match &write.value {
            Some(value) => drop(self.facts.insert(write.key.clone(), (value.clone(), revision))),
            None => drop(self.facts.remove(&write.key)),
        }
        Outcome::Done(revision)
    }
}

/// What the planted bug makes of an ask.
pub fn spoil(ask: Ask, bug: Option<Bug>) -> Ask {
    let Ask::Write(mut writes) = ask else { return ask };
    match bug {
        Some(Bug::HandleLast) => writes.sort_by_key(|write| matches!(write.key, Key::Handle(_))),
        Some(Bug::NeverPending) => {
            for write in &mut writes {
                if let Some(Value::Affinity(affinity)) = &mut write.value
                    && affinity.state == AffinityState::Pending
                {
                    affinity.state = AffinityState::Confirmed;
                }
            }
        }
        _ => {}
    }
    Ask::Write(writes)
}
