//! CNI ADD and DEL, one at a time: real veth, namespaces made before, the store on disk.
//!
//! Ours and `ptp` take turns, each on a host of its own, so that both see the same load of the machine. Our CPU time is
//! that of the plugin's process and of the node; theirs is that of `ptp` and of the `host-local` that it starts.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tortie_netlink::{Handle, Netns};

use crate::Setting;
use crate::bed::Bed;
use crate::node::{Agent, Wish};
use crate::plugin::{Plugin, children_seconds};
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;
use crate::stores::etcd::Etcd;
use crate::stores::kubernetes::Kubernetes;
use crate::topology::host;

/// Calls that are not counted: caches, first block.
const WARM_UP: usize = 5;

#[derive(Default)]
struct Cost {
    wall: Samples,
    cpu: f64,
}

impl Cost {
    fn cpu_ms(&self) -> Samples {
        Samples::from(self.cpu * 1e3 / self.wall.len() as f64)
    }
}

/// Which store the node uses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// A file, and whether its writes need not survive a power failure.
    File { sync_normal: bool },
    /// An etcd on the host, which does not wait for the disk.
    Etcd,
    /// A Kubernetes API server on the host, over such an etcd.
    Kubernetes,
}

/// Runs it with the default durability, then with `TORTIE_SQLITE_SYNC=normal`.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (sync_normal, title) in [(false, ""), (true, ", sync normal")] {
        findings.extend(rounds(setting, Kept::File { sync_normal }, title)?);
    }
    Ok(findings)
}

/// Runs it with etcd.
pub fn on_etcd(setting: &Setting) -> Result<Vec<Finding>> {
    rounds(setting, Kept::Etcd, ", etcd")
}

/// Runs it with the Kubernetes API; says so and measures nothing where its programs are not there.
pub fn on_kubernetes(setting: &Setting) -> Result<Vec<Finding>> {
    if let Some(missing) = tortie_lab::kubernetes::missing() {
        eprintln!("skipped: {missing} is not there");
        return Ok(Vec::new());
    }
    rounds(setting, Kept::Kubernetes, ", Kubernetes API")
}

/// The container of a call.
fn container(n: usize) -> String {
    format!("ctr-{n:05}")
}

fn rounds(setting: &Setting, kept: Kept, title: &str) -> Result<Vec<Finding>> {
    let mut bed = Bed::new()?;
    let (ours_host, ptp_host) = (host(&mut bed, "ours")?, host(&mut bed, "ptp")?);
    let count = setting.times(200) + WARM_UP;
    let (_etcd, _server);
    let (ours, agent) = match kept {
        Kept::File { sync_normal } => {
            let wish = Wish { sync_normal };
            let agent = Agent::start(&bed, setting, &ours_host.netns, &bed.path("tortie.db"), wish)?;
            (Plugin::ours(&bed, setting, &agent)?, agent)
        }
        Kept::Etcd => {
            let etcd = Etcd::start(&bed, Some(&ours_host.netns))?;
            let agent = Agent::start_on(&bed, setting, &ours_host.netns, etcd.env())?;
            _etcd = etcd;
            (Plugin::ours(&bed, setting, &agent)?, agent)
        }
        Kept::Kubernetes => {
            let server = Kubernetes::start(&bed, &ours_host.netns)?;
            server.make_pods(&ours_host.netns, &(0..count).map(container).collect::<Vec<_>>())?;
            let agent = Agent::start_on(&bed, setting, &ours_host.netns, server.env())?;
            _server = server;
            (Plugin::ours_for_pods(&bed, setting, &agent)?, agent)
        }
    };
    let ptp = Plugin::ptp(&bed).context("ptp is not installed (Debian's containernetworking-plugins): no peer")?;
    let (our_pods, ptp_pods) = (bed.pods("a", count)?, bed.pods("b", count)?);
    let mut findings = Vec::new();
    for command in ["ADD", "DEL"] {
        let (mut our_cost, mut ptp_cost) = (Cost::default(), Cost::default());
        let mut node_before = agent.cpu_seconds()?;
        for n in 0..count {
            if n == WARM_UP {
                (our_cost, ptp_cost) = (Cost::default(), Cost::default());
                node_before = agent.cpu_seconds()?;
            }
            one(&ours, &ours_host.netns, command, &our_pods, n, &mut our_cost)?;
            one(&ptp, &ptp_host.netns, command, &ptp_pods, n, &mut ptp_cost)?;
        }
        our_cost.cpu += agent.cpu_seconds()? - node_before;
        let mut push = |name: &str, stat, target, seen: &Samples, peer: &Samples| {
            let target = match kept {
                Kept::File { sync_normal: false } => target,
                Kept::Etcd if (command, name) == ("ADD", "p50") => Target::AtMost(12.0),
                Kept::Kubernetes if (command, name) == ("ADD", "p50") => Target::AtMost(30.0),
                Kept::File { sync_normal: true } | Kept::Etcd | Kept::Kubernetes => Target::None,
            };
            findings.extend(Finding::beside(
                format!("{command} {name}{title}"),
                "ms",
                stat,
                target,
                seen,
                ("ptp", peer),
            ));
        };
        if command == "ADD" {
            push("p50", Stat::P50, Target::RatioAtMost(1.0), &our_cost.wall, &ptp_cost.wall);
            push("p99", Stat::P99, Target::RatioAtMost(1.0), &our_cost.wall, &ptp_cost.wall);
            push("CPU", Stat::P50, Target::RatioAtMost(1.0), &our_cost.cpu_ms(), &ptp_cost.cpu_ms());
        } else {
            push("p50", Stat::P50, Target::RatioAtMost(0.5), &our_cost.wall, &ptp_cost.wall);
            push("CPU", Stat::P50, Target::None, &our_cost.cpu_ms(), &ptp_cost.cpu_ms());
            let gone = devices_gone(&ours_host.netns)?;
            let name = format!("all devices gone after the last DEL{title}");
            findings.extend(Finding::alone(name, "ms", Stat::P50, Target::None, &gone));
        }
    }
    Ok(findings)
}

fn one(plugin: &Plugin, host: &Netns, command: &str, pods: &[PathBuf], n: usize, cost: &mut Cost) -> Result<()> {
    let (netns, container) = (&pods[n], container(n));
    let before = children_seconds();
    cost.wall.push_ms(host.run(|| plugin.call(command, &container, netns))??);
    cost.cpu += children_seconds() - before;
    Ok(())
}

/// DEL answers before the device is gone: how long the last ones stay.
fn devices_gone(host: &Netns) -> Result<Samples> {
    let begun = Instant::now();
    let mut links = Handle::open_in(host)?;
    while links.links()?.iter().any(|link| link.name.starts_with("cali")) {
        if begun.elapsed() > Duration::from_secs(30) {
            bail!("devices of deleted pods are still there after 30 s");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Samples::from(begun.elapsed().as_secs_f64() * 1e3))
}
