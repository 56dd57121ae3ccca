//! Tests against the real kernel: in namespaces, and in virtual machines.

use std::path::{Path, PathBuf};
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
const ON_ETCD: [&str; 7] = ["quick_walk", "faults", "lab_nodes", "roles", "vxlan", "bad_input", "datastore_lock"];

/// Test files whose labs run on a Kubernetes API too.
const ON_KUBERNETES: [&str; 1] = ["quick_walk"];

/// Test files that are about one store, or whose faults the store's own packets would meet. `--full` runs all others on etcd and on a Kubernetes API.
const OF_ONE_STORE: [&str; 7] = [
    "cluster_mixup",
    "kubernetes_policies",
    "sandboxes",
    "self_test",
    "store_faults",
    "store_shapes",
    "store_shapes_kubernetes",
];

/// Test files whose labs run on iptables too, of both flavours.
const ON_IPTABLES: [&str; 5] = ["quick_walk", "host_endpoints", "faults", "never_open", "drops"];

/// Runs the lab tests and prints the summary; `full`: random and repeated ones at full length, with their figures shown.
pub fn lab(filter: Option<&str>, full: bool) -> Result<ExitCode> {
    Ok(close(lab_counts(filter, full)?))
}

/// A store of labs beside SQLite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OtherStore {
    /// A real etcd, with TLS.
    Etcd,
    /// A real kube-apiserver.
    Kubernetes,
}

/// Runs every test file that is not about one store with labs on this one.
pub fn lab_on(store: OtherStore, filter: Option<&str>) -> Result<ExitCode> {
    need_root()?;
    let api_server = api_server();
    let (what, name) = match store {
        OtherStore::Etcd => ("etcd", "etcd"),
        OtherStore::Kubernetes => ("a Kubernetes API", "kubernetes"),
    };
    if !has("etcd") {
        bail!("labs on {what} need etcd, which is not installed");
    }
    if store == OtherStore::Kubernetes && !api_server.exists() {
        bail!("labs on {what} need {}, which is not there: lab/k8s/build.sh makes it", api_server.display());
    }
    run(&mut cargo(&["build", "--workspace", "--locked", "--bins", "--tests"]))?;
    let all = files_of_labs()?;
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let counts = again(what, &all, ("TORTIE_LAB_STORE", name), filter)?;
    Ok(close(Counts { ignored: 0, ..counts }))
}

fn api_server() -> PathBuf {
    k8s::folder().join("bin/kube-apiserver")
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
    let all = if full { files_of_labs()? } else { Vec::new() };
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    if has("etcd") {
        let files: &[&str] = if full { &all } else { &ON_ETCD };
        counts.add(again("etcd", files, ("TORTIE_LAB_STORE", "etcd"), filter)?);
    }
    let api_server = api_server();
    if has("etcd") && api_server.exists() {
        let files: &[&str] = if full { &all } else { &ON_KUBERNETES };
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

/// The test files of the lab that are not about one store.
fn files_of_labs() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/tests"))? {
        let path = entry?.path();
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        names.extend(stem.filter(|name| path.extension().is_some() && !OF_ONE_STORE.contains(&name.as_str())));
    }
    names.sort();
    Ok(names)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_file_that_is_named_is_there() {
        let all = files_of_labs().expect("the lab's tests");
        let on_stores = ON_ETCD.iter().chain(&ON_KUBERNETES).chain(&ON_IPTABLES);
        for name in on_stores {
            assert!(all.iter().any(|found| found == name), "{name}");
        }
        for name in OF_ONE_STORE {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lab/tests").join(name);
            assert!(path.with_extension("rs").exists() && !all.contains(&name.to_owned()), "{name}");
        }
    }
}
