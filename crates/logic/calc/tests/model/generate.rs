//! Strategies for a little world: few names, labels, addresses and ports, so that things meet.

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use proptest::sample::select;
use tortie_api::{
    Action, EntityRule, GlobalNetworkPolicy, GlobalNetworkPolicySpec, GlobalNetworkSet, GlobalNetworkSetSpec,
    IpNetText, KubernetesClusterNetworkPolicy, KubernetesEndpointSlice, KubernetesEndpointSliceSpec,
    KubernetesNetworkPolicy, KubernetesProtocol, Metadata, NetworkPolicy, NetworkPolicySpec, NetworkSet,
    NetworkSetSpec, PolicyType, Port, Profile, ProfileSpec, Resource, Rule, ServiceAccountMatch, ServiceMatch,
    SliceEndpoint, SlicePort, StagedAction, StagedNetworkPolicy, StagedNetworkPolicySpec, Tier, TierSpec,
    WorkloadEndpoint, WorkloadEndpointPort, WorkloadEndpointSpec,
};
use tortie_facts::{Key, Value};
use tortie_net::Protocol;

/// The node whose tables are worked out.
pub const NODE: &str = "n1";
/// Destination ports that packets are tried with.
pub const PORTS: [(u16, Protocol); 3] = [(80, Protocol::TCP), (81, Protocol::TCP), (80, Protocol::UDP)];

const NAMESPACES: [&str; 2] = ["red", "blue"];
const SELECTORS: [&str; 12] = [
    "",
    "all()",
    "a == 'x'",
    "a == 'y' || b == 'x'",
    "a in {'x', 'y'} && has(b)",
    "a != 'x'",
    "!has(a)",
    "has(b)",
    "!(a == 'x' && b == 'x')",
    "b starts with 'x'",
    "c == 'lent'",
    "a == 'x' && a == 'y'",
];
const OVER_NAMESPACES: [&str; 5] = ["", "all()", "global()", "env == 'x'", "env != 'x'"];

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Op {
    /// A fact comes or changes.
    Put(Key, Value),
    /// A fact goes, if it is there.
    Delete(Key),
    /// Changes are taken.
    Flush,
}

/// Every address that an endpoint or network set may cover, and one that none does.
pub fn addresses() -> impl Iterator<Item = IpAddr> {
    (1..=9).map(|i| IpAddr::from(Ipv4Addr::new(10, 0, 0, i)))
}

fn net() -> impl Strategy<Value = IpNetText> {
    select(vec!["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.0/29", "10.0.0.4/31", "10.0.0.6/32"])
        .prop_map(IpNetText::from)
}

fn labels() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let value = || select(vec!["x", "y", "xy"]);
    (prop::option::of(value()), prop::option::of(value()))
        .prop_map(|(a, b)| [("a", a), ("b", b)].into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
}

fn metadata(namespaces: &'static [&'static str], names: &'static [&'static str]) -> impl Strategy<Value = Metadata> {
    (select(namespaces), select(names), labels()).prop_map(|(namespace, name, labels)| {
        let mut metadata = Metadata::in_namespace(namespace, name);
        metadata.labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        metadata
    })
}

fn endpoint() -> impl Strategy<Value = Resource> {
    let address = (1u8..=5).prop_map(|i| IpNetText::from(IpAddr::from(Ipv4Addr::new(10, 0, 0, i))));
    let profiles = prop::collection::vec(select(vec!["kns.red", "kns.blue", "lender", "open"]), 0..3);
    let port = prop::option::of(select(vec![80, 81]));
    let protocol = select(vec![Protocol::TCP, Protocol::UDP]);
    let place = (select(vec![NODE, "n2", "n2"]), prop::collection::vec(address, 1..3));
    let account = select(vec!["", "web", "db"]);
    (metadata(&NAMESPACES, &["p", "q", "r"]), place, profiles, port, protocol, account).prop_map(
        |(metadata, (node, ip_networks), profiles, port, protocol, account)| {
            let ports = port.map(|port| WorkloadEndpointPort {
                name: "web".to_owned(),
                protocol: protocol.into(),
                port,
                ..WorkloadEndpointPort::default()
            });
            let spec = WorkloadEndpointSpec {
                node: node.to_owned(),
                interface_name: format!("cali-{}-{}", metadata.namespace, metadata.name),
                ip_networks,
                profiles: profiles.into_iter().map(str::to_owned).collect(),
                ports: ports.into_iter().collect(),
                service_account_name: account.to_owned(),
                ..WorkloadEndpointSpec::default()
            };
            WorkloadEndpoint { metadata, spec }.into()
        },
    )
}

fn network_set() -> impl Strategy<Value = Resource> {
    let nets = || prop::collection::vec(net(), 0..4);
    let namespaced = (metadata(&NAMESPACES, &["s"]), nets())
        .prop_map(|(metadata, nets)| Resource::from(NetworkSet { metadata, spec: NetworkSetSpec { nets } }));
    let global = (metadata(&[""], &["g", "h"]), nets()).prop_map(|(metadata, nets)| {
        Resource::from(GlobalNetworkSet { metadata, spec: GlobalNetworkSetSpec { nets } })
    });
    prop_oneof![namespaced, global]
}

fn slice() -> impl Strategy<Value = Resource> {
    let address = || (1u8..=6).prop_map(|i| Ipv4Addr::new(10, 0, 0, i).to_string());
    let port = select(PORTS.to_vec()).prop_map(|(port, protocol)| SlicePort {
        protocol: if protocol == Protocol::TCP { KubernetesProtocol::Tcp } else { KubernetesProtocol::Udp },
        port: Some(port),
        ..SlicePort::default()
    });
    let content = (prop::collection::vec(address(), 0..4), prop::collection::vec(port, 0..3));
    (metadata(&NAMESPACES, &["s", "t"]), select(vec!["web", "db"]), content).prop_map(
        |(metadata, service, (addresses, ports))| {
            let endpoints = vec![SliceEndpoint { addresses, ..SliceEndpoint::default() }];
            let service = service.to_owned();
            let spec = KubernetesEndpointSliceSpec { service, endpoints, ports, ..Default::default() };
            KubernetesEndpointSlice { metadata, spec }.into()
        },
    )
}

fn entity() -> impl Strategy<Value = EntityRule> {
    let service = (select(vec!["web", "db"]), select(&NAMESPACES[..])).prop_map(|(name, namespace)| EntityRule {
        services: Some(ServiceMatch { name: name.to_owned(), namespace: namespace.to_owned() }),
        ..EntityRule::default()
    });
    prop_oneof![5 => selecting(), 1 => service]
}

fn selecting() -> impl Strategy<Value = EntityRule> {
    let nets = || prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(net(), 1..3)];
    let selector = || prop_oneof![2 => Just(String::new()), 3 => select(&SELECTORS[..]).prop_map(str::to_owned)];
    let not = prop_oneof![3 => Just(String::new()), 1 => select(&SELECTORS[1..]).prop_map(str::to_owned)];
    let spaces = prop_oneof![2 => Just(""), 1 => select(&OVER_NAMESPACES[..])];
    let ports = || {
        let choice = vec![Port::number(80), Port::number(81), Port::Named("web".to_owned())];
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(select(choice), 1..3)]
    };
    let account = prop_oneof![
        4 => Just(None),
        1 => (select(vec![vec![], vec!["web".to_owned()]]), select(vec!["", "a == 'x'", "all()"]))
            .prop_map(|(names, selector)| Some(ServiceAccountMatch { names, selector: selector.to_owned() })),
    ];
    (nets(), nets(), selector(), not, spaces, (ports(), ports()), account).prop_map(
        |(nets, not_nets, selector, not_selector, spaces, (ports, not_ports), service_accounts)| EntityRule {
            nets,
            not_nets,
            selector,
            not_selector,
            namespace_selector: spaces.to_owned(),
            ports,
            not_ports,
            service_accounts,
            ..EntityRule::default()
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let action = select(vec![Action::Allow, Action::Allow, Action::Deny, Action::Pass, Action::Log]);
    let protocol = prop::option::of(select(vec![Protocol::TCP, Protocol::UDP]));
    let not_protocol = prop_oneof![4 => Just(None), 1 => Just(Some(Protocol::UDP))];
    let any = prop_oneof![2 => Just(EntityRule::default()), 3 => entity()];
    let rule = (action, protocol, not_protocol, entity(), any).prop_map(
        |(action, protocol, not_protocol, source, destination)| Rule {
            action,
            protocol: protocol.map(Into::into),
            not_protocol: not_protocol.map(Into::into),
            source,
            destination,
            ..Rule::default()
        },
    );
    prop::collection::vec(rule, 0..4)
}

/// Tier, order, selector, directions, ingress, egress.
type Policy = (&'static str, Option<f64>, &'static str, Vec<PolicyType>, Vec<Rule>, Vec<Rule>);

fn policy() -> impl Strategy<Value = Policy> {
    let tier = select(vec!["", "default", "first", "second", "kube-admin", "kube-baseline"]);
    let order = select(vec![None, Some(1.0), Some(2.0)]);
    let types = select(vec![
        vec![],
        vec![PolicyType::Ingress],
        vec![PolicyType::Egress],
        vec![PolicyType::Ingress, PolicyType::Egress],
    ]);
    (tier, order, select(&SELECTORS[..]), types, rules(), rules())
}

fn network_policy() -> impl Strategy<Value = Resource> {
    let spec = (metadata(&NAMESPACES, &["p", "p-q", "q"]), policy(), select(vec!["", "", "a == 'x'"])).prop_map(
        |(metadata, (tier, order, selector, types, ingress, egress), accounts)| {
            let spec = NetworkPolicySpec {
                tier: tier.to_owned(),
                order,
                selector: selector.to_owned(),
                types,
                ingress,
                egress,
                service_account_selector: accounts.to_owned(),
                ..NetworkPolicySpec::default()
            };
            (metadata, spec)
        },
    );
    let namespaced = (spec, 0..6).prop_map(|((metadata, spec), chance)| match chance {
        0 => KubernetesNetworkPolicy { metadata, spec }.into(),
        1 | 2 => StagedNetworkPolicy { metadata, spec: staged(spec) }.into(),
        _ => Resource::from(NetworkPolicy { metadata, spec }),
    });
    let global = (metadata(&[""], &["p", "g"]), policy(), select(&OVER_NAMESPACES[..]), 0..6).prop_map(
        |(metadata, (tier, order, selector, types, ingress, egress), spaces, chance)| {
            let spec = GlobalNetworkPolicySpec {
                tier: tier.to_owned(),
                order,
                selector: selector.to_owned(),
                types,
                ingress,
                egress,
                namespace_selector: spaces.to_owned(),
                do_not_track: chance == 0,
                ..GlobalNetworkPolicySpec::default()
            };
            if chance == 1 {
                return KubernetesClusterNetworkPolicy { metadata, spec }.into();
            }
            Resource::from(GlobalNetworkPolicy { metadata, spec })
        },
    );
    prop_oneof![namespaced, global]
}

/// As staged; what has order 2 is a proposal to delete.
fn staged(spec: NetworkPolicySpec) -> StagedNetworkPolicySpec {
    StagedNetworkPolicySpec {
        staged_action: (spec.order == Some(2.0)).then_some(StagedAction::Delete),
        tier: spec.tier,
        order: spec.order,
        selector: spec.selector,
        types: spec.types,
        ingress: spec.ingress,
        egress: spec.egress,
        service_account_selector: spec.service_account_selector,
        performance_hints: spec.performance_hints,
    }
}

fn profile() -> impl Strategy<Value = Resource> {
    let lent = prop::collection::vec(
        select(vec![("pcns.env", "x"), ("pcns.env", "y"), ("c", "lent"), ("a", "x"), ("pcsa.a", "x")]),
        0..3,
    );
    let open = any::<bool>();
    (select(vec!["kns.red", "kns.blue", "lender", "open"]), lent, open, rules()).prop_map(
        |(name, lent, open, rules)| {
            let ingress = if open { vec![Rule { action: Action::Allow, ..Rule::default() }] } else { rules };
            let labels_to_apply = lent.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let spec = ProfileSpec { egress: ingress.clone(), ingress, labels_to_apply };
            Profile { metadata: Metadata::named(name), spec }.into()
        },
    )
}

fn tier() -> impl Strategy<Value = Resource> {
    let order = select(vec![None, Some(10.0), Some(20.0), Some(2_000_000.0)]);
    let action = select(vec![None, Some(Action::Deny), Some(Action::Pass)]);
    (select(vec!["first", "second", "default"]), order, action).prop_map(|(name, order, default_action)| {
        let spec = TierSpec { order, default_action };
        Tier { metadata: Metadata::named(name), spec, status: Default::default() }.into()
    })
}

/// Something happens: most often a fact comes or changes.
pub fn op() -> impl Strategy<Value = Op> {
    let resource = prop_oneof![
        6 => endpoint(),
        3 => network_set(),
        6 => network_policy(),
        2 => profile(),
        1 => tier(),
        3 => slice(),
    ];
    (resource, 0..10).prop_map(|(resource, chance)| {
        let metadata = resource.metadata();
        let key = Key::resource(resource.kind(), &metadata.namespace, &metadata.name);
        match chance {
            0 | 1 => Op::Flush,
            2 | 3 => Op::Delete(key),
            _ => Op::Put(key, Value::resource(resource)),
        }
    })
}
