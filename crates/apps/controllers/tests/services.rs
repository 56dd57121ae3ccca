//! Load-balancer addresses on a real Kubernetes API, with the facts there and in a real etcd.

mod common;
#[path = "../../../store/kubernetes/tests/common/mod.rs"]
mod kubernetes;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::etcd;
use http::Method;
use kubernetes::Cluster;
use serde_json::{Value as Json, json};
use tortie_api::ipam::IpamConfig;
use tortie_api::kinds::AssignmentMode;
use tortie_api::{GoDuration, IpPool, IpPoolAllowedUse, IpPoolSpec, Metadata, Resource};
use tortie_control::default_configuration;
use tortie_controllers::{Board, Controllers, KubernetesRegister, Seat, StoreRegister, Stores, Wiring};
use tortie_etcd_server::Server;
use tortie_facts::{Filter, Key, Value};
use tortie_store::{Expect, Reader as _, Store, Write, resource};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn put(store: &dyn Store, made: impl Into<Resource>) {
    store.write_one(resource::create(made.into())).expect("written");
}

fn pool(name: &str, cidr: &str, purpose: IpPoolAllowedUse, mode: AssignmentMode) -> IpPool {
    let spec = IpPoolSpec {
        cidr: cidr.into(),
        allowed_uses: vec![purpose],
        assignment_mode: Some(mode),
        ..IpPoolSpec::default()
    };
    IpPool { metadata: Metadata::named(name), spec, status: None }
}

fn service(name: &str, class: Option<&str>, annotations: Json) -> Json {
    let mut spec = json!({"type": "LoadBalancer", "ports": [{"port": 80}]});
    if let Some(class) = class {
        spec["loadBalancerClass"] = class.into();
    }
    json!({"metadata": {"name": name, "annotations": annotations}, "spec": spec})
}

/// The addresses that a service's status tells.
fn told(cluster: &Cluster, name: &str) -> Vec<String> {
    let object = cluster.object(Method::GET, &format!("{SERVICES}/{name}"), None);
    let ingress = object["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
    ingress.iter().map(|one| one["ip"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The addresses that services hold, with the service that is recorded.
fn held(store: &dyn Store) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for entry in store.list(&Filter::Blocks).expect("listed").entries {
        let (Key::Block(cidr), Some(block)) = (&entry.key, entry.value.as_block()) else { continue };
        assert_eq!(block.affinity.as_deref(), Some("virtual:load-balancer"));
        for at in 0..block.allocations.len() {
            let Some(attribute) = tortie_ipam::block::holder(block, at) else { continue };
            assert!(attribute.handle_id.as_deref().is_some_and(|id| id.starts_with("lb-")), "{attribute:?}");
            assert_eq!(attribute.secondary["namespace"], "default");
            all.insert(tortie_ipam::block::address(*cidr, at).to_string(), attribute.secondary["service"].clone());
        }
    }
    all
}

fn until(what: &str, all: &mut Controllers, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        all.turn(&|| false).expect("it goes on");
    }
}

/// Services come, change and go. `open`: a client of its own with its seat.
fn life(cluster: &Cluster, store: &dyn Store, open: &dyn Fn() -> (Stores, Seat)) {
    let mut configuration = default_configuration();
    configuration.spec.prometheus_metrics_port = Some(0);
    let node = configuration.spec.controllers.node.as_mut().expect("it has one");
    node.leak_grace_period = Some(GoDuration::from_seconds(2));
    put(store, configuration);
    let automatic = AssignmentMode::Automatic;
    put(store, pool("pods", "10.82.0.0/16", IpPoolAllowedUse::Workload, automatic));
    put(store, pool("lb", "10.80.0.0/24", IpPoolAllowedUse::LoadBalancer, automatic));
    put(store, pool("manual", "10.81.0.0/24", IpPoolAllowedUse::LoadBalancer, AssignmentMode::Manual));
    let call = |method: Method, name: &str, body: Json| {
        let path = if name.is_empty() { SERVICES.to_owned() } else { format!("{SERVICES}/{name}") };
        cluster.object(method, &path, Some(&body))
    };
    call(Method::POST, "", service("web", None, json!({})));
    call(Method::POST, "", service("fixed", None, json!({"projectcalico.org/loadBalancerIPs": "[\"10.80.0.77\"]"})));
    call(Method::POST, "", service("chosen", Some("calico"), json!({"projectcalico.org/ipv4pools": "[\"manual\"]"})));
    call(Method::POST, "", service("wrong", None, json!({"projectcalico.org/ipv4pools": "[\"nowhere\"]"})));
    call(Method::POST, "", service("foreign", Some("example.com/other"), json!({})));

    let start = || {
        let (stores, seat) = open();
        let wiring = Wiring { stores, seat, env: BTreeMap::<String, OsString>::new(), board: Board::new(None) };
        Controllers::start(wiring).expect("they start")
    };
    let mut all = start();
    until("all have their addresses", &mut all, || {
        ["web", "fixed", "chosen"].iter().all(|name| !told(cluster, name).is_empty())
    });
    let [web, chosen] = ["web", "chosen"].map(|name| told(cluster, name));
    assert!(web.len() == 1 && web[0].starts_with("10.80.0."), "{web:?}");
    assert!(chosen.len() == 1 && chosen[0].starts_with("10.81.0."), "{chosen:?}");
    assert_eq!(told(cluster, "fixed"), ["10.80.0.77"]);
    let expected = [(web[0].as_str(), "web"), ("10.80.0.77", "fixed"), (chosen[0].as_str(), "chosen")];
    assert_eq!(held(store), expected.map(|(ip, name)| (ip.to_owned(), name.to_owned())).into());
    assert_eq!([told(cluster, "wrong"), told(cluster, "foreign")], [Vec::<String>::new(), Vec::new()]);

    // Whoever dies, the next one goes on, and gives nothing twice.
    drop(all);
    let to = json!({"metadata": {"annotations": {"projectcalico.org/loadBalancerIPs": "[\"10.80.0.78\"]"}}});
    call(Method::PATCH, "fixed", to);
    call(Method::PATCH, "chosen", json!({"status": {"loadBalancer": {}}}));
    cluster.object(
        Method::PATCH,
        &format!("{SERVICES}/web/status"),
        Some(&json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}})),
    );
    let mut all = start();
    until("the other address", &mut all, || told(cluster, "fixed") == ["10.80.0.78"]);
    until("a status that somebody changed", &mut all, || told(cluster, "web") == web);
    assert_eq!(held(store).len(), 3, "{:?}", held(store));

    call(Method::PATCH, "web", json!({"spec": {"type": "ClusterIP"}}));
    call(Method::DELETE, "fixed", json!({}));
    until("what nobody needs is free", &mut all, || held(store) == [(chosen[0].clone(), "chosen".to_owned())].into());
    let end = Instant::now() + Duration::from_secs(5);
    until("time passes", &mut all, || Instant::now() > end);
    assert_eq!(held(store).len(), 1, "the address of a service is no leak");
    assert_eq!((told(cluster, "chosen"), told(cluster, "web")), (chosen, Vec::new()));
}

/// A client of a cluster that holds the facts too, with its seat.
fn with_facts(cluster: &Cluster) -> (Stores, Seat) {
    let store = Arc::new(cluster.store(None));
    let seat = Seat::elected(KubernetesRegister::new(Arc::clone(&store), "kube-system"), "c".into());
    let stores = Stores {
        main: store.clone(),
        beside: None,
        api: Some(store),
        etcd: None,
        kubernetes: true,
        place: "of a test".into(),
    };
    (stores, seat)
}

/// The lease's namespace is made by the server itself, in its own time.
fn wait_namespace(cluster: &Cluster) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while cluster.call(Method::GET, "/api/v1/namespaces/kube-system", None).is_err() {
        assert!(Instant::now() < deadline, "no kube-system");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn with_the_facts_in_the_kubernetes_api() {
    let Some(cluster) = Cluster::start("services", &[]) else { return };
    wait_namespace(&cluster);
    life(&cluster, &cluster.store(None), &|| with_facts(&cluster));
}

#[test]
fn with_the_facts_in_etcd() {
    if !tortie_etcd_server::installed() {
        return;
    }
    let Some(cluster) = Cluster::start("services-etcd", &[]) else { return };
    let server = Server::plain().ready();
    let etcd = || etcd(&server);
    let open = || {
        let api = Arc::new(cluster.store(None));
        let seat = Seat::elected(StoreRegister::new(etcd()), "c".into());
        let stores = Stores {
            main: etcd(),
            beside: Some(api.clone()),
            api: Some(api),
            etcd: None,
            kubernetes: false,
            place: "of a test".into(),
        };
        (stores, seat)
    };
    life(&cluster, &*etcd(), &open);
}

/// Controllers of a cluster without anything of the network's.
fn controllers(cluster: &Cluster, store: &dyn Store) -> Controllers {
    wait_namespace(cluster);
    let mut configuration = default_configuration();
    configuration.spec.prometheus_metrics_port = Some(0);
    put(store, configuration);
    let (stores, seat) = with_facts(cluster);
    let wiring = Wiring { stores, seat, env: BTreeMap::<String, OsString>::new(), board: Board::new(None) };
    Controllers::start(wiring).expect("they start")
}

const BOTH_FAMILIES: &str = "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112";

#[test]
fn one_family_does_not_wait_for_the_other() {
    let Some(cluster) = Cluster::start("services-families", &[BOTH_FAMILIES]) else { return };
    let store = cluster.store(None);
    let mut all = controllers(&cluster, &store);
    let (balancing, automatic) = (IpPoolAllowedUse::LoadBalancer, AssignmentMode::Automatic);
    put(&store, pool("four", "10.80.0.0/24", balancing, automatic));
    let make = |name: &str, annotations: Json| {
        let mut made = service(name, None, annotations);
        made["spec"]["ipFamilyPolicy"] = "PreferDualStack".into();
        cluster.object(Method::POST, SERVICES, Some(&made));
    };
    make("web", json!({}));
    until("the family that there is", &mut all, || !told(&cluster, "web").is_empty());
    let four = told(&cluster, "web");
    assert!(four.len() == 1 && four[0].starts_with("10.80.0."), "{four:?}");
    put(&store, pool("six", "fd00:80::/112", balancing, automatic));
    until("both families", &mut all, || told(&cluster, "web").len() == 2);
    assert!(told(&cluster, "web").contains(&four[0]));

    make("first", json!({"projectcalico.org/loadBalancerIPs": "[\"10.80.0.77\"]"}));
    until("a fixed address", &mut all, || told(&cluster, "first") == ["10.80.0.77"]);
    make("second", json!({"projectcalico.org/loadBalancerIPs": "[\"10.80.0.77\",\"fd00:80::77\"]"}));
    until("the address that is free", &mut all, || told(&cluster, "second") == ["fd00:80::77"]);
    cluster.object(Method::DELETE, &format!("{SERVICES}/first"), Some(&json!({})));
    until("the other, once it is", &mut all, || told(&cluster, "second").len() == 2);
}

#[test]
fn an_address_rests_as_the_settings_of_ipam_say() {
    let Some(cluster) = Cluster::start("services-cooldown", &[]) else { return };
    let store = cluster.store(None);
    let resting = |seconds: i64| {
        let config = IpamConfig { ip_cooldown_seconds: seconds, ..tortie_ipam::default_config() };
        let found = store.get(&Key::IpamConfig).expect("asked");
        let expect = found.map_or(Expect::Absent, |entry| Expect::Revision(entry.revision));
        store
            .write_one(Write { key: Key::IpamConfig, expect, value: Some(Value::IpamConfig(config)) })
            .expect("written");
    };
    resting(1200);
    let mut all = controllers(&cluster, &store);
    let mut single = pool("single", "10.80.0.7/32", IpPoolAllowedUse::LoadBalancer, AssignmentMode::Automatic);
    single.spec.block_size = 32;
    put(&store, single);
    let make = |name: &str| cluster.object(Method::POST, SERVICES, Some(&service(name, None, json!({}))));
    make("first");
    until("the only address", &mut all, || told(&cluster, "first") == ["10.80.0.7"]);
    cluster.object(Method::DELETE, &format!("{SERVICES}/first"), Some(&json!({})));
    until("it is free", &mut all, || held(&store).is_empty());
    make("second");
    let end = Instant::now() + Duration::from_secs(4);
    until("time passes", &mut all, || Instant::now() > end);
    assert_eq!((told(&cluster, "second"), held(&store).len()), (Vec::<String>::new(), 0), "it rests");
    resting(0);
    until("it has rested", &mut all, || told(&cluster, "second") == ["10.80.0.7"]);
}
