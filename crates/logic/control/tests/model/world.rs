//! The cluster: what happens in it by the dice, and what must hold at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::{Kind, Metadata, Node};
use tortie_facts::{Filter, Key, OwnerKind, Value};
use tortie_ipam::{
    Assign, Client, Holder, IpamError, Machine, Now, Owner, Pool, ReleaseHandle, Request, Settings, View, block,
    default_config,
};
use tortie_store::{Expect, MemoryStore, Reader, Store, Write};

use crate::controller::{Controller, Did};
use crate::job::{Batch, Job, Pod, Stage, Stepped, fact, node_name};

/// A node ends a call of a runtime after this long, far below the grace period.
const DEADLINE: u64 = 240_000_000_000;
const START: u64 = 1_700_000_000_000_000_000;

/// A bug that is planted to show that the check finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// What seems leaked is released at once.
    NoGrace,
    /// The second look is at the picture of the first.
    OldLook,
    /// Blocks are written whatever their revision is.
    BlindBlock,
}

impl Bug {
    pub const ALL: [Bug; 3] = [Bug::NoGrace, Bug::OldLook, Bug::BlindBlock];
}

#[derive(Clone, Copy, Debug)]
pub enum Scale {
    /// A few nodes that fight for a few addresses.
    Small,
    /// Two hundred nodes.
    Large,
}

/// What happened, to show that the check meets what it is for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub operations: u64,
    pub assigned: u64,
    pub released: u64,
    /// Addresses that a controller released.
    pub collected: u64,
    /// Suspects that the second look found in use.
    pub refuted: u64,
    pub crashes: u64,
    /// Crashes in the middle of a batch of writes.
    pub torn: u64,
    /// Calls that ended at their deadline.
    pub late: u64,
    pub nodes_gone: u64,
}

impl Seen {
    pub fn add(&mut self, other: Seen) {
        let Seen { operations, assigned, released, collected, refuted, crashes, torn, late, nodes_gone } = other;
        self.operations += operations;
        self.assigned += assigned;
        self.released += released;
        self.collected += collected;
        self.refuted += refuted;
        self.crashes += crashes;
        self.torn += torn;
        self.late += late;
        self.nodes_gone += nodes_gone;
    }
}

/// A small generator of pseudo-random numbers, so that a seed is a whole run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((b ^ (b >> 31)) % sides.max(1) as u64) as usize
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.roll(one_in) == 0
    }
}

struct World {
    dice: Dice,
    bug: Option<Bug>,
    store: MemoryStore,
    settings: Arc<Settings>,
    clock: u64,
    /// Nodes that run, by number.
    up: BTreeSet<usize>,
    nodes: usize,
    most_jobs: usize,
    /// Whether pods are told before they have addresses, as by Kubernetes.
    told: bool,
    /// Whether controllers hear of everything soon, and look every second.
    eager: bool,
    jobs: Vec<Job>,
    /// Pods that run, by address; what must never be freed or given to another.
    live: BTreeMap<IpAddr, Pod>,
    /// Pods whose ADD failed, or whose DEL did: the runtime tries again, or never.
    loose: Vec<Pod>,
    /// What a store that forgets its objects in time will remove.
    fading: Vec<Key>,
    controllers: [Controller; 2],
    serial: u64,
    seen: Seen,
}

fn pool(cidr: &str, block_size: u8) -> Pool {
    Pool {
        name: "a".to_owned(),
        cidr: cidr.parse().expect("a literal"),
        block_size,
        node_selector: String::new(),
        namespace_selector: String::new(),
        uses: vec![tortie_api::IpPoolAllowedUse::Workload],
        manual: false,
        closed: None,
    }
}

impl World {
    fn new(seed: u64, scale: Scale, bug: Option<Bug>) -> World {
        let mut dice = Dice(seed);
        let (nodes, most_jobs, pools) = match scale {
            Scale::Small => (2 + dice.roll(4), 2 + dice.roll(6), vec![pool("10.0.0.0/27", 30 - dice.roll(2) as u8)]),
            Scale::Large => (200, 60, vec![pool("10.0.0.0/18", 28)]),
        };
        let mut config = default_config();
        config.ip_cooldown_seconds = if dice.chance(2) { 30 } else { 0 };
        config.strict_affinity = dice.chance(4);
        let settings = Arc::new(Settings { pools, config, ..Settings::default() });
        let (told, eager) = (dice.chance(2), matches!(scale, Scale::Small) && dice.chance(2));
        let mut world = World {
            dice,
            bug,
            store: MemoryStore::new(),
            settings,
            clock: START,
            up: BTreeSet::new(),
            nodes,
            most_jobs,
            told,
            eager,
            jobs: Vec::new(),
            live: BTreeMap::new(),
            loose: Vec::new(),
            fading: Vec::new(),
            controllers: Default::default(),
            serial: 0,
            seen: Seen::default(),
        };
        (0..nodes).for_each(|node| world.join(node));
        world
    }

    fn put(&self, key: Key, value: Option<Value>) {
        // What is not there need not be removed.
        let _ = self.store.write_one(Write { key, expect: Expect::Any, value });
    }

    fn join(&mut self, node: usize) {
        let name = node_name(node);
        let value = Node { metadata: Metadata::named(&name), ..Node::default() };
        self.put(Key::resource(Kind::Node, "", &name), Some(Value::resource(value.into())));
        self.up.insert(node);
    }

    /// The machine is gone, with all that ran on it; the store hears of it bit by bit.
    fn leave(&mut self, node: usize) {
        self.up.remove(&node);
        self.seen.nodes_gone += 1;
        self.fading.push(Key::resource(Kind::Node, "", &node_name(node)));
        let (mine, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.live).into_iter().partition(|(_, pod)| pod.node == node);
        self.live = others;
        self.fading.extend(mine.values().map(Pod::key));
        self.fading.extend(self.loose.extract_if(.., |pod| pod.node == node).map(|pod| pod.key()));
        let ended = self.jobs.extract_if(.., |job| job.pod.node == node);
        self.fading.extend(ended.map(|job| job.pod.key()));
    }

    fn fade(&mut self) {
        if self.fading.is_empty() {
            return;
        }
        let at = self.dice.roll(self.fading.len());
        let key = self.fading.swap_remove(at);
        // A pod of the same name may run again by now, or a node be there again.
        let lives = match &key {
            Key::Resource { kind: Kind::Node, namespace: _, name } => {
                self.up.iter().any(|node| node_name(*node) == *name)
            }
            _ => {
                let mut pods = self.live.values().chain(self.jobs.iter().map(|job| &job.pod));
                pods.any(|pod| pod.key() == key)
            }
        };
        if !lives {
            self.put(key, None);
        }
    }

    fn hints(&mut self, node: usize) -> View {
        let mut view = View::default();
        if self.dice.chance(3) {
            return view;
        }
        let name = node_name(node);
        let listing = self.store.list(&Filter::Affinities(OwnerKind::Host, name.clone())).expect("it is up");
        for entry in listing.entries {
            if let Key::Affinity(affinity) = &entry.key
                && let Some(found) = self.store.get(&Key::Block(affinity.cidr)).expect("it is up")
            {
                view.hint(fact(found));
            }
            view.hint(fact(entry));
        }
        view.hint_all_affinities(&Owner::host(name));
        view
    }

    fn start_add(&mut self, pod: Pod) {
        let name = node_name(pod.node);
        let attrs = [("node", name.as_str()), ("namespace", "t"), ("pod", &pod.name)];
        let attrs = attrs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let holder = Holder { handle: Some(pod.handle.clone()), attrs };
        let request = Request::one(Client::workload(name.as_str()), holder, tortie_net::Family::V4);
        let plan = Assign::new(request, Arc::clone(&self.settings), Now(self.clock));
        let machine = Box::new(Machine::new(plan, self.hints(pod.node)));
        let stage = if self.told { Stage::Tell(machine) } else { Stage::Assign(machine) };
        self.jobs.push(Job { pod, stage, started: self.clock, batch: Batch::default() });
    }

    fn start_del(&mut self, pod: Pod) {
        let plan = ReleaseHandle::new(&pod.handle, self.settings.config.ip_cooldown_seconds, Now(self.clock));
        let machine = Box::new(Machine::new(plan, View::default()));
        self.jobs.push(Job { pod, stage: Stage::Remove(machine), started: self.clock, batch: Batch::default() });
    }

    fn start(&mut self) {
        self.seen.operations += 1;
        match self.dice.roll(100) {
            0..50 => {
                let Some(node) = self.up.iter().nth(self.dice.roll(self.up.len())).copied() else { return };
                self.serial += 1;
                let name = format!("p{}", self.dice.roll(40));
                let pod = Pod { node, name, handle: format!("net.c{}", self.serial) };
                let taken = |other: &Pod| other.is(&pod);
                if self.live.values().any(taken) || self.jobs.iter().any(|job| taken(&job.pod)) {
                    return;
                }
                self.start_add(pod);
            }
            50..85 => {
                let at = self.dice.roll(self.live.len());
                if let Some(address) = self.live.keys().nth(at).copied()
                    && let Some(pod) = self.live.remove(&address)
                {
                    self.start_del(pod);
                }
            }
            _ => {
                if self.loose.is_empty() {
                    return;
                }
                let at = self.dice.roll(self.loose.len());
                let pod = self.loose.swap_remove(at);
                let taken = |other: &Pod| other.is(&pod);
                if self.live.values().any(taken) || self.jobs.iter().any(|job| taken(&job.pod)) {
                    return;
                }
                match self.dice.roll(3) {
                    // The runtime tries again under the same id.
                    0 if self.up.contains(&pod.node) => self.start_add(pod),
                    1 => self.start_del(pod),
                    // Nobody ever tries again: the object of the pod goes, its address is left.
                    _ => self.fading.push(pod.key()),
                }
            }
        }
    }

    fn crash_job(&mut self, at: usize) {
        let job = self.jobs.swap_remove(at);
        self.seen.crashes += 1;
        self.seen.torn += u64::from(job.batch.is_torn());
        self.loose.push(job.pod);
    }

    /// Every pod that runs has its addresses.
    fn check_block(&self, cidr: IpNet) -> Result<(), String> {
        let found = self.store.get(&Key::Block(cidr)).expect("it is up");
        let found = found.as_ref().and_then(|entry| entry.value.as_block());
        if let Some(reason) = found.and_then(|found| block::fault(cidr, found)) {
            return Err(format!("block {cidr} was broken: {reason}"));
        }
        for (address, pod) in self.live.range(cidr.network()..=cidr.broadcast()) {
            let held = found.and_then(|found| block::holder(found, block::ordinal(cidr, *address)?));
            if held.and_then(|a| a.handle_id.as_deref()) != Some(pod.handle.as_str()) {
                return Err(format!("{address} of {pod:?}, which runs, was freed"));
            }
        }
        Ok(())
    }

    fn step_job(&mut self, at: usize) -> Result<(), String> {
        if self.clock > self.jobs[at].started + DEADLINE {
            self.seen.late += 1;
            self.crash_job(at);
            return Ok(());
        }
        match self.jobs[at].step(&self.store) {
            Stepped::Read | Stepped::Wrote(Key::Resource { .. } | Key::Affinity(_) | Key::Handle(_)) => Ok(()),
            Stepped::Wrote(Key::Block(cidr)) => self.check_block(cidr),
            Stepped::Wrote(other) => Err(format!("{other} was written")),
            Stepped::Runs(addresses) => {
                let job = self.jobs.swap_remove(at);
                for address in addresses {
                    self.seen.assigned += 1;
                    if let Some(other) = self.live.insert(address, job.pod.clone()) {
                        return Err(format!("{address} of {other:?} was given to {:?}", job.pod));
                    }
                    let cidr = self.settings.pool_of(address).and_then(|pool| pool.block_of(address));
                    self.check_block(cidr.expect("it lies in the pool"))?;
                }
                Ok(())
            }
            Stepped::Ended => {
                self.seen.released += 1;
                self.jobs.swap_remove(at);
                Ok(())
            }
            Stepped::Failed(error) => {
                let job = self.jobs.swap_remove(at);
                self.loose.push(job.pod);
                match error {
                    IpamError::Exhausted { .. } | IpamError::BlockLimit { .. } => Ok(()),
                    other => Err(format!("a call failed: {other}")),
                }
            }
        }
    }

    fn step_controller(&mut self, which: usize) -> Result<(), String> {
        let every = if self.eager { 1_000_000_000 } else { 60_000_000_000 };
        let did = self.controllers[which].step(&self.store, &self.settings, self.clock, every, self.bug);
        match did {
            Did::Nothing | Did::Read => Ok(()),
            Did::Looked(refuted) => {
                self.seen.refuted += refuted as u64;
                Ok(())
            }
            Did::Wrote(Key::Block(cidr)) => self.check_block(cidr),
            Did::Wrote(_) => Ok(()),
            Did::Ended(summary) => {
                self.seen.operations += 1;
                self.seen.collected += summary.released.len() as u64;
                summary.failed.first().map_or(Ok(()), |error| Err(format!("a round failed: {error}")))
            }
        }
    }

    fn crash_controller(&mut self, which: usize) {
        self.seen.crashes += 1;
        self.seen.torn += u64::from(self.controllers[which].is_torn());
        self.controllers[which] = Controller::default();
    }

    fn happen(&mut self) -> Result<(), String> {
        // A step of one of a few nodes takes longer than one of two hundred.
        let most = if self.nodes < 100 { 500_000_000 } else { 100_000_000 };
        self.clock += 1 + self.dice.roll(most) as u64;
        let which = self.dice.roll(2);
        match self.dice.roll(4000) {
            0 => self.clock += 30_000_000_000 + self.dice.roll(600) as u64 * 1_000_000_000,
            1 if self.dice.chance(3) => self.crash_controller(which),
            2 | 10 | 11 => {
                let source = self.dice.roll(2);
                self.controllers[which].deaf_until[source] = self.clock + self.dice.roll(3600) as u64 * 1_000_000_000;
            }
            3..6 => {
                let node = self.dice.roll(self.nodes);
                if self.up.contains(&node) { self.leave(node) } else { self.join(node) }
            }
            6..10 => self.controllers[which].refresh(&self.store, self.clock),
            _ if self.eager && self.dice.chance(30) => self.controllers[which].refresh(&self.store, self.clock),
            12..42 => self.fade(),
            42..82 if !self.jobs.is_empty() => {
                let at = self.dice.roll(self.jobs.len());
                self.crash_job(at);
            }
            _ => {}
        }
        if self.jobs.len() < self.most_jobs && self.dice.chance(4) {
            self.start();
        }
        if self.dice.chance(8) {
            return self.step_controller(which);
        }
        if self.jobs.is_empty() {
            return Ok(());
        }
        let at = self.dice.roll(self.jobs.len());
        self.step_job(at)
    }

    /// The end of all trouble: what runs goes on, everything else is collected.
    fn settle(&mut self) -> Result<(), String> {
        while let Some(job) = self.jobs.pop() {
            self.fading.push(job.pod.key());
        }
        let loose = std::mem::take(&mut self.loose);
        self.fading.extend(loose.iter().map(Pod::key));
        while !self.fading.is_empty() {
            self.fade();
        }
        self.collect_all()?;
        self.check_clean()?;
        // A second address of a pod that runs goes with the pod, since both have one handle.
        while let Some((_, pod)) = self.live.pop_first() {
            self.start_del(pod);
            while !self.jobs.is_empty() {
                self.step_job(0)?;
            }
        }
        self.collect_all()?;
        self.check_clean()
    }

    fn collect_all(&mut self) -> Result<(), String> {
        self.controllers = Default::default();
        for _ in 0..8 {
            self.clock += 400_000_000_000;
            for which in 0..2 {
                self.controllers[which].refresh(&self.store, self.clock);
                self.step_controller(which)?;
                while !self.controllers[which].is_idle() {
                    self.step_controller(which)?;
                }
            }
        }
        Ok(())
    }

    fn check_clean(&self) -> Result<(), String> {
        let kinds = [Filter::Blocks, Filter::Handles, Filter::AllAffinities(OwnerKind::Host)];
        let facts: Vec<_> =
            self.store.list(&Filter::Any(kinds.into())).expect("it is up").entries.into_iter().map(fact).collect();
        let runs: BTreeSet<&str> = self.live.values().map(|pod| pod.handle.as_str()).collect();
        let ledger = crate::controller::ledger(&self.store);
        let held = ledger.allocations().map(|(one, _)| one).filter(|one| runs.contains(one.handle.as_str()));
        let users = held.map(|one| (one.address, vec![one.handle])).collect();
        let report = tortie_ipam::check(&self.settings, &facts, Some(&users));
        if let Some(problem) = report.problems.first() {
            return Err(format!("in the end: {problem}"));
        }
        for fact in &facts {
            if let Key::Affinity(affinity) = &fact.key
                && !self.up.iter().any(|node| node_name(*node) == affinity.owner)
            {
                return Err(format!("in the end: {} of a node that is gone", fact.key));
            }
        }
        Ok(())
    }
}

/// One run.
pub fn run(seed: u64, scale: Scale, bug: Option<Bug>) -> Result<Seen, String> {
    let mut world = World::new(seed, scale, bug);
    let operations = match scale {
        Scale::Small => 600,
        Scale::Large => 12_000,
    };
    let result = (|| {
        let mut steps = 0_u64;
        while world.seen.operations < operations {
            world.happen()?;
            steps += 1;
            if steps.is_multiple_of(10_000) {
                let now = world.store.list(&Filter::Kind(Kind::Tier)).expect("it is up").revision;
                world.store.compact(now);
            }
        }
        world.settle()
    })();
    result.map(|()| world.seen).map_err(|error: String| format!("seed {seed}, {scale:?}: {error}"))
}
