//! The calculation alone, on the workloads of upstream's own benchmarks, each run in a process of its own.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::Setting;
use crate::calculation::{Seen, Workload};
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;

/// Name, workload, most seconds, most MiB.
const SNAPSHOTS: [(&str, Workload, f64, f64); 4] = [
    ("10,000 isolated tenants, 100 local endpoints", Workload::Tenants(10_000), 0.06, 8.0),
    ("100,000 isolated tenants, 100 local endpoints", Workload::Tenants(100_000), 0.7, 80.0),
    ("10,000 endpoints, 1,000 network-set policies", Workload::NetworkSets, 0.15, 25.0),
    ("250,000 endpoints, 10,000 policies by label", Workload::Labels, 1.0, 100.0),
];

/// Name, workload, unit, how many of it make a second, the most.
const STEPS: [(&str, Workload, &str, f64, f64); 6] = [
    ("an endpoint against 1,000 selectors", Workload::Endpoint(1_000), "ms", 1e3, 0.02),
    ("an endpoint against 10,000 selectors", Workload::Endpoint(10_000), "ms", 1e3, 0.05),
    ("a selector comes, 10,000 endpoints", Workload::Selector(10_000), "ms", 1e3, 0.1),
    ("a selector comes, 100,000 endpoints", Workload::Selector(100_000), "ms", 1e3, 1.0),
    ("selector: parse", Workload::Parse, "us", 1e6, 1.0),
    ("selector: evaluate", Workload::Evaluate, "ns", 1e9, 50.0),
];

/// Every workload, snapshots five times.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let rounds = if setting.quick { 1 } else { 5 };
    let mut findings = Vec::new();
    for (name, workload, most_seconds, most_heap) in SNAPSHOTS {
        let (mut seconds, mut heap) = (Samples::default(), Samples::default());
        for _ in 0..rounds {
            let seen = one(workload)?;
            seconds.extend(seen.seconds.into_iter().collect());
            heap.push(seen.heap);
        }
        let time = Finding::alone(format!("{name}: time"), "s", Stat::P50, Target::AtMost(most_seconds), &seconds);
        let held = Finding::alone(format!("{name}: heap"), "MiB", Stat::P50, Target::AtMost(most_heap), &heap);
        findings.extend(time.into_iter().chain(held));
    }
    for (name, workload, unit, scale, most) in STEPS {
        let seen: Samples = one(workload)?.seconds.into_iter().map(|seconds| seconds * scale).collect();
        findings.extend(Finding::alone(name, unit, Stat::P50, Target::AtMost(most), &seen));
    }
    Ok(findings)
}

fn one(workload: Workload) -> Result<Seen> {
    let output = Command::new(std::env::current_exe()?).args(["calculation", "--", workload.name()]).output()?;
    if !output.status.success() {
        bail!("{}: {}", workload.name(), String::from_utf8_lossy(&output.stderr));
    }
    let seen: Seen = serde_json::from_slice(&output.stdout).context("what the workload printed")?;
    if seen.made.iter().all(|count| *count == 0) {
        bail!("{}: nothing came out", workload.name());
    }
    Ok(seen)
}
