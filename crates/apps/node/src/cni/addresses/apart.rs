//! Addresses on a store that knows no transactions, where each write is a request of its own: the Kubernetes API.
//!
//! All pods of a node share its blocks, so one write of a block at a time is all that there can be. It carries the
//! addresses of everybody who waits, and nothing else happens meanwhile: handles are made side by side before it, and
//! endpoints are written, and handles read and deleted, while the next one may write. The order of IPAM holds: a handle
//! is made before its block is written, and read before and deleted after the block lets go.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::MutexGuard;

use tortie_cni::spec::{CniError, code};
use tortie_datastore::ipam;
use tortie_facts::{Key, Value};
use tortie_ipam::{
    Answer, Ask as Question, CasWrite, Expect, Fact, IpamError, Machine, Next, Outcome, ReleaseHandle, drive,
};
use tortie_store::{Reader, Write, WriteError};

use super::{Addresses, Ask, EndpointWrite, Known, fault, given_to, hints, store_writes};
use crate::cni::{TURN_PATIENCE, store_fault};

/// A new handle, and its block with the handle's address and those of all who asked before.
struct Staged {
    handle: CasWrite,
    block: CasWrite,
    given: Vec<IpAddr>,
}

impl Addresses {
    /// Gives addresses, then writes the endpoint that has them.
    pub(super) fn assign_apart(&self, ask: &Ask, endpoint: Option<EndpointWrite<'_>>) -> Result<Vec<IpAddr>, CniError> {
        let written = self.give_apart(ask).and_then(|given| {
            if let Some(endpoint) = endpoint {
                self.store.write_one(endpoint(&given)).map_err(store_fault)?;
            }
            Ok(given)
        });
        if written.is_err() {
            // Whatever was given before the fault goes back; what can't go back now is found by DEL or GC.
            let _ = self.release_apart(&ask.handle, None);
        }
        written
    }

    fn give_apart(&self, ask: &Ask) -> Result<Vec<IpAddr>, CniError> {
        if ask.families.len() != 1 || !ask.wanted.is_empty() {
            return self.assign_known(&mut self.known(), ask, None);
        }
        let late = || CniError::new(code::TRY_AGAIN, "addresses for other pods of this node are still under way");
        self.queue.call(ask.clone(), TURN_PATIENCE, |asks| self.give(&asks)).ok_or_else(late)?
    }

    /// Gives each its address.
    pub(super) fn give(&self, asks: &[Ask]) -> Vec<Result<Vec<IpAddr>, CniError>> {
        let mut known = self.known();
        let mut results = Vec::with_capacity(asks.len());
        while let Some(ask) = asks.get(results.len()) {
            let staged = self.stage(&mut known, &asks[results.len()..]);
            if staged.is_empty() {
                // A new block is needed, or something has to be looked up first.
                results.push(self.assign_known(&mut known, ask, None));
            } else {
                let these = &asks[results.len()..][..staged.len()];
                results.extend(self.write_staged(&mut known, these, &staged));
            }
        }
        results
    }

    /// What those of them need, from the first on, that are content with a new handle and an address of a block that
    /// is known.
    fn stage(&self, known: &mut Known, asks: &[Ask]) -> Vec<Staged> {
        let Ok(settings) = self.settings(known) else { return Vec::new() };
        let mut ahead: BTreeMap<Key, Fact> = BTreeMap::new();
        let mut staged = Vec::new();
        for ask in asks {
            let Some((family, pools)) = ask.families.first() else { break };
            let Ok(plan) = self.plan(known, &settings, ask, (*family, pools)) else { break };
            let mut view = hints(known, &self.node);
            ahead.values().for_each(|fact| view.hint(fact.clone()));
            view.hint_no_handle(&ask.handle);
            let Next::Ask(Question::Write(writes)) = Machine::new(plan, view).next() else { break };
            let (Some(given), [handle, block]) = (given_to(&ask.handle, &writes), &writes[..]) else { break };
            let (Key::Handle(_), Expect::Absent) = (&handle.key, handle.expect) else { break };
            let (Some(value @ Value::Block(_)), Expect::Revision(revision)) = (&block.value, block.expect) else {
                break;
            };
            ahead.insert(block.key.clone(), Fact { key: block.key.clone(), value: value.clone(), revision });
            staged.push(Staged { handle: handle.clone(), block: block.clone(), given });
        }
        staged
    }

    /// Writes the handles side by side, then each block once. Where that fails, each is looked at by itself.
    fn write_staged(&self, known: &mut Known, asks: &[Ask], staged: &[Staged]) -> Vec<Result<Vec<IpAddr>, CniError>> {
        let handles: Vec<Write> = staged.iter().map(|one| ipam::write(one.handle.clone())).collect();
        let handles: Vec<Outcome> = self.store.write_each(&handles).into_iter().map(ipam::outcome).collect();
        // A block has the addresses of all of them, so it is written for all or for none.
        let all = handles.iter().all(|outcome| matches!(outcome, Outcome::Done(_)));
        let newest: BTreeMap<&Key, &CasWrite> = staged.iter().map(|one| (&one.block.key, &one.block)).collect();
        let mut blocks = BTreeMap::new();
        for (key, write) in newest.into_iter().filter(|_| all) {
            let result = self.store.write_one(ipam::write(write.clone()));
            let outcome = self.outcomes(known, std::slice::from_ref(write), vec![result]).pop();
            blocks.insert(key, outcome.unwrap_or(Outcome::NotTried));
        }
        let mut results = Vec::with_capacity(staged.len());
        for ((ask, one), handle) in asks.iter().zip(staged).zip(handles) {
            results.push(match (handle, blocks.get(&one.block.key)) {
                (Outcome::Done(_), Some(Outcome::Done(_))) => Ok(one.given.clone()),
                (Outcome::Failed(why), _) => Err(fault(IpamError::Store(why))),
                (Outcome::Done(_), Some(Outcome::Failed(why))) => Err(fault(IpamError::Store(why.clone()))),
                // It was made here, and holds nothing.
                (Outcome::Done(_), None | Some(Outcome::Conflict | Outcome::NotTried)) => {
                    self.release_known(known, &ask.handle, None).and_then(|()| self.assign_known(known, ask, None))
                }
                (Outcome::Conflict | Outcome::NotTried, _) => self.assign_known(known, ask, None),
            });
        }
        results
    }

    /// Gives back everything under a handle, after the endpoint is removed.
    pub(super) fn release_apart(&self, handle: &str, removal: Option<Write>) -> Result<(), CniError> {
        match removal.map(|removal| self.store.write_one(removal)) {
            None | Some(Ok(_) | Err(WriteError::Missing(_))) => {}
            Some(Err(error)) => return Err(store_fault(error)),
        }
        let Some(held) = Reader::get(&*self.store, &Key::Handle(handle.to_owned())).map_err(store_fault)? else {
            return Ok(());
        };
        let mut known = self.known();
        let cooldown = self.settings(&mut known)?.config.ip_cooldown_seconds;
        let mut view = hints(&known, &self.node);
        view.hint(ipam::fact(held));
        let mut machine = Machine::new(ReleaseHandle::new(handle, cooldown, ipam::now()), view);
        let mut known = Some(known);
        let result = drive(&mut machine, |question| self.answer_apart(known.take(), question))?;
        match result {
            Ok(_) | Err(IpamError::UnknownHandle(_)) => Ok(()),
            Err(error) => Err(fault(error)),
        }
    }

    /// Answers a question, with what is known in use only while blocks are written.
    fn answer_apart(&self, known: Option<MutexGuard<'_, Known>>, question: Question) -> Result<Answer, CniError> {
        let Question::Write(writes) = question else {
            drop(known);
            return ipam::answer(&*self.store, question).map_err(store_fault);
        };
        let shared = writes.iter().rposition(|write| !matches!(write.key, Key::Handle(_))).map_or(0, |last| last + 1);
        let (shared, own) = writes.split_at(shared);
        let mut known = known.unwrap_or_else(|| self.known());
        let results = self.store.write(&store_writes(shared));
        let mut outcomes = self.outcomes(&mut known, shared, results);
        drop(known);
        if outcomes.iter().all(|outcome| matches!(outcome, Outcome::Done(_))) {
            outcomes.extend(self.store.write(&store_writes(own)).into_iter().map(ipam::outcome));
        } else {
            outcomes.extend(own.iter().map(|_| Outcome::NotTried));
        }
        Ok(Answer::Wrote(outcomes))
    }
}

#[cfg(test)]
mod tests;
