//! From a FelixConfiguration's fields to settings.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tortie_api::{FelixConfigurationSpec, GoDuration, NatOutgoingExclusions, Port, ProtoPort, Toggle};
use tortie_desired::{Failsafe, HostAction, LogLimit, Period};
use tortie_net::{IpNet, Protocol};

use super::{ClusterRoutes, Overrides, ServiceLoops, WireguardOverrides};

/// Upstream's default of `logActionRateLimitBurst`, lines.
const DEFAULT_LOG_BURST: u32 = 5;

impl Overrides {
    /// What a FelixConfiguration sets, with a line for each value that is not understood.
    pub fn of_spec(spec: &FelixConfigurationSpec, problems: &mut Vec<String>) -> Overrides {
        let text = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        let prefixes = |text: &str| text.split(',').map(str::trim).filter(|p| !p.is_empty()).map(Arc::from).collect();
        let mut word = |field: &str, found: &str, choices: &[&str]| {
            let at = choices.iter().position(|choice| choice.eq_ignore_ascii_case(found));
            if at.is_none() && !found.is_empty() {
                problems.push(format!("spec.{field}: {found:?} is none of {}", choices.join(", ")));
            }
            at
        };
        let host =
            word("defaultEndpointToHostAction", &spec.default_endpoint_to_host_action, &["Drop", "Accept", "Return"]);
        let deny = [
            ("nftablesFilterDenyAction", &spec.nftables_filter_deny_action),
            ("iptablesFilterDenyAction", &spec.iptables_filter_deny_action),
        ];
        let deny = deny.map(|(field, found)| word(field, found, &["Drop", "Reject"]));
        let loops = word("serviceLoopPrevention", &spec.service_loop_prevention, &["Drop", "Reject", "Disabled"]);
        let spoofing = word("workloadSourceSpoofing", &spec.workload_source_spoofing, &["Disabled", "Any"]);
        // 0 leaves the choice to us, as the default does.
        let number = |value: Option<i64>, end: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| (1..end).contains(value))
        };
        Overrides {
            interface_prefixes: Some(prefixes(&spec.interface_prefix)).filter(|list: &Vec<_>| !list.is_empty()),
            endpoint_to_host: host.map(|at| [HostAction::Drop, HostAction::Accept, HostAction::Return][at]),
            reject_denied: deny.map(|at| at.map(|at| at == 1)),
            iptables: None,
            log_prefix: text(&spec.log_prefix),
            log_limit: log_limit(spec, problems),
            accept_invalid: spec.disable_conntrack_invalid_check,
            ipv6: spec.ipv6_support,
            failsafe_inbound: failsafes(
                "failsafeInboundHostPorts",
                spec.failsafe_inbound_host_ports.as_ref(),
                problems,
            ),
            failsafe_outbound: failsafes(
                "failsafeOutboundHostPorts",
                spec.failsafe_outbound_host_ports.as_ref(),
                problems,
            ),
            vxlan_from_workloads: spec.allow_vxlan_packets_from_workloads,
            ipip_from_workloads: spec.allow_ipip_packets_from_workloads,
            nat_ports: match &spec.nat_port_range {
                Some(Port::Range(range)) if range.last() > 0 => Some(*range),
                Some(Port::Range(_)) | None => None,
                Some(Port::Named(name)) => {
                    problems.push(format!("spec.natPortRange: {name:?} is no range of ports"));
                    None
                }
            },
            nat_address: match spec.nat_outgoing_address.as_str() {
                "" => None,
                address => address
                    .parse()
                    .inspect_err(|_| problems.push(format!("spec.natOutgoingAddress: {address:?} is no IPv4 address")))
                    .ok(),
            },
            nat_exclude_hosts: spec
                .nat_outgoing_exclusions
                .as_ref()
                .map(|exclusions| *exclusions == NatOutgoingExclusions::IpPoolsAndHostIps),
            service_loops: loops.map(|at| [ServiceLoops::Drop, ServiceLoops::Reject, ServiceLoops::Allow][at]),
            floating: spec.floating_ips.as_ref().map(|toggle| *toggle == Toggle::Enabled),
            source_spoofing: spoofing.map(|at| at == 1),
            vxlan_enabled: spec.vxlan_enabled,
            vxlan_vni: number(spec.vxlan_vni, 1 << 24),
            vxlan_port: number(spec.vxlan_port, 1 << 16).and_then(|port| u16::try_from(port).ok()),
            vxlan_mtu: number(spec.vxlan_mtu, 1 << 16),
            vxlan_mtu_v6: number(spec.vxlan_mtu_v6, 1 << 16),
            ipip_enabled: spec.ipip_enabled,
            ipip_mtu: number(spec.ipip_mtu, 1 << 16),
            cluster_routes: spec.program_cluster_routes.as_deref().filter(|word| !word.is_empty()).and_then(|word| {
                let found = ClusterRoutes::of(word);
                if found.is_none() {
                    let choices = "Enabled, Disabled, EnabledIPIPOnly, EnabledNoEncapOnly";
                    problems.push(format!("spec.programClusterRoutes: {word:?} is none of {choices}"));
                }
                found
            }),
            external_nodes: spec.external_nodes_list.as_ref().map(|list| external_nodes(list, problems)),
            record_drops: None,
            revoke_flows: None,
            tunnel_sources: None,
            wireguard: wireguard(spec),
            workload_routes: None,
            router_id: None,
            kubernetes_node: None,
        }
    }
}

/// What is wrong with the bits of marks that rules may use, in nftables or in iptables.
pub(super) fn marks(spec: &FelixConfigurationSpec, iptables: bool) -> Option<String> {
    let (field, mask, used) = if iptables {
        ("iptablesMarkMask", spec.iptables_mark_mask, 0xf_0000)
    } else {
        ("nftablesMarkMask", spec.nftables_mark_mask, 0x7_0000)
    };
    let mask = mask.filter(|mask| mask & used != used)?;
    Some(format!("spec.{field}: {mask:#x} is not heeded: rules use the bits {used:#x}, and no others"))
}

fn wireguard(spec: &FelixConfigurationSpec) -> WireguardOverrides {
    let number = |value: Option<i64>, end: u32| {
        value.and_then(|value| u32::try_from(value).ok()).filter(|value| (1..end).contains(value))
    };
    let port = |value| number(value, 1 << 16).and_then(|port| u16::try_from(port).ok());
    let name = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    let secs = |keepalive: GoDuration| u16::try_from(keepalive.as_std().as_secs()).unwrap_or(u16::MAX);
    WireguardOverrides {
        enabled: [spec.wireguard_enabled, spec.wireguard_enabled_v6],
        ports: [port(spec.wireguard_listening_port), port(spec.wireguard_listening_port_v6)],
        names: [name(&spec.wireguard_interface_name), name(&spec.wireguard_interface_name_v6)],
        mtu: [number(spec.wireguard_mtu, 1 << 16), number(spec.wireguard_mtu_v6, 1 << 16)],
        host_encryption: spec.wireguard_host_encryption_enabled,
        priority: number(spec.wireguard_routing_rule_priority, 32766),
        keepalive_secs: spec.wireguard_keep_alive.map(secs),
        threaded: spec.wireguard_threading_enabled,
    }
}

fn external_nodes(list: &[String], problems: &mut Vec<String>) -> BTreeSet<IpNet> {
    let read = |text: &String| {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<Ipv4Addr>().map(|addr| IpNet::from(IpAddr::V4(addr))));
        match net {
            Ok(IpNet::V4(net)) => Some(IpNet::V4(net.trunc())),
            Ok(IpNet::V6(_)) | Err(_) => {
                problems.push(format!("spec.externalNodesList: {text:?} is no IPv4 address or prefix"));
                None
            }
        }
    };
    list.iter().filter_map(read).collect()
}

/// `N/second`, `N/minute`, `N/hour` or `N/day`.
fn log_limit(spec: &FelixConfigurationSpec, problems: &mut Vec<String>) -> Option<LogLimit> {
    let text = spec.log_action_rate_limit.as_deref().filter(|text| !text.is_empty())?;
    let burst = spec.log_action_rate_limit_burst.and_then(|burst| u32::try_from(burst).ok());
    let burst = burst.filter(|burst| *burst > 0).unwrap_or(DEFAULT_LOG_BURST);
    let parts = text.split_once('/').and_then(|(rate, period)| {
        let period = match period {
            "second" => Period::Second,
            "minute" => Period::Minute,
            "hour" => Period::Hour,
            "day" => Period::Day,
            _ => return None,
        };
        Some((rate.parse().ok().filter(|rate: &u32| *rate > 0)?, period))
    });
    if parts.is_none() {
        problems.push(format!("spec.logActionRateLimit: {text:?} is no rate such as 10/minute; lines are not limited"));
    }
    parts.map(|(rate, period)| LogLimit { rate, period, burst })
}

fn failsafes(field: &str, ports: Option<&Vec<ProtoPort>>, problems: &mut Vec<String>) -> Option<Vec<Failsafe>> {
    let read = |(index, port): (usize, &ProtoPort)| {
        let ProtoPort { protocol, port, net } = port;
        let at = format!("spec.{field}[{index}]");
        let known = match protocol.as_str() {
            "" => Some(Protocol::TCP),
            name => Protocol::from_name(name).filter(|protocol| protocol.has_ports()),
        };
        let Some(protocol) = known else {
            problems.push(format!("{at}.protocol: {protocol:?} is none of TCP, UDP, SCTP"));
            return None;
        };
        // A prefix that can't be read must not become every address.
        let parsed = net.net();
        if parsed.is_none() && !net.is_empty() {
            problems.push(format!("{at}.net: {:?} is no prefix", net.as_str()));
            return None;
        }
        Some(Failsafe { protocol, port: *port, net: parsed })
    };
    Some(ports?.iter().enumerate().filter_map(read).collect())
}
