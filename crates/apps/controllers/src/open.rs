//! Which datastores there are: the one of the network's facts, and the Kubernetes API beside it, if there is one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tortie_datastore::{Choice, Felix, Sources, choose};
use tortie_store::Store;
use tortie_store_etcd::EtcdStore;
use tortie_store_kubernetes::KubernetesStore;

use crate::seat::{FileSeat, KubernetesRegister, Seat, StoreRegister};

/// The datastores.
pub struct Stores {
    /// The network's facts.
    pub main: Arc<dyn Store>,
    /// The Kubernetes API, where the facts are kept elsewhere.
    pub beside: Option<Arc<dyn Store>>,
    /// The same API, or that of the facts, for what is no fact: the status of services.
    pub api: Option<Arc<KubernetesStore>>,
    /// The etcd of the facts, where they are in one: its history is for the controllers to end.
    pub etcd: Option<EtcdStore>,
    /// Whether the facts are in the Kubernetes API.
    pub kubernetes: bool,
    /// Where the datastore is, for messages.
    pub place: String,
}

/// Opens what the environment names, and says who leads there.
pub(crate) fn open(env: &BTreeMap<String, OsString>) -> Result<(Stores, Seat)> {
    let sources = Sources { env, file: None, felix: Felix::Ignored };
    let choice = choose(&sources)?;
    let place = choice.place();
    let (me, namespace) = (identity(), namespace(env));
    let stores = |main: Arc<dyn Store>, api: Option<Arc<KubernetesStore>>, kubernetes: bool| {
        let beside = api.clone().filter(|_| !kubernetes).map(|api| api as Arc<dyn Store>);
        Stores { main, beside, api, etcd: None, kubernetes, place: place.clone() }
    };
    Ok(match choice {
        Choice::Kubernetes(options) => {
            let store = Arc::new(KubernetesStore::open(*options).context("no thread")?);
            let register = KubernetesRegister::new(Arc::clone(&store), &namespace);
            (stores(store.clone(), Some(store), true), Seat::elected(register, me))
        }
        Choice::Sqlite(options) => {
            let mut lock = options.path.clone().into_os_string();
            lock.push(".controllers");
            let main = Choice::Sqlite(options).open()?;
            (stores(main, beside(env)?, false), Seat::Lock(FileSeat::new(PathBuf::from(lock))))
        }
        Choice::Etcd(options) => {
            let etcd = EtcdStore::open(options)?;
            let main: Arc<dyn Store> = Arc::new(etcd.clone());
            let register = StoreRegister::new(Arc::clone(&main));
            (Stores { etcd: Some(etcd), ..stores(main, beside(env)?, false) }, Seat::elected(register, me))
        }
    })
}

/// The Kubernetes API, if anything says where it is.
fn beside(env: &BTreeMap<String, OsString>) -> Result<Option<Arc<KubernetesStore>>> {
    let named = ["KUBECONFIG", "K8S_API_ENDPOINT", "CALICO_K8S_API_ENDPOINT", "KUBERNETES_SERVICE_HOST"];
    if !named.iter().any(|name| env.get(*name).is_some_and(|value| !value.is_empty())) {
        return Ok(None);
    }
    let mut env = env.clone();
    env.insert("DATASTORE_TYPE".to_owned(), "kubernetes".into());
    match choose(&Sources { env: &env, file: None, felix: Felix::Ignored })? {
        Choice::Kubernetes(options) => Ok(Some(Arc::new(KubernetesStore::open(*options).context("no thread")?))),
        Choice::Sqlite(_) | Choice::Etcd(_) => bail!("the Kubernetes API can't be found by the environment"),
    }
}

/// A name that no other process has.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), uuid::Uuid::new_v4())
}

/// The namespace in which the process runs, or upstream's.
fn namespace(env: &BTreeMap<String, OsString>) -> String {
    const FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
    let told = env.get("POD_NAMESPACE").map(|value| value.to_string_lossy().into_owned());
    let read = || std::fs::read_to_string(FILE).ok().map(|text| text.trim().to_owned());
    told.filter(|name| !name.is_empty()).or_else(read).unwrap_or_else(|| "kube-system".to_owned())
}
