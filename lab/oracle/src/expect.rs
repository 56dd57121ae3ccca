//! What should become of a flow: by the resources as they are written, and by the oracle over the calculated tables.
//!
//! Invariant: the two share nothing but the resources. The meaning is the model against which the calculation is
//! tested, which knows no sets, no index and no tables; here it is put together to a whole way through the node.

use std::net::IpAddr;

use tortie_api::{FelixConfiguration, Resource, WorkloadEndpoint};
use tortie_calc::{Calculator, Overrides};
use tortie_desired::{EndpointId, Tables};
use tortie_facts::{Revision, Update, Value};
use tortie_net::Family;
use tortie_verdict::{Direction, Source, Stage, Target, Way, evaluate_way};

use crate::flow::Flow;
use crate::generate::Facts;
use crate::host_meaning::{self, Says};
use crate::meaning;
use crate::place::{LOOPBACK, NODE, OUTSIDE, Origin, node_interfaces};

/// What [`NODE`] should hold, worked out from nothing.
pub fn tables(facts: &Facts) -> Tables {
    tables_of(facts, NODE)
}

/// What a node should hold, worked out from nothing.
pub fn tables_of(facts: &Facts, node: &str) -> Tables {
    let mut calculator = Calculator::new(node, Overrides::default());
    if node == NODE {
        calculator.set_interfaces(node_interfaces());
    }
    for (key, value) in facts {
        calculator.apply(Update { key: key.clone(), value: Some(value.clone()), revision: Revision(1) });
    }
    calculator.in_sync();
    let mut tables = Tables::default();
    tables.apply(&calculator.flush());
    tables
}

/// Whether the oracle lets the flow's packet go on, and every step of its decision.
pub fn by_verdict(tables: &Tables, flow: &Flow) -> (bool, Vec<String>) {
    let target = if flow.to_host() { Target::Host } else { Target::Routed };
    let source = match flow.origin {
        Origin::Pod(_) | Origin::Outside => Source::Interface(flow.origin.interface()),
        Origin::Host => Source::Host,
    };
    // What goes to none of the node's workloads leaves by the one way out.
    let way = Way { leaves_by: Some(OUTSIDE), ..Way::new(&flow.packet, source, target) };
    let verdict = evaluate_way(tables, &flow.packet, &way);
    let mut steps: Vec<String> = verdict.steps.iter().map(ToString::to_string).collect();
    let owns = |addr: IpAddr| tables.endpoints.values().any(|endpoint| endpoint.addresses.contains(&addr));
    let enters = flow.origin == Origin::Outside && !flow.to_host() && owns(flow.packet.dst);
    let concerned = matches!(flow.origin, Origin::Pod(_)) || enters;
    if verdict.allowed && concerned && flow.is_invalid() && !tables.settings.accept_invalid {
        steps.push("no connection begins with such a packet".to_owned());
        return (false, steps);
    }
    (verdict.allowed, steps)
}

/// Whether the resources as written let the flow's packet go on.
pub fn by_meaning(facts: &Facts, flow: &Flow) -> bool {
    let resources = || facts.values().filter_map(Value::as_resource);
    let config = resources().find_map(|resource| match &**resource {
        Resource::FelixConfiguration(config) if config.metadata.name == "default" => Some(&**config),
        _ => None,
    });
    let Settings { ipv6, to_host, accept_invalid } = Settings::of(config);
    let endpoints = || {
        resources().filter_map(|resource| match &**resource {
            Resource::WorkloadEndpoint(wep) if wep.spec.node == NODE && !wep.spec.ip_networks.is_empty() => {
                Some(&**wep)
            }
            _ => None,
        })
    };
    let sender = endpoints().find(|wep| wep.spec.interface_name == flow.origin.interface());
    let receiver = endpoints().find(|wep| !flow.to_host() && owns(wep, flow.packet.dst));
    let managed = ipv6 || flow.packet.family() == Family::V4;
    let may = |wep: &WorkloadEndpoint, direction| {
        let (namespace, name) = (wep.metadata.namespace.as_str().into(), wep.metadata.name.as_str().into());
        managed
            && (accept_invalid || !flow.is_invalid())
            && meaning::allowed(facts, &EndpointId { namespace, name }, direction, &flow.packet, false)
    };
    let leaves = match (flow.origin, sender) {
        (Origin::Outside | Origin::Host, _) => true,
        // An interface that belongs to no endpoint.
        (Origin::Pod(_), None) => false,
        (Origin::Pod(_), Some(wep)) => owns(wep, flow.packet.src) && may(wep, Direction::Egress),
    };
    let enters = match receiver {
        _ if flow.to_host() => to_host || !matches!(flow.origin, Origin::Pod(_)),
        // The node may always speak to its workloads.
        Some(_) if flow.origin == Origin::Host => true,
        Some(wep) => may(wep, Direction::Ingress),
        None => true,
    };
    leaves && enters && by_hosts(facts, flow, receiver.map(|wep| wep.spec.interface_name.as_str()))
}

/// Whether host endpoints let the packet through: those of the interfaces that it comes in and leaves by. `receiver`
/// is the interface of the workload of this node that it goes to.
fn by_hosts(facts: &Facts, flow: &Flow, receiver: Option<&str>) -> bool {
    use Direction::{Egress, Ingress};
    let ask = |interface: &str, stage, direction| host_meaning::say(facts, interface, stage, direction, &flow.packet);
    let comes_in = |interface: &str, of_workload: bool| {
        for stage in [Stage::Untracked, Stage::PreDnat] {
            match ask(interface, stage, Ingress) {
                // The early stages of a workload's interface know nothing before connection tracking.
                _ if stage == Stage::Untracked && of_workload => {}
                Says::Nothing => {}
                Says::Allow => return true,
                Says::Deny => return false,
            }
        }
        match flow.to_host() {
            // What workloads send to the node is for their own policy and the setting for all.
            true if of_workload || host_meaning::governs(facts, interface).is_none() => true,
            true => ask(interface, Stage::Normal, Ingress) != Says::Deny,
            false => ask(interface, Stage::Forward, Ingress) != Says::Deny,
        }
    };
    let own_leaves = |interface: &str| match ask(interface, Stage::Untracked, Egress) {
        Says::Allow => true,
        Says::Deny => false,
        Says::Nothing if host_meaning::governs(facts, interface).is_none() => true,
        Says::Nothing => ask(interface, Stage::Normal, Egress) != Says::Deny,
    };
    let goes_on = || flow.to_host() || ask(receiver.unwrap_or(OUTSIDE), Stage::Forward, Egress) != Says::Deny;
    match flow.origin {
        Origin::Pod(_) => comes_in(flow.origin.interface(), true) && goes_on(),
        Origin::Outside => comes_in(OUTSIDE, false) && goes_on(),
        Origin::Host if flow.to_host() => own_leaves(LOOPBACK) && comes_in(LOOPBACK, false),
        Origin::Host => receiver.is_some() || own_leaves(OUTSIDE),
    }
}

/// The settings that decide about packets.
struct Settings {
    ipv6: bool,
    to_host: bool,
    accept_invalid: bool,
}

impl Settings {
    fn of(config: Option<&FelixConfiguration>) -> Settings {
        let spec = config.map(|config| config.spec.clone()).unwrap_or_default();
        let action = spec.default_endpoint_to_host_action.as_str();
        Settings {
            ipv6: spec.ipv6_support.unwrap_or(true),
            to_host: ["Accept", "Return"].contains(&action),
            accept_invalid: spec.disable_conntrack_invalid_check.unwrap_or(false),
        }
    }
}

fn owns(wep: &WorkloadEndpoint, addr: IpAddr) -> bool {
    wep.spec.ip_networks.iter().any(|net| net.addr() == Some(addr))
}
