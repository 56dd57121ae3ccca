//! Moving everything into another datastore, the lock, and old policy names.

mod common;

use common::addresses::{addresses, assign};
use common::{Cluster, manifest};
use similar_asserts::assert_eq;
use tortie_facts::{Filter, Foreign, Key, Value};
use tortie_store::{Expect, Reader, Store, Write};

fn resources() -> String {
    let node = manifest(
        "Node",
        "host-1",
        "bgp:\n  ipv4Address: 10.9.0.1/24\norchRefs:\n- nodeName: kube-1\n  orchestrator: k8s",
    );
    let endpoint =
        "orchestrator: k8s\nnode: host-1\npod: web\nendpoint: eth0\ninterfaceName: cali0\nipNetworks: [10.0.0.9/32]";
    [
        node,
        manifest("IPPool", "a", "cidr: 10.0.0.0/24"),
        manifest("Tier", "t", "order: 5"),
        manifest("GlobalNetworkPolicy", "t.p", "tier: t\nselector: all()\ningress:\n- action: Allow"),
        manifest("NetworkPolicy", "p", "selector: all()"),
        manifest("NetworkSet", "s", "nets: [10.1.0.0/16]"),
        manifest("FelixConfiguration", "node.host-1", "logSeverityScreen: Debug\ndefaultEndpointToHostAction: ACCEPT"),
        manifest("FelixConfiguration", "default", "failsafeInboundHostPorts: [{protocol: tcp, port: 22}, {port: 53}]"),
        manifest("BGPConfiguration", "default", "asNumber: 64999"),
        manifest("IPAMConfiguration", "default", "strictAffinity: false\nautoAllocateBlocks: true"),
        manifest("Profile", "x", "labelsToApply: {a: b}"),
        manifest("WorkloadEndpoint", "host--1-k8s-web-eth0", endpoint),
    ]
    .concat()
}

/// Everything that a store holds, without what differs from store to store.
fn everything(cluster: &Cluster) -> Vec<(String, String)> {
    let entries = cluster.store().list(&Filter::All).expect("listed").entries;
    let plain = |value: &tortie_facts::Value| match value.as_resource() {
        Some(resource) => {
            let mut resource = (**resource).clone();
            resource.metadata_mut().uid.clear();
            resource.metadata_mut().creation_timestamp = None;
            resource.to_json()
        }
        None => value.to_json(),
    };
    let mut all: Vec<_> = entries.iter().map(|entry| (entry.key.path(), plain(&entry.value))).collect();
    all.sort();
    all
}

#[test]
fn a_complete_export_becomes_the_same_in_another_datastore() {
    let old = Cluster::new();
    old.good("create -f -", &resources());
    assign(&old, "host-1", "h1", 3);
    // What OpenStack's programs keep moves too, but for who leads them now.
    let region = || "no-region".to_owned();
    let election = Key::Foreign(Foreign::Election { region: region() });
    for (key, text) in [
        (Foreign::LiveMigration { namespace: "openstack".into(), name: "m".into() }, r#"{"kind":"LiveMigration"}"#),
        (Foreign::Subnet { region: region(), id: "s".into() }, r#"{"cidr":"10.65.0.0/24"}"#),
        (Foreign::Election { region: region() }, "controller-1:1"),
    ] {
        let key = Key::Foreign(key);
        let value = Value::from_json(&key, text).expect("good");
        old.store().write_one(Write { key, expect: Expect::Absent, value: Some(value) }).expect("absent");
    }
    old.good("ipam configure --strictaffinity=true", "");
    assert_eq!(
        old.bad("datastore migrate export", ""),
        "datastore is not locked. Run the `calicoctl datastore migrate lock` command in order to begin migration\n"
    );
    assert_eq!(old.good("datastore migrate lock", ""), "Datastore locked.\n");
    let text = old.good("datastore migrate export --complete", "");
    assert_eq!(text.matches("===\n").count(), 2);
    let new = Cluster::new();
    let file = new.file("export.txt", &text);
    let said = new.good(&format!("datastore migrate import -f {file}"), "");
    assert!(
        said.contains("Successfully applied 6 IPAM resource(s)\nDatastore information successfully imported."),
        "{said}"
    );
    let (mut old_facts, new_facts) = (everything(&old), everything(&new));
    old_facts.retain(|(path, _)| *path != election.path());
    assert_eq!(old_facts, new_facts);
    assert!(new.good("get clusterinfo default -o yaml", "").contains("datastoreReady: false"));
    assert_eq!(new.good("datastore migrate unlock", ""), "Datastore unlocked.\n");
    assert!(new.good("get clusterinfo default -o yaml", "").contains("datastoreReady: true"));
    let again = new.bad(&format!("datastore migrate import -f {file}"), "");
    assert!(again.contains("datastore already has Calico resources: found existing Calico IPPool(a)"), "{again}");
}

#[test]
fn an_export_for_kubernetes_has_its_names_and_leaves_out_what_it_has() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &resources());
    assign(&cluster, "host-1", "vxlan-tunnel-addr-host-1", 1);
    cluster.good("datastore migrate lock", "");
    let text = cluster.good("datastore migrate export", "");
    let parts: Vec<&str> = text.split("===\n").collect();
    assert_eq!(parts.len(), 3);
    for part in ["kind: NodeList", "name: kube-1", "name: node.kube-1", "defaultEndpointToHostAction: Accept"] {
        assert!(parts[0].contains(part), "{part}: {}", parts[0]);
    }
    for part in ["WorkloadEndpoint", "ProfileList", "name: host-1", "uid:", "creationTimestamp"] {
        assert!(!parts[0].contains(part), "{part}: {}", parts[0]);
    }
    let info: serde_json::Value = serde_json::from_str(parts[1]).expect("JSON");
    assert_eq!(info["kind"], "ClusterInformation");
    let ipam: serde_json::Value = serde_json::from_str(parts[2]).expect("JSON");
    let block = &ipam["blocks"][0];
    assert!(block["Key"].as_str().expect("text").starts_with("/calico/ipam/v2/assignment/ipv4/block/10.0.0."));
    assert_eq!((&block["Value"]["affinity"], &block["TTL"]), (&"host:kube-1".into(), &0.into()));
    assert_eq!(block["Value"]["attributes"][0]["handle_id"], "vxlan-tunnel-addr-kube-1");
    assert_eq!(block["Value"]["attributes"][0]["secondary"]["node"], "kube-1");
    assert_eq!(ipam["handles"][0]["Key"], "/calico/ipam/v2/handle/vxlan-tunnel-addr-kube-1");
    assert!(ipam["block_affinities"][0]["Key"].as_str().expect("text").contains("/host/kube-1/"));
    cluster.good("create -f -", &manifest("Node", "n2", "bgp: {ipv4Address: 10.9.0.2/24}"));
    let error = cluster.bad("datastore migrate export", "");
    assert!(error.contains("node n2 missing a 'k8s' orchestrator reference"), "{error}");
}

#[test]
fn a_file_that_is_no_export_changes_nothing() {
    let old = Cluster::new();
    old.good("create -f -", &resources());
    assign(&old, "host-1", "h1", 1);
    old.good("datastore migrate lock", "");
    let good = old.good("datastore migrate export --complete", "");
    let new = Cluster::new();
    for (text, part) in [
        ("a: b\n".to_owned(), "improperly formatted"),
        (good.replace("kind: IPPoolList", "kind: IPPolList"), "did you mean \"IPPoolList\"?"),
        (good.replacen("cidr: 10.0.0.0/24", "cidr: 10.0.0.0/33", 1), "spec.cidr"),
        (good.replace("\"kind\": \"ClusterInformation\"", "\"kind\": \"Node\""), "exported cluster info"),
        (good.replace("\"blocks\"", "\"bloks\""), "bloks"),
        (good.replace("/calico/ipam/v2/handle", "/calico/ipam/v3/handle"), "/calico/ipam/v3/handle"),
        (good.replace("\"allocations\": [", "\"allocations\": [ \"x\", "), "IPAM"),
    ] {
        assert_ne!(text, good);
        let error = new.bad("datastore migrate import -f -", &text);
        assert!(error.contains(part), "{part}: {error}");
        assert_eq!(everything(&new), [], "{part}");
    }
    assert!(new.bad("datastore migrate import -f /nowhere", "").contains("/nowhere"));
    assert_eq!(addresses(&new, "h1").len(), 0);
}

#[test]
fn old_policy_names_go_and_a_second_run_finds_none() {
    let cluster = Cluster::new();
    cluster.good("create -f -", &manifest("NetworkPolicy", "p", "selector: all()"));
    let store = cluster.store();
    let (new, old) = (
        Key::resource(tortie_api::Kind::NetworkPolicy, "default", "p"),
        Key::resource(tortie_api::Kind::NetworkPolicy, "default", "default.p"),
    );
    let entry = Reader::get(&store, &new).expect("read").expect("it is there");
    let moved = [
        Write { key: old.clone(), expect: Expect::Absent, value: Some(entry.value.clone()) },
        Write { key: new.clone(), expect: Expect::Revision(entry.revision), value: None },
    ];
    store.write_all(&moved).expect("written");
    let migrate = || cluster.good("datastore migrate-policy-names", "");
    assert_eq!(migrate(), "Policy name migration complete, migrated 1 policies.\n");
    assert_eq!(Reader::get(&store, &old).expect("read"), None);
    assert_eq!(Reader::get(&store, &new).expect("read").expect("it is back").value, entry.value);
    assert_eq!(migrate(), "Policy name migration complete, migrated 0 policies.\n");
}
