//! What leaves the process is upstream's: keys, values, and which of them expire, as `etcdctl` shows them.

mod common;

use std::time::Duration;

use tortie_api::Kind;
use tortie_etcd_server::{Server, installed};
use tortie_facts::{Filter, Foreign, Key, Value};
use tortie_store::{Event, Expect, Reader, Store, Write, WriteError};
use tortie_store_etcd::EtcdStore;

/// Each key with the value that is written, and the value that is stored where that is another one.
fn table() -> Vec<(Key, &'static str, &'static str, Option<&'static str>)> {
    vec![
        (
            Key::host_affinity("n1", "10.0.0.0/26".parse().expect("a network")),
            "/calico/ipam/v2/host/n1/ipv4/block/10.0.0.0-26",
            r#"{"state":"confirmed","deleted":false}"#,
            None,
        ),
        (
            Key::Handle("k8s-pod-network.abc".into()),
            "/calico/ipam/v2/handle/k8s-pod-network.abc",
            r#"{"block":{"10.0.0.0/26":1},"deleted":false}"#,
            None,
        ),
        (
            Key::Block("fd00::/122".parse().expect("a network")),
            "/calico/ipam/v2/assignment/ipv6/block/fd00::-122",
            r#"{"cidr":"fd00::/122","affinity":"host:n1","allocations":[0,null],"unallocated":[1],"attributes":[{"handle_id":"h","secondary":{"node":"n1"}}],"sequenceNumber":7,"sequenceNumberForAllocation":{"0":6},"deleted":false}"#,
            None,
        ),
        (
            Key::resource(Kind::Tier, "", "platform"),
            "/calico/resources/v3/projectcalico.org/tiers/platform",
            r#"{"kind":"Tier","apiVersion":"projectcalico.org/v3","metadata":{"name":"platform","uid":"11111111-2222-3333-4444-555555555555","creationTimestamp":"2026-01-02T03:04:05Z"},"spec":{"order":100},"status":{}}"#,
            None,
        ),
        (
            Key::resource(Kind::NetworkPolicy, "prod", "allow"),
            "/calico/resources/v3/projectcalico.org/networkpolicies/prod/allow",
            r#"{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"allow","namespace":"prod","creationTimestamp":null},"spec":{"tier":"default","selector":"all()","types":["Ingress"]}}"#,
            Some(r#""projectcalico.org/metadata":"{\"name\":\"allow\"}""#),
        ),
        (
            Key::Status("v2/no-region/host/n1/status".into()),
            "/calico/felix/v2/no-region/host/n1/status",
            r#"{"time":"2026-01-02T03:04:05Z","uptime":1.5,"first_update":true}"#,
            None,
        ),
        (
            Key::Status("v2/no-region/host/n1/last_reported_status".into()),
            "/calico/felix/v2/no-region/host/n1/last_reported_status",
            r#"{"time":"2026-01-02T03:04:05Z","uptime":1.5,"first_update":true}"#,
            None,
        ),
        (
            Key::Foreign(Foreign::LiveMigration { namespace: "openstack".into(), name: "vm-1".into() }),
            "/calico/resources/v3/projectcalico.org/livemigrations/openstack/vm-1",
            r#"{"kind":"LiveMigration","apiVersion":"projectcalico.org/v3","metadata":{"name":"vm-1","namespace":"openstack"},"spec":{"source":{"workloadEndpoint":{"hostname":"n1","orchestratorID":"openstack","workloadID":"openstack/w","endpointID":"e"}},"target":{"workloadEndpoint":{"hostname":"n2","orchestratorID":"openstack","workloadID":"openstack/w","endpointID":"e"}}}}"#,
            None,
        ),
        (
            Key::Foreign(Foreign::Subnet { region: "no-region".into(), id: "3f2b".into() }),
            "/calico/dhcp/v2/no-region/subnet/3f2b",
            r#"{"network_id":"n","cidr":"10.65.0.0/24","gateway_ip":"10.65.0.1","dns_servers":["10.0.0.1"],"host_routes":[]}"#,
            None,
        ),
        (
            Key::Foreign(Foreign::Election { region: "no-region".into() }),
            "/calico/openstack/v2/no-region/neutron_election",
            r#""controller-1:4711""#,
            None,
        ),
    ]
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn keys_and_values_are_upstreams() {
    if !installed() {
        return;
    }
    let server = Server::plain().ready();
    let store = EtcdStore::open(common::options(&server)).expect("good");
    let writes: Vec<Write> = table()
        .into_iter()
        .map(|(key, _, text, _)| {
            let value = Value::from_json(&key, text).unwrap_or_else(|error| panic!("{error}"));
            Write { key, expect: Expect::Absent, value: Some(value) }
        })
        .collect();
    store.write_all(&writes).expect("all are absent");
    let mut wanted: Vec<_> = table();
    wanted.sort_by_key(|(_, path, _, _)| *path);
    let found = server.get_prefix("/calico");
    assert_eq!(found.len(), wanted.len(), "nothing else is written: {found:?}");
    for ((path, text), (_, wanted_path, wanted_text, part)) in found.iter().zip(&wanted) {
        assert_eq!(path, wanted_path);
        match part {
            Some(part) => assert!(text.contains(part), "{text}"),
            None => assert_eq!(json(text), json(wanted_text), "{path}"),
        }
    }
    // What is read back is what was written, whatever is there for storing alone.
    for write in &writes {
        let entry = store.get(&write.key).expect("a read").expect("it was written");
        assert_eq!(Some(entry.value), write.value, "{}", write.key);
    }
}

/// Where upstream keeps the golden resource of a kind; `None`: its facts have keys of their own, above.
fn path(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::NetworkPolicy => "networkpolicies/ns/name",
        Kind::GlobalNetworkPolicy => "globalnetworkpolicies/name",
        Kind::StagedNetworkPolicy => "stagednetworkpolicies/ns/name",
        Kind::StagedGlobalNetworkPolicy => "stagedglobalnetworkpolicies/name",
        Kind::StagedKubernetesNetworkPolicy => "stagedkubernetesnetworkpolicies/ns/name",
        Kind::Tier => "tiers/name",
        Kind::Profile => "profiles/name",
        Kind::NetworkSet => "networksets/ns/name",
        Kind::GlobalNetworkSet => "globalnetworksets/name",
        Kind::HostEndpoint => "hostendpoints/name",
        Kind::IpPool => "ippools/name",
        Kind::IpReservation => "ipreservations/name",
        Kind::IpamConfiguration => "ipamconfigurations/name",
        Kind::BgpConfiguration => "bgpconfigurations/name",
        Kind::BgpPeer => "bgppeers/name",
        Kind::BgpFilter => "bgpfilters/name",
        Kind::ClusterInformation => "clusterinformations/name",
        Kind::FelixConfiguration => "felixconfigurations/name",
        Kind::KubeControllersConfiguration => "kubecontrollersconfigurations/name",
        Kind::CalicoNodeStatus => "caliconodestatuses/name",
        Kind::Node => "nodes/name",
        Kind::WorkloadEndpoint => "workloadendpoints/ns/name",
        Kind::IpamBlock | Kind::IpamHandle | Kind::BlockAffinity => return None,
        Kind::KubernetesNetworkPolicy
        | Kind::KubernetesClusterNetworkPolicy
        | Kind::KubernetesEndpointSlice
        | Kind::KubernetesService => unreachable!("only a Kubernetes API yields it"),
    })
}

/// The text that upstream stores for a resource with every field: what it writes for users, without the revision, which is
/// the store's, and with the name of a policy in an annotation.
fn stored(kind: Kind) -> String {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model/api/tests/golden");
    let text = std::fs::read_to_string(folder.join(format!("{kind}.json"))).expect("every kind has a golden file");
    let mut text = text.trim_end().replace(r#""resourceVersion":"3","#, "");
    if !kind.namespaced() {
        text = text.replacen(r#""namespace":"ns","#, "", 1);
    }
    if [Kind::NetworkPolicy, Kind::GlobalNetworkPolicy, Kind::StagedNetworkPolicy, Kind::StagedGlobalNetworkPolicy]
        .contains(&kind)
    {
        let name = r#","projectcalico.org/metadata":"{\"name\":\"name\"}""#;
        text = text.replacen(r#""annotations":{"e":"f""#, &format!(r#""annotations":{{"e":"f"{name}"#), 1);
    }
    text
}

#[test]
fn every_kind_has_upstreams_key_and_text() {
    if !installed() {
        return;
    }
    let server = Server::plain().ready();
    let store = EtcdStore::open(common::options(&server)).expect("good");
    for (kind, path) in Kind::ALL.iter().filter_map(|kind| Some((*kind, path(*kind)?))) {
        let path = format!("/calico/resources/v3/projectcalico.org/{path}");
        let key = Key::from_path(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let value = Value::from_json(&key, &stored(kind)).unwrap_or_else(|error| panic!("{error}"));
        store.write_one(Write { key, expect: Expect::Absent, value: Some(value) }).expect("it is absent");
        let found = server.get_prefix(&path);
        assert_eq!(found, [(path, stored(kind))]);
    }
}

#[test]
fn only_the_report_of_a_living_node_has_a_lease() {
    if !installed() {
        return;
    }
    let server = Server::plain().ready();
    let store = EtcdStore::open(common::options(&server)).expect("good");
    let report = || {
        for name in ["status", "last_reported_status"] {
            let key = Key::Status(format!("v2/no-region/host/n1/{name}"));
            let value = Some(Value::Status("{}".into()));
            store.write_one(Write { key, expect: Expect::Any, value }).expect("written");
        }
    };
    report();
    let leased = |name: &str| {
        let key = format!("/calico/felix/v2/no-region/host/n1/{name}");
        json(&server.ctl(&["get", &key, "--write-out=json"]))["kvs"][0]["lease"].as_i64().unwrap_or(0)
    };
    assert!(leased("status") != 0);
    assert_eq!(leased("last_reported_status"), 0);
    let granted = || {
        let lease = format!("{:x}", leased("status"));
        json(&server.ctl(&["lease", "timetolive", &lease, "--write-out=json"]))["granted-ttl"].clone()
    };
    assert_eq!(granted(), 90);
    // As `reportingTTL` says; zero is for ever.
    store.expire_reports_after(Duration::from_millis(19_500));
    report();
    assert_eq!(granted(), 20);
    store.expire_reports_after(Duration::ZERO);
    report();
    assert_eq!(leased("status"), 0);
}

#[test]
fn what_upstream_writes_is_read_and_what_it_does_not_know_stays() {
    if !installed() {
        return;
    }
    let server = Server::plain().ready();
    let store = EtcdStore::open(common::options(&server)).expect("good");
    let key = Key::resource(Kind::GlobalNetworkPolicy, "", "p");
    let stored = r#"{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"p","annotations":{"mine":"x","projectcalico.org/metadata":"{\"name\":\"p\"}"}},"spec":{"selector":"all()"}}"#;
    server.put(&key.path(), stored);
    server.put(&Key::host_affinity("n1", "10.0.0.0/26".parse().expect("a network")).path(), "");
    let entry = store.get(&key).expect("a read").expect("it is there");
    let resource = entry.value.as_resource().expect("a resource").clone();
    assert_eq!(resource.metadata().annotations.keys().collect::<Vec<_>>(), ["mine"]);
    let affinity = store.get(&Key::host_affinity("n1", "10.0.0.0/26".parse().expect("a network"))).expect("a read");
    assert!(affinity.is_some(), "an empty affinity is upstream's of old, and confirmed");
    store
        .write_one(Write { key: key.clone(), expect: Expect::Revision(entry.revision), value: Some(entry.value) })
        .expect("nobody else wrote");
    let (_, text) = server.get_prefix(&key.path()).remove(0);
    assert_eq!(json(&text)["metadata"]["annotations"], json(stored)["metadata"]["annotations"]);
}

/// A policy of the default tier as versions of upstream stored it: up to 3.29, and in 3.30 and 3.31.
fn older_forms(kind: Kind, namespace: &str, name: &str) -> [String; 2] {
    let head = format!(r#""kind":"{kind}","apiVersion":"projectcalico.org/v3""#);
    let namespace = if namespace.is_empty() { String::new() } else { format!(r#","namespace":"{namespace}""#) };
    let noted = format!(r#","annotations":{{"projectcalico.org/metadata":"{{\"name\":\"{name}\"}}"}}"#);
    ["", &noted].map(|noted| {
        format!(
            r#"{{{head},"metadata":{{"name":"default.{name}"{namespace}{noted}}},"spec":{{"tier":"default","order":5,"selector":"all()","types":["Ingress"]}}}}"#
        )
    })
}

#[test]
fn policies_of_older_versions_go_by_either_name() {
    if !installed() {
        return;
    }
    let server = Server::plain().ready();
    let store = EtcdStore::open(common::options(&server)).expect("good");
    let at = |key: &Key| server.get_prefix(&key.path());
    for (kind, namespace) in [
        (Kind::NetworkPolicy, "prod"),
        (Kind::GlobalNetworkPolicy, ""),
        (Kind::StagedNetworkPolicy, "prod"),
        (Kind::StagedGlobalNetworkPolicy, ""),
    ] {
        let (new, old) = (Key::resource(kind, namespace, "web"), Key::resource(kind, namespace, "default.web"));
        for text in older_forms(kind, namespace, "web") {
            server.put(&old.path(), &text);
            for key in [&new, &old] {
                let entry = store.get(key).expect("a read").expect("it is there");
                assert_eq!(
                    (&entry.key, entry.value.as_resource().expect("a policy").metadata().name.as_str()),
                    (key, "web")
                );
                // A change by either name is made where it is, in the form of those versions.
                let write =
                    Write { key: key.clone(), expect: Expect::Revision(entry.revision), value: Some(entry.value) };
                store.write_one(write.clone()).expect("nobody else wrote");
                assert!(matches!(store.write_one(write), Err(WriteError::Conflict { .. })), "{key}: an old revision");
                assert_eq!(at(&new), []);
                let (_, text) = at(&old).remove(0);
                assert_eq!(
                    json(&text)["metadata"],
                    json(&older_forms(kind, namespace, "web")[1])["metadata"],
                    "{text}"
                );
                // It is not made a second time.
                let value = store.get(key).expect("a read").expect("it is there").value;
                let create = Write { key: new.clone(), expect: Expect::Absent, value: Some(value) };
                assert!(matches!(store.write_one(create), Err(WriteError::Conflict { .. })), "{key}");
            }
            assert_eq!(store.list(&Filter::Kind(kind)).expect("a listing").entries.len(), 1);
            let revision = store.get(&new).expect("a read").expect("it is there").revision;
            store
                .write_one(Write { key: new.clone(), expect: Expect::Revision(revision), value: None })
                .expect("deleted");
            assert_eq!((at(&new), at(&old)), (vec![], vec![]));
        }
    }
}

#[test]
fn what_only_looks_like_an_older_name_is_another_policy() {
    if !installed() {
        return;
    }
    let server = Server::plain().ready();
    let store = EtcdStore::open(common::options(&server)).expect("good");
    let kind = Kind::GlobalNetworkPolicy;
    let (new, old) = (Key::resource(kind, "", "web"), Key::resource(kind, "", "default.web"));
    // 3.32 and later were told to name it so.
    let text = older_forms(kind, "", "web")[1].replace(r#"{\"name\":\"web\"}"#, r#"{\"name\":\"default.web\"}"#);
    server.put(&old.path(), &text);
    assert_eq!(store.get(&new).expect("a read"), None);
    let value = |name: &str| {
        let text = text.replacen("default.web", name, 1).replace("default.web", name);
        Some(Value::from_json(&new, &text).expect("a policy"))
    };
    let missing = store.write_one(Write { key: new.clone(), expect: Expect::Any, value: None });
    assert!(matches!(missing, Err(WriteError::Missing(_))), "{missing:?}");
    // Many in one call, of which some have a namesake.
    let mut writes = vec![Write { key: new.clone(), expect: Expect::Absent, value: value("web") }];
    for n in 0..200 {
        let name = format!("p{n}");
        writes.push(Write { key: Key::resource(kind, "", &name), expect: Expect::Absent, value: value(&name) });
    }
    store.write_all(&writes).expect("none of them is there");
    assert_eq!(store.list(&Filter::Kind(kind)).expect("a listing").entries.len(), 202);
    // What can't be read may be the policy of that name.
    let (new, old) = (Key::resource(kind, "", "x"), Key::resource(kind, "", "default.x"));
    server.put(&old.path(), "{");
    let create = store.write_one(Write { key: new, expect: Expect::Absent, value: value("x") });
    assert!(matches!(create, Err(WriteError::Conflict { .. })), "{create:?}");
}

#[test]
fn what_other_programs_keep_is_listed_and_left_as_it_is() {
    if !installed() {
        return;
    }
    let server = Server::plain().ready();
    let store = EtcdStore::open(common::options(&server)).expect("good");
    let (subnet, election) = ("/calico/dhcp/v1/subnet/3f2b", "/calico/openstack/v1/neutron_election");
    let migration = "/calico/resources/v3/projectcalico.org/livemigrations/openstack/vm-1";
    let texts = [
        (subnet, r#"{ "cidr" : "10.65.0.0/24", "newer": 1 }"#),
        (election, "controller-1:4711"),
        (migration, r#"{"kind":"LiveMigration","newer":true}"#),
    ];
    texts.iter().for_each(|(path, text)| server.put(path, text));
    server.put("/calico/dhcp/v1/subnet/bad", "[]");
    let listing = store.list(&Filter::Foreign).expect("a listing");
    let found: Vec<(String, String)> =
        listing.entries.iter().map(|entry| (entry.key.path(), entry.value.to_json())).collect();
    assert_eq!(found, texts.map(|(path, text)| (path.to_owned(), text.to_owned())));
    let bad: Vec<&str> = listing.invalid.iter().map(|invalid| invalid.path.as_str()).collect();
    assert_eq!(bad, ["/calico/dhcp/v1/subnet/bad"]);
    // A watch tells their changes alone.
    let mut watch = store.watch(&Filter::Foreign, listing.revision).expect("a watch");
    server.put("/calico/ipam/v2/handle/h", r#"{"block":{}}"#);
    server.put(election, "controller-2:1");
    let told = watch.next(Duration::from_secs(20)).expect("it goes on");
    let of = |event: &Event| matches!(event, Event::Put(entry) if entry.key.path() == election);
    assert!(told.len() == 1 && told.iter().all(of), "{told:?}");
}
