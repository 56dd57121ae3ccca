//! What a cluster leaves in a Kubernetes API, read by `kubectl` and judged by a check that knows nothing of the code that
//! wrote it: the types are those that upstream documents, and every object has the shape that upstream gives it.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/judge.rs"]
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use judge::{POLICIES, block, only};
use serde_json::Value as Json;
use tortie_lab::{Lab, Store, kubernetes};

const START: Duration = Duration::from_secs(60);
const GROUP: &str = "crd.projectcalico.org";
const METADATA: &str = "projectcalico.org/metadata";

/// Every type of the group, its kind, and whether it has namespaces.
const TYPES: [(&str, &str, bool); 22] = [
    ("bgpconfigurations", "BGPConfiguration", false),
    ("bgpfilters", "BGPFilter", false),
    ("bgppeers", "BGPPeer", false),
    ("blockaffinities", "BlockAffinity", false),
    ("caliconodestatuses", "CalicoNodeStatus", false),
    ("clusterinformations", "ClusterInformation", false),
    ("felixconfigurations", "FelixConfiguration", false),
    ("globalnetworkpolicies", "GlobalNetworkPolicy", false),
    ("globalnetworksets", "GlobalNetworkSet", false),
    ("hostendpoints", "HostEndpoint", false),
    ("ipamblocks", "IPAMBlock", false),
    ("ipamconfigs", "IPAMConfig", false),
    ("ipamhandles", "IPAMHandle", false),
    ("ippools", "IPPool", false),
    ("ipreservations", "IPReservation", false),
    ("kubecontrollersconfigurations", "KubeControllersConfiguration", false),
    ("networkpolicies", "NetworkPolicy", true),
    ("networksets", "NetworkSet", true),
    ("stagedglobalnetworkpolicies", "StagedGlobalNetworkPolicy", false),
    ("stagedkubernetesnetworkpolicies", "StagedKubernetesNetworkPolicy", true),
    ("stagednetworkpolicies", "StagedNetworkPolicy", true),
    ("tiers", "Tier", false),
];

/// What `kubectl get ... -o json` holds.
fn get(lab: &Lab, args: &[&str]) -> Vec<Json> {
    let text = lab.kubectl(&[&["get"], args, &["-A", "-o", "json"]].concat(), "").unwrap();
    let list: Json = serde_json::from_str(&text).unwrap();
    list["items"].as_array().unwrap().clone()
}

fn definitions(lab: &Lab) {
    let mut expected: BTreeMap<String, (&str, bool)> =
        TYPES.iter().map(|(plural, kind, namespaced)| (format!("{plural}.{GROUP}"), (*kind, *namespaced))).collect();
    for definition in get(lab, &["customresourcedefinitions"]) {
        let name = definition["metadata"]["name"].as_str().unwrap();
        let Some((kind, namespaced)) = expected.remove(name) else { panic!("no documented type: {name}") };
        let spec = &definition["spec"];
        assert_eq!(spec["names"]["kind"], kind);
        assert_eq!(spec["scope"], if namespaced { "Namespaced" } else { "Cluster" }, "{name}");
        let versions: Vec<&Json> = spec["versions"].as_array().unwrap().iter().collect();
        assert!(versions.len() == 1 && versions[0]["name"] == "v1" && versions[0]["storage"] == true, "{name}");
    }
    assert!(expected.is_empty(), "{expected:?} are missing");
}

fn text<'a>(value: &'a Json, of: &Json) -> &'a str {
    value.as_str().unwrap_or_else(|| panic!("no text in {of}"))
}

/// The metadata of an object: what is ours in the open, the rest in one annotation.
fn metadata(object: &Json, namespaced: bool) {
    let outer = &object["metadata"];
    let must = ["annotations", "creationTimestamp", "generation", "name", "resourceVersion", "uid"];
    only(outer, &must, &["labels", "namespace"]);
    assert_eq!(outer["namespace"].is_string(), namespaced, "{outer}");
    for field in ["labels", "annotations"] {
        for name in outer[field].as_object().into_iter().flatten().map(|(name, _)| name) {
            assert!(name.contains("projectcalico.org/"), "{field} {name:?} of {outer}");
        }
    }
    let inner: Json = serde_json::from_str(text(&outer["annotations"][METADATA], outer)).unwrap();
    only(&inner, &["creationTimestamp"], &["name", "labels", "annotations", "generation"]);
}

/// Judges one object; what it says about addresses goes to the two books, as the test of etcd's half has them.
fn judge_one(plural: &str, kind: &str, object: &Json, books: &mut [BTreeMap<(String, String), u64>; 2]) {
    only(object, &["apiVersion", "kind", "metadata", "spec"], &["status"]);
    assert_eq!(
        (object["apiVersion"].as_str(), object["kind"].as_str()),
        (Some("crd.projectcalico.org/v1"), Some(kind))
    );
    let (name, spec) = (text(&object["metadata"]["name"], object), &object["spec"]);
    let dashed = |cidr: &str| cidr.replace(['.', ':', '/'], "-");
    match plural {
        "ipamblocks" => {
            let cidr = text(&spec["cidr"], spec);
            assert_eq!(name, dashed(cidr));
            for (handle, count) in block(cidr, spec, "affinityClaimTime") {
                books[0].insert((handle, cidr.to_owned()), count);
            }
        }
        "ipamhandles" => {
            only(spec, &["handleID", "block", "deleted"], &[]);
            let id = text(&spec["handleID"], spec);
            assert_eq!(name, id.to_lowercase());
            for (cidr, count) in spec["block"].as_object().unwrap() {
                books[1].insert((id.to_owned(), cidr.clone()), count.as_u64().unwrap());
            }
        }
        "blockaffinities" => {
            only(spec, &["cidr", "deleted", "node", "state", "type"], &[]);
            assert_eq!(
                (&spec["state"], &spec["deleted"], &spec["type"]),
                (&"confirmed".into(), &"false".into(), &"host".into())
            );
            let (node, cidr) = (text(&spec["node"], spec), text(&spec["cidr"], spec));
            assert_eq!(name, format!("{node}-{}", dashed(cidr)));
            let labels = &object["metadata"]["labels"];
            only(
                labels,
                &["affinity-type", "hostname-hash", "ip-version"]
                    .map(|l| format!("projectcalico.org/{l}"))
                    .each_ref()
                    .map(|l| l.as_str()),
                &[],
            );
        }
        "ipamconfigs" => only(
            spec,
            &["strictAffinity", "autoAllocateBlocks"],
            &["maxBlocksPerHost", "kubeVirtVMAddressPersistence", "ipCooldownSeconds"],
        ),
        "networkpolicies" | "globalnetworkpolicies" => {
            let inner = text(&object["metadata"]["annotations"][METADATA], object);
            let inner: Json = serde_json::from_str(inner).unwrap();
            let tier = text(&spec["tier"], spec);
            assert!(spec["types"].is_array(), "{spec}");
            let own = text(&inner["name"], &inner);
            assert!(name == own || name == format!("{tier}.{own}"), "{name} is {own} of {tier}");
        }
        _ => {}
    }
}

#[test]
#[ignore = "needs root"]
fn a_kubernetes_api_holds_exactly_what_upstream_documents() {
    if let Some(missing) = kubernetes::missing() {
        eprintln!("skipped: {missing} is not there");
        return;
    }
    let lab = Lab::builder().nodes(2).store(Store::Kubernetes).up().unwrap();
    lab.start(START).unwrap();
    lab.apply(POLICIES).unwrap();
    let early = lab.node(1).add_pod("default", "early", &[("app", "web")]).unwrap();
    let late = lab.node(2).add_pod("default", "late", &[]).unwrap();
    early.delete().unwrap();
    let kept = lab.node(1).add_pod("default", "kept", &[]).unwrap();
    definitions(&lab);
    let judge = || {
        let mut books = [BTreeMap::new(), BTreeMap::new()];
        let mut found = BTreeSet::new();
        for (plural, kind, namespaced) in TYPES {
            for object in get(&lab, &[&format!("{plural}.{GROUP}")]) {
                metadata(&object, namespaced);
                judge_one(plural, kind, &object, &mut books);
                found.insert(plural);
            }
        }
        (books, found)
    };
    let ([by_block, by_handle], found) = judge();
    assert_eq!(by_block, by_handle, "handles and blocks tell the same");
    assert_eq!(by_block.len(), 2, "the pods' addresses: {by_block:?}");
    for plural in
        ["ippools", "tiers", "networkpolicies", "globalnetworksets", "hostendpoints", "bgppeers", "blockaffinities"]
    {
        assert!(found.contains(plural), "{plural} of {found:?}");
    }
    for node in get(&lab, &["nodes"]) {
        let annotations = &node["metadata"]["annotations"];
        assert!(text(&annotations["projectcalico.org/IPv4Address"], &node).ends_with("/24"), "{annotations}");
    }
    for (pod, object) in [&kept, &late].into_iter().zip(get(&lab, &["pods"])) {
        let annotations = &object["metadata"]["annotations"];
        only(
            annotations,
            &["podIP", "podIPs", "containerID"]
                .map(|a| format!("cni.projectcalico.org/{a}"))
                .each_ref()
                .map(|a| a.as_str()),
            &[],
        );
        let cidr = format!("{}/32", pod.ip());
        for name in ["podIP", "podIPs"] {
            assert_eq!(annotations[format!("cni.projectcalico.org/{name}")], cidr.as_str());
        }
        assert_eq!(annotations["cni.projectcalico.org/containerID"], pod.record().container_id.as_str());
    }
    late.delete().unwrap();
    kept.delete().unwrap();
    let ([by_block, by_handle], _) = judge();
    assert!(by_block.is_empty() && by_handle.is_empty(), "{by_block:?} {by_handle:?}");
}
