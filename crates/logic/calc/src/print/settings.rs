//! Settings as text, where they are not the default.

use std::fmt::{self, Write as _};

use tortie_desired::{Failsafe, LogLimit, NatSettings, Settings};

pub(super) fn write(out: &mut String, settings: &Settings) -> fmt::Result {
    let default = Settings::default();
    let Settings {
        interface_prefixes,
        endpoint_to_host,
        reject_denied,
        log_prefix,
        log_limit,
        accept_invalid,
        ipv6,
        failsafe_inbound,
        failsafe_outbound,
        vxlan_port,
        vxlan_from_workloads,
        ipip_from_workloads,
        nat,
        service_loops,
        reject_service_loops,
        record_drops,
        revoke_flows,
        loose_sources,
        tunnel_sources,
        external_nodes,
    } = settings;
    let mut line = |name: &str, differs: bool, value: String| {
        if differs { writeln!(out, "setting {name} {value}") } else { Ok(()) }
    };
    line("interface-prefixes", *interface_prefixes != default.interface_prefixes, interface_prefixes.join(","))?;
    let to_host = *endpoint_to_host;
    line("endpoint-to-host", to_host != default.endpoint_to_host, format!("{to_host:?}"))?;
    line("reject-denied", *reject_denied != default.reject_denied, reject_denied.to_string())?;
    line("log-prefix", *log_prefix != default.log_prefix, log_prefix.to_string())?;
    if let Some(LogLimit { rate, period, burst }) = log_limit {
        line("log-limit", true, format!("{rate}/{period:?} burst {burst}"))?;
    }
    line("accept-invalid", *accept_invalid != default.accept_invalid, accept_invalid.to_string())?;
    line("ipv6", *ipv6 != default.ipv6, ipv6.to_string())?;
    line("failsafe-inbound", *failsafe_inbound != default.failsafe_inbound, failsafes(failsafe_inbound))?;
    line("failsafe-outbound", *failsafe_outbound != default.failsafe_outbound, failsafes(failsafe_outbound))?;
    line("vxlan-port", *vxlan_port != default.vxlan_port, vxlan_port.to_string())?;
    line("vxlan-from-workloads", *vxlan_from_workloads, vxlan_from_workloads.to_string())?;
    line("ipip-from-workloads", *ipip_from_workloads, ipip_from_workloads.to_string())?;
    let external: Vec<String> = external_nodes.iter().map(ToString::to_string).collect();
    line("external-nodes", !external.is_empty(), external.join(","))?;
    line("record-drops", *record_drops, record_drops.to_string())?;
    line("revoke-flows", *revoke_flows, revoke_flows.to_string())?;
    line("tunnel-sources", *tunnel_sources != default.tunnel_sources, tunnel_sources.to_string())?;
    line("loose-sources", *loose_sources, loose_sources.to_string())?;
    let NatSettings { ports, address, exclude_hosts } = nat;
    line("nat-ports", ports.is_some(), ports.map(|ports| ports.to_string()).unwrap_or_default())?;
    line("nat-address", address.is_some(), address.map(|address| address.to_string()).unwrap_or_default())?;
    line("nat-exclude-hosts", *exclude_hosts, exclude_hosts.to_string())?;
    let loops: Vec<String> = service_loops.iter().map(ToString::to_string).collect();
    let action = if *reject_service_loops { "reject" } else { "drop" };
    line("service-loops", !loops.is_empty(), format!("{action} {}", loops.join(",")))
}

fn failsafes(all: &[Failsafe]) -> String {
    let text = |Failsafe { protocol, port, net }: &Failsafe| {
        let net = net.map(|net| format!(":{net}")).unwrap_or_default();
        format!("{protocol}:{port}{net}").to_lowercase()
    };
    if all.is_empty() { "none".to_owned() } else { all.iter().map(text).collect::<Vec<_>>().join(",") }
}
