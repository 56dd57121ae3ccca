//! GC: endpoints and addresses of this network on this node that no listed attachment holds.

use std::collections::BTreeSet;

use tortie_api::{Kind, Resource};
use tortie_cni::conf::{Attachment, Conf};
use tortie_cni::spec::CniError;
use tortie_cni::wire::Request;
use tortie_facts::Filter;
use tracing::info;

use super::workload::Workload;
use super::{Service, store_fault};

impl Service {
    pub(super) fn gc(&self, request: &Request) -> Result<(), CniError> {
        let conf = Conf::from_value(&request.conf)?;
        let valid: BTreeSet<&Attachment> = conf.valid_attachments.iter().collect();
        let network = format!("{}.", conf.name);
        // A handle belongs to this node when an address under it lies with an endpoint here, or nothing claims it;
        // so endpoints go first, and of the handles only those that this node's blocks hold.
        let endpoints = self.store.list(&Filter::Kind(Kind::WorkloadEndpoint)).map_err(store_fault)?;
        for entry in &endpoints.entries {
            let Some(Resource::WorkloadEndpoint(endpoint)) = entry.value.as_resource().map(|r| &**r) else { continue };
            let attachment =
                Attachment { container_id: endpoint.spec.container_id.clone(), ifname: endpoint.spec.endpoint.clone() };
            if endpoint.spec.node != self.node || valid.contains(&attachment) {
                continue;
            }
            let handle = format!("{network}{}", attachment.container_id);
            if !self.addresses.holds(&handle)? {
                continue;
            }
            info!(endpoint = endpoint.metadata.name, "removing an endpoint that no attachment holds");
            self.forget(&workload_of(endpoint, handle), Some(&conf))?;
        }
        let containers: BTreeSet<&str> = valid.iter().map(|a| a.container_id.as_str()).collect();
        for handle in self.addresses.own_handles()? {
            if let Some(container) = handle.strip_prefix(&network)
                && !containers.contains(container)
            {
                info!(handle, "releasing addresses that no attachment holds");
                self.addresses.release(&handle, None)?;
            }
        }
        Ok(())
    }
}

fn workload_of(endpoint: &tortie_api::WorkloadEndpoint, handle: String) -> Workload {
    Workload {
        orchestrator: if endpoint.spec.orchestrator == "k8s" { "k8s" } else { "cni" },
        namespace: endpoint.metadata.namespace.clone(),
        pod: endpoint.spec.pod.clone(),
        service_account: endpoint.spec.service_account_name.clone(),
        container_id: endpoint.spec.container_id.clone(),
        ifname: endpoint.spec.endpoint.clone(),
        endpoint: endpoint.metadata.name.clone(),
        interface: endpoint.spec.interface_name.clone(),
        handle,
    }
}
