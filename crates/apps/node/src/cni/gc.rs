//! GC: endpoints and addresses of this network on this node that no listed attachment holds.

use std::collections::BTreeSet;

use tortie_api::{Kind, Resource};
use tortie_cni::conf::Conf;
use tortie_cni::spec::CniError;
use tortie_cni::wire::Request;
use tortie_facts::Filter;
use tracing::info;

use super::workload::Workload;
use super::{Service, store_fault};

impl Service {
    pub(super) fn gc(&self, request: &Request) -> Result<(), CniError> {
        let conf = Conf::from_value(&request.conf)?;
        let containers: BTreeSet<&str> = conf.valid_attachments.iter().map(|a| a.container_id.as_str()).collect();
        let network = format!("{}.", conf.name);
        // A handle belongs to this node when an address under it lies with an endpoint here, or nothing claims it;
        // so endpoints go first, and of the handles only those that this node's blocks hold.
        let endpoints = self.store.list(&Filter::Kind(Kind::WorkloadEndpoint)).map_err(store_fault)?;
        for entry in &endpoints.entries {
            let Some(Resource::WorkloadEndpoint(endpoint)) = entry.value.as_resource().map(|r| &**r) else { continue };
            // One handle holds all addresses of a container, so none of it goes while any attachment of it is valid.
            let container = endpoint.spec.container_id.as_str();
            if endpoint.spec.node != self.node || container.is_empty() || containers.contains(container) {
                continue;
            }
            let handle = format!("{network}{container}");
            if !self.addresses.holds(&handle)? {
                continue;
            }
            info!(endpoint = endpoint.metadata.name, "removing an endpoint that no attachment holds");
            let _turn = self.turn(&endpoint.spec.interface_name)?;
            self.forget(&workload_of(endpoint, handle), Some(&conf))?;
        }
        for handle in self.addresses.own_handles()? {
            if is_garbage(&handle, &network, &containers) {
                info!(handle, "releasing addresses that no attachment holds");
                self.addresses.release(&handle, None)?;
            }
        }
        Ok(())
    }
}

/// Whether a handle is this network's and of a container that is not listed. Names may have dots, so `a.b.c` may be of
/// the network `a.b`; such a handle stays, since freeing a live address is worse than keeping a dead one.
fn is_garbage(handle: &str, network: &str, containers: &BTreeSet<&str>) -> bool {
    handle.strip_prefix(network).is_some_and(|container| !container.contains('.') && !containers.contains(container))
}

fn workload_of(endpoint: &tortie_api::WorkloadEndpoint, handle: String) -> Workload {
    Workload {
        orchestrator: if endpoint.spec.orchestrator == "k8s" { "k8s" } else { "cni" },
        namespace: endpoint.metadata.namespace.clone(),
        pod: endpoint.spec.pod.clone(),
        uid: String::new(),
        service_account: endpoint.spec.service_account_name.clone(),
        container_id: endpoint.spec.container_id.clone(),
        ifname: endpoint.spec.endpoint.clone(),
        endpoint: endpoint.metadata.name.clone(),
        interface: endpoint.spec.interface_name.clone(),
        handle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_handles_of_this_network_and_of_no_listed_container_are_garbage() {
        let containers = BTreeSet::from(["live"]);
        let garbage = |handle| is_garbage(handle, "net.", &containers);
        assert!(garbage("net.dead"));
        for kept in ["net.live", "net.other.dead", "net2.dead", "ipip-tunnel-addr-node", "net"] {
            assert!(!garbage(kept), "{kept}");
        }
    }
}
