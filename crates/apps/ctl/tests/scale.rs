//! Many resources at once.

mod common;

use std::time::Instant;

use common::{Cluster, manifest};

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
