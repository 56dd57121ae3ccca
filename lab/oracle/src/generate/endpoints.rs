//! Endpoints of this node and of another one, and network sets.

use std::net::IpAddr;

use tortie_api::wep::EndpointName;
use tortie_api::{
    GlobalNetworkSet, GlobalNetworkSetSpec, IpNetText, Metadata, NetworkSet, NetworkSetSpec, WorkloadEndpoint,
    WorkloadEndpointPort, WorkloadEndpointSpec,
};
use tortie_net::{Family, Protocol};

use super::entity::{NAMED_PORTS, PORTS};
use super::{Facts, put};
use crate::place::{INTERFACES, NODE, nets, outside_addresses, pod_addresses};
use crate::rng::Rng;

pub(super) const NAMESPACES: [&str; 2] = ["red", "blue"];
pub(super) const PROFILES: [&str; 4] = ["kns.red", "kns.blue", "lender", "open"];

/// Labels by a few keys and values.
pub(super) fn labels(rng: &mut Rng, metadata: &mut Metadata) {
    for key in ["a", "b"] {
        if rng.percent(60) {
            metadata.labels.insert(key, rng.pick(&["x", "y", "xy"]));
        }
    }
}

pub(super) fn endpoints(rng: &mut Rng, facts: &mut Facts) {
    for (pod, interface) in INTERFACES.iter().enumerate() {
        if rng.percent(85) {
            let own = Family::ALL.into_iter().flat_map(|family| pod_addresses(pod, family));
            let addresses: Vec<IpAddr> = own.filter(|_| rng.percent(70)).collect();
            endpoint(rng, facts, NODE, &format!("p{pod}"), interface, &addresses);
        }
    }
    let remote = Family::ALL.map(|family| outside_addresses(family)[..6].to_vec()).concat();
    for pod in 0..rng.below(4) {
        let addresses = rng.some(&remote, 3);
        endpoint(rng, facts, "n2", &format!("r{pod}"), &format!("cali1{pod}"), &addresses);
    }
}

fn endpoint(rng: &mut Rng, facts: &mut Facts, node: &str, pod: &str, interface: &str, addresses: &[IpAddr]) {
    let name = EndpointName::of_pod(node, pod, "eth0").join().expect("the parts are plain words");
    let mut metadata = Metadata::in_namespace(rng.pick(&NAMESPACES), &name);
    labels(rng, &mut metadata);
    let port = |rng: &mut Rng, name: &str| WorkloadEndpointPort {
        name: name.to_owned(),
        protocol: rng.pick(&[Protocol::TCP, Protocol::UDP, Protocol::SCTP]).into(),
        port: rng.pick(&PORTS),
        ..WorkloadEndpointPort::default()
    };
    let mut ports = Vec::new();
    for name in NAMED_PORTS.iter().chain(&NAMED_PORTS) {
        if rng.percent(40) {
            ports.push(port(rng, name));
        }
    }
    let mut profiles: Vec<String> = rng.some(&PROFILES, 2).into_iter().map(str::to_owned).collect();
    if rng.percent(40) {
        profiles.push("open".to_owned());
        profiles.dedup();
    }
    let spec = WorkloadEndpointSpec {
        orchestrator: "k8s".to_owned(),
        node: node.to_owned(),
        pod: pod.to_owned(),
        endpoint: "eth0".to_owned(),
        interface_name: interface.to_owned(),
        ip_networks: addresses.iter().copied().map(IpNetText::from).collect(),
        profiles,
        ports,
        service_account_name: rng.pick(&["", "web", "db"]).to_owned(),
        ..WorkloadEndpointSpec::default()
    };
    put(facts, WorkloadEndpoint { metadata, spec });
}

pub(super) fn network_sets(rng: &mut Rng, facts: &mut Facts) {
    let all = Family::ALL.map(nets).concat();
    let some = |rng: &mut Rng| rng.some(&all, 5).into_iter().map(IpNetText::from).collect();
    for (namespace, name) in [("red", "s"), ("blue", "s"), ("blue", "t")] {
        if rng.percent(60) {
            let mut metadata = Metadata::in_namespace(namespace, name);
            labels(rng, &mut metadata);
            let spec = NetworkSetSpec { nets: some(rng) };
            put(facts, NetworkSet { metadata, spec });
        }
    }
    for name in ["g", "h"] {
        if rng.percent(60) {
            let mut metadata = Metadata::named(name);
            labels(rng, &mut metadata);
            let spec = GlobalNetworkSetSpec { nets: some(rng) };
            put(facts, GlobalNetworkSet { metadata, spec });
        }
    }
}
