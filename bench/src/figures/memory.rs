//! The node's memory with 100 local endpoints, 1,000 policies and 10,000 remote endpoints, and its time to in sync;
//! the same with network sets, and with more local endpoints.

use anyhow::Result;
use tortie_store_sqlite::SqliteStore;

use crate::Setting;
use crate::bed::Bed;
use crate::node::{Agent, Wish, store_options};
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;
use crate::scenario::{self, Scale, populate};
use crate::topology::host;

const EMPTY: Scale = Scale { local: 0, remote: 0, policies: 0, network_sets: 0 };
const SCALE: Scale = Scale { local: 100, remote: 10_000, policies: 1_000, network_sets: 0 };

/// Name, scale, most milliseconds, most milliseconds of CPU, most MiB at the peak.
const STARTS: [(&str, Scale, f64, f64, f64); 2] = [
    ("100 local endpoints", Scale { network_sets: 10, ..SCALE }, 300.0, 400.0, 36.0),
    ("1,000 local endpoints", Scale { local: 1_000, network_sets: 10, ..SCALE }, 800.0, 1_000.0, 60.0),
];

/// Runs it three times, and an empty node as the floor.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let rounds = if setting.quick { 1 } else { 3 };
    let empty = costs(setting, EMPTY, rounds, false)?;
    let full = costs(setting, SCALE, rounds, false)?;
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

/// Start to in sync with ten network sets of 10,000 prefixes; local endpoints have devices, so routes are written too.
pub fn start(setting: &Setting) -> Result<Vec<Finding>> {
    let rounds = if setting.quick { 1 } else { 3 };
    let empty = costs(setting, EMPTY, rounds, false)?;
    let mut findings = Vec::new();
    for (name, scale, most_ms, most_cpu, most_mib) in STARTS {
        let full = costs(setting, scale, rounds, true)?;
        let find = |what: &str, unit, most, which: fn(&Costs) -> &Samples| {
            let beside = ("an empty node", which(&empty));
            Finding::beside(format!("{name}: {what}"), unit, Stat::P50, Target::AtMost(most), which(&full), beside)
        };
        findings.extend(
            [
                find("time from start to in sync", "ms", most_ms, |costs| &costs.in_sync),
                find("CPU until a second after it", "ms", most_cpu, |costs| &costs.cpu),
                find("peak resident memory", "MiB", most_mib, |costs| &costs.peak),
            ]
            .into_iter()
            .flatten(),
        );
    }
    Ok(findings)
}

#[derive(Default)]
struct Costs {
    resident: Samples,
    peak: Samples,
    in_sync: Samples,
    cpu: Samples,
}

fn costs(setting: &Setting, scale: Scale, rounds: usize, devices: bool) -> Result<Costs> {
    let mut costs = Costs::default();
    for _ in 0..rounds {
        let mut bed = Bed::new()?;
        let host = host(&mut bed, "host")?;
        if devices {
            scenario::devices(&mut bed, &host, scale.local)?;
        }
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
