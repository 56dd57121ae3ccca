//! What Kubernetes brings: its policies in Calico's shape, services behind endpoint slices, and policies that name
//! services. And staged policies of every kind, which must change nothing.

use std::net::IpAddr;

use tortie_api::PolicyType::{Egress, Ingress};
use tortie_api::{
    Action, EntityRule, GlobalNetworkPolicy, GlobalNetworkPolicySpec, KubernetesClusterNetworkPolicy,
    KubernetesEndpointSlice, KubernetesEndpointSliceSpec, KubernetesNetworkPolicy, KubernetesProtocol, Metadata,
    NetworkPolicy, NetworkPolicySpec, PolicyType, Rule, ServiceMatch, SliceEndpoint, SlicePort, StagedAction,
    StagedGlobalNetworkPolicy, StagedGlobalNetworkPolicySpec, StagedNetworkPolicy, StagedNetworkPolicySpec,
};
use tortie_net::{Family, Protocol};

use super::endpoints::NAMESPACES;
use super::entity::{PORTS, SELECTORS, rules};
use super::{Facts, put};
use crate::place::{INTERFACES, outside_addresses, pod_addresses};
use crate::rng::Rng;

const SERVICES: [&str; 2] = ["web", "db"];
const BOTH: [PolicyType; 2] = [Ingress, Egress];

/// Endpoint slices, and policies whose rules name their services. In some worlds only, as these open much.
pub(super) fn services(rng: &mut Rng, facts: &mut Facts) {
    if !rng.percent(40) {
        return;
    }
    for (namespace, name) in NAMESPACES.into_iter().flat_map(|namespace| SERVICES.map(|name| (namespace, name))) {
        for part in 0..rng.below(3) {
            put(facts, slice(rng, namespace, name, part));
        }
    }
    for namespace in NAMESPACES {
        if rng.percent(50) {
            let (ingress, egress) = (service_rules(rng, Ingress), service_rules(rng, Egress));
            let selector = rng.pick(&SELECTORS).to_owned();
            let spec =
                NetworkPolicySpec { selector, types: BOTH.to_vec(), ingress, egress, ..NetworkPolicySpec::default() };
            put(facts, NetworkPolicy { metadata: Metadata::in_namespace(namespace, "services"), spec });
        }
    }
    if rng.percent(50) {
        let (ingress, egress) = (service_rules(rng, Ingress), service_rules(rng, Egress));
        let order = rng.pick(&[None, Some(0.5)]);
        let spec = GlobalNetworkPolicySpec {
            order,
            types: BOTH.to_vec(),
            ingress,
            egress,
            ..GlobalNetworkPolicySpec::default()
        };
        put(facts, GlobalNetworkPolicy { metadata: Metadata::named("services"), spec });
    }
}

fn slice(rng: &mut Rng, namespace: &str, service: &str, part: usize) -> KubernetesEndpointSlice {
    let family = rng.pick(&Family::ALL);
    let pods = (0..INTERFACES.len()).flat_map(|pod| pod_addresses(pod, family));
    let all: Vec<IpAddr> = pods.chain(outside_addresses(family)).collect();
    let addresses = rng.some(&all, 5).iter().map(ToString::to_string).collect();
    let mut ports = Vec::new();
    for _ in 0..rng.below(4) {
        let protocol = rng.pick(&[KubernetesProtocol::Tcp, KubernetesProtocol::Tcp, KubernetesProtocol::Udp]);
        ports.push(SlicePort { protocol, port: Some(rng.pick(&PORTS)), ..SlicePort::default() });
    }
    let endpoints = vec![SliceEndpoint { addresses, ..SliceEndpoint::default() }];
    let spec = KubernetesEndpointSliceSpec { service: service.to_owned(), endpoints, ports, ..Default::default() };
    KubernetesEndpointSlice { metadata: Metadata::in_namespace(namespace, format!("{service}-{part}")), spec }
}

/// Rules whose other end is a service, sometimes with a condition on the own end.
fn service_rules(rng: &mut Rng, direction: PolicyType) -> Vec<Rule> {
    let mut out = Vec::new();
    for _ in 0..rng.below(4) {
        let services =
            Some(ServiceMatch { name: rng.pick(&SERVICES).to_owned(), namespace: rng.pick(&NAMESPACES).to_owned() });
        let service = EntityRule { services, ..EntityRule::default() };
        let selector = if rng.percent(40) { rng.pick(&SELECTORS).to_owned() } else { String::new() };
        let other = EntityRule { selector, ..EntityRule::default() };
        let (source, destination) = match direction {
            Ingress => (service, other),
            Egress => (other, service),
        };
        let protocol = rng.pick(&[None, None, Some(Protocol::TCP.into()), Some(Protocol::UDP.into())]);
        let action = rng.pick(&[Action::Allow, Action::Allow, Action::Deny, Action::Pass]);
        out.push(Rule { action, protocol, source, destination, ..Rule::default() });
    }
    out
}

/// NetworkPolicies and ClusterNetworkPolicies as a Kubernetes store yields them.
pub(super) fn policies(rng: &mut Rng, facts: &mut Facts) {
    if !rng.percent(40) {
        return;
    }
    for namespace in NAMESPACES {
        if rng.percent(50) {
            let types = rng.pick(&[vec![Ingress], vec![Egress], BOTH.to_vec()]);
            let list = |rng: &mut Rng, wanted| {
                let mut list = if types.contains(&wanted) { rules(rng, 4) } else { Vec::new() };
                list.iter_mut().for_each(|rule| rule.action = Action::Allow);
                list
            };
            let (ingress, egress) = (list(rng, Ingress), list(rng, Egress));
            let selector = rng.pick(&SELECTORS).to_owned();
            let spec = NetworkPolicySpec {
                tier: "default".to_owned(),
                order: Some(1000.0),
                selector,
                types,
                ingress,
                egress,
                ..NetworkPolicySpec::default()
            };
            put(facts, KubernetesNetworkPolicy { metadata: Metadata::in_namespace(namespace, "k"), spec });
        }
    }
    for tier in ["kube-admin", "kube-baseline"] {
        if rng.percent(45) {
            let order = rng.pick(&[Some(0.0), Some(1.0), Some(1000.0)]);
            let (ingress, egress) = (rules(rng, 4), rules(rng, 4));
            let spec = GlobalNetworkPolicySpec {
                tier: tier.to_owned(),
                order,
                selector: rng.pick(&SELECTORS).to_owned(),
                namespace_selector: rng.pick(&["all()", "env == 'x'", "env != 'x'"]).to_owned(),
                types: BOTH.to_vec(),
                ingress,
                egress,
                ..GlobalNetworkPolicySpec::default()
            };
            put(facts, KubernetesClusterNetworkPolicy { metadata: Metadata::named(tier), spec });
        }
    }
}

/// Proposals, also to delete what is there.
pub(super) fn staged(rng: &mut Rng, facts: &mut Facts) {
    if !rng.percent(25) {
        return;
    }
    let action = |rng: &mut Rng| rng.pick(&[None, Some(StagedAction::Set), Some(StagedAction::Delete)]);
    for (namespace, name) in [("red", "p"), ("blue", "new")] {
        let staged_action = action(rng);
        let set = staged_action != Some(StagedAction::Delete);
        let (ingress, egress) = if set { (rules(rng, 3), rules(rng, 3)) } else { Default::default() };
        let selector = if set { rng.pick(&SELECTORS).to_owned() } else { String::new() };
        let spec = StagedNetworkPolicySpec {
            staged_action,
            order: set.then_some(-10.0),
            selector,
            types: if set { BOTH.to_vec() } else { Vec::new() },
            ingress,
            egress,
            ..StagedNetworkPolicySpec::default()
        };
        put(facts, StagedNetworkPolicy { metadata: Metadata::in_namespace(namespace, name), spec });
    }
    let staged_action = action(rng);
    let set = staged_action != Some(StagedAction::Delete);
    let spec = StagedGlobalNetworkPolicySpec {
        staged_action,
        order: set.then_some(-10.0),
        types: if set { BOTH.to_vec() } else { Vec::new() },
        ..StagedGlobalNetworkPolicySpec::default()
    };
    put(facts, StagedGlobalNetworkPolicy { metadata: Metadata::named("p"), spec });
}
