//! Addresses on a store that knows no transactions, where each write is a request of its own: the Kubernetes API.
//!
//! All pods of a node share its blocks, so one write of a block at a time is all that there can be. It carries the
//! addresses of everybody who waits, and nothing else that they need is waited for meanwhile: handles and endpoints are
//! written after it, and handles are read and deleted, while the next one may write. Handles of pods are written when
//! ADD has answered ([`Later`](super::later)), once one could be written; until then who is alone has the handle written
//! beside the block. After that who is alone has the endpoint written beside it: should another be faster with the block,
//! which takes a node that borrows from it, the endpoint is written again with the address that there is in the end.
//!
//! A block says whose its addresses are, so an address without a handle is not lost: DEL looks for it in this node's
//! blocks, as the collection of addresses does in all. A handle is read before and deleted after its block lets go.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::MutexGuard;

use tortie_api::ipam::Handle;
use tortie_cni::spec::{CniError, code};
use tortie_cni::waits;
use tortie_datastore::ipam;
use tortie_facts::{Filter, Key, Revision, Value};
use tortie_ipam::{
    Answer, Ask as Question, CasWrite, Expect, Fact, IpamError, Machine, Next, Outcome, ReleaseHandle, block, drive,
};
use tortie_store::{Expect as StoreExpect, Reader, Write, WriteError};

use super::{Addresses, Ask, EndpointWrite, Known, fault, given_to, hints, later, store_writes};
use crate::cni::{Phase, store_fault};

/// A new handle, and its block with the handle's address and those of all who asked before.
struct Staged {
    handle: CasWrite,
    block: CasWrite,
    given: Vec<IpAddr>,
}

/// Addresses that are given, so that nobody else gets them.
#[derive(Clone, Debug)]
pub struct Given {
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// The handle that is still to be written.
    handle: Option<CasWrite>,
    endpoint: Endpoint,
}

/// What is there of the endpoint that has the addresses.
#[derive(Clone, Debug)]
enum Endpoint {
    /// It is to be written, if one is wanted.
    Not,
    /// It is there.
    Written,
    /// It is there at this revision, with addresses that are not its.
    Wrong(Revision),
    /// This is still to be written.
    ToWrite(Write),
}

impl Addresses {
    /// Gives addresses, then writes their handle and the endpoint that has them.
    pub(super) fn assign_apart(&self, ask: &Ask, endpoint: Option<EndpointWrite<'_>>) -> Result<Vec<IpAddr>, CniError> {
        let given = self.begin(ask, endpoint)?;
        if let Err(error) = self.finish(&given) {
            // What can't go back now is found by DEL or GC.
            let _ = self.release_apart(&ask.handle, None);
            return Err(error);
        }
        Ok(given.addresses)
    }

    /// Gives addresses, for the endpoint that is to have them. They stay given whatever becomes of the caller;
    /// [`Addresses::finish`] is to be called next, and if that fails, or anything else does, [`Addresses::release`].
    pub fn begin(&self, ask: &Ask, endpoint: Option<EndpointWrite<'_>>) -> Result<Given, CniError> {
        let given = self.phases.time(Phase::Address, || self.give_apart(ask, endpoint));
        if given.is_err() {
            // Whether it was given is not known for certain.
            let _ = self.release_apart(&ask.handle, None);
        }
        let mut given = given?;
        if let Some(endpoint) = endpoint {
            given.endpoint = match given.endpoint {
                Endpoint::Not => Endpoint::ToWrite(endpoint(&given.addresses)),
                Endpoint::Wrong(revision) => {
                    Endpoint::ToWrite(Write { expect: StoreExpect::Revision(revision), ..endpoint(&given.addresses) })
                }
                done @ (Endpoint::Written | Endpoint::ToWrite(_)) => done,
            };
        }
        Ok(given)
    }

    /// Takes the handle out of what is still to be written, if it may be written after the answer:
    /// [`Addresses::write_later`].
    pub fn put_off(&self, given: &mut Given) -> Option<CasWrite> {
        given.handle.take_if(|_| self.later.takes())
    }

    /// Writes a handle soon.
    pub fn write_later(&self, handle: &CasWrite) {
        self.later.take(handle);
    }

    /// Writes what is still to be written of handle and endpoint.
    pub fn finish(&self, given: &Given) -> Result<(), CniError> {
        let handle = given.handle.clone().map(ipam::write);
        let endpoint = match &given.endpoint {
            Endpoint::ToWrite(write) => Some(write.clone()),
            Endpoint::Not | Endpoint::Written | Endpoint::Wrong(_) => None,
        };
        let writes: Vec<Write> = handle.into_iter().chain(endpoint).collect();
        if writes.is_empty() {
            return Ok(());
        }
        let mut results = self.phases.time(Phase::Records, || self.store.write_each(&writes)).into_iter();
        if let Some(handle) = &given.handle {
            let written = match results.next().map(ipam::outcome) {
                Some(Outcome::Done(_)) => Ok(()),
                Some(Outcome::Failed(why)) => Err(fault(IpamError::Store(why))),
                None | Some(Outcome::Conflict | Outcome::NotTried) => self.add_to_handle(handle),
            };
            self.later.learn(written.is_ok());
            written?;
        }
        results.try_for_each(|result| result.map(drop).map_err(store_fault))
    }

    /// A handle that was there gets the blocks of this one, too.
    fn add_to_handle(&self, new: &CasWrite) -> Result<(), CniError> {
        let (Key::Handle(name), Some(Value::Handle(value))) = (&new.key, &new.value) else { return Ok(()) };
        later::recount(&*self.store, name, &value.block).map_err(store_fault)
    }

    fn give_apart(&self, ask: &Ask, endpoint: Option<EndpointWrite<'_>>) -> Result<Given, CniError> {
        if ask.families.len() != 1 || !ask.wanted.is_empty() {
            return self.assign_known(&mut self.known(), ask, None).map(complete);
        }
        let late = || CniError::new(code::TRY_AGAIN, "addresses for other pods of this node are still under way");
        self.queue.call(ask.clone(), waits::ADDRESSES, |asks| self.give(&asks, endpoint)).ok_or_else(late)?
    }

    /// Gives each its address. `endpoint` is of the only one.
    pub(super) fn give(&self, asks: &[Ask], endpoint: Option<EndpointWrite<'_>>) -> Vec<Result<Given, CniError>> {
        let endpoint = endpoint.filter(|_| asks.len() == 1);
        let mut known = self.known();
        let mut results = Vec::with_capacity(asks.len());
        while let Some(ask) = asks.get(results.len()) {
            let mut staged = self.stage(&mut known, &asks[results.len()..]);
            match (staged.len(), staged.pop()) {
                // A new block is needed, or something has to be looked up first.
                (_, None) => results.push(self.assign_known(&mut known, ask, None).map(complete)),
                (1, Some(one)) if !self.later.takes() => results.push(self.write_single(&mut known, ask, one)),
                (1, Some(one)) if let Some(endpoint) = endpoint => {
                    results.push(self.write_with_endpoint(&mut known, ask, one, endpoint));
                }
                (count, Some(last)) => {
                    staged.push(last);
                    let these = &asks[results.len()..][..count];
                    results.extend(self.write_staged(&mut known, these, staged));
                }
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

    /// Writes a block and, beside it, the handle of the only one who needs it.
    fn write_single(&self, known: &mut Known, ask: &Ask, staged: Staged) -> Result<Given, CniError> {
        let Staged { handle, block, given } = staged;
        let writes = store_writes(&[handle.clone(), block.clone()]);
        let mut results = self.phases.time(Phase::Block, || self.store.write_each(&writes));
        let of_block = results.pop().map_or(Vec::new(), |result| vec![result]);
        let of_handle = results.pop().map_or(Outcome::NotTried, ipam::outcome);
        let of_block = self.outcomes(known, &[block], of_block).pop().unwrap_or(Outcome::NotTried);
        self.later.learn(matches!(of_handle, Outcome::Done(_)));
        match (of_block, of_handle) {
            (Outcome::Done(_), Outcome::Done(_)) => Ok(complete(given)),
            // Another call has it, and it gets this block, too.
            (Outcome::Done(_), Outcome::Conflict | Outcome::NotTried) => {
                Ok(Given { addresses: given, handle: Some(handle), endpoint: Endpoint::Not })
            }
            // Whether it was written is not known.
            (Outcome::Done(_), Outcome::Failed(why)) | (Outcome::Failed(why), _) => Err(fault(IpamError::Store(why))),
            (Outcome::Conflict | Outcome::NotTried, of_handle) => {
                if let Outcome::Done(revision) = of_handle {
                    // It counts an address that was not given. Where it can't go, DEL takes it away.
                    let expect = StoreExpect::Revision(revision);
                    let _ = self.store.write_one(Write { key: handle.key, expect, value: None });
                }
                self.assign_known(known, ask, None).map(complete)
            }
        }
    }

    /// Writes a block and, beside it, the endpoint that has the address; the handle comes later.
    fn write_with_endpoint(
        &self,
        known: &mut Known,
        ask: &Ask,
        Staged { handle, block, given }: Staged,
        endpoint: EndpointWrite<'_>,
    ) -> Result<Given, CniError> {
        let write = endpoint(&given);
        let key = write.key.clone();
        let mut results =
            self.phases.time(Phase::Block, || self.store.write_each(&[ipam::write(block.clone()), write]));
        let of_endpoint = results.pop().unwrap_or(Err(WriteError::NotTried));
        let of_block = self.outcomes(known, &[block], results).pop().unwrap_or(Outcome::NotTried);
        let instead = match (of_block, &of_endpoint) {
            // One that was not written, or whose answer was lost, is tried once more, and is taken away if that fails.
            (Outcome::Done(_), written) => {
                let endpoint = if written.is_ok() { Endpoint::Written } else { Endpoint::Not };
                return Ok(Given { addresses: given, handle: Some(handle), endpoint });
            }
            // Whether it was written is not known.
            (Outcome::Failed(why), _) => Err(fault(IpamError::Store(why))),
            (Outcome::Conflict | Outcome::NotTried, _) => self.assign_known(known, ask, None),
        };
        match (instead, of_endpoint) {
            (Ok(addresses), Ok(_)) if addresses == given => {
                Ok(Given { addresses, handle: None, endpoint: Endpoint::Written })
            }
            (Ok(addresses), Ok(revision)) => Ok(Given { addresses, handle: None, endpoint: Endpoint::Wrong(revision) }),
            (Err(error), Ok(revision)) => {
                // It has an address that was not given. Where it can't go, DEL takes it away.
                let _ = self.store.write_one(Write { key, expect: StoreExpect::Revision(revision), value: None });
                Err(error)
            }
            (result, Err(_)) => result.map(complete),
        }
    }

    /// Writes each block once. Where that fails, each ask is looked at by itself.
    fn write_staged(&self, known: &mut Known, asks: &[Ask], staged: Vec<Staged>) -> Vec<Result<Given, CniError>> {
        let newest: BTreeMap<&Key, &CasWrite> = staged.iter().map(|one| (&one.block.key, &one.block)).collect();
        let mut blocks = BTreeMap::new();
        for (key, write) in newest {
            let result = self.phases.time(Phase::Block, || self.store.write_one(ipam::write(write.clone())));
            let outcome = self.outcomes(known, std::slice::from_ref(write), vec![result]).pop();
            blocks.insert(key.clone(), outcome.unwrap_or(Outcome::NotTried));
        }
        let mut results = Vec::with_capacity(staged.len());
        for (ask, Staged { handle, block, given }) in asks.iter().zip(staged) {
            results.push(match blocks.get(&block.key) {
                Some(Outcome::Done(_)) => Ok(Given { addresses: given, handle: Some(handle), endpoint: Endpoint::Not }),
                Some(Outcome::Failed(why)) => Err(fault(IpamError::Store(why.clone()))),
                None | Some(Outcome::Conflict | Outcome::NotTried) => self.assign_known(known, ask, None).map(complete),
            });
        }
        results
    }

    /// Gives back everything under a handle, after the endpoint is removed.
    pub(super) fn release_apart(&self, handle: &str, removal: Option<Write>) -> Result<(), CniError> {
        self.later.forget(handle);
        match removal.map(|removal| self.store.write_one(removal)) {
            None | Some(Ok(_) | Err(WriteError::Missing(_))) => {}
            Some(Err(error)) => return Err(store_fault(error)),
        }
        let held = Reader::get(&*self.store, &Key::Handle(handle.to_owned())).map_err(store_fault)?;
        let mut known = self.known();
        let Some(held) =
            held.map(ipam::fact).map_or_else(|| self.without_handle(&mut known, handle), |f| Ok(Some(f)))?
        else {
            return Ok(());
        };
        let cooldown = self.settings(&mut known)?.config.ip_cooldown_seconds;
        let mut view = hints(&known, &self.node);
        view.hint(held);
        let mut machine = Machine::new(ReleaseHandle::new(handle, cooldown, ipam::now()), view);
        let mut known = Some(known);
        let result = drive(&mut machine, |question| self.answer_apart(known.take(), question))?;
        match result {
            Ok(_) | Err(IpamError::UnknownHandle(_)) => Ok(()),
            Err(error) => Err(fault(error)),
        }
    }

    /// What a handle would say that was never written, if one of this node's blocks holds addresses under it.
    fn without_handle(&self, known: &mut Known, handle: &str) -> Result<Option<Fact>, CniError> {
        if known.doubt || !known.facts.keys().any(|key| matches!(key, Key::Block(_))) {
            let listing = self.store.list(&Filter::Blocks).map_err(store_fault)?;
            let own = listing.entries.into_iter().map(ipam::fact);
            let own = own.filter(|fact| self.matters(&fact.key, Some(&fact.value)));
            known.facts.extend(own.map(|fact| (fact.key.clone(), fact)));
            known.doubt = false;
        }
        let mut blocks = BTreeMap::new();
        for fact in known.facts.values() {
            if let (Key::Block(cidr), Value::Block(block)) = (&fact.key, &fact.value) {
                let count = block::ordinals_of(block, handle).len();
                if let Some(count) = u32::try_from(count).ok().filter(|count| *count > 0) {
                    blocks.insert(cidr.to_string(), count);
                }
            }
        }
        let (key, value) = (Key::Handle(handle.to_owned()), Handle { block: blocks, ..Handle::default() });
        let held = !value.block.is_empty();
        // A write that expects this revision is refused, as there is no such handle.
        Ok(held.then(|| Fact { key, value: Value::Handle(value.into()), revision: Revision(1) }))
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

/// Their handle is written.
fn complete(addresses: Vec<IpAddr>) -> Given {
    Given { addresses, handle: None, endpoint: Endpoint::Not }
}

#[cfg(test)]
mod tests;
