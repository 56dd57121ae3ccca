//! The columns of every kind's table: upstream's headings, and what stands below them.

use std::fmt::Display;

use anyhow::{Result, bail};
use tortie_api::{EncapMode, Kind, LabelSelector, LabelSelectorRequirement, Resource};

use super::{Found, go, tabs};
use crate::settings::hint;

/// Which columns.
#[derive(Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// The few that are shown by default.
    Narrow,
    /// All usual ones.
    Wide,
    /// These.
    These(&'a [String]),
}

/// The headings of a kind: by default, with `wide`, and those that only a request by name shows.
fn headings(kind: Kind) -> (&'static [&'static str], &'static [&'static str], &'static [&'static str]) {
    const POLICY: &[&str] = &["NAME", "TIER"];
    const POLICY_WIDE: &[&str] = &["NAME", "TIER", "ORDER", "SELECTOR"];
    const NAME: &[&str] = &["NAME"];
    const BGP: &[&str] = &["NAME", "LOGSEVERITY", "MESHENABLED", "ASNUMBER"];
    const FILTER: &[&str] = &["NAME", "NUMEXPORTV4", "NUMIMPORTV4", "NUMEXPORTV6", "NUMIMPORTV6"];
    const PEER: &[&str] = &["NAME", "PEERIP", "NODE", "ASN"];
    const CLUSTER: &[&str] = &["NAME", "CLUSTERGUID", "CLUSTERTYPE", "CALICOVERSION", "DATASTOREREADY"];
    const POOL: &[&str] =
        &["NAME", "CIDR", "NAT", "IPIPMODE", "VXLANMODE", "DISABLED", "DISABLEBGPEXPORT", "SELECTOR", "ASSIGNMENTMODE"];
    match kind {
        Kind::NetworkPolicy | Kind::StagedNetworkPolicy => (POLICY, POLICY_WIDE, &["NAMESPACE"]),
        Kind::GlobalNetworkPolicy | Kind::StagedGlobalNetworkPolicy => (POLICY, POLICY_WIDE, &[]),
        Kind::StagedKubernetesNetworkPolicy => (NAME, &["NAME", "PODSELECTOR"], &["NAMESPACE"]),
        Kind::Tier => (&["NAME", "ORDER"], &["NAME", "ORDER"], &[]),
        Kind::Profile => (NAME, &["NAME", "LABELS"], &[]),
        Kind::NetworkSet => (NAME, &["NAME", "NETS"], &["NAMESPACE"]),
        Kind::GlobalNetworkSet => (NAME, &["NAME", "NETS"], &[]),
        Kind::HostEndpoint => (&["NAME", "NODE"], &["NAME", "NODE", "INTERFACE", "IPS", "PROFILES"], &[]),
        Kind::IpPool => (&["NAME", "CIDR", "SELECTOR"], POOL, &[]),
        Kind::IpReservation => (NAME, &["NAME", "CIDRS"], &[]),
        Kind::IpamConfiguration => (
            &["NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS"],
            &["NAME", "STRICTAFFINITY", "AUTOALLOCATEBLOCKS", "MAXBLOCKSPERHOST"],
            &[],
        ),
        Kind::BgpConfiguration => (BGP, BGP, &[]),
        Kind::BgpPeer => (PEER, PEER, &[]),
        Kind::BgpFilter => (FILTER, FILTER, &[]),
        Kind::ClusterInformation => (CLUSTER, CLUSTER, &[]),
        Kind::CalicoNodeStatus => (&["NAME", "NODE"], &["NAME", "NODE", "CLASSES"], &[]),
        Kind::Node => (NAME, &["NAME", "ASN", "IPV4", "IPV6"], &[]),
        Kind::WorkloadEndpoint => (
            &["WORKLOAD", "NODE", "NETWORKS", "INTERFACE"],
            &["NAME", "WORKLOAD", "NODE", "NETWORKS", "INTERFACE", "PROFILES", "NATS"],
            &["NAMESPACE", "ORCHESTRATOR"],
        ),
        Kind::FelixConfiguration
        | Kind::KubeControllersConfiguration
        | Kind::IpamBlock
        | Kind::IpamHandle
        | Kind::BlockAffinity
        // Internal: nobody can ask for them.
        | Kind::KubernetesNetworkPolicy
        | Kind::KubernetesClusterNetworkPolicy
        | Kind::KubernetesEndpointSlice
        | Kind::KubernetesService => (NAME, NAME, &[]),
    }
}

/// The table of what was read for one argument.
pub(super) fn table(
    found: &Found,
    wanted: Wanted<'_>,
    with_namespace: bool,
    as_number: &dyn Fn() -> String,
) -> Result<String> {
    let (kind, resources) = match found {
        Found::One(resource) => (resource.kind(), std::slice::from_ref(resource)),
        Found::List { kind, items, revision: _ } => (*kind, items.as_slice()),
    };
    let (narrow, wide, more) = headings(kind);
    let mut chosen: Vec<&str> = match wanted {
        Wanted::Narrow => narrow.to_vec(),
        Wanted::Wide => wide.to_vec(),
        Wanted::These(names) => names.iter().map(String::as_str).collect(),
    };
    let all: Vec<&str> =
        wide.iter().chain(narrow.iter().filter(|name| !wide.contains(name))).chain(more).copied().collect();
    if let Some(unknown) = chosen.iter().find(|name| !all.contains(name)) {
        bail!("unknown heading {unknown}, valid values are: {}{}", all.join(", "), hint(unknown, all.iter().copied()));
    }
    let named = matches!(wanted, Wanted::These(_));
    if with_namespace && !named && more.contains(&"NAMESPACE") {
        chosen.insert(0, "NAMESPACE");
    }
    let mut number = None;
    let mut rows = vec![chosen.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    for resource in resources {
        let mut global = || number.get_or_insert_with(as_number).clone();
        rows.push(chosen.iter().map(|heading| cell(resource, heading, &mut global)).collect());
    }
    Ok(tabs::align(&rows))
}

fn cell(resource: &Resource, heading: &str, as_number: &mut dyn FnMut() -> String) -> String {
    let metadata = resource.metadata();
    match heading {
        "NAME" => return metadata.name.clone(),
        "NAMESPACE" => return metadata.namespace.clone(),
        _ => {}
    }
    match resource {
        Resource::NetworkPolicy(r) => policy(heading, &r.spec.tier, r.spec.order, &r.spec.selector),
        Resource::GlobalNetworkPolicy(r) => policy(heading, &r.spec.tier, r.spec.order, &r.spec.selector),
        Resource::StagedNetworkPolicy(r) => policy(heading, &r.spec.tier, r.spec.order, &r.spec.selector),
        Resource::StagedGlobalNetworkPolicy(r) => policy(heading, &r.spec.tier, r.spec.order, &r.spec.selector),
        Resource::StagedKubernetesNetworkPolicy(r) => pod_selector(&r.spec.pod_selector),
        Resource::Tier(r) => order(r.spec.order),
        Resource::Profile(r) => join(r.spec.labels_to_apply.iter().map(|(key, value)| format!("{key}={value}")), 0),
        Resource::NetworkSet(r) => join(&r.spec.nets, 80),
        Resource::GlobalNetworkSet(r) => join(&r.spec.nets, 80),
        Resource::IpReservation(r) => join(&r.spec.reserved_cidrs, 80),
        Resource::HostEndpoint(r) => match heading {
            "NODE" => r.spec.node.clone(),
            "INTERFACE" => r.spec.interface_name.clone(),
            "IPS" => join(&r.spec.expected_ips, 0),
            _ => join(&r.spec.profiles, 0),
        },
        Resource::CalicoNodeStatus(r) => match heading {
            "NODE" => r.spec.node.clone(),
            _ => join(&r.spec.classes, 0),
        },
        Resource::IpPool(_) => pool(resource, heading),
        Resource::WorkloadEndpoint(_) => endpoint(resource, heading),
        Resource::Node(_) => node(resource, heading, as_number),
        Resource::BgpConfiguration(_)
        | Resource::BgpPeer(_)
        | Resource::BgpFilter(_)
        | Resource::ClusterInformation(_)
        | Resource::IpamConfiguration(_) => setting(resource, heading),
        Resource::FelixConfiguration(_)
        | Resource::KubeControllersConfiguration(_)
        | Resource::IpamBlock(_)
        | Resource::IpamHandle(_)
        | Resource::BlockAffinity(_)
        | Resource::KubernetesNetworkPolicy(_)
        | Resource::KubernetesClusterNetworkPolicy(_)
        | Resource::KubernetesEndpointSlice(_)
        | Resource::KubernetesService(_) => String::new(),
    }
}

fn policy(heading: &str, tier: &str, rank: Option<f64>, selector: &str) -> String {
    match heading {
        "TIER" => tier.to_owned(),
        "ORDER" => order(rank),
        _ => selector.to_owned(),
    }
}

fn order(value: Option<f64>) -> String {
    value.map_or_else(|| "<nil>".to_owned(), go::float)
}

fn or_nil(value: Option<impl Display>) -> String {
    value.map_or_else(|| "<nil>".to_owned(), |value| value.to_string())
}

fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The items with commas between; if `most` is not zero, cut there and ended by dots.
fn join<T: Display>(items: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut text = items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",");
    if most > 0 && text.len() > most {
        text.truncate(text.floor_char_boundary(most - 3));
        text.push_str("...");
    }
    text
}

fn pool(resource: &Resource, heading: &str) -> String {
    let Resource::IpPool(pool) = resource else { return String::new() };
    let spec = &pool.spec;
    let mode = |mode: Option<EncapMode>| mode.unwrap_or(EncapMode::Never).to_string();
    match heading {
        "CIDR" => spec.cidr.to_string(),
        "NAT" => spec.nat_outgoing.to_string(),
        "IPIPMODE" => mode(spec.ipip_mode),
        "VXLANMODE" => mode(spec.vxlan_mode),
        "DISABLED" => spec.disabled.to_string(),
        "DISABLEBGPEXPORT" => spec.disable_bgp_export.to_string(),
        "SELECTOR" => spec.node_selector.clone(),
        _ => or_nil(spec.assignment_mode),
    }
}

fn endpoint(resource: &Resource, heading: &str) -> String {
    let Resource::WorkloadEndpoint(endpoint) = resource else { return String::new() };
    let spec = &endpoint.spec;
    match heading {
        "WORKLOAD" if spec.workload.is_empty() => spec.pod.clone(),
        "WORKLOAD" => spec.workload.clone(),
        "NODE" => spec.node.clone(),
        "NETWORKS" => join(&spec.ip_networks, 0),
        "INTERFACE" => spec.interface_name.clone(),
        "PROFILES" => join(&spec.profiles, 0),
        "ORCHESTRATOR" => spec.orchestrator.clone(),
        _ => join(spec.ip_nats.iter().map(|nat| format!("{{{} {}}}", nat.internal_ip, nat.external_ip)), 0),
    }
}

fn node(resource: &Resource, heading: &str, as_number: &mut dyn FnMut() -> String) -> String {
    let Resource::Node(node) = resource else { return String::new() };
    let Some(bgp) = &node.spec.bgp else { return String::new() };
    match heading {
        "ASN" => bgp.as_number.map_or_else(|| format!("({})", as_number()), |number| number.to_string()),
        "IPV4" => bgp.ipv4_address.to_string(),
        _ => bgp.ipv6_address.to_string(),
    }
}

fn setting(resource: &Resource, heading: &str) -> String {
    match (resource, heading) {
        (Resource::BgpConfiguration(r), "LOGSEVERITY") => r.spec.log_severity_screen.clone(),
        (Resource::BgpConfiguration(r), "MESHENABLED") => or_dash(r.spec.node_to_node_mesh_enabled),
        (Resource::BgpConfiguration(r), _) => or_dash(r.spec.as_number),
        (Resource::BgpPeer(r), "PEERIP") => r.spec.peer_ip.clone(),
        (Resource::BgpPeer(r), "NODE") => match (r.spec.node.as_str(), r.spec.node_selector.as_str()) {
            ("", "") => "(global)".to_owned(),
            ("", selector) => selector.to_owned(),
            (node, _) => node.to_owned(),
        },
        (Resource::BgpPeer(r), _) => r.spec.as_number.map_or_else(|| "0".to_owned(), |number| number.to_string()),
        (Resource::BgpFilter(r), "NUMEXPORTV4") => r.spec.export_v4.len().to_string(),
        (Resource::BgpFilter(r), "NUMIMPORTV4") => r.spec.import_v4.len().to_string(),
        (Resource::BgpFilter(r), "NUMEXPORTV6") => r.spec.export_v6.len().to_string(),
        (Resource::BgpFilter(r), _) => r.spec.import_v6.len().to_string(),
        (Resource::ClusterInformation(r), "CLUSTERGUID") => r.spec.cluster_guid.clone(),
        (Resource::ClusterInformation(r), "CLUSTERTYPE") => r.spec.cluster_type.clone(),
        (Resource::ClusterInformation(r), "CALICOVERSION") => r.spec.calico_version.clone(),
        (Resource::ClusterInformation(r), _) => or_nil(r.spec.datastore_ready),
        (Resource::IpamConfiguration(r), "STRICTAFFINITY") => r.spec.strict_affinity.to_string(),
        (Resource::IpamConfiguration(r), "AUTOALLOCATEBLOCKS") => r.spec.auto_allocate_blocks.to_string(),
        (Resource::IpamConfiguration(r), _) => r.spec.max_blocks_per_host.to_string(),
        _ => String::new(),
    }
}

/// As Go prints the structure.
fn pod_selector(selector: &LabelSelector) -> String {
    let LabelSelector { match_labels, match_expressions } = selector;
    let labels: String = match_labels.iter().map(|(key, value)| format!("{key}: {value},")).collect();
    let expression = |one: &LabelSelectorRequirement| {
        let LabelSelectorRequirement { key, operator, values } = one;
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "))
    };
    let expressions: String = match_expressions.iter().map(expression).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
