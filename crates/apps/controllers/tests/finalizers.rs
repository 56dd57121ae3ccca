//! Pools and tiers on a real API server that has them as `projectcalico.org/v3`: conditions, and deletions that wait.

#[path = "../../../store/kubernetes/tests/common/mod.rs"]
mod kubernetes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use kubernetes::Cluster;
use serde_json::{Value as Json, json};
use tortie_control::default_configuration;
use tortie_controllers::{Board, Controllers, KubernetesRegister, Seat, Stores, Wiring};
use tortie_datastore::ipam;
use tortie_ipam::{Assign, Client, Holder, ReleaseHandle, Request};
use tortie_store::{Store, resource};
use tortie_store_kubernetes::Group;

const V3: &str = "/apis/projectcalico.org/v3";

fn until(what: &str, all: &mut Controllers, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        all.turn(&|| false).expect("it goes on");
    }
}

/// An object; null where there is none.
fn object(cluster: &Cluster, path: &str) -> Json {
    let text = cluster.call(Method::GET, &format!("{V3}/{path}"), None);
    text.map(|text| serde_json::from_str(&text).expect("an object")).unwrap_or_default()
}

fn make(cluster: &Cluster, plural: &str, kind: &str, metadata: Json, spec: Json) {
    let made = json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec});
    let namespace = metadata_namespace(&made);
    cluster.object(Method::POST, &format!("{V3}/{namespace}{plural}"), Some(&made));
}

fn metadata_namespace(made: &Json) -> String {
    made["metadata"]["namespace"].as_str().map_or_else(String::new, |name| format!("namespaces/{name}/"))
}

#[test]
fn pools_and_tiers_wait_for_what_is_in_them() {
    let Some(cluster) = Cluster::start("finalizers", &[]) else { return };
    let open = || Arc::new(cluster.store(Some(Group::V3)));
    let store = open();
    let mut configuration = default_configuration();
    configuration.spec.prometheus_metrics_port = Some(0);
    store.write_one(resource::create(configuration.into())).expect("written");
    let pool =
        |name: &str, cidr: &str| make(&cluster, "ippools", "IPPool", json!({"name": name}), json!({"cidr": cidr}));
    pool("first", "10.7.0.0/16");
    make(&cluster, "tiers", "Tier", json!({"name": "platform"}), json!({"order": 7}));
    let policy = json!({"name": "platform.web", "namespace": "default"});
    make(&cluster, "networkpolicies", "NetworkPolicy", policy, json!({"tier": "platform", "selector": "all()"}));

    let api = open();
    let register = KubernetesRegister::new(open(), "kube-system");
    let stores = Stores {
        main: api.clone(),
        beside: None,
        api: Some(api),
        etcd: None,
        kubernetes: true,
        place: "of a test".into(),
    };
    let wiring =
        Wiring { stores, seat: Seat::elected(register, "c".into()), env: BTreeMap::new(), board: Board::new(None) };
    let mut all = Controllers::start(wiring).expect("they start");
    let condition = |path: &str| {
        let said = object(&cluster, path)["status"]["conditions"][0].clone();
        ["type", "status", "reason"].map(|field| said[field].as_str().unwrap_or_default().to_owned()).join(" ")
    };
    let finalizers = |path: &str| object(&cluster, path)["metadata"]["finalizers"].clone();
    until("the pool is told to be good", &mut all, || condition("ippools/first") == "Allocatable True OK");
    pool("second", "10.7.8.0/24");
    until("the pool that overlaps is told", &mut all, || {
        condition("ippools/second") == "Allocatable False CIDROverlap"
    });
    assert_eq!(finalizers("ippools/first"), json!(["projectcalico.org/ippool-finalizer"]));
    assert_eq!(finalizers("ippools/second"), Json::Null, "what is not used goes at once");
    until("the tier is held", &mut all, || {
        finalizers("tiers/platform") == json!(["projectcalico.org/tier-controller"])
    });

    let holder = Holder { handle: Some("net.web".into()), attrs: [].into() };
    let request = Request::one(Client::workload("n1"), holder, tortie_net::Family::V4);
    let settings = ipam::settings(&*store).expect("read");
    ipam::run(&*store, Assign::new(request.clone(), settings, ipam::now())).expect("read").expect("there is room");
    cluster.object(Method::DELETE, &format!("{V3}/ippools/first"), None);
    cluster.object(Method::DELETE, &format!("{V3}/tiers/platform"), None);
    until("both say why they stay", &mut all, || {
        let tier = object(&cluster, "tiers/platform")["status"]["conditions"][0]["message"].clone();
        condition("ippools/first") == "Allocatable False Terminating"
            && tier == "Waiting for policies to be removed: 1 NetworkPolicy"
    });
    let refused = ipam::run(&*store, Assign::new(request, ipam::settings(&*store).expect("read"), ipam::now()));
    assert!(refused.expect("read").is_err(), "a pool that is on its way out gives no address");
    let end = Instant::now() + Duration::from_secs(3);
    until("time passes", &mut all, || Instant::now() > end);
    assert!(!object(&cluster, "ippools/first").is_null() && !object(&cluster, "tiers/platform").is_null());

    ipam::run(&*store, ReleaseHandle::new("net.web", 0, ipam::now())).expect("read").expect("released");
    cluster.object(Method::DELETE, &format!("{V3}/namespaces/default/networkpolicies/platform.web"), None);
    until("both are gone", &mut all, || {
        object(&cluster, "ippools/first").is_null() && object(&cluster, "tiers/platform").is_null()
    });
    until("the other pool is used now", &mut all, || condition("ippools/second") == "Allocatable True OK");
}
