//! calicoctl and a node's first look on etcd.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tortie_store::Store;

use crate::Setting;
use crate::bed::Bed;
use crate::node::names;
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;
use crate::scenario;
use crate::stores::etcd::Etcd;
use crate::stores::{manifests, snapshot as first_look};

/// What a whole process took.
struct Took {
    wall: Duration,
    /// MiB at most.
    peak: f64,
}

/// Runs a program to its end, its output into a file.
fn whole(command: &mut Command, out: &Path) -> Result<Took> {
    let file = std::fs::File::create(out)?;
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(file).stderr(Stdio::inherit()).spawn()?;
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let mut status = 0;
    // SAFETY: the child is this process's own and nobody else waits for it; both pointers are to this frame.
    let ended = unsafe { libc::wait4(child.id().cast_signed(), &raw mut status, 0, &raw mut usage) };
    let wall = begun.elapsed();
    if ended < 0 || status != 0 {
        let _ = child.kill();
        bail!("{command:?} ended with {status}: {}", std::fs::read_to_string(out).unwrap_or_default());
    }
    Ok(Took { wall, peak: usage.ru_maxrss as f64 / 1024.0 })
}

#[derive(Default)]
struct Figures {
    seconds: Samples,
    peak: Samples,
}

impl Figures {
    fn push(&mut self, Took { wall, peak }: Took) {
        self.seconds.push(wall.as_secs_f64());
        self.peak.push(peak);
    }

    fn findings(&self, name: &str, most: Option<(f64, f64)>) -> Vec<Finding> {
        let target = |most: Option<f64>| most.map_or(Target::None, Target::AtMost);
        let time = Finding::alone(name, "s", Stat::P50, target(most.map(|(seconds, _)| seconds)), &self.seconds);
        let name = format!("{name}: peak memory");
        let peak = Finding::alone(name, "MiB", Stat::P50, target(most.map(|(_, peak)| peak)), &self.peak);
        time.into_iter().chain(peak).collect()
    }
}

/// calicoctl with many resources, and its start-up.
pub fn calicoctl(setting: &Setting) -> Result<Vec<Finding>> {
    let bed = Bed::new()?;
    let etcd = Etcd::start(&bed, None)?;
    let program = names(&bed, setting)?.join("calicoctl");
    let (count, rounds) = if setting.quick { (500, 1) } else { (10_000, 5) };
    let call = |args: &[&str]| -> Result<Took> {
        let mut command = Command::new(&program);
        whole(command.env_clear().envs(etcd.env()).args(args), &bed.path("out"))
    };
    let mut findings = Vec::new();
    let files: [(&str, &str, fn(usize) -> String); 2] = [
        ("globalnetworksets", "GlobalNetworkSets", manifests::global_network_sets),
        ("networkpolicies", "NetworkPolicies", manifests::network_policies),
    ];
    for (word, title, text) in files {
        let file = bed.path("resources.yaml");
        std::fs::write(&file, text(count))?;
        let file = file.to_str().context("a path in UTF-8")?;
        let scope: &[&str] = if word == "networkpolicies" { &["-A"] } else { &[] };
        let [mut new, mut unchanged, mut got, mut gone] = [(); 4].map(|()| Figures::default());
        for _ in 0..rounds {
            new.push(call(&["apply", "-f", file])?);
            unchanged.push(call(&["apply", "-f", file])?);
            got.push(call(&[&["get", word, "-o", "yaml"], scope].concat())?);
            gone.push(call(&["delete", "-f", file])?);
        }
        findings.extend(new.findings(&format!("apply of {count} {title}, new"), Some((1.5, 60.0))));
        findings.extend(unchanged.findings(&format!("apply of {count} {title}, unchanged"), Some((1.5, 60.0))));
        findings.extend(got.findings(&format!("get -o yaml of {count} {title}"), Some((0.4, 80.0))));
        findings.extend(gone.findings(&format!("delete of {count} {title}"), None));
    }
    findings.extend(nodes(setting, &bed, &etcd, &program)?);
    Ok(findings)
}

/// `calicoctl get nodes`, beside the least that a process takes.
fn nodes(setting: &Setting, bed: &Bed, etcd: &Etcd, program: &Path) -> Result<Vec<Finding>> {
    let node = json!({
        "apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": { "name": "node0" },
        "spec": { "bgp": { "ipv4Address": "10.99.0.2/24" } },
    });
    crate::stores::open(&etcd.endpoints)?.write_one(scenario::write(&node)?)?;
    let out: PathBuf = bed.path("out");
    let (mut ours, mut floor, mut peak) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..setting.times(100) {
        let Took { wall, peak: most } = whole(Command::new(program).envs(etcd.env()).args(["get", "nodes"]), &out)?;
        ours.push_ms(wall);
        peak.push(most);
        floor.push_ms(whole(&mut Command::new("/bin/true"), &out)?.wall);
    }
    let time = Finding::beside("get nodes", "ms", Stat::P50, Target::AtMost(8.0), &ours, ("/bin/true", &floor));
    let peak = Finding::alone("get nodes: peak memory", "MiB", Stat::P50, Target::AtMost(16.0), &peak);
    Ok(time.into_iter().chain(peak).collect())
}

/// A node's first look at a large cluster.
pub fn snapshot(setting: &Setting) -> Result<Vec<Finding>> {
    let bed = Bed::new()?;
    let etcd = Etcd::start(&bed, None)?;
    let count = if setting.quick { 2_000 } else { 100_000 };
    first_look::populate(&crate::stores::open(&etcd.endpoints)?, count)?;
    let [mut listed, mut calculated, mut peak, mut floor] = [(); 4].map(|()| Samples::default());
    for _ in 0..if setting.quick { 1 } else { 5 } {
        let program = std::env::current_exe()?;
        let output = Command::new(program).args(["snapshot", "--", &etcd.endpoints]).output()?;
        if !output.status.success() {
            bail!("the first look: {}", String::from_utf8_lossy(&output.stderr));
        }
        let seen: first_look::Seen = serde_json::from_slice(&output.stdout).context("what the first look printed")?;
        if seen.facts != count {
            bail!("{} facts of {count} were listed", seen.facts);
        }
        listed.push(seen.listed);
        calculated.push(seen.calculated);
        peak.push(seen.peak);
        let mut etcdctl = Command::new("etcdctl");
        etcdctl.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", &etcd.endpoints);
        floor.push(whole(etcdctl.args(["get", "--prefix", "/calico/"]), &bed.path("out"))?.wall.as_secs_f64());
    }
    let peer = ("etcdctl get --prefix", &floor);
    let name = format!("first snapshot of {count} objects");
    let all = [
        Finding::beside(format!("{name}: calculated"), "s", Stat::P50, Target::AtMost(2.0), &calculated, peer),
        Finding::beside(format!("{name}: listed"), "s", Stat::P50, Target::None, &listed, peer),
        Finding::alone(format!("{name}: peak memory"), "MiB", Stat::P50, Target::None, &peak),
    ];
    Ok(all.into_iter().flatten().collect())
}
