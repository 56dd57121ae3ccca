//! Assigning any free address: from the owner's blocks, else from a block it claims, else borrowed.
//!
//! Invariant: an address is returned only after the compare-and-swap of its block, with its handle written before.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::ipam::Block;
use tortie_facts::Key;
use tortie_net::Family;

use crate::affinity::{Claim, Claiming, GivenUp, give_up};
use crate::block::{self, Holder, Now};
use crate::books::Books;
use crate::machine::{Ask, CasWrite, Outcome, Pause, Plan};
use crate::order::Order;
use crate::pools::{self, Client};
use crate::settings::{Pool, Settings};
use crate::show;
use crate::view::{Held, View, put_block};
use crate::{IpamError, Owner};

/// How long a block stays with an owner that has not used it yet before others may take it: one minute.
const UNUSED_CLAIM_SECS: i64 = 60;

/// A request for addresses of one family.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Who asks.
    pub client: Client,
    /// What to record with the addresses.
    pub holder: Holder,
    /// The family.
    pub family: Family,
    /// How many.
    pub count: usize,
    /// Ranges of the pools to use; empty means any that select the client.
    pub pools: Vec<IpNet>,
    /// Blocks that the owner may have; 0 means as the settings say.
    pub max_blocks: usize,
    /// Addresses of the family that the handle may hold in all; 0 means any number. A request that would exceed it
    /// gets the addresses that the handle holds.
    pub max_per_handle: usize,
}

impl Request {
    /// A request for one address for a workload.
    pub fn one(client: Client, holder: Holder, family: Family) -> Request {
        Request { client, holder, family, count: 1, pools: Vec::new(), max_blocks: 0, max_per_handle: 0 }
    }
}

/// An address that was assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// The block that it lies in.
    pub block: IpNet,
    /// The sequence number to name in its release.
    pub sequence: u64,
}

/// What a request got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The addresses; at least one.
    pub addresses: Vec<Assigned>,
    /// Why there are fewer than were asked for, if so.
    pub shortfall: Option<IpamError>,
}

/// The operation: assign any free addresses. See [`crate::Machine`].
#[derive(Clone, Debug)]
pub struct Assign {
    request: Request,
    settings: Arc<Settings>,
    now: Now,
    got: Vec<Assigned>,
    taking: Option<(IpNet, Vec<Assigned>)>,
    claiming: Claiming,
    freeing: Option<(Owner, IpNet)>,
    books: Books,
    result: Option<Result<Assignment, IpamError>>,
}

impl Assign {
    /// The operation. For a new container, call [`View::hint_no_handle`] on its view: that saves a read.
    pub fn new(request: Request, settings: Arc<Settings>, now: Now) -> Assign {
        Assign {
            request,
            settings,
            now,
            got: Vec::new(),
            taking: None,
            claiming: Claiming::default(),
            freeing: None,
            books: Books::default(),
            result: None,
        }
    }

    fn owner(&self) -> &Owner {
        &self.request.client.owner
    }

    fn thawed(&self, held: &Held<Block>) -> Block {
        let mut block = Block::clone(&held.value);
        block::thaw(&mut block, self.now, self.settings.config.ip_cooldown_seconds);
        block
    }

    /// Takes what is free in a block; returns only if there is nothing.
    fn take(
        &mut self,
        books: &mut Books,
        view: &View,
        cidr: IpNet,
        held: &Held<Block>,
        confirm: Option<CasWrite>,
    ) -> Result<(), Pause> {
        let mut next = self.thawed(held);
        let wanted = self.request.count - self.got.len();
        let sequence = next.sequence_number;
        let given = block::assign(cidr, &mut next, wanted, &self.request.holder, &self.settings.reserved);
        let mut writes: Vec<CasWrite> = confirm.into_iter().collect();
        if given.is_empty() {
            if writes.is_empty() {
                return Ok(());
            }
            return Err(Pause::Ask(Ask::Write(writes)));
        }
        if let Some(handle) = &self.request.holder.handle {
            writes.push(books.raise(view, handle, cidr, given.len())?);
        }
        writes.push(put_block(cidr, Some(held), next));
        let given = given.into_iter().map(|address| Assigned { address, block: cidr, sequence }).collect();
        self.taking = Some((cidr, given));
        Err(Pause::Ask(Ask::Write(writes)))
    }

    /// The addresses that the handle holds already, if it may not hold what is asked for on top.
    fn reuse(&mut self, books: &mut Books, view: &mut View) -> Result<Option<Assignment>, Pause> {
        let (Some(handle), limit @ 1..) = (self.request.holder.handle.clone(), self.request.max_per_handle) else {
            return Ok(None);
        };
        if !self.got.is_empty() {
            return Ok(None);
        }
        view.only_fresh()?;
        let family = self.request.family;
        let Some(known) = view.handle(&handle)? else { return Ok(None) };
        let cidrs: Vec<IpNet> = known.value.block.keys().filter_map(|text| text.parse().ok()).collect();
        let cidrs: Vec<IpNet> = cidrs.into_iter().filter(|cidr| Family::of_net(*cidr) == family).collect();
        view.need_blocks(cidrs.iter().copied())?;
        let mut held = Vec::new();
        for cidr in &cidrs {
            let Some(found) = view.block(*cidr)? else { continue };
            held.extend(block::ordinals_of(&found.value, &handle).into_iter().map(|ordinal| Assigned {
                address: block::address(*cidr, ordinal),
                block: *cidr,
                sequence: block::sequence(&found.value, ordinal),
            }));
        }
        if held.len() + self.request.count <= limit {
            let counted = cidrs.iter().filter_map(|cidr| known.value.block.get(&cidr.to_string()));
            if counted.map(|count| *count as usize).sum::<usize>() + self.request.count > limit {
                // Left by a crash, or another request is on its way: settling the count defeats that one.
                cidrs.iter().for_each(|cidr| books.doubt(&handle, *cidr));
                books.settle(view)?;
            }
            return Ok(None);
        }
        if held.len() < self.request.count {
            let held: Vec<String> = held.iter().map(|one| one.address.to_string()).collect();
            return Err(IpamError::HandleFull { handle, held: held.join(", "), limit }.into());
        }
        held.truncate(self.request.count);
        Ok(Some(Assignment { addresses: held, shortfall: None }))
    }

    /// The first block of the pools that is not there yet, or is the owner's without an affinity.
    fn unclaimed(&self, view: &View, pools: &[Pool], blocks: &[(IpNet, Held<Block>)]) -> Option<IpNet> {
        for pool in pools {
            let mut order = Order::new(pool.cidr, pool.block_size, &self.owner().name, self.now);
            while let Some(cidr) = order.next(&self.settings.reserved) {
                if !view.occupied(cidr) {
                    return Some(cidr);
                }
                let found = blocks.binary_search_by_key(&cidr, |(cidr, _)| *cidr).ok().map(|at| &blocks[at].1);
                let mine = found.filter(|held| block::owner(&held.value).as_ref() == Some(self.owner()));
                if mine.is_some_and(|held| block::free(cidr, &self.thawed(held), &self.settings.reserved) > 0) {
                    return Some(cidr);
                }
            }
        }
        None
    }

    /// Blocks of the pools that exist, in the owner's order.
    fn ordered(&self, pools: &[Pool], blocks: &[(IpNet, Held<Block>)]) -> Vec<(IpNet, Held<Block>)> {
        let mut found = Vec::new();
        for pool in pools {
            let order = Order::new(pool.cidr, pool.block_size, &self.owner().name, self.now);
            let mut mine: Vec<_> = blocks.iter().filter(|(cidr, _)| pool.cidr.contains(cidr)).cloned().collect();
            mine.sort_by_key(|(cidr, _)| order.position(*cidr));
            found.extend(mine);
        }
        found
    }

    /// Goes on until the block that is being taken from another owner has neither owner nor affinity.
    fn finish_freeing(&mut self, view: &View) -> Result<(), Pause> {
        let Some((owner, cidr)) = &self.freeing else { return Ok(()) };
        match give_up(view, owner, *cidr, true, (self.now, self.settings.config.ip_cooldown_seconds))? {
            GivenUp::Done | GivenUp::NotEmpty { .. } => self.freeing = None,
        }
        Ok(())
    }

    /// Takes an empty block from an owner that has not used it for a minute; returns only if there is none.
    fn reclaim(&mut self, view: &View, blocks: &[(IpNet, Held<Block>)]) -> Result<(), Pause> {
        for (cidr, held) in blocks {
            let thawed = self.thawed(held);
            let age = thawed
                .affinity_claim_time
                .map_or(i64::MAX, |at| self.now.timestamp().unix_seconds().saturating_sub(at.unix_seconds()));
            let free = block::free(*cidr, &thawed, &self.settings.reserved);
            if !block::is_empty(&thawed) || free == 0 || age < UNUSED_CLAIM_SECS {
                continue;
            }
            match block::owner(&held.value) {
                None => return Err(Pause::Ask(Ask::Write(vec![crate::view::delete_block(*cidr, held)]))),
                Some(owner) if owner == *self.owner() => continue,
                Some(owner) => {
                    self.freeing = Some((owner, *cidr));
                    self.finish_freeing(view)?;
                }
            }
        }
        Ok(())
    }

    /// Gives up this owner's empty blocks in pools that no longer select it.
    fn leave_foreign(&self, view: &View, affine: &[IpNet]) -> Result<(), Pause> {
        for cidr in affine {
            let pool = self.settings.pools.iter().find(|pool| pool.cidr.contains(cidr) && pool.closed.is_none());
            if pool.is_some_and(|pool| !pools::selects_node(pool, &self.request.client)) {
                let cooldown = self.settings.config.ip_cooldown_seconds;
                give_up(view, self.owner(), *cidr, true, (self.now, cooldown))?;
            }
        }
        Ok(())
    }

    fn short(&self, error: IpamError) -> Result<Assignment, Pause> {
        if self.got.is_empty() {
            return Err(error.into());
        }
        Ok(Assignment { addresses: self.got.clone(), shortfall: Some(error) })
    }

    fn body(&mut self, books: &mut Books, view: &mut View) -> Result<Assignment, Pause> {
        if self.got.len() >= self.request.count {
            return Ok(Assignment { addresses: self.got.clone(), shortfall: None });
        }
        self.finish_freeing(view)?;
        if let Some(held) = self.reuse(books, view)? {
            return Ok(held);
        }
        let settings = Arc::clone(&self.settings);
        let pools = pools::choose(&settings, &self.request.client, self.request.family, &self.request.pools)?;
        let owner = self.owner().clone();
        let affine = view.affinities_of(&owner)?;
        let in_pools = |cidr: &IpNet| pools.iter().any(|pool| pool.cidr.contains(cidr));
        let (mine, others): (Vec<IpNet>, Vec<IpNet>) = affine.into_iter().partition(in_pools);
        let others: Vec<IpNet> =
            others.into_iter().filter(|cidr| Family::of_net(*cidr) == self.request.family).collect();
        self.leave_foreign(view, &others)?;
        for cidr in &mine {
            if settings.reserved.covering(*cidr).is_some() {
                continue;
            }
            if let Claim::Mine { block, confirm } = self.claiming.claim(view, &owner, *cidr, self.now)? {
                self.take(books, view, *cidr, &block, confirm)?;
            }
        }
        view.only_fresh()?;
        let owned = view.affinities_of(&owner)?.into_iter().filter(in_pools).count();
        let limit = settings.block_limit(self.request.max_blocks);
        if owned >= limit {
            return self.short(IpamError::BlockLimit { owner: owner.name, owned, limit });
        }
        let blocks = view.all_blocks()?;
        let ordered = self.ordered(&pools, &blocks);
        if settings.config.auto_allocate_blocks {
            if let Some(cidr) = self.unclaimed(view, &pools, &blocks)
                && let Claim::Mine { block, confirm } = self.claiming.claim(view, &owner, cidr, self.now)?
            {
                self.take(books, view, cidr, &block, confirm)?;
            }
            self.reclaim(view, &ordered)?;
        }
        let strict = settings.config.strict_affinity;
        if !strict {
            for (cidr, held) in &ordered {
                self.take(books, view, *cidr, held, None)?;
            }
        }
        let found = blocks.iter().map(|(cidr, held)| (*cidr, &*held.value));
        let fill = show::fill(&pools, found, &settings.reserved);
        self.short(IpamError::Exhausted { owner: owner.name, strict, pools: fill })
    }
}

impl Plan for Assign {
    type Output = Assignment;

    fn plan(&mut self, view: &mut View) -> Result<Assignment, Pause> {
        if self.request.count == 0 {
            return Ok(Assignment { addresses: Vec::new(), shortfall: None });
        }
        let mut books = std::mem::take(&mut self.books);
        let mut result = self.result.take();
        let done = books.finish(view, &mut result, |books, view| self.body(books, view));
        self.books = books;
        self.result = result;
        done
    }

    fn wrote(&mut self, writes: &[CasWrite], outcomes: &[Outcome]) {
        self.books.wrote(writes, outcomes);
        self.claiming.wrote(writes, outcomes);
        let Some((cidr, given)) = self.taking.take() else { return };
        let block = writes.iter().zip(outcomes).find(|(write, _)| write.key == Key::Block(cidr));
        if matches!(block, Some((_, Outcome::Done(_)))) {
            self.got.extend(given);
        }
    }
}
