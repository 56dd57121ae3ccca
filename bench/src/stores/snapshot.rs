//! A node's first look at a large cluster in etcd: the listing, and the calculation of what it means.

use std::time::Instant;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tortie_calc::{Calculator, Overrides};
use tortie_facts::{Filter, Update};
use tortie_store::{Entry, Reader, Store, Write};

use crate::node::NODE;
use crate::process;
use crate::scenario;

/// What one run saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Seconds until the listing was there.
    pub listed: f64,
    /// Seconds until the calculator had told everything.
    pub calculated: f64,
    /// MiB of the process at most.
    pub peak: f64,
    /// How many facts there were.
    pub facts: usize,
}

/// Fills the store: 80,000 endpoints, a hundred of them this node's, 10,000 network sets, 10,000 policies for them all,
/// in proportion when there are fewer.
pub fn populate(store: &dyn Store, count: usize) -> Result<()> {
    let mut writes: Vec<Write> = Vec::new();
    let tenth = count / 10;
    for n in 0..tenth {
        writes.push(scenario::write(&scenario::policy(n, None))?);
        let nets: Vec<String> = (0..10).map(|at| format!("11.{}.{}.{at}/32", n >> 8 & 255, n & 255)).collect();
        writes.push(scenario::write(&json!({
            "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
            "metadata": { "name": format!("gns-{n:06}"), "labels": { "set": format!("s{n}"), "role": format!("r{}", n % 100) } },
            "spec": { "nets": nets },
        }))?);
    }
    for n in 0..count - 2 * tenth {
        let endpoint = if n < 100 { scenario::local_endpoint(n) } else { scenario::remote_endpoint(n, n % 100) };
        writes.push(scenario::write(&endpoint)?);
    }
    for part in writes.chunks(1000) {
        store.write_all(part)?;
    }
    Ok(())
}

/// The program: `snapshot ENDPOINTS` prints what it saw as JSON.
pub fn program(args: &[String]) -> Result<()> {
    let [endpoints] = args else { bail!("expected snapshot ENDPOINTS") };
    let store = super::open(endpoints)?;
    let begun = Instant::now();
    let mut calculator = Calculator::new(NODE, Overrides::default());
    let listing = store.list(&Filter::All)?;
    let listed = begun.elapsed().as_secs_f64();
    let facts = listing.entries.len();
    for Entry { key, value, revision } in listing.entries {
        calculator.apply(Update { key, value: Some(value), revision });
    }
    calculator.in_sync();
    let batch = calculator.flush();
    let calculated = begun.elapsed().as_secs_f64();
    if batch.is_empty() {
        bail!("nothing came out");
    }
    let seen = Seen { listed, calculated, peak: process::memory(std::process::id())?.peak, facts };
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}
