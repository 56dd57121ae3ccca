//! Every order of the steps of two operations with up to five switches between them, and a crash of either at every
//! point of every order.

use tortie_ipam::{Owner, Reserved, Scope, Settings, View, default_config};

use crate::job::Manner;
use crate::storm::pool;
use crate::world::{Check, World};

const SWITCHES: u32 = 5;

/// Counts of what was walked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walked {
    pub orders: u64,
    pub crashes: u64,
}

fn leaf(mut world: World, every: bool) -> Check {
    world.finish_all()?;
    if every { world.epilogue(2) } else { Ok(()) }
}

/// Goes on with the job that ran last, or switches to the other if switches are left.
fn walk(world: &World, last: Option<usize>, switches: u32, walked: &mut Walked) -> Check {
    if world.jobs.len() < 2 {
        walked.orders += 1;
        return leaf(world.clone(), walked.orders % 16 == 1);
    }
    for at in 0..world.jobs.len() {
        let switch = last.is_some_and(|last| last != at);
        if switch && switches == 0 {
            continue;
        }
        let mut crashed = world.clone();
        crashed.jobs.swap_remove(at);
        walked.crashes += 1;
        leaf(crashed, walked.crashes % 16 == 1)?;
        let mut next = world.clone();
        next.step(at, false)?;
        walk(&next, Some(at), switches - u32::from(switch), walked)?;
    }
    Ok(())
}

/// A world of two nodes and one pool of two blocks, after `prepare` ran to its end.
fn world(strict: bool, prepare: impl FnOnce(&mut World)) -> World {
    let mut config = default_config();
    config.strict_affinity = strict;
    let pools = vec![pool("a", "10.0.0.0/30", 31)];
    let mut world = World::new(Settings { pools, reserved: Reserved::default(), config }, Manner::default());
    prepare(&mut world);
    world.finish_all().expect("a quiet start");
    world
}

type Start = fn(&mut World);

/// Name, whether affinity is strict, what happened before, and the two operations.
pub const CASES: [(&str, bool, Start, Start); 9] = [
    (
        "two nodes claim",
        false,
        |_| {},
        |w| {
            w.assign(0, "a", 1, View::default());
            w.assign(1, "b", 1, View::default());
        },
    ),
    (
        "one node twice",
        true,
        |_| {},
        |w| {
            w.assign(0, "a", 1, View::default());
            w.assign(0, "b", 1, View::default());
        },
    ),
    (
        "release meets assign on one handle",
        false,
        |w| w.assign(0, "a", 1, View::default()),
        |w| {
            w.assign(0, "a", 1, View::default());
            w.release_handle("a", View::default());
        },
    ),
    (
        "giving up meets assign",
        false,
        |w| {
            w.assign(0, "a", 1, View::default());
            w.run_last().expect("quiet");
            w.release_handle("a", View::default());
        },
        |w| {
            w.assign(0, "b", 1, View::default());
            w.release_affinities(Scope::Owner(Owner::host("n0")), false);
        },
    ),
    (
        "reclaiming meets assign",
        true,
        |w| {
            w.assign(0, "a", 3, View::default());
            w.run_last().expect("quiet");
            w.release_handle("a", View::default());
            w.run_last().expect("quiet");
            w.now.0 += 120_000_000_000;
        },
        |w| {
            w.assign(0, "b", 1, View::default());
            w.assign(1, "c", 1, View::default());
        },
    ),
    (
        "borrowing meets release of the last address",
        false,
        |w| {
            w.assign(0, "a", 3, View::default());
        },
        |w| {
            w.assign(1, "b", 1, View::default());
            w.release_handle("a", View::default());
        },
    ),
    (
        "collection meets claim",
        false,
        |_| {},
        |w| {
            w.assign(0, "a", 1, View::default());
            w.collect(Default::default(), Some(0));
        },
    ),
    (
        "collection meets release",
        false,
        |w| w.assign(0, "a", 2, View::default()),
        |w| {
            w.release_handle("a", View::default());
            w.collect(Default::default(), Some(0));
        },
    ),
    (
        "two nodes want the one address of a handle",
        false,
        |w| w.limit = 1,
        |w| {
            w.assign(0, "vm", 1, View::default());
            w.assign(1, "vm", 1, View::default());
        },
    ),
];

/// Walks one case.
pub fn check(name: &str, strict: bool, before: Start, start: Start) -> Result<Walked, String> {
    let mut world = world(strict, before);
    start(&mut world);
    let mut walked = Walked::default();
    walk(&world, None, SWITCHES, &mut walked).map_err(|error| format!("{name}: {error}"))?;
    Ok(walked)
}
