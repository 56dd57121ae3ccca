//! A real etcd beside a real Kubernetes API: what Kubernetes says is in etcd, whatever anybody does there.

mod common;
#[path = "../../../store/kubernetes/tests/common/mod.rs"]
mod kubernetes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::etcd;
use http::Method;
use serde_json::{Value as Json, json};
use tortie_api::{Kind, Metadata, NetworkPolicy, Resource, WorkloadEndpoint, WorkloadEndpointSpec};
use tortie_control::default_configuration;
use tortie_controllers::{Board, Controllers, Seat, StoreRegister, Stores, Wiring};
use tortie_etcd_server::{Server, Wish};
use tortie_facts::Key;
use tortie_store::{Expect, Store, Write, resource};

const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies";

fn put(store: &dyn Store, made: impl Into<Resource>) {
    store.write_one(resource::create(made.into())).expect("written");
}

fn delete(store: &dyn Store, key: &Key) {
    store.write_one(Write { key: key.clone(), expect: Expect::Any, value: None }).expect("deleted");
}

fn copy(name: &str) -> Key {
    Key::resource(Kind::NetworkPolicy, "shop", &format!("knp.default.{name}"))
}

fn profile(name: &str) -> Key {
    Key::resource(Kind::Profile, "", name)
}

/// What is stored under a key, as JSON.
fn stored(store: &dyn Store, key: &Key) -> Json {
    let found = store.get(key).expect("a read");
    found.and_then(|entry| Some(entry.value.as_resource()?.to_value())).unwrap_or_default()
}

fn endpoint(name: &str) -> WorkloadEndpoint {
    let spec = WorkloadEndpointSpec {
        orchestrator: "k8s".into(),
        node: "n1".into(),
        pod: "web-1".into(),
        endpoint: "eth0".into(),
        ip_networks: vec!["10.65.0.1/32".into()],
        profiles: vec!["kns.shop".into(), "ksa.shop.till".into()],
        ..WorkloadEndpointSpec::default()
    };
    WorkloadEndpoint { metadata: Metadata::in_namespace("shop", name), spec }
}

fn policy(port: u16) -> Json {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web"}, "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"ports": [{"port": port}], "from": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}],
    }})
}

/// Turns the controllers until something is so.
fn until(what: &str, all: &mut Controllers, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        all.turn(&|| false).expect("it goes on");
    }
}

#[test]
fn what_kubernetes_says_is_in_etcd() {
    if !tortie_etcd_server::installed() {
        return;
    }
    let Some(cluster) = kubernetes::Cluster::start("copies", &[]) else { return };
    let server = Server::start(Wish { tls: true, users: true, ..Wish::default() }).ready();
    let store = etcd(&server);
    let call = |method: Method, path: &str, body: Json| cluster.object(method, path, Some(&body));
    call(Method::POST, "/api/v1/namespaces", json!({"metadata": {"name": "shop", "labels": {"team": "a"}}}));
    let accounts = "/api/v1/namespaces/shop/serviceaccounts";
    call(Method::POST, accounts, json!({"metadata": {"name": "till", "labels": {"role": "r"}}}));
    call(Method::POST, "/api/v1/nodes", json!({"metadata": {"name": "n1"}}));
    let pod = json!({"metadata": {"name": "web-1", "labels": {"app": "web"}}, "spec": {
        "nodeName": "n1", "serviceAccountName": "till", "containers": [{"name": "c", "image": "none"}]}});
    call(Method::POST, "/api/v1/namespaces/shop/pods", pod);
    call(Method::POST, POLICIES, policy(80));

    let mut configuration = default_configuration();
    configuration.spec.prometheus_metrics_port = Some(0);
    put(&*store, configuration);
    put(&*store, endpoint("n1-k8s-web--1-eth0"));
    put(&*store, NetworkPolicy { metadata: Metadata::in_namespace("shop", "own"), ..NetworkPolicy::default() });
    // Of a policy and a namespace that went while nobody looked.
    put(
        &*store,
        NetworkPolicy { metadata: Metadata::in_namespace("shop", "knp.default.old"), ..NetworkPolicy::default() },
    );
    put(&*store, tortie_api::Profile { metadata: Metadata::named("kns.old"), ..Default::default() });
    put(&*store, tortie_api::Profile { metadata: Metadata::named("k8s-pod-network"), ..Default::default() });

    let stores = Stores {
        main: etcd(&server),
        beside: Some(Arc::new(cluster.store(None))),
        api: None,
        etcd: None,
        kubernetes: false,
        place: "of a test".into(),
    };
    let seat = Seat::elected(StoreRegister::new(etcd(&server)), "c".into());
    let wiring = Wiring { stores, seat, env: BTreeMap::new(), board: Board::new(None) };
    let mut all = Controllers::start(wiring).expect("they start");

    until("everything is copied", &mut all, || {
        let labels = &stored(&*store, &Key::resource(Kind::WorkloadEndpoint, "shop", "n1-k8s-web--1-eth0"))["metadata"]
            ["labels"];
        labels["app"] == "web" && store.get(&copy("web")).is_ok_and(|found| found.is_some())
    });
    until("what is gone is gone", &mut all, || {
        stored(&*store, &copy("old")).is_null() && stored(&*store, &profile("kns.old")).is_null()
    });
    let found = stored(&*store, &copy("web"));
    let spec = json!({
        "tier": "default", "order": 1000, "types": ["Ingress"],
        "selector": "projectcalico.org/orchestrator == 'k8s' && app == 'web'",
        "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}, "source": {
            "namespaceSelector": "team == 'a'", "selector": "projectcalico.org/orchestrator == 'k8s'"}}],
    });
    assert_eq!(found["spec"], spec, "{found}");
    let namespace = stored(&*store, &profile("kns.shop"));
    let allow = json!([{"action": "Allow"}]);
    assert_eq!((&namespace["spec"]["ingress"], &namespace["spec"]["egress"]), (&allow, &allow));
    let labels = &namespace["spec"]["labelsToApply"];
    assert_eq!((&labels["pcns.team"], &labels["pcns.projectcalico.org/name"]), (&json!("a"), &json!("shop")));
    let account = stored(&*store, &profile("ksa.shop.till"));
    assert_eq!(account["spec"], json!({"labelsToApply": {"pcsa.role": "r", "pcsa.projectcalico.org/name": "till"}}));
    let pod = stored(&*store, &Key::resource(Kind::WorkloadEndpoint, "shop", "n1-k8s-web--1-eth0"));
    assert_eq!(pod["spec"]["ipNetworks"], json!(["10.65.0.1/32"]), "addresses stay: {pod}");
    assert_eq!(pod["spec"]["serviceAccountName"], "till");

    // What changes in Kubernetes, and what somebody changes in etcd.
    call(Method::PUT, &format!("{POLICIES}/web"), policy(81));
    call(Method::PATCH, "/api/v1/namespaces/shop", json!({"metadata": {"labels": {"team": "b"}}}));
    call(Method::PATCH, "/api/v1/namespaces/shop/pods/web-1", json!({"metadata": {"labels": {"app": "other"}}}));
    until("changes are copied", &mut all, || {
        let ports = stored(&*store, &copy("web"))["spec"]["ingress"][0]["destination"]["ports"].clone();
        let pod = stored(&*store, &Key::resource(Kind::WorkloadEndpoint, "shop", "n1-k8s-web--1-eth0"));
        ports == json!([81])
            && stored(&*store, &profile("kns.shop"))["spec"]["labelsToApply"]["pcns.team"] == "b"
            && pod["metadata"]["labels"]["app"] == "other"
    });
    let uid = stored(&*store, &profile("kns.shop"))["metadata"]["uid"].clone();
    delete(&*store, &profile("kns.shop"));
    resource::update(&*store, &copy("web"), |there| {
        let Some(Resource::NetworkPolicy(found)) = there else { panic!("it is there") };
        let mut found = found.clone();
        found.spec.ingress.clear();
        Resource::NetworkPolicy(found)
    })
    .expect("changed");
    until("both are put right", &mut all, || {
        let back = stored(&*store, &profile("kns.shop"));
        back["metadata"]["uid"].is_string()
            && back["metadata"]["uid"] != uid
            && stored(&*store, &copy("web"))["spec"]["ingress"][0]["action"] == "Allow"
    });

    call(Method::DELETE, &format!("{POLICIES}/web"), json!({}));
    call(Method::DELETE, &format!("{accounts}/till"), json!({}));
    until("what goes in Kubernetes goes here", &mut all, || {
        stored(&*store, &copy("web")).is_null() && stored(&*store, &profile("ksa.shop.till")).is_null()
    });
    for kept in [Key::resource(Kind::NetworkPolicy, "shop", "own"), profile("k8s-pod-network"), profile("kns.shop")] {
        assert!(!stored(&*store, &kept).is_null(), "{kept} stays");
    }
}
