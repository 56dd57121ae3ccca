//! DEL: the record goes first, the kernel forgets, the device follows.

use tortie_api::{Kind, Resource};
use tortie_cni::conf::Conf;
use tortie_cni::spec::{CniError, code};
use tortie_cni::waits;
use tortie_cni::wire::Request;
use tortie_facts::Key;
use tortie_net::Mac;
use tortie_netlink::Handle;
use tortie_store::{Entry, Expect, Reader, Write, WriteError};
use tracing::{info, warn};

use super::add::endpoint_id;
use super::workload::Workload;
use super::{Service, store_fault};
use crate::agent::Until;

impl Service {
    /// Done twice, or for what was never there, it is no error (CNI spec, "DEL").
    pub(super) fn del(&self, request: &Request) -> Result<(), CniError> {
        let conf = Conf::from_value(&request.conf)?;
        let workload = Workload::of(request, &conf, &self.node)?;
        let _turn = self.turn(&workload.interface)?;
        self.forget(&workload, Some(&conf))
    }

    /// Takes away whatever there is of a workload. Its turn must be the caller's.
    pub(super) fn forget(&self, workload: &Workload, conf: Option<&Conf>) -> Result<(), CniError> {
        let key = Key::resource(Kind::WorkloadEndpoint, &workload.namespace, &workload.endpoint);
        let entry = Reader::get(&*self.store, &key).map_err(store_fault)?;
        let ours = entry.as_ref().filter(|entry| is_of(entry, &workload.container_id));
        if entry.is_some() && ours.is_none() {
            info!(
                endpoint = workload.endpoint,
                container = workload.container_id,
                "the endpoint belongs to a later container by now; only the address handle is released"
            );
        }
        let removal =
            ours.map(|entry| Write { key: key.clone(), expect: Expect::Revision(entry.revision), value: None });
        if conf.is_none_or(Conf::own_ipam) {
            self.addresses.release(&workload.handle, removal)?;
        } else if let Some(removal) = removal {
            match self.store.write_one(removal) {
                Ok(_) | Err(WriteError::Missing(_)) => {}
                Err(error) => return Err(store_fault(error)),
            }
        }
        let interface = match (&entry, ours) {
            (Some(_), None) => None,
            (Some(_), Some(entry)) => match entry.value.as_resource().map(|r| &**r) {
                Some(Resource::WorkloadEndpoint(endpoint)) => Some(endpoint.spec.interface_name.clone()),
                _ => Some(workload.interface.clone()),
            },
            // Somebody deleted the record, or an earlier DEL got no further.
            (None, _) => self.is_kept(workload).then(|| workload.interface.clone()),
        };
        if let Some(interface) = interface {
            // Where endpoints are pods, an endpoint outlives its container; its rules go with the device.
            if Reader::get(&*self.store, &key).map_err(store_fault)?.is_none() {
                self.agent.wait(&endpoint_id(workload), Until::Gone, waits::GONE).map_err(|why| {
                    CniError::new(code::TRY_AGAIN, format!("the kernel still holds the pod's rules: {why}"))
                })?;
            }
            self.reap(&interface);
        }
        Ok(())
    }

    /// Before a new container takes over the endpoint of an old one, the old one's addresses are released.
    pub(super) fn release_old(&self, entry: &Entry, workload: &Workload) -> Result<(), CniError> {
        let Some(Resource::WorkloadEndpoint(old)) = entry.value.as_resource().map(|r| &**r) else { return Ok(()) };
        if old.spec.container_id.is_empty() || old.spec.container_id == workload.container_id {
            return Ok(());
        }
        // The handle is the network's name and the container, joined by a dot.
        let network = workload.handle.strip_suffix(&workload.container_id).unwrap_or_default();
        self.addresses.release(&format!("{network}{}", old.spec.container_id), None)
    }

    /// Whether the workload's interface was made for its endpoint.
    fn is_kept(&self, workload: &Workload) -> bool {
        let owner = self.keeper.owner(&workload.interface);
        owner.is_some_and(|(namespace, name)| {
            (namespace, name) == (workload.namespace.clone(), workload.endpoint.clone())
        })
    }

    fn reap(&self, interface: &str) {
        self.keeper.forget(interface);
        match Handle::open().and_then(|mut handle| handle.link(interface)) {
            // What the datastore says of names is no reason to delete a device that ADD did not make.
            Ok(link) if link.mac != Some(Mac::WORKLOAD_HOST_SIDE) => {
                warn!(interface, "the device of a deleted pod is none that was made for pods; it stays");
            }
            Ok(link) => self.reaper.take(link.index),
            Err(error) if error.is_not_found() => {}
            Err(error) => warn!(%error, interface, "the device of a deleted pod stays; it is cut off"),
        }
    }
}

fn is_of(entry: &Entry, container_id: &str) -> bool {
    match entry.value.as_resource().map(|r| &**r) {
        Some(Resource::WorkloadEndpoint(endpoint)) => {
            endpoint.spec.container_id.is_empty() || endpoint.spec.container_id == container_id
        }
        _ => false,
    }
}
