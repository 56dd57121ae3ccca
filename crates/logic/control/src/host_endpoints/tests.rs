//! Host endpoints by cases.

use super::*;
use tortie_api::LabelMap;
use tortie_api::kinds::{NodeAddress, NodeBgpSpec, NodeInterface, NodeSpec};

fn map(pairs: &[(&str, &str)]) -> LabelMap {
    pairs.iter().copied().collect()
}

fn node(name: &str) -> Node {
    let bgp = NodeBgpSpec { ipv4_address: "10.1.0.1/24".into(), ..NodeBgpSpec::default() };
    let address = |address: &str, kind: &str| NodeAddress { address: address.into(), address_type: kind.into() };
    let interface = |name: &str, ips: &[&str]| NodeInterface {
        name: name.into(),
        addresses: ips.iter().map(|ip| (*ip).to_owned()).collect(),
    };
    let spec = NodeSpec {
        bgp: Some(bgp),
        ipv4_vxlan_tunnel_addr: "192.168.0.1".into(),
        addresses: vec![address("10.1.0.1", "InternalIP"), address("8.8.8.8", "ExternalIP")],
        interfaces: vec![interface("eth0", &["10.1.0.1"]), interface("eth1", &["10.2.0.1"])],
        ..NodeSpec::default()
    };
    let mut metadata = Metadata::named(name);
    metadata.labels = map(&[("zone", "a")]);
    Node { metadata, spec, ..Node::default() }
}

fn settings(templates: Vec<HostEndpointTemplate>) -> AutoHostEndpointConfig {
    AutoHostEndpointConfig { auto_create: Some(Toggle::Enabled), create_default_host_endpoint: None, templates }
}

fn apply(existing: &mut BTreeMap<String, HostEndpoint>, changes: HostEndpointChanges) {
    for one in changes.put {
        existing.insert(one.metadata.name.clone(), one);
    }
    for name in changes.delete {
        existing.remove(&name);
    }
}

#[test]
fn a_node_gets_one_for_all_interfaces_that_follows_it_and_goes_with_it() {
    let mut existing = BTreeMap::new();
    let first = changes([&node("n1")], &existing, &settings(vec![]));
    apply(&mut existing, first);
    let made = &existing["n1-auto-hep"];
    assert_eq!((made.spec.node.as_str(), made.spec.interface_name.as_str()), ("n1", "*"));
    let ips: Vec<&str> = made.spec.expected_ips.iter().map(IpNetText::as_str).collect();
    assert_eq!(ips, ["10.1.0.1", "192.168.0.1", "10.2.0.1"]);
    assert_eq!(made.spec.profiles, [DEFAULT_ALLOW]);
    assert_eq!(made.metadata.labels, map(&[("zone", "a"), CREATED_BY]));
    assert_eq!(changes([&node("n1")], &existing, &settings(vec![])), HostEndpointChanges::default(), "a second pass");
    let mut other = node("n1");
    other.metadata.labels = map(&[("zone", "b")]);
    let changed = changes([&other], &existing, &settings(vec![]));
    assert_eq!(changed.put[0].metadata.labels.get("zone"), Some("b"));
    assert_eq!(changes([], &existing, &settings(vec![])).delete, ["n1-auto-hep"], "the node is gone");
    let off = AutoHostEndpointConfig::default();
    assert_eq!(changes([&node("n1")], &existing, &off).delete, ["n1-auto-hep"], "switched off");
}

#[test]
fn templates_choose_nodes_addresses_and_interfaces() {
    let by_cidr = HostEndpointTemplate {
        generate_name: "inside".into(),
        interface_cidrs: vec!["10.2.0.0/16".into()],
        node_selector: "zone == 'a'".into(),
        labels: map(&[("zone", "mine"), ("role", "inside")]),
        annotations: map(&[("note", "x")]).to_map(),
        ..HostEndpointTemplate::default()
    };
    let by_name = HostEndpointTemplate {
        generate_name: "eth".into(),
        interface_pattern: "^eth".into(),
        node_selector: "all()".into(),
        ..HostEndpointTemplate::default()
    };
    let none = HostEndpointTemplate { node_selector: "zone == 'b'".into(), ..by_cidr.clone() };
    let mut wanted = settings(vec![by_cidr, by_name]);
    wanted.create_default_host_endpoint = Some(Toggle::Disabled);
    let made = changes([&node("n1")], &BTreeMap::new(), &wanted).put;
    let shown: Vec<(&str, &str, Vec<&str>)> = made
        .iter()
        .map(|one| {
            let ips = one.spec.expected_ips.iter().map(IpNetText::as_str).collect();
            (one.metadata.name.as_str(), one.spec.interface_name.as_str(), ips)
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("n1-eth-eth0-auto-hep", "eth0", vec!["10.1.0.1"]),
            ("n1-eth-eth1-auto-hep", "eth1", vec!["10.2.0.1"]),
            ("n1-inside-auto-hep", "", vec!["10.2.0.1"]),
        ]
    );
    assert_eq!(made[2].metadata.labels, map(&[("zone", "mine"), ("role", "inside"), CREATED_BY]));
    assert_eq!(made[2].metadata.annotations, map(&[("note", "x")]).to_map());
    wanted.templates = vec![none];
    assert!(changes([&node("n1")], &BTreeMap::new(), &wanted).put.is_empty());
}

#[test]
fn what_others_made_is_never_touched_and_a_bad_template_takes_nothing_away() {
    let mut mine = HostEndpoint { metadata: Metadata::named("n1-auto-hep"), ..HostEndpoint::default() };
    let existing = BTreeMap::from([("n1-auto-hep".to_owned(), mine.clone())]);
    assert_eq!(changes([&node("n1")], &existing, &settings(vec![])), HostEndpointChanges::default());
    mine.metadata.labels = map(&[CREATED_BY]);
    mine.metadata.name = "n1-old-auto-hep".into();
    let existing = BTreeMap::from([(mine.metadata.name.clone(), mine)]);
    let bad =
        HostEndpointTemplate { generate_name: "old".into(), node_selector: "zone ==".into(), ..Default::default() };
    let changed = changes([&node("n1")], &existing, &settings(vec![bad]));
    assert_eq!((changed.delete.len(), changed.problems.len()), (0, 1));
    assert!(changed.problems[0].contains("\"old\""), "{:?}", changed.problems);
}

#[test]
fn a_name_that_is_too_long_becomes_upstreams_hash() {
    let long = "n".repeat(250);
    let name = name_of(&[&long]);
    assert!(name.len() <= LONGEST_NAME && name.ends_with("-auto-hep"), "{name}");
    assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
    assert_ne!(name, name_of(&[&"m".repeat(250)]));
}
