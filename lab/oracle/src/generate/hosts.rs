//! Host endpoints, by name, by address and of all interfaces, and policies for each of their stages.

use tortie_api::{
    Action, EndpointPort, FelixConfiguration, GlobalNetworkPolicy, GlobalNetworkPolicySpec, HostEndpoint,
    HostEndpointSpec, IpNetText, Metadata, Node, NodeBgpSpec, NodeSpec, PolicyType, ProtoPort, Resource, Rule,
};
use tortie_facts::Value;
use tortie_net::{Family, Protocol};

use super::endpoints::{PROFILES, labels};
use super::entity::{NAMED_PORTS, PORTS, SELECTORS, rules};
use super::{Facts, put};
use crate::place::{NODE, OUTSIDE, nets, node_address};
use crate::rng::Rng;

/// A third of the worlds have host endpoints.
const WORLDS: u64 = 35;

pub(super) fn hosts(rng: &mut Rng, facts: &mut Facts) {
    if !rng.percent(WORLDS) {
        return;
    }
    settings(rng, facts);
    node(facts);
    // The first name wins where several are for one interface.
    let kinds = rng.pick(&[vec!["named"], vec!["all"], vec!["found"], vec!["named", "all"], vec!["found", "named"]]);
    for (at, kind) in kinds.into_iter().enumerate() {
        endpoint(rng, facts, &format!("h{at}"), kind);
    }
    if rng.percent(20) {
        endpoint(rng, facts, "elsewhere", "other");
    }
    for stage in ["untracked", "pre-dnat", "forward", "normal"] {
        if rng.percent(if stage == "normal" { 75 } else { 45 }) {
            policy(rng, facts, stage);
        }
    }
}

/// The node as it registers itself: its addresses are how others know by which interface it is met.
fn node(facts: &mut Facts) {
    let [ipv4, ipv6] = Family::ALL.map(|family| IpNetText::from(node_address(family)));
    let bgp = NodeBgpSpec { ipv4_address: ipv4, ipv6_address: ipv6, ..NodeBgpSpec::default() };
    let spec = NodeSpec { bgp: Some(bgp), ..NodeSpec::default() };
    put(facts, Node { metadata: Metadata::named(NODE), spec, status: Default::default() });
}

fn endpoint(rng: &mut Rng, facts: &mut Facts, name: &str, kind: &str) {
    let mut metadata = Metadata::named(name);
    metadata.labels.insert("host", "yes");
    labels(rng, &mut metadata);
    let own: Vec<IpNetText> = Family::ALL.map(node_address).into_iter().map(IpNetText::from).collect();
    let (node, interface_name, expected_ips) = match kind {
        "named" => (NODE, OUTSIDE, if rng.percent(50) { own } else { Vec::new() }),
        "found" => (NODE, "", own),
        "all" => (NODE, "*", if rng.percent(50) { own } else { Vec::new() }),
        _ => ("n2", "*", vec![IpNetText::from("10.0.1.3")]),
    };
    let mut ports = Vec::new();
    for name in NAMED_PORTS {
        if rng.percent(50) {
            let protocol = rng.pick(&[Protocol::TCP, Protocol::UDP]).into();
            ports.push(EndpointPort { name: name.to_owned(), protocol, port: rng.pick(&PORTS) });
        }
    }
    let mut profiles: Vec<String> = rng.some(&PROFILES, 2).into_iter().map(str::to_owned).collect();
    profiles.extend(rng.percent(50).then(|| "open".to_owned()));
    profiles.dedup();
    let spec = HostEndpointSpec {
        node: node.to_owned(),
        interface_name: interface_name.to_owned(),
        expected_ips,
        profiles,
        ports,
    };
    put(facts, HostEndpoint { metadata, spec });
}

/// Few rules that end all, so that later stages see packets too.
fn policy(rng: &mut Rng, facts: &mut Facts, stage: &str) {
    let mut list = || {
        let mut list = rules(rng, 4);
        if list.last().is_some_and(|rule| *rule == Rule { action: rule.action, ..Rule::default() }) && rng.percent(60) {
            list.pop();
        }
        if stage != "normal" && stage != "forward" {
            list.iter_mut().filter(|rule| rule.action == Action::Pass).for_each(|rule| rule.action = Action::Allow);
        }
        list
    };
    let (ingress, egress) = (list(), list());
    let pre_dnat = stage == "pre-dnat";
    let types = if pre_dnat { vec![PolicyType::Ingress] } else { vec![PolicyType::Ingress, PolicyType::Egress] };
    let spec = GlobalNetworkPolicySpec {
        tier: rng.pick(&["default", "default", "first"]).to_owned(),
        order: rng.pick(&[None, Some(0.0), Some(5.0)]),
        selector: rng.pick(&["has(host)", "has(host)", "host == 'yes' || has(a)", SELECTORS[2], "all()"]).to_owned(),
        types,
        ingress,
        egress: if pre_dnat { Vec::new() } else { egress },
        do_not_track: stage == "untracked",
        pre_dnat,
        apply_on_forward: stage != "normal",
        ..GlobalNetworkPolicySpec::default()
    };
    let name = if spec.tier == "first" { format!("first.{stage}") } else { stage.to_owned() };
    put(facts, GlobalNetworkPolicy { metadata: Metadata::named(name), spec });
}

/// Ports that stay open, and connection tracking that takes any packet for a beginning: which packets are invalid
/// depends on whether they are tracked at all.
fn settings(rng: &mut Rng, facts: &mut Facts) {
    let mut found = facts.values().filter_map(Value::as_resource).find_map(|resource| match &**resource {
        Resource::FelixConfiguration(config) => Some(FelixConfiguration::clone(config)),
        _ => None,
    });
    let Some(config) = &mut found else { return };
    let ports = |rng: &mut Rng| {
        let port = |rng: &mut Rng| ProtoPort {
            protocol: rng.pick(&["TCP", "UDP"]).to_owned(),
            port: rng.pick(&PORTS),
            net: if rng.percent(40) {
                let family = rng.pick(&Family::ALL);
                IpNetText::from(rng.pick(nets(family)))
            } else {
                IpNetText::default()
            },
        };
        (0..rng.below(3)).map(|_| port(rng)).collect::<Vec<_>>()
    };
    config.spec.disable_conntrack_invalid_check = Some(true);
    config.spec.failsafe_inbound_host_ports = Some(ports(rng));
    config.spec.failsafe_outbound_host_ports = Some(ports(rng));
    if let Some(config) = found {
        put(facts, config);
    }
}
