//! Nodes that run operations beside each other on one store, what they were told, and what must always hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::ipam::AffinityState;
use tortie_facts::{Key, Value};
use tortie_ipam::block::{self, Claimed};
use tortie_ipam::{
    Assign, AssignAt, Assigned, Client, Collect, Holder, IpamError, Machine, Now, Owner, Release, ReleaseAffinities,
    ReleaseHandle, Request, Scope, Settings, View,
};

use crate::job::{Ended, Job, Manner, Op, Stepped};
use crate::store::Store;

pub type Check = Result<(), String>;

#[derive(Clone, Debug)]
pub struct World {
    pub store: Store,
    pub settings: Arc<Settings>,
    pub now: Now,
    pub manner: Manner,
    pub jobs: Vec<Job>,
    /// Addresses that a caller was told are its own, until it starts to release them.
    pub owned: BTreeMap<IpAddr, (String, u64)>,
    /// Every handle that was ever used.
    pub handles: BTreeSet<String>,
    /// What was once told: evidence for late releases.
    pub history: Vec<Claimed>,
    /// Addresses that a handle may hold; 0: any number.
    pub limit: usize,
    pub steps: u64,
    pub seen: Seen,
}

/// What happened, to show that the check meets what it is for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub assigned: u64,
    pub borrowed: u64,
    pub exhausted: u64,
    pub refused: u64,
    pub conflicts: u64,
    pub contention: u64,
    pub crashes: u64,
    pub torn: u64,
}

impl Seen {
    pub fn add(&mut self, other: Seen) {
        let Seen { assigned, borrowed, exhausted, refused, conflicts, contention, crashes, torn } = other;
        self.assigned += assigned;
        self.borrowed += borrowed;
        self.exhausted += exhausted;
        self.refused += refused;
        self.conflicts += conflicts;
        self.contention += contention;
        self.crashes += crashes;
        self.torn += torn;
    }
}

pub fn client(node: usize) -> Client {
    Client::workload(format!("n{node}"))
}

impl World {
    pub fn new(settings: Settings, manner: Manner) -> World {
        World {
            store: Store::default(),
            settings: Arc::new(settings),
            now: Now(1_700_000_000_000_000_000),
            manner,
            jobs: Vec::new(),
            owned: BTreeMap::new(),
            handles: BTreeSet::new(),
            history: Vec::new(),
            limit: 0,
            steps: 0,
            seen: Seen::default(),
        }
    }

    fn holder(&self, node: usize, handle: &str) -> Holder {
        let attrs = [("node".to_owned(), format!("n{node}"))].into();
        Holder { handle: Some(handle.to_owned()), attrs }
    }

    fn releasing(&self, handle: &str) -> bool {
        let releases = |job: &&Job| matches!(job.op, Op::ReleaseHandle(_) | Op::Release(_));
        self.jobs.iter().filter(releases).any(|job| job.handle.as_deref() == Some(handle))
    }

    fn taint(&mut self, handle: &str) {
        for job in &mut self.jobs {
            job.tainted |= job.handle.as_deref() == Some(handle);
        }
    }

    pub fn start(&mut self, op: Op, handle: Option<String>) {
        let mut job = Job::new(op, handle.clone());
        if let Some(handle) = handle {
            job.tainted = self.releasing(&handle);
            self.handles.insert(handle);
        }
        self.jobs.push(job);
    }

    pub fn assign(&mut self, node: usize, handle: &str, count: usize, view: View) {
        let holder = self.holder(node, handle);
        let one = Request::one(client(node), holder, tortie_net::Family::V4);
        let request = Request { count, max_per_handle: self.limit, ..one };
        let plan = Assign::new(request, Arc::clone(&self.settings), self.now);
        self.start(Op::Assign(Machine::new(plan, view)), Some(handle.to_owned()));
    }

    pub fn assign_at(&mut self, node: usize, handle: &str, address: IpAddr) {
        let holder = self.holder(node, handle);
        let plan = AssignAt::new(client(node), holder, address, Arc::clone(&self.settings), self.now);
        self.start(Op::AssignAt(Machine::new(plan, View::default())), Some(handle.to_owned()));
    }

    pub fn release_handle(&mut self, handle: &str, view: View) {
        self.owned.retain(|_, (owner, _)| owner != handle);
        self.taint(handle);
        let plan = ReleaseHandle::new(handle, self.settings.config.ip_cooldown_seconds, self.now);
        self.start(Op::ReleaseHandle(Machine::new(plan, view)), Some(handle.to_owned()));
    }

    /// Releases by address. Evidence that fits means that the caller gives the address up.
    pub fn release(&mut self, claimed: Vec<Claimed>, view: View) {
        for one in &claimed {
            let Some((handle, sequence)) = self.owned.get(&one.address).cloned() else { continue };
            if one.handle.as_ref() == Some(&handle) && one.sequence == Some(sequence) {
                self.owned.remove(&one.address);
            }
        }
        let plan = Release::new(claimed, Arc::clone(&self.settings), self.now);
        self.start(Op::Release(Machine::new(plan, view)), None);
    }

    pub fn release_affinities(&mut self, scope: Scope, must_be_empty: bool) {
        let plan = ReleaseAffinities::new(scope, must_be_empty, Arc::clone(&self.settings), self.now);
        self.start(Op::ReleaseAffinities(Machine::new(plan, View::default())), None);
    }

    pub fn collect(&mut self, gone: BTreeSet<String>, spare: Option<usize>) {
        let plan = Collect::new(Arc::clone(&self.settings), self.now, gone, spare);
        self.start(Op::Collect(Machine::new(plan, View::default())), None);
    }

    /// One access to the store by one job, and every check that it calls for.
    pub fn step(&mut self, at: usize, flaky: bool) -> Check {
        self.steps += 1;
        self.now.0 += 1;
        let before: Vec<Key> = self.store.facts.keys().cloned().collect();
        match self.jobs[at].step(&mut self.store, self.manner, flaky) {
            Stepped::Read => Ok(()),
            Stepped::Refused => {
                self.seen.conflicts += 1;
                Ok(())
            }
            Stepped::Wrote(keys) => keys.iter().try_for_each(|key| self.check(key, &before)),
            Stepped::Ended(ended) => {
                let job = self.jobs.swap_remove(at);
                self.ended(&job, ended)
            }
        }
    }

    fn ended(&mut self, job: &Job, ended: Ended) -> Check {
        match (ended, &job.handle) {
            (Ended::Assigned(addresses), Some(handle)) => {
                for Assigned { address, block, sequence } in addresses {
                    self.seen.assigned += 1;
                    let found = self.store.block(block);
                    let at = block::ordinal(block, address);
                    if let Some(held) = found.and_then(|found| block::holder(found, at?)) {
                        let owner = found.and_then(block::owner).map(|owner| owner.name);
                        self.seen.borrowed += u64::from(held.secondary.get("node") != owner.as_ref());
                    }
                    self.history.push(Claimed { address, handle: Some(handle.clone()), sequence: Some(sequence) });
                    if job.tainted {
                        continue;
                    }
                    match self.owned.insert(address, (handle.clone(), sequence)) {
                        Some((other, _)) if other != *handle => {
                            return Err(format!("{address} is owned by {other} and was given to {handle}"));
                        }
                        Some(_) | None => self.check_owned(address)?,
                    }
                }
                Ok(())
            }
            (Ended::Failed(error), _) => {
                match error {
                    IpamError::Exhausted { .. } | IpamError::BlockLimit { .. } => self.seen.exhausted += 1,
                    IpamError::Contention { .. } => self.seen.contention += 1,
                    IpamError::BadHandle { .. } | IpamError::BadSequence { .. } => self.seen.refused += 1,
                    IpamError::InUse { .. }
                    | IpamError::Cooling { .. }
                    | IpamError::NotAffine { .. }
                    | IpamError::UnknownHandle(_)
                    | IpamError::Store(_) => {}
                    other => return Err(format!("an operation failed unexpectedly: {other}")),
                }
                Ok(())
            }
            (Ended::Assigned(_), None) | (Ended::Other, _) => Ok(()),
        }
    }

    fn check_owned(&self, address: IpAddr) -> Check {
        let Some((handle, _)) = self.owned.get(&address) else { return Ok(()) };
        let cidr = self.settings.pool_of(address).and_then(|pool| pool.block_of(address));
        let found = cidr.and_then(|cidr| Some((cidr, self.store.block(cidr)?)));
        let held = found.is_some_and(|(cidr, found)| {
            let at = block::ordinal(cidr, address);
            at.and_then(|at| block::holder(found, at)).and_then(|a| a.handle_id.as_ref()) == Some(handle)
        });
        if held { Ok(()) } else { Err(format!("{address} belongs to {handle}, but its block does not say so")) }
    }

    fn check(&self, key: &Key, before: &[Key]) -> Check {
        match key {
            Key::Block(cidr) => {
                for address in self.owned.keys() {
                    if cidr.contains(address) {
                        self.check_owned(*address)?;
                    }
                }
                self.check_block(*cidr)?;
                self.check_limit()?;
                self.check_affinities(*cidr)
            }
            Key::Handle(_) => {
                let blocks =
                    before.iter().filter_map(|key| if let Key::Block(cidr) = key { Some(*cidr) } else { None });
                blocks.into_iter().try_for_each(|cidr| self.check_block(cidr))
            }
            Key::Affinity(key) => self.check_affinities(key.cidr),
            Key::Resource { .. } | Key::IpamConfig | Key::Status(_) | Key::Foreign(_) => Ok(()),
        }
    }

    fn check_limit(&self) -> Check {
        for id in self.handles.iter().filter(|_| self.limit > 0) {
            let blocks = self.store.facts.values().filter_map(|(value, _)| value.as_block());
            let held: usize = blocks.map(|found| block::ordinals_of(found, id).len()).sum();
            if held > self.limit {
                return Err(format!("{id} holds {held} addresses"));
            }
        }
        Ok(())
    }

    /// A block is sound, and each of its addresses can be reached by its handle.
    fn check_block(&self, cidr: IpNet) -> Check {
        let Some(found) = self.store.block(cidr) else { return Ok(()) };
        if let Some(reason) = block::fault(cidr, found) {
            return Err(format!("block {cidr} was broken: {reason}"));
        }
        for attribute in &found.attributes {
            let Some(id) = &attribute.handle_id else { continue };
            let handle = self.store.facts.get(&Key::Handle(id.clone())).and_then(|(value, _)| value.as_handle());
            if handle.and_then(|handle| handle.block.get(&cidr.to_string())).is_none() {
                return Err(format!("block {cidr} holds an address of {id}, which can't be found by that handle"));
            }
        }
        Ok(())
    }

    /// At most one confirmed affinity, and the block says the same.
    fn check_affinities(&self, cidr: IpNet) -> Check {
        let mut confirmed = Vec::new();
        for (key, (value, _)) in &self.store.facts {
            if let (Key::Affinity(key), Value::Affinity(affinity)) = (key, value)
                && key.cidr == cidr
                && affinity.state == AffinityState::Confirmed
            {
                confirmed.push(Owner { kind: key.kind, name: key.owner.clone() });
            }
        }
        let owner = self.store.block(cidr).and_then(block::owner);
        match confirmed.as_slice() {
            [] => Ok(()),
            [one] if Some(one) == owner.as_ref() => Ok(()),
            _ => Err(format!("block {cidr} of {owner:?} has confirmed affinities of {confirmed:?}")),
        }
    }

    /// An operation is never heard of again.
    pub fn crash(&mut self, at: usize) {
        let job = self.jobs.swap_remove(at);
        self.seen.crashes += 1;
        self.seen.torn += u64::from(job.is_torn());
    }

    /// While any address is free, a node that may borrow gets one.
    fn check_progress(&mut self) -> Check {
        let facts: Vec<_> = self.store.facts.keys().filter_map(|key| self.store.get(key)).collect();
        let blocks = facts.iter().filter_map(|fact| match (&fact.key, fact.value.as_block()) {
            (Key::Block(cidr), Some(block)) => Some((*cidr, &**block)),
            _ => None,
        });
        let free: u128 = tortie_ipam::usage(&self.settings, blocks).iter().map(|pool| pool.available).sum();
        if self.settings.config.strict_affinity || free == 0 {
            return Ok(());
        }
        let before = self.seen.assigned;
        self.assign(0, "last", 1, View::default());
        self.run_last()?;
        if self.seen.assigned == before {
            Err(format!("{free} addresses are free, and none was given"))
        } else {
            Ok(())
        }
    }

    /// Runs one job alone to its end.
    pub fn run_last(&mut self) -> Check {
        let jobs = self.jobs.len();
        while self.jobs.len() == jobs {
            self.step(jobs - 1, false)?;
        }
        Ok(())
    }

    pub fn finish_all(&mut self) -> Check {
        while !self.jobs.is_empty() {
            self.run_last()?;
        }
        Ok(())
    }

    /// After the storm: a collection makes everything consistent, evidence repairs leaks, and nothing is lost.
    pub fn epilogue(&mut self, nodes: usize) -> Check {
        self.finish_all()?;
        self.collect(BTreeSet::new(), None);
        self.finish_all()?;
        let facts: Vec<_> = self.store.facts.keys().filter_map(|key| self.store.get(key)).collect();
        let in_use = self.owned.iter().map(|(address, (handle, _))| (*address, vec![handle.clone()])).collect();
        let report = tortie_ipam::check(&self.settings, &facts, Some(&in_use));
        let leaked = |problem: &&tortie_ipam::Problem| !matches!(problem, tortie_ipam::Problem::Leaked { .. });
        if let Some(problem) = report.problems.iter().find(leaked) {
            return Err(format!("after a collection: {problem}"));
        }
        if self.manner.bug.is_none() {
            self.check_progress()?;
        }
        self.release(report.leaks, View::default());
        self.finish_all()?;
        let facts: Vec<_> = self.store.facts.keys().filter_map(|key| self.store.get(key)).collect();
        let in_use = self.owned.iter().map(|(address, (handle, _))| (*address, vec![handle.clone()])).collect();
        let report = tortie_ipam::check(&self.settings, &facts, Some(&in_use));
        if let Some(problem) = report.problems.first() {
            return Err(format!("after the leaks were released: {problem}"));
        }
        for handle in self.handles.clone() {
            self.release_handle(&handle, View::default());
            self.finish_all()?;
        }
        self.now.0 += 3_600_000_000_000;
        self.collect(BTreeSet::new(), Some(0));
        self.finish_all()?;
        for node in 0..nodes {
            self.release_affinities(Scope::Owner(Owner::host(format!("n{node}"))), false);
            self.finish_all()?;
        }
        match self.store.facts.first_key_value() {
            None => Ok(()),
            Some((key, (value, _))) => Err(format!("after releasing everything there is still {key}: {value:?}")),
        }
    }
}
