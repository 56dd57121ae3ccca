//! The node's memory with 100 local endpoints, 1,000 policies and 10,000 remote endpoints, and its time to in sync.

use anyhow::Result;
use tortie_store_sqlite::SqliteStore;

use crate::Setting;
use crate::bed::Bed;
use crate::node::{Agent, Wish, store_options};
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;
use crate::scenario::{Scale, populate};
use crate::topology::host;

const SCALE: Scale = Scale { local: 100, remote: 10_000, policies: 1_000 };

/// Runs it three times, and an empty node as the floor.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let rounds = if setting.quick { 1 } else { 3 };
    let empty = costs(setting, Scale { local: 0, remote: 0, policies: 0 }, rounds)?;
    let full = costs(setting, SCALE, rounds)?;
    let find = |name: &str, unit, target, which: fn(&Costs) -> &Samples| {
        Finding::beside(name, unit, Stat::P50, target, which(&full), ("an empty node", which(&empty)))
    };
    Ok([
        find("resident memory, in sync", "MiB", Target::AtMost(40.0), |costs| &costs.resident),
        find("peak resident memory", "MiB", Target::None, |costs| &costs.peak),
        find("time from start to in sync", "ms", Target::None, |costs| &costs.in_sync),
        find("CPU until in sync", "ms", Target::None, |costs| &costs.cpu),
    ]
    .into_iter()
    .flatten()
    .collect())
}

#[derive(Default)]
struct Costs {
    resident: Samples,
    peak: Samples,
    in_sync: Samples,
    cpu: Samples,
}

fn costs(setting: &Setting, scale: Scale, rounds: usize) -> Result<Costs> {
    let mut costs = Costs::default();
    for _ in 0..rounds {
        let mut bed = Bed::new()?;
        let host = host(&mut bed, "host")?;
        let database = bed.path("tortie.db");
        populate(&SqliteStore::open(store_options(&database, Wish { sync_normal: true }))?, scale)?;
        let agent = Agent::start(&bed, setting, &host.netns, &database, Wish::default())?;
        // What is only needed while starting is given back by now.
        std::thread::sleep(std::time::Duration::from_secs(1));
        let memory = agent.memory()?;
        costs.resident.push(memory.resident);
        costs.peak.push(memory.peak);
        costs.in_sync.push_ms(agent.in_sync_after);
        costs.cpu.push(agent.cpu_seconds()? * 1e3);
    }
    Ok(costs)
}
