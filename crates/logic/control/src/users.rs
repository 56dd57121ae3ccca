//! Who uses addresses, as one look at the datastores tells it.
//!
//! Invariant: where the look says nothing certain, an address counts as used. It is freed only on what is known.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value as Json;
use tortie_api::ipam::Attribute;
use tortie_api::wep::EndpointName;
use tortie_api::{Kind, Node, Resource, WorkloadEndpoint};
use tortie_facts::{Filter, Key, Value};
use tortie_ipam::block::WITHOUT_ENDPOINT;

/// Where Multus and its like note the addresses of a pod's other interfaces.
const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

/// Upstream's types of addresses that belong to a node's tunnel devices.
const TUNNELS: [&str; 5] = [
    "ipipTunnelAddress",
    "vxlanTunnelAddress",
    "vxlanV6TunnelAddress",
    "wireguardTunnelAddress",
    "wireguardV6TunnelAddress",
];

/// The handle under which the first addresses of blocks on Windows are kept back.
const WINDOWS_RESERVED: &str = "windows-reserved-ipam-handle";

/// For whom an address was given out, as far as a controller can tell whether they are still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder<'a> {
    /// A pod, by namespace and name.
    Pod {
        /// The namespace.
        namespace: &'a str,
        /// The pod.
        pod: &'a str,
    },
    /// A tunnel device of this node.
    Tunnel {
        /// The node.
        node: &'a str,
    },
    /// Kept back on Windows: no user, and no reason to keep a block.
    Reserved,
    /// Anything else. Only who gave the address out knows when it is free.
    Unknown,
}

impl<'a> Holder<'a> {
    /// Reads what is recorded with an address.
    pub fn of(attribute: &'a Attribute) -> Holder<'a> {
        let attr = |key: &str| attribute.secondary.get(key).map(String::as_str).filter(|text| !text.is_empty());
        match attribute.handle_id.as_deref() {
            None => return Holder::Unknown,
            Some(handle) if handle.eq_ignore_ascii_case(WINDOWS_RESERVED) => return Holder::Reserved,
            Some(_) => {}
        }
        // A virtual machine keeps its address from one pod to the next.
        if attr("vmi-name").is_some() || attr("vm-uid").is_some() {
            return Holder::Unknown;
        }
        match (attr("type"), attr("namespace"), attr("pod"), attr("node")) {
            (Some(kind), _, _, Some(node)) if TUNNELS.contains(&kind) => Holder::Tunnel { node },
            (None, Some(namespace), Some(pod), _) => Holder::Pod { namespace, pod },
            _ => Holder::Unknown,
        }
    }
}

/// The node that an address was given out on; empty if that is not recorded.
pub fn node_of(attribute: &Attribute) -> &str {
    attribute.secondary.get("node").map_or("", String::as_str)
}

/// Who uses addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    nodes: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
    /// Pods that are there, and whether all their addresses are told.
    pods: BTreeMap<(String, String), bool>,
    blind: bool,
    kubernetes: bool,
}

impl Users {
    /// What has to be listed.
    pub fn filter() -> Filter {
        Filter::Any(vec![Filter::Kind(Kind::WorkloadEndpoint), Filter::Kind(Kind::Node)])
    }

    /// The users that these facts tell of. `unreadable`: the paths of what was listed and can't be read.
    pub fn new<'a>(
        facts: impl IntoIterator<Item = (&'a Key, &'a Value)>,
        unreadable: impl IntoIterator<Item = &'a str>,
    ) -> Users {
        let mut users = Users::default();
        for (key, value) in facts {
            users.add(key, value);
        }
        for path in unreadable {
            users.add_unreadable(path);
        }
        users
    }

    /// Kubernetes itself tells the pods, those of other network plugins too.
    pub fn told_by_kubernetes(mut self) -> Users {
        self.kubernetes = true;
        self
    }

    /// Counts a fact in; facts of other kinds say nothing.
    pub fn add(&mut self, _key: &Key, value: &Value) {
        match value.as_resource().map(|resource| &**resource) {
            Some(Resource::WorkloadEndpoint(endpoint)) => self.add_endpoint(endpoint),
            Some(Resource::Node(node)) => self.add_node(node),
            _ => {}
        }
    }

    /// Something is there and can't be read: it may use any address of its own.
    pub fn add_unreadable(&mut self, path: &str) {
        match Key::from_path(path) {
            Ok(Key::Resource { kind: Kind::Node, namespace: _, name }) => drop(self.nodes.insert(name)),
            Ok(Key::Resource { kind: Kind::WorkloadEndpoint, namespace, name }) => match EndpointName::split(&name) {
                Some(parts) => drop(self.pods.insert((namespace, parts.workload), false)),
                // A pod that no node runs is unreadable under its own name.
                None => drop(self.pods.insert((namespace, name), false)),
            },
            Ok(_) => {}
            Err(_) => self.blind = true,
        }
    }

    fn add_endpoint(&mut self, endpoint: &WorkloadEndpoint) {
        let spec = &endpoint.spec;
        let mut told = !spec.ip_networks.is_empty();
        for net in &spec.ip_networks {
            match net.addr() {
                Some(addr) => drop(self.addresses.insert(addr)),
                None => told = false,
            }
        }
        if let Some(text) = endpoint.metadata.annotations.get(NETWORK_STATUS) {
            match other_addresses(text) {
                Some(found) => self.addresses.extend(found),
                None => told = false,
            }
        }
        if !spec.pod.is_empty() {
            let pod = (endpoint.metadata.namespace.clone(), spec.pod.clone());
            let all = self.pods.entry(pod).or_insert(true);
            *all &= told;
        }
    }

    fn add_node(&mut self, node: &Node) {
        let spec = &node.spec;
        let bgp = spec.bgp.iter().map(|bgp| &bgp.ipv4_ipip_tunnel_addr);
        let wireguard = spec.wireguard.iter().flat_map(|wg| [&wg.interface_ipv4_address, &wg.interface_ipv6_address]);
        let vxlan = [&spec.ipv4_vxlan_tunnel_addr, &spec.ipv6_vxlan_tunnel_addr];
        self.addresses.extend(bgp.chain(wireguard).chain(vxlan).filter_map(|text| text.parse::<IpAddr>().ok()));
        self.nodes.insert(node.metadata.name.clone());
    }

    /// Counts in what another look tells: a user that either saw is a user.
    pub fn merge(&mut self, other: Users) {
        let Users { nodes, addresses, pods, blind, kubernetes } = other;
        self.nodes.extend(nodes);
        self.addresses.extend(addresses);
        for (pod, told) in pods {
            *self.pods.entry(pod).or_insert(true) &= told;
        }
        self.blind |= blind;
        self.kubernetes |= kubernetes;
    }

    /// Whether a node is there.
    pub fn has_node(&self, node: &str) -> bool {
        self.blind || self.nodes.contains(node)
    }

    /// The nodes that are there.
    pub fn nodes(&self) -> &BTreeSet<String> {
        &self.nodes
    }

    /// Whether an address may be in use by whom it was given to, or by anybody.
    pub fn uses(&self, address: IpAddr, attribute: &Attribute) -> bool {
        if self.blind || self.addresses.contains(&address) {
            return true;
        }
        match Holder::of(attribute) {
            Holder::Unknown | Holder::Reserved => true,
            Holder::Tunnel { node } => self.has_node(node),
            Holder::Pod { .. } if !self.kubernetes && without_endpoint(attribute) => true,
            // A pod that is there and has told all its addresses does not have this one.
            Holder::Pod { namespace, pod } => {
                self.pods.get(&(namespace.to_owned(), pod.to_owned())).is_some_and(|told| !told)
            }
        }
    }
}

fn without_endpoint(attribute: &Attribute) -> bool {
    let (key, value) = WITHOUT_ENDPOINT;
    attribute.secondary.get(key).is_some_and(|found| found == value)
}

/// The addresses in the note on a pod's interfaces; `None` if it can't be read.
fn other_addresses(text: &str) -> Option<Vec<IpAddr>> {
    let parsed: Json = serde_json::from_str(text).ok()?;
    let mut found = Vec::new();
    for interface in parsed.as_array()? {
        for ip in interface.get("ips").and_then(Json::as_array).into_iter().flatten() {
            found.push(ip.as_str()?.parse().ok()?);
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_api::{Metadata, WorkloadEndpointSpec};

    fn endpoint(pod: &str, ips: &[&str], status: Option<&str>) -> WorkloadEndpoint {
        let mut metadata = Metadata::in_namespace("prod", format!("n1-k8s-{pod}-eth0"));
        metadata.annotations.extend(status.map(|text| (NETWORK_STATUS.to_owned(), text.to_owned())));
        let ip_networks = ips.iter().map(|ip| (*ip).into()).collect();
        let spec = WorkloadEndpointSpec { pod: pod.into(), ip_networks, ..WorkloadEndpointSpec::default() };
        WorkloadEndpoint { metadata, spec }
    }

    fn holder(attrs: &[(&str, &str)]) -> Attribute {
        let secondary = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Attribute { handle_id: Some("net.c1".into()), secondary, ..Attribute::default() }
    }

    fn users(endpoints: &[WorkloadEndpoint], unreadable: &[&str]) -> Users {
        let facts: Vec<(Key, Value)> = endpoints
            .iter()
            .map(|one| {
                let key = Key::resource(Kind::WorkloadEndpoint, "prod", &one.metadata.name);
                (key, Value::resource(one.clone().into()))
            })
            .collect();
        Users::new(facts.iter().map(|(key, value)| (key, value)), unreadable.iter().copied())
    }

    #[test]
    fn an_address_is_free_only_if_all_is_known_of_its_pod() {
        let addr: IpAddr = "10.0.0.1".parse().expect("a literal");
        let web = holder(&[("pod", "web"), ("namespace", "prod"), ("node", "n1")]);
        let says = |endpoints: &[WorkloadEndpoint], unreadable: &[&str]| users(endpoints, unreadable).uses(addr, &web);
        assert!(!says(&[], &[]), "no such pod");
        assert!(says(&[endpoint("web", &["10.0.0.1/32"], None)], &[]), "the pod has it");
        assert!(!says(&[endpoint("web", &["10.0.0.2/32"], None)], &[]), "the pod has another");
        assert!(says(&[endpoint("web", &[], None)], &[]), "the pod has not told yet");
        assert!(says(&[endpoint("other", &["10.0.0.1"], None)], &[]), "somebody else says that it has it");
        let status = |ip: &str| format!(r#"[{{"name":"a"}},{{"name":"b","ips":["{ip}"]}}]"#);
        assert!(says(&[endpoint("web", &["10.0.0.2"], Some(&status("10.0.0.1")))], &[]), "on another interface");
        assert!(!says(&[endpoint("web", &["10.0.0.2"], Some(&status("10.0.0.3")))], &[]));
        assert!(says(&[endpoint("web", &["10.0.0.2"], Some("{"))], &[]), "a note that can't be read");
        let path = |name: &str| format!("/calico/resources/v3/projectcalico.org/workloadendpoints/prod/{name}");
        assert!(says(&[], &[&path("n1-k8s-web-eth0")]), "its endpoint can't be read");
        assert!(says(&[], &[&path("web")]), "the pod can't be read");
        assert!(!says(&[], &[&path("n1-k8s-other-eth0")]), "another's can't be read");
        assert!(says(&[], &["/what/is/this"]), "something unknown is there");
    }

    #[test]
    fn the_address_of_another_plugin_is_judged_by_kubernetes_alone() {
        let addr: IpAddr = "10.0.0.1".parse().expect("a literal");
        let alone = holder(&[("pod", "web"), ("namespace", "prod"), WITHOUT_ENDPOINT]);
        assert!(Users::default().uses(addr, &alone), "no endpoint was ever expected");
        assert!(!Users::default().told_by_kubernetes().uses(addr, &alone), "there is no such pod");
    }

    #[test]
    fn what_is_no_pod_and_no_tunnel_is_always_in_use() {
        let addr: IpAddr = "10.0.0.1".parse().expect("a literal");
        let nobody = Users::default();
        for attrs in [
            &[("note", "by hand")][..],
            &[("pod", "web"), ("node", "n1")],
            &[("pod", "web"), ("namespace", "prod"), ("vmi-name", "vm")],
            &[("service", "web"), ("namespace", "prod"), ("type", "LoadBalancer")],
            &[("type", "vxlanTunnelAddress")],
        ] {
            assert!(nobody.uses(addr, &holder(attrs)), "{attrs:?}");
        }
        let tunnel = holder(&[("type", "vxlanTunnelAddress"), ("node", "n1")]);
        assert!(!nobody.uses(addr, &tunnel));
        let node = Node { metadata: Metadata::named("n1"), ..Node::default() };
        let mut users = Users::default();
        users.add_node(&node);
        assert!(users.uses(addr, &tunnel), "its node is there");
    }
}
