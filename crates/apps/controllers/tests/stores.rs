//! The controllers on each real store: host endpoints, leaks, a node that goes, metrics, and who leads.

mod common;
#[path = "../../../store/kubernetes/tests/common/mod.rs"]
mod kubernetes;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::etcd;
use http::Method;
use serde_json::json;
use tortie_api::kinds::{AutoHostEndpointConfig, NodeSpec, OrchRef, Toggle};
use tortie_api::{GoDuration, Kind, Metadata, Node, Resource, WorkloadEndpoint, WorkloadEndpointSpec};
use tortie_control::default_configuration;
use tortie_controllers::{Board, Controllers, FileSeat, KubernetesRegister, Seat, StoreRegister, Stores, Wiring};
use tortie_datastore::ipam;
use tortie_etcd_server::{Server, Wish};
use tortie_facts::{Filter, Key, OwnerKind, Value};
use tortie_ipam::{Assign, Client, Holder, Now, Pool, Request, Settings};
use tortie_store::{Expect as StoreExpect, MemoryStore, Reader, Store, WatchError, Write};
use tortie_store_etcd::EtcdStore;
use tortie_store_sqlite::SqliteStore;

fn put(store: &dyn Store, resource: Resource) {
    let key = Key::resource(resource.kind(), &resource.metadata().namespace, &resource.metadata().name);
    store.write_one(Write { key, expect: StoreExpect::Any, value: Some(Value::resource(resource)) }).expect("written");
}

/// Gives a pod of a node an address, as the node would.
fn assign(store: &dyn Store, node: &str, pod: &str) -> std::net::IpAddr {
    let pool = Pool {
        name: "pool".to_owned(),
        cidr: "10.7.0.0/16".parse().expect("a literal"),
        block_size: 28,
        node_selector: String::new(),
        namespace_selector: String::new(),
        uses: vec![tortie_api::IpPoolAllowedUse::Workload],
        manual: false,
        closed: None,
    };
    let attrs = [("node", node), ("namespace", "prod"), ("pod", pod)].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let holder = Holder { handle: Some(format!("net.{pod}")), attrs: attrs.into() };
    let request = Request::one(Client::workload(node), holder, tortie_net::Family::V4);
    let settings = Arc::new(Settings { pools: vec![pool], ..Settings::default() });
    let done = ipam::run(store, Assign::new(request, settings, Now(1_700_000_000_000_000_000)));
    done.expect("read").expect("there is room").addresses[0].address
}

/// Tells that a pod runs with an address.
fn runs(store: &dyn Store, node: &str, pod: &str, address: std::net::IpAddr) {
    let name = format!("{node}-k8s-{pod}-eth0");
    let key = Key::resource(Kind::WorkloadEndpoint, "prod", &name);
    let spec = WorkloadEndpointSpec {
        orchestrator: "k8s".into(),
        node: node.into(),
        pod: pod.into(),
        endpoint: "eth0".into(),
        ip_networks: vec![address.to_string().as_str().into()],
        ..WorkloadEndpointSpec::default()
    };
    let endpoint = WorkloadEndpoint { metadata: Metadata::in_namespace("prod", &name), spec };
    store
        .write_one(Write { key, expect: StoreExpect::Any, value: Some(Value::resource(endpoint.into())) })
        .expect("told");
}

fn held(store: &dyn Store) -> Vec<String> {
    let listing = store.list(&Filter::Handles).expect("listed");
    let ids = listing.entries.into_iter().filter_map(|entry| match entry.key {
        Key::Handle(id) => Some(id),
        _ => None,
    });
    ids.collect()
}

fn names(store: &dyn Store, kind: Kind) -> Vec<String> {
    let listing = store.list(&Filter::Kind(kind)).expect("listed");
    listing.entries.iter().filter_map(|entry| Some(entry.value.as_resource()?.metadata().name.clone())).collect()
}

/// Turns all of the controllers until something is so.
fn until(what: &str, all: &mut [&mut Controllers], mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        for one in all.iter_mut() {
            one.turn(&|| false).expect("it goes on");
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback").port()
}

fn metrics(port: u16) -> String {
    use std::io::{Read, Write as _};
    let Ok(mut socket) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    let _ = socket.write_all(b"GET /metrics HTTP/1.0\r\n\r\n");
    let mut text = String::new();
    let _ = socket.read_to_string(&mut text);
    text
}

/// The life of a small cluster. `open`: a client of its own with its seat; `join` and `leave`: a node comes and goes.
fn life(
    open: &dyn Fn() -> (Stores, Seat),
    join: &dyn Fn(&dyn Store, &str),
    leave: &dyn Fn(&dyn Store, &str),
    pod: &dyn Fn(&str, &str),
) {
    let (stores, seat) = open();
    let store = Arc::clone(&stores.main);
    let mut configuration = default_configuration();
    let port = free_port();
    configuration.spec.prometheus_metrics_port = Some(i64::from(port));
    let node = configuration.spec.controllers.node.as_mut().expect("it has one");
    node.leak_grace_period = Some(GoDuration::from_seconds(3));
    node.host_endpoint =
        Some(AutoHostEndpointConfig { auto_create: Some(Toggle::Enabled), ..AutoHostEndpointConfig::default() });
    put(&*store, configuration.into());
    join(&*store, "n1");
    join(&*store, "n2");
    for (node, name) in [("n1", "web"), ("n2", "db")] {
        pod(node, name);
        let address = assign(&*store, node, name);
        runs(&*store, node, name, address);
    }
    let leaked = assign(&*store, "n1", "gone");

    let start = |(stores, seat): (Stores, Seat)| {
        let env: BTreeMap<String, OsString> = BTreeMap::new();
        let board = Board::new(None);
        let wiring = Wiring { stores, seat, env, board: Arc::clone(&board) };
        (Controllers::start(wiring).expect("they start"), board)
    };
    let (mut first, board) = start((stores, seat));
    until("ready", &mut [&mut first], || board.readiness().is_ok());
    until("host endpoints", &mut [&mut first], || names(&*store, Kind::HostEndpoint) == ["n1-auto-hep", "n2-auto-hep"]);
    until("the status", &mut [&mut first], || {
        let found = store.get(&Key::resource(Kind::KubeControllersConfiguration, "", "default")).expect("read");
        let found = found.expect("it is there");
        let Some(Resource::KubeControllersConfiguration(found)) = found.value.as_resource().map(|one| &**one) else {
            return false;
        };
        found.status.running_config.is_some()
    });
    until("the leak is released", &mut [&mut first], || held(&*store) == ["net.db", "net.web"]);
    let reclaimed = "ipam_allocations_gc_reclamations{ippool=\"no_ippool\",node=\"n1\"} 1\n";
    until("metrics", &mut [&mut first], || metrics(port).contains(reclaimed));
    let blocks = store.list(&Filter::Blocks).expect("listed").entries;
    let free = |entry: &tortie_store::Entry| {
        let (Key::Block(cidr), Some(block)) = (&entry.key, entry.value.as_block()) else { return false };
        tortie_ipam::block::ordinal(*cidr, leaked).is_some_and(|at| block.allocations[at].is_none())
    };
    assert!(blocks.iter().any(free), "{leaked} is free");

    // Another one stands by, and goes on when the first ends.
    let (mut second, _) = start(open());
    leave(&*store, "n2");
    for _ in 0..4 {
        second.turn(&|| false).expect("it goes on");
    }
    assert_eq!(names(&*store, Kind::HostEndpoint).len(), 2, "who does not lead does nothing");
    drop(first);
    until("what was the node's is collected", &mut [&mut second], || {
        let mine = store.list(&Filter::Affinities(OwnerKind::Host, "n2".into())).expect("listed");
        held(&*store) == ["net.web"] && mine.entries.is_empty() && names(&*store, Kind::HostEndpoint) == ["n1-auto-hep"]
    });
    // And it stays so: the pod that runs keeps its address.
    let end = Instant::now() + Duration::from_secs(5);
    until("time passes", &mut [&mut second], || Instant::now() > end);
    assert_eq!(held(&*store), ["net.web"]);
}

fn node(store: &dyn Store, name: &str) {
    put(store, Node { metadata: Metadata::named(name), ..Node::default() }.into());
}

/// Deletes a node and the endpoints of its pods, as calicoctl does.
fn no_node(store: &dyn Store, name: &str) {
    let endpoint = Key::resource(Kind::WorkloadEndpoint, "prod", &format!("{name}-k8s-db-eth0"));
    for key in [endpoint, Key::resource(Kind::Node, "", name)] {
        store.write_one(Write { key, expect: StoreExpect::Any, value: None }).expect("deleted");
    }
}

fn stores(main: Arc<dyn Store>, beside: Option<Arc<dyn Store>>, kubernetes: bool) -> Stores {
    Stores { main, beside, api: None, etcd: None, kubernetes, place: "of a test".into() }
}

#[test]
fn on_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tortie.db");
    let open = || {
        let store = SqliteStore::open(tortie_store_sqlite::Options::at(path.clone())).expect("it opens");
        let seat = Seat::Lock(FileSeat::new(folder.path().join("lock")));
        (stores(Arc::new(store), None, false), seat)
    };
    life(&open, &node, &no_node, &|_, _| {});
}

#[test]
fn on_etcd() {
    if !tortie_etcd_server::installed() {
        return;
    }
    let server = Server::start(Wish { tls: true, users: true, ..Wish::default() }).ready();
    let count = std::cell::Cell::new(0);
    let open = || {
        count.set(count.get() + 1);
        let store = etcd(&server);
        let seat = Seat::elected(StoreRegister::new(Arc::clone(&store)), format!("c{}", count.get()));
        (stores(store, None, false), seat)
    };
    life(&open, &node, &no_node, &|_, _| {});
}

#[test]
fn etcd_forgets_what_is_older_than_the_period_that_the_configuration_says() {
    if !tortie_etcd_server::installed() {
        return;
    }
    let server = Server::start(Wish { tls: true, users: true, ..Wish::default() }).ready();
    let tortie_datastore::Choice::Etcd(options) = common::choice(&server) else { panic!("it is etcd") };
    let etcd = EtcdStore::open(options).expect("good settings");
    let store: Arc<dyn Store> = Arc::new(etcd.clone());
    let seat = Seat::elected(StoreRegister::new(Arc::clone(&store)), "c".into());
    let stores = Stores { etcd: Some(etcd.clone()), ..stores(Arc::clone(&store), None, false) };
    let mut configuration = default_configuration();
    configuration.spec.prometheus_metrics_port = Some(0);
    configuration.spec.etcdv3_compaction_period = Some(GoDuration::from_seconds(0));
    put(&*store, configuration.clone().into());
    let early = etcd.revision().expect("read");
    node(&*store, "n1");
    let look = |mut watch: Box<dyn tortie_store::Watch>| watch.next(Duration::from_millis(200));
    let gone = || matches!(store.watch(&Filter::All, early).and_then(look), Err(WatchError::Gone));
    let mut controllers =
        Controllers::start(Wiring { stores, seat, env: BTreeMap::new(), board: Board::new(None) }).expect("they start");
    let looked = std::cell::Cell::new(0);
    until("some turns", &mut [&mut controllers], || looked.replace(looked.get() + 1) > 10);
    assert!(!gone(), "a period of zero keeps everything");
    configuration.spec.etcdv3_compaction_period = Some(GoDuration::from_seconds(1));
    put(&*store, configuration.into());
    until("the history goes", &mut [&mut controllers], gone);
    assert!(store.get(&Key::resource(Kind::Node, "", "n1")).expect("read").is_some(), "what is there stays");
}

#[test]
fn on_the_kubernetes_api() {
    let Some(cluster) = kubernetes::Cluster::start("controllers", &[]) else { return };
    for namespace in ["prod", "kube-system"] {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        // The API server makes some of its own.
        let _ = cluster.call(Method::POST, "/api/v1/namespaces", Some(&object));
    }
    let count = std::cell::Cell::new(0);
    let open = || {
        count.set(count.get() + 1);
        let store = Arc::new(cluster.store(None));
        let register = KubernetesRegister::new(Arc::clone(&store), "kube-system");
        (stores(store, None, true), Seat::elected(register, format!("c{}", count.get())))
    };
    let join = |_: &dyn Store, name: &str| {
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        cluster.object(Method::POST, "/api/v1/nodes", Some(&object));
    };
    let leave = |_: &dyn Store, name: &str| {
        cluster.object(Method::DELETE, &format!("/api/v1/nodes/{name}"), None);
        let now = json!({"gracePeriodSeconds": 0});
        cluster.object(Method::DELETE, "/api/v1/namespaces/prod/pods/db", Some(&now));
    };
    let pod = |node: &str, name: &str| {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "none"}]},
        });
        cluster.object(Method::POST, "/api/v1/namespaces/prod/pods", Some(&object));
    };
    life(&open, &join, &leave, &pod);
    let lease = cluster.object(
        Method::GET,
        "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/calico-kube-controllers",
        None,
    );
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 15, "{lease}");
}

/// A node of the datastore that is a node of Kubernetes under another name.
fn referring(name: &str, theirs: &str) -> Resource {
    let reference = OrchRef { orchestrator: "k8s".into(), node_name: theirs.into() };
    let spec = NodeSpec { orch_refs: vec![reference], ..NodeSpec::default() };
    Node { metadata: Metadata::named(name), spec, ..Node::default() }.into()
}

#[test]
fn beside_kubernetes_labels_are_copied_and_nodes_that_are_gone_there_go() {
    let (store, api) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let mut configuration = default_configuration();
    configuration.spec.prometheus_metrics_port = Some(0);
    configuration.spec.controllers.node.as_mut().expect("it has one").leak_grace_period =
        Some(GoDuration::from_seconds(2));
    put(&*store, configuration.into());
    let mut theirs = Node { metadata: Metadata::named("k1"), ..Node::default() };
    theirs.metadata.labels.insert("zone", "a");
    put(&*api, theirs.into());
    node(&*api, "k2");
    put(&*store, referring("n1", "k1"));
    put(&*store, referring("n2", "k2"));
    node(&*store, "router");
    // Another network plugin's pod has no endpoint here: Kubernetes alone tells of it.
    let foreign = assign(&*store, "n1", "foreign");
    runs(&*api, "k1", "foreign", foreign);
    let address = assign(&*store, "n2", "db");
    runs(&*store, "n2", "db", address);

    let seat = Seat::elected(StoreRegister::new(store.clone()), "c".into());
    let wiring = Wiring {
        stores: stores(store.clone(), Some(api.clone()), false),
        seat,
        env: BTreeMap::new(),
        board: Board::new(None),
    };
    let mut controllers = Controllers::start(wiring).expect("they start");
    let labelled = || {
        let found = store.get(&Key::resource(Kind::Node, "", "n1")).expect("read").expect("it is there");
        found.value.as_resource().is_some_and(|node| node.metadata().labels.get("zone").is_some_and(|zone| zone == "a"))
    };
    until("labels", &mut [&mut controllers], labelled);
    let gone = Key::resource(Kind::Node, "", "k2");
    api.write_one(Write { key: gone, expect: StoreExpect::Any, value: None }).expect("deleted");
    until("the node goes with what was its own", &mut [&mut controllers], || {
        names(&*store, Kind::Node) == ["n1", "router"] && held(&*store) == ["net.foreign"]
    });
    assert!(names(&*store, Kind::WorkloadEndpoint).is_empty());
}
