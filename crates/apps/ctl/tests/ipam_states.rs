//! `calicoctl ipam check` and `release` against damaged states: what is found, and that nothing live is freed.

mod common;

use std::net::IpAddr;
use std::sync::Arc;

use common::addresses::{addresses, assign, assign_with};
use common::{Cluster, manifest};
use tortie_api::ipam::Handle;
use tortie_facts::{Filter, Key, OwnerKind, Value};
use tortie_store::{Expect, Reader, Store, Write};

fn cluster() -> Cluster {
    let cluster = Cluster::new();
    let node = manifest("Node", "n1", "bgp:\n  ipv4Address: 10.9.0.1/24\nipv4VXLANTunnelAddr: 10.0.0.200");
    cluster.good("create -f -", &(node + &manifest("IPPool", "a", "cidr: 10.0.0.0/24")));
    cluster
}

fn endpoint(cluster: &Cluster, pod: &str, address: IpAddr) {
    let spec = format!(
        "orchestrator: k8s\nnode: n1\npod: {pod}\nendpoint: eth0\ninterfaceName: cali{pod}\nipNetworks: [{address}/32]"
    );
    cluster.good("create -f -", &manifest("WorkloadEndpoint", &format!("n1-k8s-{pod}-eth0"), &spec));
}

fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn every_sort_of_damage_is_found_and_told() {
    let cluster = cluster();
    assign(&cluster, "n1", "h1", 3);
    let held = addresses(&cluster, "h1");
    endpoint(&cluster, "live", held[0]);
    endpoint(&cluster, "twin", held[0]);
    endpoint(&cluster, "stray", "10.0.0.201".parse().expect("a literal"));
    endpoint(&cluster, "outside", "10.99.0.1".parse().expect("a literal"));
    let store = cluster.store();
    let affinity = store.list(&Filter::AllAffinities(OwnerKind::Host)).expect("listed").entries.remove(0);
    let lost = Handle { block: [("10.0.0.192/26".to_owned(), 1)].into(), ..Handle::default() };
    store
        .write_all(&[
            Write {
                key: Key::Handle("lost".into()),
                expect: Expect::Absent,
                value: Some(Value::Handle(Arc::new(lost))),
            },
            Write { key: affinity.key.clone(), expect: Expect::Revision(affinity.revision), value: None },
        ])
        .expect("written");
    let check = cluster.good("ipam check --show-problem-ips", "");
    holds(
        &check,
        &[
            "Found 1 IPAM blocks.\nIPAM blocks record 3 allocations.\n",
            "  10.0.0.0/24\nFound 1 active IP pools.\n",
            "Found 1 node tunnel IPs.\n",
            "  n1 has 3 allocations\nNode with most allocations has 3; median is 3\n",
            "Found 2 IPs that are allocated in IPAM but not actually in use.\n",
            "Found 1 in-use IPs that are not in active IP pools.\n",
            "Found 2 in-use IPs that are in active IP pools but have no corresponding IPAM allocation.\n",
            "Found 1 IPs with multiple owners.\n",
            "Found 1 handles with no matching IPs (and 1 handles with matches).\n",
            "Found 1 affinities that do not fit their blocks.\n",
            "host:n1 owns block",
            "handle lost holds no address",
            "Check complete; found 8 problems.\n",
        ],
    );
    assert!(
        !cluster.good("ipam check", "").contains("handle lost holds"),
        "problems are shown when they are asked for"
    );
    let all = cluster.good("ipam check --show-all-ips", "");
    holds(&all, &[&format!("  {} allocated; pod prod/web on n1", held[0]), "  10.99.0.1 belongs to Workload("]);
    let handle = Reader::get(&store, &Key::Handle("h1".into())).expect("read").expect("it is there");
    let gone = Write { key: handle.key, expect: Expect::Revision(handle.revision), value: None };
    store.write_all(&[gone]).expect("written");
    holds(&cluster.good("ipam check", ""), &["Found 1 handles mentioned in blocks with no matching handle resource."]);
}

#[test]
fn a_report_is_machine_readable_and_what_came_into_use_since_is_kept() {
    let cluster = cluster();
    assign(&cluster, "n1", "h1", 3);
    let held = addresses(&cluster, "h1");
    endpoint(&cluster, "live", held[0]);
    let path = cluster.path("report.json");
    let path = path.to_str().expect("UTF-8");
    cluster.good("datastore migrate lock", "");
    cluster.good(&format!("ipam check -o {path}"), "");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).expect("written")).expect("JSON");
    let in_use = |at: usize| &report["allocations"][held[at].to_string()][0]["inUse"];
    assert_eq!((in_use(0), in_use(1)), (&true.into(), &false.into()));
    // Recorded although the datastore is locked: the report is no longer true of it.
    endpoint(&cluster, "late", held[1]);
    let ran = cluster.run(&format!("ipam release --from-report {path}"), "");
    assert_eq!(ran.code, 0, "{ran:?}");
    holds(&ran.err, &[&format!("{} is kept: it is in use by Workload(default/n1-k8s-late-eth0)", held[1])]);
    holds(&ran.out, &["Released 1 IPs successfully", "You may now unlock the data store."]);
    assert_eq!(addresses(&cluster, "h1"), &held[..2]);
}

#[test]
fn an_address_that_is_in_use_is_released_by_force_alone() {
    let cluster = cluster();
    assign(&cluster, "n1", "h1", 1);
    let address = addresses(&cluster, "h1")[0];
    endpoint(&cluster, "live", address);
    let error = cluster.bad(&format!("ipam release --ip {address}"), "");
    holds(&error, &["is in use by Workload(default/n1-k8s-live-eth0)", "--force"]);
    assert_eq!(addresses(&cluster, "h1"), [address]);
    let ran = cluster.run(&format!("ipam release --force --ip {address}"), "");
    assert_eq!((ran.code, ran.out), (0, format!("Successfully released IP address {address}\n")));
    assert_eq!(addresses(&cluster, "h1"), [] as [IpAddr; 0]);
}

#[test]
fn addresses_whose_use_is_not_to_be_seen_here_count_as_used() {
    let cluster = cluster();
    assign_with(&cluster, "n1", "lb-1", 1, &[("service", "web"), ("namespace", "prod"), ("type", "LoadBalancer")]);
    assign_with(&cluster, "n1", "windows-reserved-ipam-handle", 1, &[("note", "windows host rsvd")]);
    let check = cluster.good("ipam check --show-all-ips", "");
    holds(
        &check,
        &["Found 0 IPs that are allocated in IPAM but not", "belongs to Service(prod/web)", "Windows(reserved)"],
    );
    let address = addresses(&cluster, "lb-1")[0];
    assert!(cluster.bad(&format!("ipam release --ip {address}"), "").contains("Service(prod/web)"));
}

#[test]
fn nothing_counts_as_leaked_while_an_endpoint_can_not_be_read() {
    let cluster = cluster();
    assign(&cluster, "n1", "h1", 1);
    endpoint(&cluster, "live", addresses(&cluster, "h1")[0]);
    let connection = rusqlite::Connection::open(cluster.path("tortie.db")).expect("opens");
    let sql = "UPDATE kv SET value = '{' WHERE path LIKE '%workloadendpoints%'";
    assert_eq!(connection.execute(sql, []).expect("written"), 1);
    drop(connection);
    let error = cluster.bad("ipam check", "");
    holds(&error, &["workloadendpoints", "must not count as unused"]);
}
