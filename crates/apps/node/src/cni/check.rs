//! CHECK: what is there against what ADD made.

use std::net::IpAddr;

use tortie_api::{Kind, Resource};
use tortie_cni::conf::Conf;
use tortie_cni::spec::{CniError, Outcome, code};
use tortie_cni::wire::Request;
use tortie_facts::Key;
use tortie_net::Mac;
use tortie_netlink::Netns;
use tortie_store::Reader;

use super::device::{self, Wanted};
use super::workload::Workload;
use super::{Service, store_fault};

impl Service {
    pub(super) fn check(&self, request: &Request, netns: Option<Netns>) -> Result<(), CniError> {
        let conf = Conf::from_value(&request.conf)?;
        let workload = Workload::of(request, &conf, &self.node)?;
        let netns = netns.ok_or_else(|| {
            CniError::new(code::UNKNOWN_CONTAINER, format!("CNI_NETNS {} is no namespace", request.netns))
        })?;
        let wrong = |what: String| Err(CniError::new(code::CHECK_FAILED, what));
        let key = Key::resource(Kind::WorkloadEndpoint, &workload.namespace, &workload.endpoint);
        let entry = Reader::get(&*self.store, &key).map_err(store_fault)?;
        let endpoint = entry.as_ref().and_then(|entry| match &**entry.value.as_resource()? {
            Resource::WorkloadEndpoint(endpoint) => Some(endpoint),
            _ => None,
        });
        let Some(endpoint) = endpoint.filter(|e| e.spec.container_id == workload.container_id) else {
            return wrong(format!("the datastore has no endpoint {} of this container", workload.endpoint));
        };
        let addresses: Vec<IpAddr> = endpoint.spec.ip_networks.iter().filter_map(|net| net.addr()).collect();
        if let Some(prev) = &conf.prev_result {
            let prev = Outcome::from_json(prev)
                .map_err(|error| CniError::new(code::INVALID_CONFIG, format!("prevResult is no result: {error}")))?;
            if let Some(ip) = prev.ips.iter().find(|ip| !addresses.contains(&ip.address.addr())) {
                return wrong(format!("the endpoint does not have the address {} of prevResult", ip.address.addr()));
            }
        }
        let routes = conf.routes();
        let wanted = Wanted {
            host_name: &workload.interface,
            pod_name: &workload.ifname,
            netns: &netns,
            mtu: self.mtu(&conf),
            mac: Mac::WORKLOAD_HOST_SIDE,
            addresses: &addresses,
            routes: &routes,
            forwarding: conf.container_settings.allow_ip_forwarding,
        };
        // A device that DEL or GC left to be deleted in a moment is none that the container has.
        self.reaper.settle();
        let found = device::check(&wanted).map_err(|error| CniError::new(code::INTERNAL, error.to_string()))?;
        if found.is_empty() { Ok(()) } else { wrong(found.join("; ")) }
    }
}
