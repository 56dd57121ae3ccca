//! Tests against the real kernel: in namespaces, and in virtual machines.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::command::{cargo, has, is_root, run};
use crate::k8s;
use crate::suite::{Counts, cargo_test, close};

/// Programs that some lab tests run as real peers, with what they are for. Such a test skips itself without them.
const PEERS: [(&str, &str); 7] = [
    ("bird", "BGP against BIRD 2"),
    ("vtysh", "BGP against FRR, and two racks"),
    ("etcd", "the datastore etcd"),
    ("gobgpd", "BGP against GoBGP"),
    ("ipset", "policy in iptables"),
    ("nft", "reading back rules with another tool"),
    ("ip", "reading back routes with another tool"),
];

/// Test files whose labs run on etcd too.
const ON_ETCD: [&str; 5] = ["quick_walk", "faults", "lab_nodes", "roles", "vxlan"];

/// Test files whose labs run on a Kubernetes API too; `--full` runs all that run on etcd.
const ON_KUBERNETES: [&str; 1] = ["quick_walk"];

/// Test files whose labs run on iptables too, of both flavours.
const ON_IPTABLES: [&str; 5] = ["quick_walk", "host_endpoints", "faults", "never_open", "drops"];

/// Runs the lab tests and prints the summary; `full`: random and repeated ones at full length, with their figures shown.
pub fn lab(filter: Option<&str>, full: bool) -> Result<ExitCode> {
    Ok(close(lab_counts(filter, full)?))
}

/// Runs every fault that is made on purpose, and lists how each shows.
pub fn mutants() -> Result<ExitCode> {
    need_root()?;
    let args = ["test", "--package", "tortie-oracle", "--locked", "--test", "lab_mutants", "--"];
    let shown = ["--ignored", "--nocapture", "--test-threads=1"];
    Ok(close(cargo_test(&mut cargo(&[&args[..], &shown].concat()))?))
}

fn need_root() -> Result<()> {
    if !is_root() {
        bail!("the lab needs root: it makes network namespaces");
    }
    Ok(())
}

/// Runs the lab tests, one at a time: each owns the machine's namespaces while it runs.
pub fn lab_counts(filter: Option<&str>, full: bool) -> Result<Counts> {
    need_root()?;
    for (program, what) in PEERS {
        if !has(program) {
            println!("skipped: {what} ({program} is not installed)");
        }
    }
    // The whole workspace with its tests, as below: a package alone would have other features, and build all anew.
    run(&mut cargo(&["build", "--workspace", "--locked", "--bins", "--tests"]))?;
    let mut args = vec!["test", "--workspace", "--locked", "--no-fail-fast", "--", "--ignored", "--test-threads=1"];
    args.extend(filter);
    let mut command = cargo(&args);
    if full {
        command.arg("--nocapture").env("TORTIE_FULL", "1");
    }
    let mut counts = cargo_test(&mut command)?;
    if has("etcd") {
        counts.add(again("etcd", &ON_ETCD, ("TORTIE_LAB_STORE", "etcd"), filter)?);
    }
    let api_server = k8s::folder().join("bin/kube-apiserver");
    if has("etcd") && api_server.exists() {
        let files: &[&str] = if full { &ON_ETCD } else { &ON_KUBERNETES };
        counts.add(again("a Kubernetes API", files, ("TORTIE_LAB_STORE", "kubernetes"), filter)?);
    } else {
        println!("skipped: labs on a Kubernetes API ({} is not there)", api_server.display());
    }
    for rules in ["iptables-legacy", "iptables-nft"] {
        if has(rules) && has("ipset") {
            counts.add(again(rules, &ON_IPTABLES, ("TORTIE_LAB_RULES", rules), filter)?);
        }
    }
    Ok(Counts { ignored: 0, ..counts })
}

/// Runs some of the lab tests again, with labs that a variable tells to use something else.
fn again(what: &str, files: &[&str], (name, value): (&str, &str), filter: Option<&str>) -> Result<Counts> {
    println!("again, with labs on {what}: {}", files.join(", "));
    let mut args = vec!["test", "--workspace", "--locked", "--no-fail-fast"];
    args.extend(files.iter().flat_map(|name| ["--test", name]));
    args.extend(["--", "--ignored", "--test-threads=1"]);
    args.extend(filter);
    cargo_test(cargo(&args).env(name, value))
}
