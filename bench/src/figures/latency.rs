//! From a write of a policy, a label or a new endpoint, in another process than the node's, to the kernel's own word that it changed.
//!
//! Time runs from before the write (so the disk's flush is in it) until the message of the kernel with the new address
//! or interface arrives here. The floor is the write alone; what the node and the kernel add to it is shown too.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value as Json;
use tortie_store::Store;
use tortie_store_sqlite::SqliteStore;

use crate::Setting;
use crate::bed::Bed;
use crate::node::{Agent, Wish};
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;
use crate::scenario::{self, Scale, populate};
use crate::topology::host;
use crate::watcher::Watcher;

const SCALE: Scale = Scale { local: 100, remote: 10_000, policies: 1_000, network_sets: 0 };

/// Between two writes, so that each meets a node at rest.
const GAP: Duration = Duration::from_millis(30);
/// How long the kernel's message is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs it with the default durability, then with `TORTIE_SQLITE_SYNC=normal`.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (sync_normal, title) in [(false, ""), (true, ", sync normal")] {
        findings.extend(writes(setting, Wish { sync_normal }, title)?);
    }
    Ok(findings)
}

fn writes(setting: &Setting, wish: Wish, title: &str) -> Result<Vec<Finding>> {
    let mut bed = Bed::new()?;
    let host = host(&mut bed, "host")?;
    let database = bed.path("tortie.db");
    let store = SqliteStore::open(crate::node::store_options(&database, wish))?;
    populate(&store, SCALE)?;
    let agent = Agent::start(&bed, setting, &host.netns, &database, wish)?;
    let watcher = Watcher::start(&host.netns)?;
    let count = setting.times(300);
    let policies = measure(&store, &watcher, count, |n| {
        let address = Ipv4Addr::new(198, 18, u8::try_from(n / 250).unwrap_or(255), u8::try_from(n % 250).unwrap_or(0));
        (scenario::policy(7, Some(address)), address.octets().to_vec())
    })?;
    let labels = measure(&store, &watcher, count, |n| {
        // Endpoints of other roles get the role that policies of one local endpoint select by.
        let endpoint = 1_000 + n * 7;
        let endpoint = if endpoint % 100 == 5 { endpoint + 1 } else { endpoint };
        (scenario::remote_endpoint(endpoint, 5), scenario::remote_address(endpoint).octets().to_vec())
    })?;
    let endpoints = measure(&store, &watcher, count, |n| {
        let number = SCALE.local + n;
        (scenario::local_endpoint(number), scenario::interface(number).into_bytes())
    })?;
    let (streamed, written) = stream(setting, &store, &watcher)?;
    drop(agent);
    let target = if title.is_empty() { Target::AtMost(5.0) } else { Target::None };
    let mut findings = Vec::new();
    for (name, times) in [("policy write", &policies), ("label write", &labels), ("endpoint write", &endpoints)] {
        let Times { seen, written, after } = times;
        let whole = format!("{name} to kernel change{title}");
        findings.extend(Finding::beside(whole, "ms", Stat::P99, target, seen, ("the write alone", written)));
        let rest = format!("{name}, from its return to kernel change{title}");
        findings.extend(Finding::alone(rest, "ms", Stat::P99, Target::None, after));
    }
    let rate = Target::AtLeast(20_000.0);
    let name = format!("label changes in a row until the kernel has the last{title}");
    findings.extend(Finding::beside(name, "1/s", Stat::P50, rate, &streamed, ("the writes alone", &written)));
    Ok(findings)
}

/// Labels of two thousand remote endpoints, a hundred in a write: how many a second until the kernel has the last, and
/// how many are written.
fn stream(setting: &Setting, store: &SqliteStore, watcher: &Watcher) -> Result<(Samples, Samples)> {
    let (mut seen, mut written) = (Samples::default(), Samples::default());
    for role in [6, 8, 9, 10, 11].into_iter().take(setting.times(5)) {
        let changed: Vec<usize> = (3_000..5_000).filter(|n| n % 100 != role).collect();
        let writes = changed.iter().map(|n| scenario::write(&scenario::remote_endpoint(*n, role)));
        let writes = writes.collect::<Result<Vec<_>>>()?;
        std::thread::sleep(Duration::from_secs(1));
        let last = scenario::remote_address(4_999).octets();
        let work = || writes.chunks(100).try_for_each(|part| Ok(store.write_all(part).map(drop)?));
        let Some((at, returned)) = watcher.after(&last, PATIENCE, work)? else {
            bail!("the kernel did not tell of the last of {} labels within {} s", writes.len(), PATIENCE.as_secs());
        };
        seen.push(writes.len() as f64 / at.as_secs_f64());
        written.push(writes.len() as f64 / returned.as_secs_f64());
    }
    Ok((seen, written))
}

#[derive(Default)]
struct Times {
    /// From before the write until the kernel told.
    seen: Samples,
    /// Of the write alone.
    written: Samples,
    /// From the write's return until the kernel told; zero where the kernel was first.
    after: Samples,
}

fn measure(
    store: &SqliteStore,
    watcher: &Watcher,
    count: usize,
    next: impl Fn(usize) -> (Json, Vec<u8>),
) -> Result<Times> {
    let mut times = Times::default();
    for n in 0..count {
        let (json, told) = next(n);
        let write = scenario::write(&json)?;
        let work = || Ok(store.write_one(write).map(drop)?);
        let Some((at, returned)) = watcher.after(&told, PATIENCE, work)? else {
            bail!("the kernel did not tell of write {n} within {} s", PATIENCE.as_secs());
        };
        times.seen.push_ms(at);
        times.written.push_ms(returned);
        times.after.push_ms(at.saturating_sub(returned));
        std::thread::sleep(GAP);
    }
    Ok(times)
}
