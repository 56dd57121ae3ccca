//! Many resources at once.

mod common;

use std::ffi::OsString;
use std::time::Instant;

use common::{Cluster, manifest};
use tortie_ctl::{Io, run};

#[test]
fn ten_thousand_resources_are_applied_in_few_calls() {
    let cluster = Cluster::new();
    let text: String = (0..10_000)
        .map(|i| {
            manifest(
                "GlobalNetworkPolicy",
                &format!("p{i}"),
                &format!("order: {i}\nselector: app == 'a{i}'\ningress:\n- action: Allow"),
            )
        })
        .collect();
    let start = Instant::now();
    let out = cluster.good("apply -f -", &text);
    let first = start.elapsed();
    assert_eq!(out, "Successfully applied 10000 'GlobalNetworkPolicy' resource(s)\n");
    let start = Instant::now();
    cluster.good("apply -f -", &text);
    let second = start.elapsed();
    let start = Instant::now();
    let yaml = cluster.good("get gnp -o yaml", "");
    let get = start.elapsed();
    assert_eq!(yaml.matches("kind: GlobalNetworkPolicy\n").count(), 10_000);
    let start = Instant::now();
    cluster.good("delete -f -", &text);
    eprintln!("apply {first:?}, again {second:?}, get {get:?}, delete {:?}", start.elapsed());
}

#[test]
fn who_watches_is_told_how_far_a_long_write_is() {
    let cluster = Cluster::new();
    let text: String = (0..2500).map(|i| manifest("NetworkSet", &format!("s{i}"), "nets: [10.0.0.0/8]")).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut stdin = text.as_bytes();
    let mut io = Io { stdin: &mut stdin, out: &mut out, err: &mut err, env: cluster.env.clone(), watched: true };
    let args = ["calicoctl", "apply", "-f", "-"].map(OsString::from);
    assert_eq!(run(&args, &mut io), 0);
    assert_eq!(String::from_utf8_lossy(&out), "Successfully applied 2500 'NetworkSet' resource(s)\n");
    let told = String::from_utf8_lossy(&err);
    assert_eq!(told, "\r1000 of 2500 applied\r2000 of 2500 applied\r2500 of 2500 applied\n");
}
