//! Keeping handles true to blocks.
//!
//! Invariant: whenever a block holds an address of a handle, the handle has an entry for that block. So every write that
//! adds an address is preceded, after the block was read, by a write of the handle; and whoever lowers or removes an
//! entry has first written the block, after reading the handle, which defeats every assignment still on its way.

use std::collections::BTreeSet;

use ipnet::IpNet;
use tortie_api::ipam::Handle;
use tortie_facts::{Key, Revision};

use crate::block;
use crate::machine::{Ask, CasWrite, Outcome, Pause};
use crate::view::{Held, View, delete_block, put_block, put_handle};

/// What this operation owes to handles.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    raising: Option<(String, IpNet, u32)>,
    raised: Option<Raised>,
    dirty: BTreeSet<(String, IpNet)>,
    settling: bool,
}

/// A count that was raised for an assignment that did not happen yet.
#[derive(Clone, Debug)]
struct Raised {
    handle: String,
    cidr: IpNet,
    count: u32,
    revision: Revision,
}

fn entry(handle: &Handle, cidr: IpNet) -> u32 {
    handle.block.get(&cidr.to_string()).copied().unwrap_or(0)
}

fn set(handle: &mut Handle, cidr: IpNet, count: u32) {
    if count == 0 {
        handle.block.remove(&cidr.to_string());
    } else {
        handle.block.insert(cidr.to_string(), count);
    }
}

impl Books {
    /// The write of the handle that has to come right before a block gains `count` of its addresses.
    pub(crate) fn raise(&mut self, view: &View, id: &str, cidr: IpNet, count: usize) -> Result<CasWrite, Pause> {
        let seen = view.handle(id)?;
        let mut next = seen.as_ref().map(|held| Handle::clone(&held.value)).unwrap_or_default();
        if let Some(raised) = &self.raised {
            if seen.as_ref().is_some_and(|held| held.revision == raised.revision) {
                // Nobody wrote the handle since: what was raised in vain is still there, and still only ours.
                let left = entry(&next, raised.cidr).saturating_sub(raised.count);
                set(&mut next, raised.cidr, left);
            } else {
                self.dirty.insert((raised.handle.clone(), raised.cidr));
            }
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let raised = entry(&next, cidr).saturating_add(count);
        set(&mut next, cidr, raised);
        self.raising = Some((id.to_owned(), cidr, count));
        Ok(put_handle(id, seen.as_ref(), next))
    }

    /// The write of a handle that lost addresses of a block. It must come after the write of the block.
    pub(crate) fn lower(id: &str, seen: &Held<Handle>, cidr: IpNet, left: u32) -> CasWrite {
        let mut next = Handle::clone(&seen.value);
        set(&mut next, cidr, left);
        put_handle(id, Some(seen), next)
    }

    /// Remembers that the handle's entry for the block may be wrong.
    pub(crate) fn doubt(&mut self, id: &str, cidr: IpNet) {
        self.dirty.insert((id.to_owned(), cidr));
    }

    /// Told of every write of the operation.
    pub(crate) fn wrote(&mut self, writes: &[CasWrite], outcomes: &[Outcome]) {
        let Some((id, cidr, count)) = self.raising.take() else { return };
        for (write, outcome) in writes.iter().zip(outcomes) {
            let Outcome::Done(revision) = outcome else { continue };
            match &write.key {
                Key::Handle(key) if *key == id => {
                    self.raised = Some(Raised { handle: id.clone(), cidr, count, revision: *revision });
                }
                Key::Block(key) if *key == cidr => self.raised = None,
                _ => {}
            }
        }
    }

    /// Sets every doubtful entry to what its block really holds. To be called before the operation ends.
    pub(crate) fn settle(&mut self, view: &mut View) -> Result<(), Pause> {
        if let Some(raised) = self.raised.take() {
            self.dirty.insert((raised.handle, raised.cidr));
        }
        while let Some((id, cidr)) = self.dirty.first().cloned() {
            if !self.settling {
                view.forget(&Key::Handle(id.clone()));
                view.forget(&Key::Block(cidr));
                self.settling = true;
            }
            let (handle, found) = view.handle_then_block(&id, cidr)?;
            let held = found.as_ref().map_or(0, |block| block::ordinals_of(&block.value, &id).len());
            let held = u32::try_from(held).unwrap_or(u32::MAX);
            if handle.as_ref().map_or(0, |handle| entry(&handle.value, cidr)) == held {
                self.dirty.remove(&(id, cidr));
                self.settling = false;
                continue;
            }
            let mut writes = Vec::new();
            if let Some(found) = &found {
                writes.push(touch(cidr, found));
            }
            let mut next = handle.as_ref().map(|held| Handle::clone(&held.value)).unwrap_or_default();
            set(&mut next, cidr, held);
            writes.push(put_handle(&id, handle.as_ref(), next));
            return Err(Pause::Ask(Ask::Write(writes)));
        }
        Ok(())
    }

    /// Ends an operation: what it concluded from hints is concluded again without them, and its books are settled.
    pub(crate) fn finish<T: Clone>(
        &mut self,
        view: &mut View,
        result: &mut Option<Result<T, crate::IpamError>>,
        body: impl FnOnce(&mut Books, &mut View) -> Result<T, Pause>,
    ) -> Result<T, Pause> {
        if result.is_none() {
            *result = Some(match body(self, view) {
                Ok(done) => Ok(done),
                Err(Pause::Fail(error)) => {
                    view.only_fresh()?;
                    Err(error)
                }
                Err(pause) => return Err(pause),
            });
        }
        self.settle(view)?;
        match result {
            Some(Ok(done)) => Ok(done.clone()),
            Some(Err(error)) => Err(Pause::Fail(error.clone())),
            None => Err(Pause::Again),
        }
    }
}

/// A write that changes nothing but the block's revision; a block that nobody needs is deleted instead.
pub(crate) fn touch(cidr: IpNet, seen: &Held<tortie_api::ipam::Block>) -> CasWrite {
    if block::owner(&seen.value).is_none() && block::is_empty(&seen.value) {
        return delete_block(cidr, seen);
    }
    put_block(cidr, Some(seen), tortie_api::ipam::Block::clone(&seen.value))
}
