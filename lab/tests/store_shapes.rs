//! What a cluster leaves in etcd, read by `etcdctl` and judged by a check that knows nothing of the code that wrote it:
//! every key is one that upstream documents, and every value has the shape that upstream gives it.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/facts.rs"]
mod facts;
#[path = "support/judge.rs"]
mod judge;

use std::collections::BTreeMap;
use std::time::Duration;

use facts::etcdctl;
use judge::{POLICIES, block, only};
use serde_json::Value as Json;
use tortie_lab::{Lab, Node, Store, wait};

const START: Duration = Duration::from_secs(60);

/// The plurals of keys, the kind of their values, and whether they have namespaces.
const RESOURCES: [(&str, &str, bool); 16] = [
    ("bgpconfigurations", "BGPConfiguration", false),
    ("bgppeers", "BGPPeer", false),
    ("clusterinformations", "ClusterInformation", false),
    ("felixconfigurations", "FelixConfiguration", false),
    ("globalnetworkpolicies", "GlobalNetworkPolicy", false),
    ("globalnetworksets", "GlobalNetworkSet", false),
    ("hostendpoints", "HostEndpoint", false),
    ("ipamconfigurations", "IPAMConfiguration", false),
    ("ippools", "IPPool", false),
    ("kubecontrollersconfigurations", "KubeControllersConfiguration", false),
    ("networkpolicies", "NetworkPolicy", true),
    ("networksets", "NetworkSet", true),
    ("nodes", "Node", false),
    ("profiles", "Profile", false),
    ("tiers", "Tier", false),
    ("workloadendpoints", "WorkloadEndpoint", true),
];

/// All that etcd holds under `/calico`, as `etcdctl` on a node prints it.
fn dump(node: &Node) -> BTreeMap<String, String> {
    let text = etcdctl(node, &["get", "--prefix", "/"]);
    let lines: Vec<&str> = text.lines().collect();
    lines.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
}

/// Waits until these are the endpoints whose status is reported, and what it is.
fn statuses_become(node: &Node, wanted: &[(&str, &str)]) {
    let wanted: BTreeMap<String, String> = wanted
        .iter()
        .map(|(path, status)| (format!("/calico/felix/{path}"), format!(r#"{{"status":"{status}"}}"#)))
        .collect();
    let mut last = BTreeMap::new();
    let found = wait(START, || {
        last = dump(node);
        last.retain(|key, _| key.starts_with("/calico/felix/") && key.contains("/endpoint/"));
        (last == wanted).then_some(())
    });
    assert!(found.is_some(), "{last:#?} does not become {wanted:#?}");
}

fn resource(path: &[&str], value: &Json) {
    let Some((_, kind, namespaced)) = RESOURCES.iter().find(|(plural, ..)| *plural == path[0]) else {
        panic!("no such type: {path:?}")
    };
    only(value, &["kind", "apiVersion", "metadata", "spec"], &["status"]);
    assert_eq!((&value["kind"], &value["apiVersion"]), (&Json::from(*kind), &Json::from("projectcalico.org/v3")));
    let metadata = &value["metadata"];
    only(metadata, &["name", "uid", "creationTimestamp"], &["namespace", "labels", "annotations"]);
    let (namespace, name) = match path[1..] {
        [name] if !namespaced => ("", name),
        [namespace, name] if *namespaced => (namespace, name),
        _ => panic!("{path:?}"),
    };
    assert_eq!(metadata["name"], name, "{path:?}");
    assert_eq!(metadata["namespace"].as_str().unwrap_or_default(), namespace, "{path:?}");
    assert_eq!(
        metadata["uid"].as_str().map(|uid| uid.split('-').map(str::len).collect::<Vec<_>>()),
        Some(vec![8, 4, 4, 4, 12])
    );
    let time = metadata["creationTimestamp"].as_str().unwrap();
    assert!(time.len() == 20 && time.ends_with('Z') && &time[10..11] == "T", "{time}");
    if kind.ends_with("NetworkPolicy") {
        let stored = metadata["annotations"]["projectcalico.org/metadata"].as_str().unwrap();
        assert_eq!(stored, format!(r#"{{"name":"{name}"}}"#));
        assert!(value["spec"]["tier"].is_string() && value["spec"]["types"].is_array(), "{value}");
    }
}

/// The range that the last part of a key such as `10.0.0.0-26` names.
fn range(text: &str) -> String {
    let (address, length) = text.rsplit_once('-').unwrap();
    format!("{address}/{length}")
}

/// Judges everything; the handles with how many addresses of which block they hold, by the blocks and by themselves.
fn judge(all: &BTreeMap<String, String>) -> [BTreeMap<(String, String), u64>; 2] {
    let [mut by_block, mut by_handle] = [BTreeMap::new(), BTreeMap::new()];
    for (key, text) in all {
        let value: Json = serde_json::from_str(text).unwrap_or_else(|error| panic!("{key}: {error}: {text}"));
        let parts: Vec<&str> = key.split('/').skip(1).collect();
        match parts.as_slice() {
            ["calico", "resources", "v3", "projectcalico.org", path @ ..] => resource(path, &value),
            ["calico", "ipam", "v2", "assignment", "ipv4" | "ipv6", "block", name] => {
                for (handle, count) in block(&range(name), &value, "affinity_claim_time") {
                    by_block.insert((handle, range(name)), count);
                }
            }
            ["calico", "ipam", "v2", "host", node, "ipv4" | "ipv6", "block", name] => {
                only(&value, &["state", "deleted"], &[]);
                assert!(value["state"] == "confirmed" && value["deleted"] == false, "{value}");
                let place = key.replace(&format!("host/{node}"), "assignment");
                let block: Json = serde_json::from_str(&all[&place]).unwrap();
                assert_eq!(block["affinity"], format!("host:{node}"), "{}", range(name));
            }
            ["calico", "ipam", "v2", "handle", handle] => {
                only(&value, &["block", "deleted"], &[]);
                for (cidr, count) in value["block"].as_object().unwrap() {
                    by_handle.insert(((*handle).to_owned(), cidr.clone()), count.as_u64().unwrap());
                }
            }
            ["calico", "ipam", "v2", "config"] => only(
                &value,
                &["strict_affinity", "auto_allocate_blocks"],
                &["maxBlocksPerHost", "kubeVirtVMAddressPersistence", "ipCooldownSeconds"],
            ),
            ["calico", "felix", "v2", "no-region", "host", _, "status" | "last_reported_status"] => {
                only(&value, &["time", "uptime", "first_update"], &[]);
            }
            ["calico", "felix", "v2", "no-region", "host", _, "workload", "k8s", _, "endpoint", "eth0"]
            | ["calico", "felix", "v1", "host", _, "endpoint", _] => only(&value, &["status"], &[]),
            _ => panic!("no documented key: {key}"),
        }
    }
    [by_block, by_handle]
}

#[test]
#[ignore = "needs root"]
fn etcd_holds_exactly_what_upstream_documents() {
    if std::process::Command::new("etcd").arg("--version").output().is_err() {
        eprintln!("skipped: etcd is not installed (Debian: etcd-server, etcd-client)");
        return;
    }
    let reporting = ("FELIX_ENDPOINTREPORTINGENABLED", "true");
    let lab = Lab::builder().nodes(2).store(Store::Etcd).env(reporting.0, reporting.1).up().unwrap();
    lab.start(START).unwrap();
    lab.apply(POLICIES).unwrap();
    let [one, two] = [lab.node(1), lab.node(2)];
    let early = one.add_pod("default", "early", &[("app", "web")]).unwrap();
    let late = two.add_pod("default", "late", &[]).unwrap();
    early.delete().unwrap();
    let kept = one.add_pod("default", "kept", &[]).unwrap();
    // A node says that it is alive some seconds after its start.
    let reported = || dump(one).keys().any(|key| key.ends_with("/status")).then_some(());
    assert!(wait(START, reported).is_some(), "no node reports that it is alive");
    statuses_become(
        one,
        &[
            ("v1/host/node1/endpoint/uplink", "error"),
            ("v2/no-region/host/node1/workload/k8s/default%2fkept/endpoint/eth0", "up"),
            ("v2/no-region/host/node2/workload/k8s/default%2flate/endpoint/eth0", "up"),
        ],
    );
    let all = dump(one);
    let [by_block, by_handle] = judge(&all);
    assert_eq!(by_block, by_handle, "handles and blocks tell the same");
    assert_eq!(by_block.len(), 2, "the pods' addresses: {by_block:?}");
    for word in
        ["workloadendpoints/default/", "networkpolicies/default/web", "globalnetworkpolicies/platform.base", "/status"]
    {
        assert!(all.keys().any(|key| key.contains(word)), "{word} is missing: {:#?}", all.keys());
    }
    let link = one.netlink().unwrap().link(kept.host_interface()).unwrap().index;
    one.netlink().unwrap().set_link_up(link, false).unwrap();
    late.delete().unwrap();
    let kept_down = ("v2/no-region/host/node1/workload/k8s/default%2fkept/endpoint/eth0", "down");
    statuses_become(one, &[("v1/host/node1/endpoint/uplink", "error"), kept_down]);
    kept.delete().unwrap();
    statuses_become(one, &[("v1/host/node1/endpoint/uplink", "error")]);
    let [by_block, by_handle] = judge(&dump(two));
    assert!(by_block.is_empty() && by_handle.is_empty(), "{by_block:?} {by_handle:?}");
}
