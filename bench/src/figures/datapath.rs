//! Pod to pod on one host: round trip, new connection, throughput, beside the bare routed path of the same run.
//!
//! Pods of the bare path and of each number of policies exist at the same time, each on a host of its own, and take
//! turns, so that all see the same load of the machine. Each figure is made of the medians of the turns.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;
use tortie_store::Store;
use tortie_store_sqlite::SqliteStore;

use crate::Setting;
use crate::bed::{Bed, Running};
use crate::node::{Agent, Wish, store_options};
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;
use crate::scenario::write;
use crate::topology::{Host, bare_pod, host};
use crate::traffic::{self, Kind};

/// Addresses of the two pods, the same on every host.
const PODS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 65, 200, 2), Ipv4Addr::new(10, 65, 200, 3)];
const POLICIES: [usize; 3] = [1, 100, 1_000];

/// A host with two pods, one serving.
struct Path {
    title: String,
    client: PathBuf,
    _server: Running,
    _agent: Option<Agent>,
    _bed: Bed,
    _host: Host,
    results: [Samples; 3],
}

const KINDS: [Kind; 3] = [Kind::RoundTrip, Kind::Connection, Kind::Stream];

/// Runs it.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let mut paths = vec![path(setting, None)?];
    for count in POLICIES {
        paths.push(path(setting, Some(count))?);
    }
    for turn in 0..setting.times(7) {
        for (at, kind) in KINDS.into_iter().enumerate() {
            // A stream needs all processors to itself, so others' work shows: many short ones.
            let (times, seconds) = if kind == Kind::Stream { (5, 0.3) } else { (1, 1.0) };
            for _ in 0..times {
                for path in &mut paths {
                    let seen =
                        traffic::measure(&path.client, kind, PODS[1], if setting.quick { 0.1 } else { seconds })?;
                    // The first turn warms up.
                    if turn > 0 {
                        path.results[at].push(seen.p50);
                    }
                }
            }
        }
    }
    let (bare, others) = paths.split_first().expect("the bare path is there");
    let mut findings = Vec::new();
    for path in others {
        let first = path.title == "1 policy";
        for (at, (name, unit, target)) in [
            ("TCP round trip p50", "µs", Target::RatioAtMost(1.25)),
            ("new connection p50", "µs", Target::RatioAtMost(1.25)),
            ("throughput, one stream", "Gbit/s", Target::RatioAtLeast(0.97)),
        ]
        .into_iter()
        .enumerate()
        {
            let target = if first { target } else { Target::None };
            let name = format!("{name}, {}", path.title);
            let beside = ("bare path", &bare.results[at]);
            findings.extend(Finding::beside(name, unit, Stat::P50, target, &path.results[at], beside));
        }
    }
    Ok(findings)
}

fn path(setting: &Setting, policies: Option<usize>) -> Result<Path> {
    let mut bed = Bed::new()?;
    let host = host(&mut bed, "host")?;
    let title = match policies {
        None => "bare".to_owned(),
        Some(1) => "1 policy".to_owned(),
        Some(count) => format!("{count} policies"),
    };
    let client = bare_pod(&mut bed, &host.netns, "pod-a", "cali90000", PODS[0])?;
    let server = bare_pod(&mut bed, &host.netns, "pod-b", "cali90001", PODS[1])?;
    let agent = match policies {
        None => None,
        Some(count) => {
            let database = bed.path("tortie.db");
            populate(&SqliteStore::open(store_options(&database, Wish { sync_normal: true }))?, count)?;
            Some(Agent::start(&bed, setting, &host.netns, &database, Wish::default())?)
        }
    };
    let running = traffic::serve(&server)?;
    Ok(Path { title, client, _server: running, _agent: agent, _bed: bed, _host: host, results: Default::default() })
}

/// Policies that select both pods; only the last in order admits anything that is sent here.
fn populate(store: &dyn Store, count: usize) -> Result<()> {
    let api = "projectcalico.org/v3";
    let mut all = vec![json!({
        "apiVersion": api, "kind": "IPPool", "metadata": { "name": "pool1" },
        "spec": { "cidr": "10.65.0.0/16", "ipipMode": "Never", "vxlanMode": "Never", "blockSize": 26, "nodeSelector": "all()" },
    })];
    for (n, address) in PODS.into_iter().enumerate() {
        let pod = format!("pod{}", 90_000 + n);
        all.push(json!({
            "apiVersion": api, "kind": "WorkloadEndpoint",
            "metadata": {
                "name": format!("node0-k8s-{pod}-eth0"), "namespace": "default",
                "labels": { "app": "perf", "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s" },
            },
            "spec": {
                "orchestrator": "k8s", "node": "node0", "containerID": format!("cid{n}"), "pod": pod, "endpoint": "eth0",
                "ipNetworks": [format!("{address}/32")], "profiles": ["kns.default"], "interfaceName": format!("cali9000{n}"),
            },
        }));
    }
    for n in 0..count {
        let last = n + 1 == count;
        let (ingress, types) = if last {
            (json!([{ "action": "Allow" }]), json!(["Ingress", "Egress"]))
        } else {
            let rule = json!([{
                "action": "Allow", "protocol": "TCP", "source": { "nets": [format!("198.18.{}.0/24", n % 250)] },
                "destination": { "ports": [10_000 + n] },
            }]);
            (rule, json!(["Ingress"]))
        };
        let mut spec =
            json!({ "tier": "default", "order": n, "selector": "app == 'perf'", "types": types, "ingress": ingress });
        if last {
            spec["egress"] = json!([{ "action": "Allow" }]);
        }
        all.push(json!({
            "apiVersion": api, "kind": "NetworkPolicy",
            "metadata": { "name": format!("dp-{n:06}"), "namespace": "default" }, "spec": spec,
        }));
    }
    let writes = all.iter().map(write).collect::<Result<Vec<_>>>()?;
    for part in writes.chunks(500) {
        store.write_all(part)?;
    }
    Ok(())
}
