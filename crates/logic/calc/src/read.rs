//! From resources to what each question keeps of them.
//!
//! Text that can't be read is left out and told as a problem; nothing here stops at the first.

mod beside;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use tortie_api as api;
use tortie_desired::{PolicyId, PolicyStage, TierAction};
use tortie_net::{Family, IpNet};
use tortie_selector::Selector;

use crate::bgp::NodeFacts;
use crate::labels::{Identity, LabelSet, Pairs};
use crate::local::LocalEndpoint;
use crate::matching::PolicyFacts;
use crate::pack::{Packed, Written};
use crate::remote::Encap;
use crate::routes::PoolFacts;
use crate::rules::{Resolved, both, namespace_is};
use crate::selectors::Selectors;
use crate::sets::{Item, NamedPort};
use crate::strings::Strings;
use crate::tiers::{Place, Scope, Tier};
use crate::tunnels::{NodeEnd, NodeEnds};
use crate::wireguard::{Side, Sides};

use beside::{floating, limits};
pub(crate) use beside::{local_host, service_nets, slice};

const NAMESPACE: &str = "projectcalico.org/namespace";
const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
/// Prefixes of what is inherited from the namespace and the service account, and of the profiles that lend it.
const INHERITED: [&str; 2] = ["pcns.", "pcsa."];
const NAMESPACE_PROFILE: &str = "kns.";

/// Prefixes, sorted and without repeats, host bits zero.
fn nets<'a>(
    field: &str,
    texts: impl IntoIterator<Item = &'a api::IpNetText>,
    problems: &mut Vec<String>,
) -> Vec<IpNet> {
    let texts = texts.into_iter();
    let mut out = Vec::with_capacity(texts.size_hint().0);
    for text in texts {
        match text.net() {
            Some(net) => out.push(net),
            None => problems.push(format!("spec.{field}: {:?} is no prefix or address", text.as_str())),
        }
    }
    out.sort_unstable();
    out.dedup();
    out.shrink_to_fit();
    out
}

/// Each name once, where it stands first: asked again, a profile says nothing new.
fn names(names: &[String]) -> Vec<Cow<'_, str>> {
    let first = |(at, name): &(usize, &String)| !names[..*at].contains(name);
    names.iter().enumerate().filter(first).map(|(_, name)| Cow::Borrowed(name.as_str())).collect()
}

fn shared(strings: &mut Strings, names: &[Cow<'_, str>]) -> Arc<[Arc<str>]> {
    names.iter().map(|name| strings.get(name)).collect()
}

/// An endpoint as sets see it; `None` without addresses, as upstream.
///
/// Nobody can put a workload into another namespace or account by a label: those labels come from elsewhere.
pub(crate) fn workload<'a>(
    strings: &mut Strings,
    wep: &'a api::WorkloadEndpoint,
    problems: &mut Vec<String>,
) -> Option<Item<'a>> {
    let spec = &wep.spec;
    // A host port without a name can't be asked for by name.
    let named = spec.ports.iter().filter(|port| !port.name.is_empty());
    let ports = named.map(|p| NamedPort { name: strings.get(&p.name), protocol: p.protocol.protocol(), port: p.port });
    let ports = ports.collect();
    let genuine = wep.metadata.labels.iter().filter(|(key, _)| !INHERITED.iter().any(|prefix| key.starts_with(prefix)));
    let account = (SERVICE_ACCOUNT, spec.service_account_name.as_str());
    let forced = [account, (NAMESPACE, wep.metadata.namespace.as_str())];
    let mut labels = Pairs::new(genuine);
    forced.into_iter().filter(|(_, value)| !value.is_empty()).for_each(|(key, value)| labels.set(key, value));
    let nets = nets("ipNetworks", &spec.ip_networks, problems);
    (!nets.is_empty()).then(|| Item { identity: Identity { own: labels, parents: names(&spec.profiles) }, nets, ports })
}

pub(crate) fn host<'a>(strings: &mut Strings, hep: &'a api::HostEndpoint, problems: &mut Vec<String>) -> Item<'a> {
    let spec = &hep.spec;
    let port = |p: &api::EndpointPort, strings: &mut Strings| NamedPort {
        name: strings.get(&p.name),
        protocol: p.protocol.protocol(),
        port: p.port,
    };
    Item {
        ports: spec.ports.iter().map(|p| port(p, strings)).collect(),
        identity: Identity { own: Pairs::new(&hep.metadata.labels), parents: names(&spec.profiles) },
        nets: nets("expectedIPs", &spec.expected_ips, problems),
    }
}

/// A NetworkSet, which inherits the labels of its namespace, or a GlobalNetworkSet, which has none.
pub(crate) fn network_set<'a>(
    metadata: &'a api::Metadata,
    texts: &[api::IpNetText],
    problems: &mut Vec<String>,
) -> Item<'a> {
    let namespace = Some(metadata.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let labels = metadata.labels.iter().chain(namespace.map(|namespace| (NAMESPACE, namespace)));
    let parents = namespace.map(|namespace| Cow::Owned(format!("{NAMESPACE_PROFILE}{namespace}")));
    Item {
        identity: Identity { own: Pairs::new(labels), parents: parents.into_iter().collect() },
        nets: nets("nets", texts, problems),
        ports: Vec::new(),
    }
}

pub(crate) fn lent_labels(profile: &api::Profile) -> Pairs<'_> {
    Pairs::new(&profile.spec.labels_to_apply)
}

/// The endpoint as the tables need it; `None` if nothing can be programmed for it.
pub(crate) fn local(
    strings: &mut Strings,
    wep: &api::WorkloadEndpoint,
    item: &Item<'_>,
    problems: &mut Vec<String>,
) -> Option<LocalEndpoint> {
    let spec = &wep.spec;
    if spec.interface_name.is_empty() {
        problems.push("spec.interfaceName: empty, so the endpoint can't be found on this node".to_owned());
        return None;
    }
    if !api::wep::is_interface_name(&spec.interface_name) {
        problems.push(beside::no_interface(&spec.interface_name));
        return None;
    }
    let mac = if spec.mac.is_empty() { None } else { Some(spec.mac.parse()) };
    let mac = mac.and_then(|mac| mac.inspect_err(|error| problems.push(format!("spec.mac: {error}"))).ok());
    Some(LocalEndpoint {
        interface: Arc::from(spec.interface_name.as_str()),
        addresses: item.nets.iter().map(IpNet::addr).collect(),
        mac,
        profiles: shared(strings, &item.identity.parents),
        labels: LabelSet::new(&item.identity.own),
        allowed_sources: nets("allowSpoofedSourcePrefixes", &spec.allow_spoofed_source_prefixes, problems),
        floating: floating(spec, problems),
        limits: limits(spec),
        openstack: spec.orchestrator == "openstack",
    })
}

/// The parts that NetworkPolicy and GlobalNetworkPolicy share.
pub(crate) struct PolicySource<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) tier: &'a str,
    pub(crate) order: Option<f64>,
    pub(crate) selector: &'a str,
    pub(crate) namespace_selector: &'a str,
    pub(crate) service_account_selector: &'a str,
    pub(crate) types: &'a [api::PolicyType],
    pub(crate) stage: PolicyStage,
    pub(crate) forward: bool,
    pub(crate) ingress: &'a [api::Rule],
    pub(crate) egress: &'a [api::Rule],
}

impl<'a> PolicySource<'a> {
    pub(crate) fn namespaced(metadata: &'a api::Metadata, spec: &'a api::NetworkPolicySpec) -> PolicySource<'a> {
        PolicySource {
            namespace: &metadata.namespace,
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            namespace_selector: "",
            service_account_selector: &spec.service_account_selector,
            types: &spec.types,
            stage: PolicyStage::Normal,
            forward: false,
            ingress: &spec.ingress,
            egress: &spec.egress,
        }
    }

    pub(crate) fn global(spec: &'a api::GlobalNetworkPolicySpec) -> PolicySource<'a> {
        PolicySource {
            namespace: "",
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            namespace_selector: &spec.namespace_selector,
            service_account_selector: &spec.service_account_selector,
            types: &spec.types,
            stage: stage(spec.do_not_track, spec.pre_dnat),
            forward: spec.apply_on_forward,
            ingress: &spec.ingress,
            egress: &spec.egress,
        }
    }

    /// `None` for the proposal to delete a policy.
    pub(crate) fn staged(policy: &'a api::StagedNetworkPolicy) -> Option<PolicySource<'a>> {
        let spec = &policy.spec;
        (spec.staged_action != Some(api::StagedAction::Delete)).then_some(PolicySource {
            namespace: &policy.metadata.namespace,
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            namespace_selector: "",
            service_account_selector: &spec.service_account_selector,
            types: &spec.types,
            stage: PolicyStage::Normal,
            forward: false,
            ingress: &spec.ingress,
            egress: &spec.egress,
        })
    }

    /// `None` for the proposal to delete a policy.
    pub(crate) fn staged_global(spec: &'a api::StagedGlobalNetworkPolicySpec) -> Option<PolicySource<'a>> {
        (spec.staged_action != Some(api::StagedAction::Delete)).then_some(PolicySource {
            namespace: "",
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            namespace_selector: &spec.namespace_selector,
            service_account_selector: &spec.service_account_selector,
            types: &spec.types,
            stage: stage(spec.do_not_track, spec.pre_dnat),
            forward: spec.apply_on_forward,
            ingress: &spec.ingress,
            egress: &spec.egress,
        })
    }

    /// `None`, with a problem, if it can't be said whom the policy selects.
    pub(crate) fn read(
        &self,
        id: &PolicyId,
        strings: &mut Strings,
        known: &mut Selectors,
        problems: &mut Vec<String>,
    ) -> Option<PolicyFacts> {
        let selector = self.whom(known, problems)?;
        let tier = strings.tier(if self.tier.is_empty() { "default" } else { self.tier });
        let (ingress, egress) = self.directions();
        let scope = Scope { ingress, egress, stage: self.stage, forward: self.forward };
        // With more conditions the text is not what is kept.
        let own = if known.parse(self.selector).is_ok_and(|own| own == selector) { self.selector } else { "" };
        let rules = Packed::new(own, self.ingress, self.egress);
        let rules = usable(known, (self.namespace, &selector), rules, (self.ingress, self.egress), problems);
        Some(PolicyFacts {
            place: Place { id: id.clone(), tier, order: self.order.unwrap_or(f64::INFINITY), scope },
            selector,
            rules,
        })
    }

    fn directions(&self) -> (bool, bool) {
        if self.types.is_empty() {
            return (!self.ingress.is_empty() || self.egress.is_empty(), !self.egress.is_empty());
        }
        (self.types.contains(&api::PolicyType::Ingress), self.types.contains(&api::PolicyType::Egress))
    }

    fn whom(&self, known: &mut Selectors, problems: &mut Vec<String>) -> Option<Selector> {
        let mut parse = |field: &str, text: &str| {
            known.parse(text).inspect_err(|error| problems.push(format!("spec.{field}: {error}"))).ok()
        };
        let mut parts = vec![parse("selector", self.selector)?];
        if !self.namespace.is_empty() {
            parts.push(namespace_is(self.namespace)?);
        }
        if !self.namespace_selector.is_empty() {
            parts.push(parse("namespaceSelector", self.namespace_selector)?.rewrite_for_namespace());
        }
        if !self.service_account_selector.is_empty() {
            parts.push(parse("serviceAccountSelector", self.service_account_selector)?.rewrite_for_service_account());
        }
        let joined = parts.into_iter().map(Some).reduce(|all, part| match (all?, part?) {
            (all, part) if all.is_all() => Some(part),
            (all, part) => both(known, &all, &part),
        });
        let joined = joined.flatten();
        if joined.is_none() {
            problems.push("spec.selector: nested too deep".to_owned());
        }
        joined
    }
}

/// Where a global policy is evaluated.
fn stage(do_not_track: bool, pre_dnat: bool) -> PolicyStage {
    match (do_not_track, pre_dnat) {
        (true, _) => PolicyStage::Untracked,
        (false, true) => PolicyStage::PreDnat,
        (false, false) => PolicyStage::Normal,
    }
}

pub(crate) fn profile(profile: &api::Profile, known: &mut Selectors, problems: &mut Vec<String>) -> Packed {
    let spec = &profile.spec;
    let rules = Packed::new("", &spec.ingress, &spec.egress);
    if rules.is_empty() {
        return rules;
    }
    usable(known, ("", &Selector::all()), rules, (&spec.ingress, &spec.egress), problems)
}

/// Longer selectors can make keys that are too long once they have a prefix.
const USUAL_SELECTOR: usize = 256;

/// Rules as they are kept, and what of them can't be used as written. `whose`: the policy's namespace and selector.
fn usable(
    known: &mut Selectors,
    whose: (&str, &Selector),
    rules: Packed,
    written: (&[api::Rule], &[api::Rule]),
    problems: &mut Vec<String>,
) -> Packed {
    let ((namespace, selector), (ingress, egress)) = (whose, written);
    let asked = Written { rules, namespaced: !namespace.is_empty(), depth: selector.depth() };
    let usual = selector.canonical().len() <= USUAL_SELECTOR;
    if let Some(same) = known.usable.find(&asked).filter(|_| usual) {
        return same;
    }
    let found = Resolved::of(known, namespace, ingress, egress).problems;
    let rules = asked.rules.clone();
    if found.is_empty() && usual {
        known.usable.note(asked);
    }
    problems.extend(found);
    rules
}

pub(crate) fn tier(tier: &api::Tier) -> Tier {
    let action = match tier.spec.default_action {
        Some(api::Action::Pass) => TierAction::Pass,
        None | Some(api::Action::Allow | api::Action::Deny | api::Action::Log) => TierAction::Deny,
    };
    Tier { order: tier.spec.order.unwrap_or(f64::INFINITY), action }
}

pub(crate) fn pool(pool: &api::IpPool, problems: &mut Vec<String>) -> Option<PoolFacts> {
    let Some(cidr) = pool.spec.cidr.net() else {
        problems.push(format!("spec.cidr: {:?} is no prefix", pool.spec.cidr.as_str()));
        return None;
    };
    let spec = &pool.spec;
    let ipip = spec.ipip_mode.filter(|_| Family::of_net(cidr) == Family::V4);
    let encap = match (spec.vxlan_mode, ipip) {
        (Some(api::EncapMode::Always), _) => Encap::Vxlan { beyond_subnet_only: false },
        (Some(api::EncapMode::CrossSubnet), _) => Encap::Vxlan { beyond_subnet_only: true },
        (_, Some(api::EncapMode::Always)) => Encap::Ipip { beyond_subnet_only: false },
        (_, Some(api::EncapMode::CrossSubnet)) => Encap::Ipip { beyond_subnet_only: true },
        (None | Some(api::EncapMode::Never), None | Some(api::EncapMode::Never)) => Encap::Plain,
    };
    Some(PoolFacts { cidr, nat_outgoing: spec.nat_outgoing, announced: !spec.disable_bgp_export, encap })
}

pub(crate) fn node(node: &api::Node, problems: &mut Vec<String>) -> NodeFacts {
    let labels = node.metadata.labels.clone();
    let Some(bgp) = &node.spec.bgp else { return NodeFacts { labels, ..NodeFacts::default() } };
    let mut addr = |field: &str, text: &api::IpNetText, right: fn(&IpAddr) -> bool| {
        let addr = text.addr().filter(right);
        if addr.is_none() && !text.is_empty() {
            problems.push(format!("spec.bgp.{field}: {:?} is no such address", text.as_str()));
        }
        addr
    };
    let (ipv4, ipv6) = (
        addr("ipv4Address", &bgp.ipv4_address, IpAddr::is_ipv4),
        addr("ipv6Address", &bgp.ipv6_address, IpAddr::is_ipv6),
    );
    let cluster = bgp.route_reflector_cluster_id.parse().ok();
    if cluster.is_none() && !bgp.route_reflector_cluster_id.is_empty() {
        let text = &bgp.route_reflector_cluster_id;
        problems.push(format!(
            "spec.bgp.routeReflectorClusterID: {text:?} is not of the form 1.0.0.1; the node reflects nothing"
        ));
    }
    NodeFacts { labels, speaks: true, ipv4, ipv6, asn: bgp.as_number, cluster }
}

/// The node's sides of its tunnels. What can't be read is told of by name and counts as not published.
pub(crate) fn node_ends(node: &api::Node, problems: &mut Vec<String>) -> NodeEnds {
    let api::NodeSpec {
        ipv4_vxlan_tunnel_addr: vtep4,
        ipv6_vxlan_tunnel_addr: vtep6,
        vxlan_tunnel_mac_addr: mac4,
        vxlan_tunnel_mac_addr_v6: mac6,
        ..
    } = &node.spec;
    let ipip = node.spec.bgp.as_ref().map(|bgp| bgp.ipv4_ipip_tunnel_addr.as_str()).unwrap_or_default();
    let own = ipip.parse().ok().filter(|addr: &IpAddr| addr.is_ipv4());
    if own.is_none() && !ipip.is_empty() {
        problems.push(format!("spec.bgp.ipv4IPIPTunnelAddr: {ipip:?} is no IPv4 address"));
    }
    let mut end = |family: Family, underlay: Option<&api::IpNetText>, fields: [&str; 2], vtep: &str, mac: &str| {
        let mut told = |field: &str, text: &str, found: bool, what: &str| {
            if !found && !text.is_empty() {
                problems.push(format!("spec.{field}: {text:?} is no {what}"));
            }
        };
        let addr = vtep.parse().ok().filter(|addr: &IpAddr| Family::of(*addr) == family);
        told(fields[0], vtep, addr.is_some(), &format!("{family} address"));
        let own_mac = mac.parse().ok();
        told(fields[1], mac, own_mac.is_some(), "Ethernet address");
        let underlay = underlay.and_then(api::IpNetText::interface).filter(|net| Family::of_net(*net) == family);
        NodeEnd { underlay, vtep: addr, mac: own_mac }
    };
    let bgp = node.spec.bgp.as_ref();
    NodeEnds {
        ipip: own,
        vxlan: [
            end(Family::V4, bgp.map(|b| &b.ipv4_address), ["ipv4VXLANTunnelAddr", "vxlanTunnelMACAddr"], vtep4, mac4),
            end(Family::V6, bgp.map(|b| &b.ipv6_address), ["ipv6VXLANTunnelAddr", "vxlanTunnelMACAddrV6"], vtep6, mac6),
        ],
    }
}

/// The node's sides of WireGuard. What can't be read is told of by name and counts as not published.
pub(crate) fn wireguard_sides(node: &api::Node, problems: &mut Vec<String>) -> Sides {
    let api::NodeStatus { wireguard_public_key, wireguard_public_key_v6, pod_cidrs: _ } = &node.status;
    let api::NodeWireguardSpec { interface_ipv4_address, interface_ipv6_address } =
        &node.spec.wireguard.clone().unwrap_or_default();
    let ends = node_ends(node, &mut Vec::new());
    let mut side = |family: Family, field: [&str; 2], key: &str, address: &str| {
        let mut told = |field: &str, text: &str, found: bool, what: &str| {
            if !found && !text.is_empty() && text != NO_KEY {
                problems.push(format!("{field}: {text:?} is no {what}"));
            }
        };
        let parsed = key.parse().ok();
        told(field[0], key, parsed.is_some(), "WireGuard key");
        let addr = address.parse().ok().filter(|addr: &IpAddr| Family::of(*addr) == family);
        told(field[1], address, addr.is_some(), &format!("{family} address"));
        let NodeEnd { underlay, vtep, mac: _ } = *ends.of(family);
        let ipip = ends.ipip.filter(|_| family == Family::V4);
        let addresses = [vtep, ipip, addr].into_iter().flatten().collect();
        Side { underlay: underlay.map(|net| net.addr()), key: parsed, address: addr, addresses }
    };
    [
        side(
            Family::V4,
            ["status.wireguardPublicKey", "spec.wireguard.interfaceIPv4Address"],
            wireguard_public_key,
            interface_ipv4_address,
        ),
        side(
            Family::V6,
            ["status.wireguardPublicKeyV6", "spec.wireguard.interfaceIPv6Address"],
            wireguard_public_key_v6,
            interface_ipv6_address,
        ),
    ]
}

/// What upstream publishes without a key: zeroes.
const NO_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
