//! A random run: nodes start operations, advance them in any order, crash and lose answers.

use std::net::IpAddr;

use ipnet::IpNet;
use tortie_ipam::{Claimed, Owner, Pool, Reserved, Scope, Settings, View, default_config};

use crate::job::Manner;
use crate::store::{Bug, Store};
use crate::world::{Check, Seen, World};

/// A small generator of pseudo-random numbers, so that a seed is a whole run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((b ^ (b >> 31)) % sides.max(1) as u64) as usize
    }

    pub fn chance(&mut self, one_in: usize) -> bool {
        self.roll(one_in) == 0
    }
}

pub fn pool(name: &str, cidr: &str, block_size: u8) -> Pool {
    Pool {
        name: name.to_owned(),
        cidr: cidr.parse().expect("a literal"),
        block_size,
        node_selector: String::new(),
        namespace_selector: String::new(),
        uses: vec![tortie_api::IpPoolAllowedUse::Workload],
        manual: false,
        closed: None,
    }
}

fn settings(dice: &mut Dice) -> Settings {
    let pools = match dice.roll(4) {
        0 => vec![pool("a", "10.0.0.0/30", 31)],
        1 => vec![pool("a", "10.0.0.0/29", 30), pool("b", "10.0.1.0/30", 32)],
        2 => vec![pool("a", "10.0.0.0/28", 30)],
        _ => vec![pool("a", "10.0.0.0/27", 29)],
    };
    let mut config = default_config();
    config.strict_affinity = dice.chance(4);
    config.ip_cooldown_seconds = if dice.chance(3) { 5 } else { 0 };
    if config.strict_affinity && dice.chance(2) {
        config.max_blocks_per_host = 2;
    }
    let reserved: Vec<IpNet> =
        if dice.chance(3) { vec!["10.0.0.2/31".parse().expect("a literal")] } else { Vec::new() };
    Settings { pools, reserved: Reserved::new(reserved), config }
}

fn hints(dice: &mut Dice, old: &Store, node: usize) -> View {
    let mut view = View::default();
    if dice.chance(3) {
        return view;
    }
    for key in old.facts.keys() {
        if dice.chance(2)
            && let Some(fact) = old.get(key)
        {
            view.hint(fact);
        }
    }
    if dice.chance(2) {
        view.hint_all_affinities(&Owner::host(format!("n{node}")));
    }
    view
}

fn known(world: &World, dice: &mut Dice) -> Option<String> {
    let recent: Vec<&String> = world.handles.iter().rev().take(24).collect();
    recent.get(dice.roll(recent.len())).map(|handle| (*handle).clone())
}

fn assign(world: &mut World, dice: &mut Dice, old: &Store, node: usize, serial: u32) {
    let mut handle = format!("h{serial:05}");
    if dice.chance(10)
        && let Some(old) = known(world, dice)
    {
        handle = old;
    }
    let mut view = hints(dice, old, node);
    if dice.chance(2) {
        view.hint_no_handle(&handle);
    }
    let count = 1 + if dice.chance(4) { dice.roll(3) } else { 0 };
    world.assign(node, &handle, count, view);
}

fn release_owned(world: &mut World, dice: &mut Dice, view: View) {
    let Some((address, (handle, sequence))) = world.owned.iter().nth(dice.roll(world.owned.len())) else { return };
    let one = Claimed { address: *address, handle: Some(handle.clone()), sequence: Some(*sequence) };
    world.release(vec![one], view);
}

/// A release that comes late: what it names may belong to somebody else by now.
fn release_late(world: &mut World, dice: &mut Dice) {
    let Some(mut late) = world.history.get(dice.roll(world.history.len())).cloned() else { return };
    if world.manner.bug == Some(Bug::Unguarded) {
        (late.handle, late.sequence) = (None, None);
    }
    world.release(vec![late], View::default());
}

fn start(world: &mut World, dice: &mut Dice, old: &Store, nodes: usize, serial: u32) {
    let node = dice.roll(nodes);
    match dice.roll(100) {
        0..38 => assign(world, dice, old, node, serial),
        38..43 => {
            let address: IpAddr = std::net::Ipv4Addr::new(10, 0, 0, dice.roll(16) as u8).into();
            if world.settings.pool_of(address).is_some() {
                world.assign_at(node, &format!("h{serial:05}"), address);
            }
        }
        43..72 => {
            if let Some(handle) = known(world, dice) {
                let view = hints(dice, old, node);
                world.release_handle(&handle, view);
            }
        }
        72..82 => {
            let view = hints(dice, old, node);
            release_owned(world, dice, view);
        }
        82..89 => release_late(world, dice),
        89..92 => world.release_affinities(Scope::Owner(Owner::host(format!("n{node}"))), dice.chance(2)),
        92..95 => {
            let gone = (0..usize::from(dice.chance(2))).map(|node| format!("n{node}")).collect();
            let spare = if dice.chance(2) { Some(dice.roll(2)) } else { None };
            world.collect(gone, spare);
        }
        _ => world.now.0 += [1_000_000_000, 6_000_000_000, 61_000_000_000][dice.roll(3)],
    }
}

/// One run of at least `steps` steps; returns how many it took, and what happened.
pub fn run(seed: u64, steps: u64, bug: Option<Bug>) -> Result<(u64, Seen), String> {
    let mut dice = Dice::new(seed);
    let settings = settings(&mut dice);
    let manner = Manner { transactions: dice.chance(5), split_reads: dice.chance(2), bug };
    let nodes = 2 + dice.roll(3);
    let jobs = 2 + dice.roll(6);
    let mut world = World::new(settings, manner);
    let mut old = world.store.clone();
    let mut serial = 0;
    let result = (|| -> Check {
        while world.steps < steps {
            if world.jobs.is_empty() || (world.jobs.len() < jobs && dice.chance(4)) {
                serial += 1;
                start(&mut world, &mut dice, &old, nodes, serial);
                continue;
            }
            if dice.chance(40) {
                let at = dice.roll(world.jobs.len());
                world.crash(at);
                continue;
            }
            if dice.chance(20) {
                old = world.store.clone();
            }
            let at = dice.roll(world.jobs.len());
            let flaky = dice.chance(200);
            world.step(at, flaky)?;
        }
        world.epilogue(nodes)
    })();
    match result {
        Ok(()) => Ok((world.steps, world.seen)),
        Err(error) => Err(format!("seed {seed}, step {}: {error}", world.steps)),
    }
}
