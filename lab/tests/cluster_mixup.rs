//! A node whose settings were exchanged for those of another cluster: refused at once, with the reason, and nothing of
//! what lives here or there is touched.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/facts.rs"]
mod facts;
#[path = "support/run.rs"]
mod run;

use std::fs;
use std::time::Duration;

use facts::holds;
use run::run;
use tortie_lab::{Daemon, Lab, Node, Store, wait};

const START: Duration = Duration::from_secs(60);

/// The environment of a program that uses the etcd at this port of the node.
fn env(port: u16) -> [(&'static str, String); 2] {
    [("DATASTORE_TYPE", "etcdv3".to_owned()), ("ETCD_ENDPOINTS", format!("http://127.0.0.1:{port}"))]
}

fn refs<'a>(env: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    env.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// What the etcd at a port holds under a prefix, as `etcdctl` prints it.
fn held(node: &Node, port: u16, prefix: &str) -> Option<String> {
    let mut command = node.command("etcdctl").unwrap();
    command.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", format!("http://127.0.0.1:{port}"));
    let output = command.args(["get", "--prefix", prefix]).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// An etcd of one member on the node's loopback.
fn etcd(lab: &Lab, node: &Node, port: u16) -> Daemon {
    let folder = lab.folder(node.name()).unwrap().join(format!("etcd-{port}"));
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", port + 1));
    let cluster = format!("default={peer}");
    let mut args = vec!["--data-dir", folder.to_str().unwrap(), "--listen-client-urls", &client];
    args.extend(["--advertise-client-urls", &client, "--listen-peer-urls", &peer]);
    args.extend(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &cluster]);
    args.extend(["--unsafe-no-fsync", "--log-level", "error"]);
    let daemon = lab.spawn(node.name(), "etcd", &args).unwrap();
    assert!(wait(START, || held(node, port, "/")).is_some(), "{}", daemon.log());
    daemon
}

fn rules(node: &Node) -> String {
    let output = node.command("nft").unwrap().args(["-s", "list", "table", "inet", "tortie"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    // Whether a process owns the table is no rule.
    text.lines().filter(|line| !line.contains("flags") && !line.starts_with("table")).collect::<Vec<_>>().join("\n")
}

/// The value of `clusterGUID` in what etcd holds.
fn guid(held: &str) -> &str {
    let rest = held.split(r#""clusterGUID":""#).nth(1).unwrap_or_else(|| panic!("no cluster: {held}"));
    rest.split('"').next().unwrap()
}

#[test]
#[ignore = "needs root"]
fn the_datastore_of_another_cluster_is_refused_at_once_with_the_reason() {
    if std::process::Command::new("etcd").arg("--version").output().is_err() {
        eprintln!("skipped: etcd is not installed (Debian: etcd-server, etcd-client)");
        return;
    }
    let lab = Lab::builder().nodes(1).store(Store::Sqlite).up().unwrap();
    let node = lab.node(1);
    let (own, other) = (env(2379), env(3379));
    let _etcds = [etcd(&lab, node, 2379), etcd(&lab, node, 3379)];
    // The other cluster has its identity and a pool, but no such node.
    let pool = lab.folder(node.name()).unwrap().join("pool.yaml");
    let spec = "{cidr: 10.77.0.0/16}";
    let text = format!("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: theirs}}\nspec: {spec}\n");
    fs::write(&pool, text).unwrap();
    let applied = run(node, "calicoctl", &["apply", "-f", pool.to_str().unwrap()], &refs(&other));
    assert_eq!(applied.code, Some(0), "{}", applied.text);

    node.start_with(&["node"], &refs(&own)).unwrap();
    node.wait_in_sync(START).unwrap();
    let pod = node.add_pod("default", "here", &[]).unwrap();
    let cluster = "/calico/resources/v3/projectcalico.org/clusterinformations/";
    let (ours, theirs) = (held(node, 2379, cluster).unwrap(), held(node, 3379, cluster).unwrap());
    assert_ne!(guid(&ours), guid(&theirs));
    node.kill9().unwrap();

    // The address of the other cluster's etcd in the settings, as after a node was added to the wrong cluster.
    let (before, routes) = (rules(node), node.ip_route(false).unwrap());
    let there = held(node, 3379, "/calico").unwrap();
    let ended = run(node, "tortie", &["node"], &refs(&other));
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    holds(&ended.text, &[guid(&ours), guid(&theirs), "127.0.0.1:3379", "ETCD_ENDPOINTS", "--adopt"]);
    assert_eq!((rules(node), node.ip_route(false).unwrap()), (before.clone(), routes), "the kernel is left as it is");
    assert_eq!(held(node, 3379, "/calico").unwrap(), there, "nothing is written to the other cluster");

    // The same settings had a misspelt backend.
    let mut misspelt = own.to_vec();
    misspelt.push(("CALICO_NETWORKING_BACKEND", "brid".to_owned()));
    let ended = run(node, "tortie", &["node"], &refs(&misspelt));
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    holds(&ended.text, &["CALICO_NETWORKING_BACKEND", "\"brid\"", "\"bird\""]);
    assert_eq!(rules(node), before);

    // With the settings put right, all is as it was.
    node.start_with(&["node"], &refs(&own)).unwrap();
    node.wait_in_sync(START).unwrap();
    pod.delete().unwrap();
}
