//! Assigning and releasing addresses on etcd, beside the bare round trips that each needs.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tortie_store::Store;

use crate::Setting;
use crate::bed::Bed;
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;
use crate::scenario;
use crate::stores::addresses::Seen;
use crate::stores::etcd::Etcd;

/// One process, then sixteen at once, each for a node of its own.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (title, nodes, count) in [("one at a time", 1, 500), ("16 processes on 16 nodes", 16, 100)] {
        let bed = Bed::new()?;
        let etcd = Etcd::start(&bed, None)?;
        let pool = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": { "name": "pool1" },
            "spec": { "cidr": "10.65.0.0/16", "ipipMode": "Never", "vxlanMode": "Never", "blockSize": 26, "nodeSelector": "all()" },
        });
        crate::stores::open(&etcd.endpoints)?.write_one(scenario::write(&pool)?)?;
        let seen = processes(&etcd, nodes, setting.times(count))?;
        let of = |pick: fn(&Seen) -> &Vec<f64>| seen.iter().flat_map(pick).copied().collect::<Samples>();
        let bare = "bare round trips";
        findings.extend(Finding::beside(
            format!("assign, {title}"),
            "ms",
            Stat::P50,
            Target::RatioAtMost(1.5),
            &of(|seen| &seen.assign),
            (bare, &of(|seen| &seen.bare_assign)),
        ));
        findings.extend(Finding::beside(
            format!("release, {title}"),
            "ms",
            Stat::P50,
            Target::RatioAtMost(1.5),
            &of(|seen| &seen.release),
            (bare, &of(|seen| &seen.bare_release)),
        ));
        let writes: usize = seen.iter().map(|seen| seen.writes).sum();
        let conflicts: usize = seen.iter().map(|seen| seen.conflicts).sum();
        let share = Samples::from(conflicts as f64 * 100.0 / writes as f64);
        let name = format!("conflicts, {title}, of {writes} writes");
        findings.extend(Finding::alone(name, "%", Stat::P50, Target::AtMost(1.0), &share));
    }
    Ok(findings)
}

fn processes(etcd: &Etcd, nodes: usize, count: usize) -> Result<Vec<Seen>> {
    let program = std::env::current_exe()?;
    let start = |n: usize| {
        Command::new(&program)
            .args(["addresses", "--", &etcd.endpoints, &format!("node{n:02}"), &count.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("can't start a process for a node")
    };
    let running: Vec<_> = (0..nodes).map(start).collect::<Result<_>>()?;
    let mut all = Vec::new();
    for process in running {
        let output = process.wait_with_output()?;
        if !output.status.success() {
            bail!("a node's process: {}", String::from_utf8_lossy(&output.stderr));
        }
        all.push(serde_json::from_slice(&output.stdout).context("what a node's process printed")?);
    }
    Ok(all)
}
