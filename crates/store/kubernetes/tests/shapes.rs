//! What lies in the API after writes is what upstream writes, and what others wrote is read and kept.

mod common;

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value as Json, json};
use tortie_api::{Kind, Resource};
use tortie_facts::{Filter, Key, OwnerKind, Value};
use tortie_store::{Event, Expect, Reader, Store, StoreError, WatchError, Write, WriteError, resource};
use tortie_store_kubernetes::{Group, KubernetesStore, Options};

use common::{Cluster, NOBODY, READER};

static CLUSTER: LazyLock<Option<Cluster>> = LazyLock::new(|| Cluster::start("shapes", &[]));

const V1: &str = "/apis/crd.projectcalico.org/v1";
const V3: &str = "/apis/projectcalico.org/v3";
const METADATA: &str = "projectcalico.org/metadata";

fn resource(document: Json) -> Resource {
    Resource::from_value(document).expect("a good resource")
}

fn put(store: &dyn Store, key: Key, expect: Expect, text: &str) -> Result<(), WriteError> {
    let value = Some(Value::from_json(&key, text).expect("a good value"));
    store.write_one(Write { key, expect, value }).map(drop)
}

fn wait<T>(mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(Instant::now() < deadline, "it does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn address_management_is_stored_as_upstream_stores_it() {
    let Some(cluster) = &*CLUSTER else { return };
    for (group, root) in [(Group::V1, V1), (Group::V3, V3)] {
        let store = cluster.store(Some(group));
        let cidr = "10.65.0.0/30".parse().expect("a prefix");
        let block = r#"{"cidr":"10.65.0.0/30","affinity":"host:n-1","affinity_claim_time":"2026-01-02T03:04:05Z","allocations":[0,null,null,null],"unallocated":[1,2,3],"attributes":[{"handle_id":"H.a","secondary":{"pod":"p"}}],"sequenceNumber":1700000000000000003,"sequenceNumberForAllocation":{"0":1},"deleted":false}"#;
        put(&store, Key::Block(cidr), Expect::Absent, block).expect("it is absent");
        let object = cluster.object(Method::GET, &format!("{root}/ipamblocks/10-65-0-0-30"), None);
        let spec = json!({"cidr": "10.65.0.0/30", "affinity": "host:n-1", "affinityClaimTime": "2026-01-02T03:04:05Z",
            "allocations": [0, null, null, null], "unallocated": [1, 2, 3],
            "attributes": [{"handle_id": "H.a", "secondary": {"pod": "p"}}], "sequenceNumber": 1_700_000_000_000_000_003_u64,
            "sequenceNumberForAllocation": {"0": 1}, "deleted": false, "strictAffinity": false});
        assert_eq!((&object["kind"], &object["spec"]), (&json!("IPAMBlock"), &spec));
        let entry = store.get(&Key::Block(cidr)).expect("a read").expect("it is there");
        assert_eq!(entry.value.to_json(), block);

        let affinity = Key::host_affinity("n-1", cidr);
        put(&store, affinity.clone(), Expect::Absent, r#"{"state":"pending","deleted":false}"#).expect("it is absent");
        let object = cluster.object(Method::GET, &format!("{root}/blockaffinities/n-1-10-65-0-0-30"), None);
        let deleted = if group == Group::V1 { json!("false") } else { json!(false) };
        let spec =
            json!({"state": "pending", "node": "n-1", "type": "host", "cidr": "10.65.0.0/30", "deleted": deleted});
        assert_eq!(object["spec"], spec);
        assert_eq!(object["metadata"]["labels"]["projectcalico.org/affinity-type"], "host");

        put(&store, Key::Handle("Net.ABC".into()), Expect::Absent, r#"{"block":{"10.65.0.0/30":1},"deleted":false}"#)
            .expect("it is absent");
        let object = cluster.object(Method::GET, &format!("{root}/ipamhandles/net.abc"), None);
        assert_eq!(object["spec"], json!({"handleID": "Net.ABC", "block": {"10.65.0.0/30": 1}, "deleted": false}));
        assert!(store.get(&Key::Handle("Net.ABC".into())).expect("a read").is_some());
        assert_eq!(store.get(&Key::Handle("net.abc".into())), Ok(None));

        put(
            &store,
            Key::IpamConfig,
            Expect::Any,
            r#"{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":4}"#,
        )
        .expect("anything goes");
        let plural = if group == Group::V1 { "ipamconfigs" } else { "ipamconfigurations" };
        let object = cluster.object(Method::GET, &format!("{root}/{plural}/default"), None);
        assert_eq!(object["kind"], if group == Group::V1 { "IPAMConfig" } else { "IPAMConfiguration" });
        assert_eq!(object["spec"], json!({"strictAffinity": true, "autoAllocateBlocks": true, "maxBlocksPerHost": 4}));
        for key in [Key::Block(cidr), affinity, Key::Handle("Net.ABC".into()), Key::IpamConfig] {
            store.write_one(Write { key: key.clone(), expect: Expect::Any, value: None }).expect("it is there");
            assert_eq!(store.get(&key), Ok(None));
        }
    }
}

#[test]
fn a_deletion_that_died_half_way_is_finished_by_the_next() {
    let Some(cluster) = &*CLUSTER else { return };
    let store = cluster.store(Some(Group::V1));
    let object = |deleted: bool| {
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPAMHandle", "metadata": {"name": "half"},
            "spec": {"handleID": "half", "block": {}, "deleted": deleted}})
    };
    let path = format!("{V1}/ipamhandles");
    let key = Key::Handle("half".into());
    cluster.object(Method::POST, &path, Some(&object(true)));
    let listing = store.list(&Filter::Handles).expect("a listing");
    assert!(listing.entries.iter().all(|entry| entry.key != key), "a reader sees it");
    put(&store, key.clone(), Expect::Absent, r#"{"block":{},"deleted":false}"#).expect("it counts as absent");
    assert_eq!(cluster.object(Method::GET, &format!("{path}/half"), None)["spec"]["deleted"], false);
    cluster.object(Method::DELETE, &format!("{path}/half"), None);
    cluster.object(Method::POST, &path, Some(&object(true)));
    assert_eq!(store.get(&key), Ok(None));
    assert!(cluster.call(Method::GET, &format!("{path}/half"), None).is_err(), "it is left lying");
}

#[test]
fn resources_keep_what_others_wrote_and_what_is_newer() {
    let Some(cluster) = &*CLUSTER else { return };
    for (group, root) in [(Group::V1, V1), (Group::V3, V3)] {
        let store = cluster.store(Some(group));
        let path = format!("{root}/globalnetworksets");
        let metadata = match group {
            Group::V1 => json!({"name": "kept", "annotations": {"projectcalico.org/x": "y", METADATA:
                r#"{"creationTimestamp":"2026-01-02T03:04:05Z","labels":{"a":"b"},"annotations":{"note":"n"},"newer":[1]}"#}}),
            Group::V3 => {
                json!({"name": "kept", "labels": {"a": "b"}, "annotations": {"projectcalico.org/x": "y", "note": "n"}})
            }
        };
        cluster.object(
            Method::POST,
            &path,
            Some(&json!({"apiVersion": group.api_version(), "kind": "GlobalNetworkSet",
            "metadata": metadata, "spec": {"nets": ["10.0.0.0/8"], "newer": {"x": 1}}, "newest": true})),
        );
        let key = Key::resource(Kind::GlobalNetworkSet, "", "kept");
        let entry = store.get(&key).expect("a read").expect("it is there");
        let found = entry.value.as_resource().expect("a resource");
        assert_eq!(found.metadata().labels.get("a"), Some("b"));
        assert_eq!(
            (&*found.metadata().annotations["note"], &*found.metadata().annotations["projectcalico.org/x"]),
            ("n", "y")
        );
        resource::update(&store, &key, |there| {
            let Some(Resource::GlobalNetworkSet(set)) = there else { panic!("it is there") };
            let mut set = set.clone();
            set.spec.nets.push("11.0.0.0/8".into());
            set.metadata.labels.insert("c", "d");
            Resource::GlobalNetworkSet(set)
        })
        .expect("an update");
        let object = cluster.object(Method::GET, &format!("{path}/kept"), None);
        assert_eq!(object["spec"], json!({"nets": ["10.0.0.0/8", "11.0.0.0/8"], "newer": {"x": 1}}));
        assert_eq!(object["newest"], true);
        if group == Group::V1 {
            let inner = object["metadata"]["annotations"][METADATA].as_str().expect("the annotation");
            let inner: Json = serde_json::from_str(inner).expect("JSON");
            assert_eq!((&inner["newer"], &inner["labels"]), (&json!([1]), &json!({"a": "b", "c": "d"})));
            assert_eq!(object["metadata"]["labels"], Json::Null);
        }
        store.write_one(Write { key: key.clone(), expect: Expect::Any, value: None }).expect("it is there");
        assert_eq!(store.get(&key), Ok(None));
    }
}

/// A resource with every field that upstream's structure has, under a name of its own. `None`: other objects of
/// Kubernetes stand for this kind, whose shapes are in `crates/model/kubernetes/tests/golden`.
fn golden(kind: Kind) -> Option<Json> {
    if [Kind::Profile, Kind::Node, Kind::WorkloadEndpoint].contains(&kind) {
        return None;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../model/api/tests/golden");
    let text = std::fs::read_to_string(folder.join(format!("{kind}.json"))).expect("every kind has a golden file");
    let mut document: Json = serde_json::from_str(&text).expect("JSON");
    document["metadata"] = json!({"name": "round.trip", "labels": {"l": "1"}, "annotations": {"n": "2"}});
    if kind.namespaced() {
        document["metadata"]["namespace"] = "round-trip".into();
    }
    if let Some(deleted) = document["spec"].get_mut("deleted") {
        // Objects of address management that are marked so are on their way out.
        *deleted = false.into();
    }
    Some(document)
}

/// What an object holds beside what its server owns.
fn owned(mut object: Json) -> Json {
    let metadata = object["metadata"].as_object_mut().expect("an object has metadata");
    for field in ["uid", "resourceVersion", "generation", "managedFields", "creationTimestamp"] {
        metadata.remove(field);
    }
    if let Some(Json::String(text)) = metadata.get_mut("annotations").and_then(|all| all.get_mut(METADATA)) {
        let mut inner: Json = serde_json::from_str(text).expect("JSON");
        assert!(inner["creationTimestamp"].take().is_string(), "{text}");
        *text = inner.to_string();
    }
    object
}

#[test]
fn every_kind_is_stored_as_upstream_stores_it_and_read_back_whole() {
    let Some(cluster) = &*CLUSTER else { return };
    cluster.object(Method::POST, "/api/v1/namespaces", Some(&json!({"metadata": {"name": "round-trip"}})));
    for (group, root, file) in [(Group::V1, V1, "v1.txt"), (Group::V3, V3, "v3.txt")] {
        let store = cluster.store(Some(group));
        let mut shapes = String::new();
        for (kind, document) in Kind::ALL.iter().filter_map(|kind| Some((*kind, golden(*kind)?))) {
            let written = resource(document);
            store.write_one(resource::create(written.clone())).unwrap_or_else(|error| panic!("{kind}: {error}"));
            let key = resource::resource_key(&written);
            let entry = store.get(&key).expect("a read").unwrap_or_else(|| panic!("{kind} is not there"));
            let mut read = (**entry.value.as_resource().expect("a resource")).clone();
            assert!(!read.metadata().uid.is_empty() && read.metadata().creation_timestamp.is_some(), "{kind}");
            let meta = read.metadata_mut();
            (meta.uid, meta.creation_timestamp, meta.generation) = (String::new(), None, 0);
            assert_eq!(read.to_value(), written.to_value(), "{kind}");
            let filter = Filter::Namespace(kind, written.metadata().namespace.clone());
            let filter = if kind.namespaced() { filter } else { Filter::Kind(kind) };
            assert!(store.list(&filter).expect("a listing").entries.contains(&entry), "{kind}");
            let plural =
                if (group, kind) == (Group::V1, Kind::IpamConfiguration) { "ipamconfigs" } else { kind.plural() };
            let place = if kind.namespaced() { format!("namespaces/round-trip/{plural}") } else { plural.to_owned() };
            let path = format!("{root}/{place}/round.trip");
            shapes += &format!("{path} {}\n", owned(cluster.object(Method::GET, &path, None)));
            store.write_one(Write { key, expect: Expect::Any, value: None }).expect("it is there");
        }
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
        if std::env::var_os("TORTIE_BLESS").is_some() {
            std::fs::write(&file, &shapes).expect("a writable folder");
        }
        let expected = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(shapes, expected, "{}: `cargo xtask bless` rewrites it", file.display());
    }
}

#[test]
fn policies_of_older_versions_are_found_by_their_own_name() {
    let Some(cluster) = &*CLUSTER else { return };
    let store = cluster.store(Some(Group::V1));
    let path = format!("{V1}/globalnetworkpolicies");
    cluster.object(
        Method::POST,
        &path,
        Some(&json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "default.old"}, "spec": {"selector": "all()", "tier": "default", "types": ["Ingress"]}})),
    );
    let key = Key::resource(Kind::GlobalNetworkPolicy, "", "old");
    assert!(store.get(&key).expect("a read").is_some());
    resource::update(&store, &key, |there| {
        let Some(Resource::GlobalNetworkPolicy(policy)) = there else { panic!("it is there") };
        let mut policy = policy.clone();
        policy.spec.order = Some(7.0);
        Resource::GlobalNetworkPolicy(policy)
    })
    .expect("an update");
    assert_eq!(cluster.object(Method::GET, &format!("{path}/default.old"), None)["spec"]["order"], 7);
    assert!(cluster.call(Method::GET, &format!("{path}/old"), None).is_err(), "there are two of it now");
    store.write_one(Write { key, expect: Expect::Any, value: None }).expect("it is there");
}

#[test]
fn the_group_is_found_out_as_upstream_finds_it() {
    let Some(cluster) = &*CLUSTER else { return };
    // Both are there: v3 is served from v1.
    let store = cluster.store(None);
    put(&store, Key::Handle("found".into()), Expect::Any, r#"{"block":{},"deleted":false}"#).expect("anything goes");
    assert!(cluster.call(Method::GET, &format!("{V1}/ipamhandles/found"), None).is_ok());
}

#[test]
fn bad_settings_and_missing_rights_say_what_to_do() {
    let Some(cluster) = &*CLUSTER else { return };
    let good = || Options { deadline: Some(Duration::from_secs(3)), ..cluster.options(Some(Group::V1)) };
    let other = cluster.directory.join("sa.key").display().to_string();
    let wrong_ca = cluster.directory.join("wrong.crt");
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-new", "-key", &other, "-subj", "/CN=other", "-days", "2", "-out"])
        .arg(&wrong_ca)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{made:?}");
    let port = common::free_port();
    let table = [
        (Options { token: NOBODY.into(), ..good() }, ["the verb list", "ipamhandles.crd.projectcalico.org"]),
        (Options { token: "wrong".into(), ..good() }, ["credentials", "K8S_API_ENDPOINT"]),
        (Options { ca_file: wrong_ca.display().to_string(), ..good() }, ["K8S_CA_FILE", "K8S_API_ENDPOINT"]),
        (Options { endpoint: format!("https://127.0.0.1:{port}"), ..good() }, ["K8S_API_ENDPOINT", "refused"]),
    ];
    for (options, expected) in table {
        let store = KubernetesStore::open(options).expect("a thread");
        let error = store.list(&Filter::Handles).expect_err("it can't work");
        let text = error.to_string();
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains(NOBODY) && !text.contains("wrong\""), "{text}");
        let refused = matches!(error, StoreError::Unusable(_));
        assert_eq!(refused, text.contains("verb") || text.contains("credentials"), "{error:?}");
    }
    let store = KubernetesStore::open(Options { token: NOBODY.into(), ..good() }).expect("a thread");
    let error = put(&store, Key::Handle("x".into()), Expect::Absent, r#"{"block":{}}"#).expect_err("no rights");
    assert!(error.to_string().contains("the verb create"), "{error}");
}

#[test]
fn a_pod_is_an_endpoint_and_takes_its_addresses() {
    let Some(cluster) = &*CLUSTER else { return };
    let store: Arc<dyn Store> = Arc::new(cluster.store(Some(Group::V1)));
    let start = store.list(&Filter::All).expect("a listing").revision;
    let mut watch = store.watch(&Filter::All, start).expect("a watch");
    cluster.object(
        Method::POST,
        "/api/v1/namespaces",
        Some(&json!({"metadata": {"name": "pods", "labels": {"env": "x"}}})),
    );
    cluster.object(
        Method::POST,
        "/api/v1/namespaces/pods/serviceaccounts",
        Some(&json!({"metadata": {"name": "web", "labels": {"role": "r"}}})),
    );
    cluster.object(
        Method::POST,
        "/api/v1/namespaces/pods/pods",
        Some(&json!({"metadata": {"name": "web-1", "labels": {"app": "web"}},
        "spec": {"nodeName": "n-1", "serviceAccountName": "web", "automountServiceAccountToken": false,
                 "containers": [{"name": "c", "image": "i"}]}})),
    );
    cluster.object(
        Method::POST,
        "/apis/networking.k8s.io/v1/namespaces/pods/networkpolicies",
        Some(&json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {}}})),
    );
    let wanted = [
        Key::resource(Kind::Profile, "", "kns.pods"),
        Key::resource(Kind::Profile, "", "ksa.pods.web"),
        Key::resource(Kind::WorkloadEndpoint, "pods", "n--1-k8s-web--1-eth0"),
        Key::resource(Kind::KubernetesNetworkPolicy, "pods", "deny"),
    ];
    let mut told = Vec::new();
    wait(|| {
        for event in watch.next(Duration::from_millis(200)).expect("it goes on") {
            if let Event::Put(entry) = event {
                told.push(entry.key);
            }
        }
        wanted.iter().all(|key| told.contains(key)).then_some(())
    });
    let listing = store.list(&Filter::All).expect("a listing");
    assert_eq!(listing.invalid, []);
    for key in &wanted {
        let entry = store.get(key).expect("a read").unwrap_or_else(|| panic!("{key} can't be got"));
        assert!(listing.entries.contains(&entry), "{key}");
    }

    // A write of addresses reaches the pod, whatever kubelet did meanwhile.
    let key = &wanted[2];
    let entry = store.get(key).expect("a read").expect("it is there");
    cluster.object(
        Method::PATCH,
        "/api/v1/namespaces/pods/pods/web-1/status",
        Some(&json!({"status": {"message": "kubelet was here"}})),
    );
    let Some(Resource::WorkloadEndpoint(endpoint)) = entry.value.as_resource().map(|r| &**r) else {
        panic!("{entry:?}")
    };
    let mut endpoint = endpoint.clone();
    endpoint.spec.ip_networks = vec!["10.65.1.1/32".into()];
    endpoint.spec.container_id = "abc".into();
    endpoint.metadata.uid = "11111111-2222-4333-8444-555555555555".into();
    let write = |expect, value| store.write_one(Write { key: key.clone(), expect, value });
    write(Expect::Revision(entry.revision), Some(Value::resource(Resource::WorkloadEndpoint(endpoint.clone()))))
        .expect("the pod is there");
    let pod = cluster.object(Method::GET, "/api/v1/namespaces/pods/pods/web-1", None);
    assert_eq!(pod["metadata"]["annotations"]["cni.projectcalico.org/podIP"], "10.65.1.1/32");
    assert_eq!(pod["metadata"]["annotations"]["cni.projectcalico.org/containerID"], "abc");
    let after = store.get(key).expect("a read").expect("it is there");
    let Some(Resource::WorkloadEndpoint(found)) = after.value.as_resource().map(|r| &**r) else { panic!("{after:?}") };
    assert_eq!(found.spec.ip_networks, endpoint.spec.ip_networks);

    // The write of one who means an earlier pod of the same name does not touch the later one.
    cluster.object(Method::DELETE, "/api/v1/namespaces/pods/pods/web-1?gracePeriodSeconds=0", None);
    assert_eq!(store.get(key), Ok(None));
    cluster.object(Method::POST, "/api/v1/namespaces/pods/pods", Some(&json!({"metadata": {"name": "web-1"},
        "spec": {"nodeName": "n-1", "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]}})));
    let stale = write(Expect::Revision(after.revision), None);
    assert!(matches!(stale, Err(WriteError::Missing(_))), "{stale:?}");
    let fresh = store.get(key).expect("a read").expect("it is there");
    write(Expect::Revision(fresh.revision), None).expect("it is this pod");
    let pod = cluster.object(Method::GET, "/api/v1/namespaces/pods/pods/web-1", None);
    assert_eq!(pod["metadata"]["annotations"]["cni.projectcalico.org/podIPs"], "");
    let profile = write_profile(&*store);
    assert!(profile.contains("namespaces and service accounts"), "{profile}");
}

fn write_profile(store: &dyn Store) -> String {
    let document =
        json!({"apiVersion": "projectcalico.org/v3", "kind": "Profile", "metadata": {"name": "kns.x"}, "spec": {}});
    let error = store.write_one(resource::create(resource(document))).expect_err("it comes from elsewhere");
    error.to_string()
}

#[test]
fn a_node_publishes_itself_in_annotations() {
    let Some(cluster) = &*CLUSTER else { return };
    let store = cluster.store(Some(Group::V1));
    cluster.object(Method::POST, "/api/v1/nodes", Some(&json!({"metadata": {"name": "n-9", "labels": {"zone": "a"}}})));
    let key = Key::resource(Kind::Node, "", "n-9");
    let written = resource::update(&store, &key, |there| {
        let Some(Resource::Node(node)) = there else { panic!("kubelet made it") };
        let mut node = node.clone();
        let bgp = node.spec.bgp.get_or_insert_default();
        bgp.ipv4_address = "10.0.0.9/24".into();
        node.spec.ipv4_vxlan_tunnel_addr = "10.65.0.1".into();
        Resource::Node(node)
    });
    written.expect("the node is there");
    let object = cluster.object(Method::GET, "/api/v1/nodes/n-9", None);
    assert_eq!(object["metadata"]["annotations"]["projectcalico.org/IPv4Address"], "10.0.0.9/24");
    assert_eq!(object["metadata"]["annotations"]["projectcalico.org/IPv4VXLANTunnelAddr"], "10.65.0.1");
    assert_eq!(object["metadata"]["labels"]["zone"], "a");
    let entry = store.get(&key).expect("a read").expect("it is there");
    let stale = Write {
        key: key.clone(),
        expect: Expect::Revision(tortie_facts::Revision(entry.revision.0 - 1)),
        value: Some(entry.value.clone()),
    };
    assert!(matches!(store.write_one(stale), Err(WriteError::Conflict { .. })));
    let gone = store.write_one(Write { key, expect: Expect::Any, value: None });
    assert!(matches!(&gone, Err(WriteError::Invalid(text)) if text.contains("kubectl")), "{gone:?}");
}

#[test]
fn everything_can_be_listed_in_pages_and_at_one_revision() {
    let Some(cluster) = &*CLUSTER else { return };
    let store = cluster.store(Some(Group::V3));
    let count = 1200;
    for part in (0..count).collect::<Vec<u32>>().chunks(100) {
        let writes: Vec<Write> = part
            .iter()
            .map(|n| {
                let key = Key::Handle(format!("page-{n}"));
                let value = Some(Value::from_json(&key, r#"{"block":{},"deleted":false}"#).expect("good"));
                Write { key, expect: Expect::Absent, value }
            })
            .collect();
        store.write_all(&writes).expect("all are absent");
    }
    let filter = Filter::Any(vec![Filter::Kind(Kind::IpPool), Filter::Handles, Filter::AllAffinities(OwnerKind::Host)]);
    let listing = store.list(&filter).expect("a listing");
    assert_eq!(listing.entries.iter().filter(|entry| matches!(entry.key, Key::Handle(_))).count(), count as usize);
    assert!(listing.entries.iter().all(|entry| entry.revision <= listing.revision));
    assert!(store.watch(&filter, listing.revision).is_ok());
    assert_eq!(store.watch(&filter, tortie_facts::Revision(0)).err(), Some(WatchError::Gone));
}

#[test]
fn a_right_is_needed_for_what_is_there_only() {
    let Some(cluster) = &*CLUSTER else { return };
    let reader = || Options { token: READER.into(), ..cluster.options(Some(Group::V1)) };
    let path = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let rule = |group: &str| json!({"apiGroups": [group], "resources": ["*"], "verbs": ["get", "list", "watch"]});
    // As an older version's role: it knows nothing of ClusterNetworkPolicies, and neither does the server.
    let groups = ["", "crd.projectcalico.org", "networking.k8s.io", "discovery.k8s.io"];
    let role = |rules: &[&str]| {
        let rules: Vec<Json> = rules.iter().map(|group| rule(group)).collect();
        json!({"metadata": {"name": "reader"}, "rules": rules})
    };
    cluster.object(Method::POST, path, Some(&role(&groups[..3])));
    let binding = json!({"metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}]});
    cluster.object(Method::POST, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", Some(&binding));
    let store = KubernetesStore::open(reader()).expect("a thread");
    wait(|| store.list(&Filter::Handles).ok());
    let error = store.list(&Filter::All).expect_err("it may not list what is there").to_string();
    assert!(error.contains("the verb list") && error.contains("endpointslices.discovery.k8s.io"), "{error}");
    cluster.object(Method::PUT, &format!("{path}/reader"), Some(&role(&groups)));
    let listing = wait(|| store.list(&Filter::All).ok());
    assert!(store.watch(&Filter::All, listing.revision).is_ok());
}
