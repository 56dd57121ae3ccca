//! From a write of a policy or a label, in another process than the node's, to the kernel's own word that it changed.
//!
//! Time runs from before the write (so the disk's flush is in it) until the message of the kernel with the new address
//! arrives here. The floor is the write alone; what the node and the kernel add to it is shown too.

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

const SCALE: Scale = Scale { local: 100, remote: 10_000, policies: 1_000 };

/// Between two writes, so that each meets a node at rest.
const GAP: Duration = Duration::from_millis(30);

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
        (scenario::policy(7, Some(address)), address)
    })?;
    let labels = measure(&store, &watcher, count, |n| {
        // Endpoints of other roles get the role that policies of one local endpoint select by.
        let endpoint = 1_000 + n * 7;
        let endpoint = if endpoint % 100 == 5 { endpoint + 1 } else { endpoint };
        (scenario::remote_endpoint(endpoint, 5), scenario::remote_address(endpoint))
    })?;
    drop(agent);
    let target = if title.is_empty() { Target::AtMost(5.0) } else { Target::None };
    let mut findings = Vec::new();
    for (name, times) in [("policy write", &policies), ("label write", &labels)] {
        let Times { seen, written, after } = times;
        let whole = format!("{name} to kernel change{title}");
        findings.extend(Finding::beside(whole, "ms", Stat::P99, target, seen, ("the write alone", written)));
        let rest = format!("{name}, from its return to kernel change{title}");
        findings.extend(Finding::alone(rest, "ms", Stat::P99, Target::None, after));
    }
    Ok(findings)
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
    next: impl Fn(usize) -> (Json, Ipv4Addr),
) -> Result<Times> {
    let mut times = Times::default();
    for n in 0..count {
        let (json, address) = next(n);
        let write = scenario::write(&json)?;
        let work = || Ok(store.write_one(write).map(drop)?);
        let Some((at, returned)) = watcher.after(&address.octets(), Duration::from_secs(5), work)? else {
            bail!("the kernel did not tell of {address} within 5 s of write {n}");
        };
        times.seen.push_ms(at);
        times.written.push_ms(returned);
        times.after.push_ms(at.saturating_sub(returned));
        std::thread::sleep(GAP);
    }
    Ok(times)
}
