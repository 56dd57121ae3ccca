//! The store on a real API server keeps the port's promises, with a client of its own for each handle.

mod common;

use std::sync::{Arc, LazyLock};

use http::Method;
use serde_json::{Value as Json, json};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tortie_api::Kind;
use tortie_facts::{Key, Revision};
use tortie_store::Store;
use tortie_store::conformance::{Nature, Subject};
use tortie_store_kubernetes::Group;

use common::Cluster;

/// A server that asks etcd each time, so that what etcd forgets is forgotten.
static PLAIN: LazyLock<Server> = LazyLock::new(|| Server::start("plain", &["--watch-cache=false"]));
/// A server with its cache in front of etcd, as clusters have it.
static CACHED: LazyLock<Server> = LazyLock::new(|| Server::start("cached", &[]));

/// One server for many cases, one case at a time.
struct Server {
    cluster: Option<Cluster>,
    turn: Arc<Mutex<()>>,
}

impl Server {
    fn start(name: &str, flags: &[&str]) -> Server {
        Server { cluster: Cluster::start(name, flags), turn: Arc::default() }
    }
}

/// The server during one case.
struct Turn {
    cluster: &'static Cluster,
    group: Group,
    nature: Nature,
    _turn: OwnedMutexGuard<()>,
}

/// The types that the cases write.
const USED: [&str; 3] = ["ipamhandles", "ipamblocks", "blockaffinities"];

/// The type of IPAM's settings.
fn settings(group: Group) -> &'static str {
    match group {
        Group::V1 => "ipamconfigs",
        Group::V3 => "ipamconfigurations",
    }
}

fn fresh(server: &'static Server, group: Group, forgets_at_once: bool) -> Option<Turn> {
    let cluster = server.cluster.as_ref()?;
    let turn = Arc::clone(&server.turn).blocking_lock_owned();
    for plural in USED.into_iter().chain([settings(group)]) {
        cluster.clear(&format!("/apis/{}/{plural}", group.api_version()));
    }
    Some(Turn { cluster, group, nature: Nature { keeps_statuses: false, forgets_at_once }, _turn: turn })
}

impl Subject for Turn {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.cluster.store(Some(self.group)))
    }

    /// The API takes no text that is no object: what can't be read is an object of another shape.
    fn plant(&self, path: &str, text: &str) {
        let name = path.rsplit('/').next().expect("a path");
        let (plural, kind) =
            if path.contains("/handle/") { ("ipamhandles", "IPAMHandle") } else { ("ipamblocks", "IPAMBlock") };
        let root = format!("/apis/{}/{plural}", self.group.api_version());
        let spec = serde_json::from_str(text).unwrap_or(json!({"handleID": name, "block": text}));
        let mut object =
            json!({"apiVersion": self.group.api_version(), "kind": kind, "metadata": {"name": name}, "spec": spec});
        let there = self.cluster.call(Method::GET, &format!("{root}/{name}"), None);
        match there.map(|text| serde_json::from_str::<Json>(&text).expect("an object")) {
            Ok(there) => {
                object["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
                self.cluster.object(Method::PUT, &format!("{root}/{name}"), Some(&object));
            }
            Err(_) => {
                self.cluster.object(Method::POST, &root, Some(&object));
            }
        }
    }

    /// Its own tests plant resources: their objects have other shapes than the texts of other stores.
    fn plants(&self, _kind: Kind) -> bool {
        false
    }

    fn text(&self, path: &str) -> String {
        panic!("{path} is kept as an object")
    }

    fn compact(&self, upto: Revision) {
        self.cluster.compact(upto);
    }

    /// The namespaces of Kubernetes itself.
    fn given(&self, key: &Key) -> bool {
        matches!(key, Key::Resource { .. })
    }

    fn nature(&self) -> Nature {
        self.nature
    }
}

mod v1 {
    //! `crd.projectcalico.org/v1`.
    tortie_store::conformance_tests!(maybe: || super::fresh(&super::PLAIN, super::Group::V1, true));
}

mod v1_cached {
    //! The same behind the server's cache.
    tortie_store::conformance_tests!(maybe: || super::fresh(&super::CACHED, super::Group::V1, false));
}

mod v3 {
    //! `projectcalico.org/v3`.
    tortie_store::conformance_tests!(maybe: || super::fresh(&super::PLAIN, super::Group::V3, true));
}
