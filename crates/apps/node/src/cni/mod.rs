//! The node's side of the CNI plugin: one socket, one short thread a call.
//!
//! Order of ADD: addresses are recorded, then the endpoint and the device are made (side by side on a store where each
//! write is a request), and the answer waits until the kernel holds the endpoint's policy and routes. Order of DEL: the
//! record goes, the kernel forgets, the answer goes out, the device follows. So no interface without policy ever passes
//! traffic, whatever dies in between.

mod add;
mod addresses;
mod asked;
mod check;
mod del;
mod device;
mod gc;
mod mend;
mod phases;
mod reaper;
mod server;
mod turns;
mod workload;

use addresses::Addresses;
pub use addresses::Ask;
use phases::Phase;
pub use phases::Phases;
pub use server::Server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tortie_api::{Kind, Resource};
use tortie_cni::spec::{CniError, Outcome, code};
use tortie_cni::waits;
use tortie_cni::wire::{Operation, Reply, Request};
use tortie_facts::Key;
use tortie_netlink::Netns;
use tortie_store::{Reader, Store};
use tortie_store_kubernetes::Cluster;
use tracing::{info, warn};

use crate::agent::AgentHandle;
use crate::lock;
use mend::Keeper;
use reaper::Reaper;
use turns::{Turn, Turns};

/// Everything that a call needs.
pub struct Service {
    /// The facts.
    pub store: Arc<dyn Store>,
    /// Who tells when the kernel holds what.
    pub agent: AgentHandle,
    /// Who gives addresses.
    pub addresses: Addresses,
    /// Name of this node.
    pub node: String,
    /// The Kubernetes around this node, if there is one.
    cluster: Option<Arc<Cluster>>,
    /// MTU of pods, when the configuration names none.
    mtu: AtomicU32,
    /// Where that MTU is kept for other programs.
    mtu_file: PathBuf,
    reaper: Reaper,
    keeper: Keeper,
    turns: Turns,
    phases: Arc<Phases>,
    /// The datastore's lock, where each look at it would be a request.
    pub lock: lock::Told,
}

impl Service {
    /// A service of this node.
    pub fn new(
        store: Arc<dyn Store>,
        agent: AgentHandle,
        node: String,
        mtu: u32,
        state_dir: &Path,
    ) -> std::io::Result<Service> {
        let phases = agent.cni_phases();
        let addresses = Addresses::new(store.clone(), node.clone()).timed_by(phases.clone());
        let keeper = Keeper::open(state_dir)?;
        addresses.keep_in(state_dir);
        let (mtu, turns) = (AtomicU32::new(mtu), Turns::default());
        let (cluster, mtu_file) = (None, PathBuf::new());
        let reaper = Reaper::start()?;
        let lock = lock::Told::of(&*store);
        Ok(Service { store, agent, addresses, node, cluster, mtu, mtu_file, reaper, keeper, turns, phases, lock })
    }

    /// The same, which asks the Kubernetes around the node what pods want.
    pub fn in_kubernetes(self, cluster: Option<Arc<Cluster>>) -> Service {
        Service { cluster, ..self }
    }

    /// The same, which keeps the MTU of pods in a file for other programs.
    pub fn keeping_mtu_in(self, mtu_file: PathBuf) -> Service {
        let service = Service { mtu_file, ..self };
        service.keep_mtu();
        service
    }

    /// Sets the MTU of pods to come, bytes.
    pub fn set_mtu(&self, mtu: u32) {
        if self.mtu.swap(mtu, Ordering::Relaxed) != mtu {
            info!(mtu, "pods to come have another MTU");
            self.keep_mtu();
        }
    }

    fn keep_mtu(&self) {
        if self.mtu_file.as_os_str().is_empty() {
            return;
        }
        let mtu = self.mtu.load(Ordering::Relaxed).to_string();
        let folder = self.mtu_file.parent().map_or(Ok(()), std::fs::create_dir_all);
        if let Err(error) = folder.and_then(|()| std::fs::write(&self.mtu_file, mtu)) {
            warn!(path = %self.mtu_file.display(), %error, "the pods' MTU can't be kept for other programs");
        }
    }

    /// The ranges that Kubernetes gave this node for its pods.
    fn pod_cidrs(&self) -> Result<Vec<String>, CniError> {
        if let Some(cluster) = &self.cluster {
            return cluster.pod_cidrs(&self.node).map_err(store_fault);
        }
        let key = Key::resource(Kind::Node, "", &self.node);
        let entry = Reader::get(&*self.store, &key).map_err(store_fault)?;
        Ok(match entry.as_ref().and_then(|entry| entry.value.as_resource()).map(|resource| &**resource) {
            Some(Resource::Node(node)) => node.status.pod_cidrs.iter().map(|net| net.0.clone()).collect(),
            _ => Vec::new(),
        })
    }

    /// Does one call.
    pub fn call(&self, request: &Request, netns: Option<Netns>) -> Reply {
        if let Err(error) = self.unlocked(request.operation) {
            return Reply::Failed(error);
        }
        let done = |result: Result<(), CniError>| result.map(|()| Outcome::default());
        let result = match request.operation {
            Operation::Add => self.phases.time(Phase::Add, || self.add(request, netns)),
            Operation::Del => done(self.phases.time(Phase::Del, || self.del(request))),
            Operation::Check => done(self.check(request, netns)),
            Operation::Status => done(self.status()),
            Operation::Gc => done(self.gc(request)),
            Operation::IpamAdd => self.ipam_add(request),
            Operation::IpamDel => done(self.ipam_del(request)),
            Operation::BgpRoutes => {
                let peer = request.args.get("PEER").and_then(|text| text.parse().ok());
                return Reply::State(peer.map_or(serde_json::Value::Null, |peer| self.agent.bgp_routes(peer)));
            }
            Operation::Drops => return Reply::State(self.agent.drops(&request.args)),
            Operation::NodeStatus => return Reply::State(self.agent.state()),
            Operation::PodCidrs => {
                return self.pod_cidrs().map_or_else(Reply::Failed, |cidrs| Reply::State(cidrs.into()));
            }
        };
        result.map_or_else(Reply::Failed, Reply::Done)
    }

    /// Whether an operation may go on: none that writes may while the datastore is locked.
    fn unlocked(&self, operation: Operation) -> Result<(), CniError> {
        let writes = match operation {
            Operation::Add | Operation::Del | Operation::Gc | Operation::IpamAdd | Operation::IpamDel => true,
            // ADD could not work.
            Operation::Status => true,
            Operation::Check
            | Operation::NodeStatus
            | Operation::BgpRoutes
            | Operation::Drops
            | Operation::PodCidrs => false,
        };
        // A datastore that can't be read is for the operation itself to deal with.
        if !writes || !self.lock.told().map_or_else(|| lock::is_locked(&*self.store), Ok).unwrap_or(false) {
            return Ok(());
        }
        let code = if operation == Operation::Status { code::NOT_AVAILABLE } else { code::TRY_AGAIN };
        Err(CniError::new(code, "the datastore is locked: try again after `calicoctl datastore migrate unlock`"))
    }

    /// The turn of an interface, and so of the endpoint that has it.
    fn turn(&self, interface: &str) -> Result<Turn<'_>, CniError> {
        self.turns.take(interface, waits::TURN).ok_or_else(|| {
            CniError::new(code::TRY_AGAIN, format!("an earlier call for the interface {interface} is still under way"))
        })
    }

    /// Whether ADD could work now: the kernel holds a first picture.
    fn status(&self) -> Result<(), CniError> {
        if self.agent.is_in_sync() {
            return Ok(());
        }
        Err(CniError::new(code::NOT_AVAILABLE, "the node agent is not in sync with its datastore yet"))
    }
}

/// A store that can't be used now is a passing condition for the runtime.
fn store_fault(error: impl std::fmt::Display) -> CniError {
    CniError::new(code::TRY_AGAIN, error.to_string())
}
