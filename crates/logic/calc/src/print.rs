//! The tables as text for people, one row a line, always in the same order.

mod settings;

use std::fmt::{self, Write as _};

use tortie_desired::{
    Bandwidth, BgpBfd, BgpNextHop, BgpPeer, BgpPolicy, BgpSpeaker, Endpoint, ExportRule, FloatingAddress, HostEndpoint,
    IcmpMatch, Ipip, Limits, Match, Member, PacketRate, PeakRate, Policy, PolicyStage, Pool, Profile, Route,
    RouteTarget, Rule, SetId, SetKind, Tables, TierPolicies, Vtep, Vxlan, Wireguard, WireguardPeer,
};

/// All tables as text. `describe` says what a set holds, such as [`crate::Calculator::describe_set`]; settings are
/// left out where they are the default.
pub fn tables(tables: &Tables, describe: &dyn Fn(&SetId) -> Option<String>) -> String {
    let mut out = String::new();
    write_tables(&mut out, tables, describe).expect("writing to a string never fails");
    out
}

fn write_ipip(out: &mut String, ipip: &Ipip) -> fmt::Result {
    let Ipip { underlay, address, mtu, peers, ends, learned } = ipip;
    write!(out, "tunnel tunl0 over {underlay}")?;
    address.map_or(Ok(()), |address| write!(out, " address {address}"))?;
    mtu.map_or(Ok(()), |mtu| write!(out, " mtu {mtu}"))?;
    writeln!(out)?;
    for (addr, node) in peers {
        let end = ends.get(addr).map_or_else(String::new, |end| format!(" at {end}"));
        writeln!(out, "  peer {addr}{end} # {node}")?;
    }
    for (net, direct) in learned {
        let direct = direct.map_or_else(String::new, |direct| format!(" but by gateways in {direct}"));
        writeln!(out, "  learned {net}{direct}")?;
    }
    Ok(())
}

fn write_wireguard(out: &mut String, device: &Wireguard) -> fmt::Result {
    let Wireguard { name, port, table, priority, underlay, address, mtu, keepalive_secs, threaded, peers, plain } =
        device;
    write!(out, "wireguard {name} port {port} table {table} rule {priority} over {underlay}")?;
    address.map_or(Ok(()), |address| write!(out, " address {address}"))?;
    mtu.map_or(Ok(()), |mtu| write!(out, " mtu {mtu}"))?;
    if *keepalive_secs != 0 {
        write!(out, " keepalive {keepalive_secs}s")?;
    }
    if *threaded {
        write!(out, " threaded")?;
    }
    writeln!(out)?;
    let list = |nets: &std::collections::BTreeSet<tortie_net::IpNet>| {
        nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    for (node, WireguardPeer { key, endpoint, address, allowed }) in peers {
        let end = address.map_or_else(String::new, |end| format!(" at {end}"));
        writeln!(out, "  peer {endpoint}{end} key {key} {} # {node}", list(allowed))?;
    }
    if plain.is_empty() { Ok(()) } else { writeln!(out, "  plain {}", list(plain)) }
}

fn write_tables(out: &mut String, tables: &Tables, describe: &dyn Fn(&SetId) -> Option<String>) -> fmt::Result {
    let Tables {
        settings,
        sets,
        policies,
        staged,
        previews,
        host_previews,
        profiles,
        endpoints,
        host_endpoints,
        pools,
        tunnels,
        ipip,
        wireguard,
        vteps,
        routes,
        bgp_speaker,
        bgp_policy,
        bgp_peers,
        announcements,
    } = tables;
    settings::write(out, settings)?;
    for (id, (kind, members)) in sets {
        let kind = match kind {
            SetKind::Addresses => "addresses",
            SetKind::Nets => "nets",
            SetKind::Ports => "ports",
        };
        let what = describe(id).map_or_else(String::new, |what| format!(" # {what}"));
        writeln!(out, "set {id} {kind}{what}")?;
        for member in members {
            match member {
                Member::Net(net) => writeln!(out, "  {net}")?,
                Member::Port { addr, protocol, port } => writeln!(out, "  {addr} {protocol} {port}")?,
            }
        }
    }
    for (id, policy) in policies {
        let Policy { tier, stage, ingress, egress } = &**policy;
        let stage = match stage {
            PolicyStage::Normal => "",
            PolicyStage::PreDnat => " pre-dnat",
            PolicyStage::Untracked => " untracked",
        };
        writeln!(out, "policy {id} tier {tier}{stage}")?;
        write_rules(out, ingress, egress)?;
    }
    for (id, policy) in staged {
        let Policy { tier, stage: _, ingress, egress } = &**policy;
        writeln!(out, "staged {id} tier {tier}")?;
        write_rules(out, ingress, egress)?;
    }
    for (name, profile) in profiles {
        let Profile { ingress, egress } = &**profile;
        writeln!(out, "profile {name}")?;
        write_rules(out, ingress, egress)?;
    }
    for (id, endpoint) in endpoints {
        write!(out, "endpoint {id}")?;
        write_endpoint(out, endpoint)?;
    }
    let enforced = host_endpoints.iter().map(|row| ("host-endpoint", row));
    for (what, (interface, endpoint)) in enforced.chain(host_previews.iter().map(|row| ("host-preview", row))) {
        let HostEndpoint { name, untracked, pre_dnat, forward, tiers, profiles } = &**endpoint;
        writeln!(out, "{what} {interface} {name}")?;
        for (what, list) in [("untracked ", untracked), ("pre-dnat ", pre_dnat), ("forward ", forward), ("", tiers)] {
            write_tiers(out, what, list)?;
        }
        write_profiles(out, profiles)?;
    }
    for (id, tiers) in previews {
        writeln!(out, "preview {id}")?;
        write_tiers(out, "", tiers)?;
    }
    for (net, Pool { nat_outgoing }) in pools {
        writeln!(out, "pool {net}{}", if *nat_outgoing { " nat-outgoing" } else { "" })?;
    }
    for (device, Vxlan { vni, port, underlay, address, mac, mtu }) in tunnels {
        write!(out, "tunnel {device} vni {vni} port {port} over {underlay} mac {mac}")?;
        address.map_or(Ok(()), |address| write!(out, " address {address}"))?;
        mtu.map_or(Ok(()), |mtu| write!(out, " mtu {mtu}"))?;
        writeln!(out)?;
    }
    if let Some(ipip) = ipip {
        write_ipip(out, ipip)?;
    }
    for device in wireguard.values() {
        write_wireguard(out, device)?;
    }
    for (addr, Vtep { node, mac, underlay }) in vteps {
        writeln!(out, "vtep {addr} mac {mac} over {underlay} # {node}")?;
    }
    for (net, Route { target }) in routes {
        match target {
            RouteTarget::Workload { interface } => writeln!(out, "route {net} dev {interface}")?,
            RouteTarget::Blackhole => writeln!(out, "route {net} blackhole")?,
            RouteTarget::Node { node, via } => writeln!(out, "route {net} via {via} # {node}")?,
            RouteTarget::Tunnel { device, node, via } => writeln!(out, "route {net} via {via} dev {device} # {node}")?,
        }
    }
    for net in announcements {
        writeln!(out, "announce {net}")?;
    }
    if let Some(BgpSpeaker { router_id, asn, listen_port, ipv4, ipv6 }) = bgp_speaker {
        write!(out, "bgp as {asn} id {router_id} port {listen_port}")?;
        for addr in [ipv4, ipv6].into_iter().flatten() {
            write!(out, " {addr}")?;
        }
        writeln!(out)?;
    }
    for (addr, peer) in bgp_peers {
        writeln!(out, "peer {addr} {}", peer_text(peer))?;
    }
    if bgp_speaker.is_some() {
        write_policy(out, bgp_policy)?;
    }
    Ok(())
}

fn write_policy(out: &mut String, policy: &BgpPolicy) -> fmt::Result {
    let BgpPolicy {
        export,
        communities,
        workloads,
        unprogrammed,
        normal_priority,
        bind_to_node,
        ignored_interfaces,
        ranges,
        peering,
    } = policy;
    for (interface, addresses) in peering {
        writeln!(out, "peering {} dev {interface}", joined(addresses))?;
    }
    for (net, peer) in ranges {
        writeln!(out, "peers-in {net} {}", peer_text(peer))?;
    }
    for rule in export {
        match rule {
            ExportRule::Refuse(net) => writeln!(out, "export refuse {net}")?,
            ExportRule::Block(net) => writeln!(out, "export block {net}")?,
            ExportRule::Tell(net) => writeln!(out, "export tell {net}")?,
        }
    }
    for (net, communities) in communities {
        writeln!(out, "export {net} with {}", joined(communities))?;
    }
    for (net, interface) in workloads {
        writeln!(out, "export candidate {net} dev {interface}")?;
    }
    for net in unprogrammed {
        writeln!(out, "import unprogrammed {net}")?;
    }
    if *normal_priority != [1024; 2] {
        writeln!(out, "bgp normal-priority {}", joined(normal_priority))?;
    }
    if *bind_to_node {
        writeln!(out, "bgp bind-to-node")?;
    }
    if !ignored_interfaces.is_empty() {
        writeln!(out, "bgp ignored-interfaces {}", ignored_interfaces.join(","))?;
    }
    Ok(())
}

/// A peer as words; what is as usual is left out.
pub fn peer_text(peer: &BgpPeer) -> String {
    let BgpPeer {
        asn,
        port,
        origin,
        name,
        local_asn,
        next_hop,
        source,
        passive,
        cluster,
        max_restart_secs,
        keepalive_secs,
        allowed_local_asn,
        ttl_hops,
        reachable_by,
        password,
        filters,
        bfd,
        max_prefixes,
        long_lived_secs,
        lingers,
    } = peer;
    let mut words = vec![format!("port {port} as {asn} {} {name}", origin.text())];
    words.extend(local_asn.map(|asn| format!("local-as {asn}")));
    words.extend(match next_hop {
        BgpNextHop::Auto => None,
        BgpNextHop::Own => Some("next-hop-self".to_owned()),
        BgpNextHop::Keep => Some("keep-next-hop".to_owned()),
    });
    words.push(format!("restart {max_restart_secs}s"));
    words.extend(source.is_none().then(|| "any-source".to_owned()));
    words.extend(passive.then(|| "passive".to_owned()));
    words.extend(cluster.map(|cluster| format!("reflected-in {cluster}")));
    words.extend(keepalive_secs.map(|secs| format!("keepalive {secs}s")));
    words.extend((*allowed_local_asn > 0).then(|| format!("allowed-local-as {allowed_local_asn}")));
    words.extend(ttl_hops.map(|hops| format!("ttl-hops {hops}")));
    words.extend(reachable_by.map(|via| format!("reachable-by {via}")));
    words.extend(password.as_ref().map(|at| format!("password {}/{}", at.name, at.key)));
    words.extend(filters.iter().map(|filter| format!("filter {}", filter.name)));
    words.extend(bfd.map(|BgpBfd { interval_ms, multiplier }| format!("bfd {interval_ms}ms*{multiplier}")));
    words.extend(max_prefixes.map(|most| format!("max-prefixes {most}")));
    words.extend((*long_lived_secs > 0).then(|| format!("long-lived {long_lived_secs}s")));
    words.extend(lingers.then(|| "lingers".to_owned()));
    words.join(" ")
}

fn write_rules(out: &mut String, ingress: &[Rule], egress: &[Rule]) -> fmt::Result {
    for (direction, rules) in [("ingress", ingress), ("egress", egress)] {
        for rule in rules {
            writeln!(out, "  {direction} {}", rule_text(rule))?;
        }
    }
    Ok(())
}

/// One rule as one line.
pub fn rule_text(rule: &Rule) -> String {
    let Rule { action, family, protocol, not_protocol, icmp, not_icmp, source, destination } = rule;
    let mut words = vec![format!("{action:?}")];
    words.extend(family.map(|family| family.to_string()));
    words.extend(protocol.map(|protocol| protocol.to_string()));
    words.extend(not_protocol.map(|protocol| format!("not {protocol}")));
    words.extend(icmp.map(|icmp| icmp_text("icmp", icmp)));
    words.extend(not_icmp.map(|icmp| icmp_text("not icmp", icmp)));
    for (side, conditions) in [("from", source), ("to", destination)] {
        if !conditions.is_any() {
            words.push(format!("{side} {}", side_text(conditions)));
        }
    }
    words.join(" ")
}

fn icmp_text(what: &str, icmp: IcmpMatch) -> String {
    let IcmpMatch { icmp_type, code } = icmp;
    code.map_or_else(|| format!("{what} {icmp_type}"), |code| format!("{what} {icmp_type}/{code}"))
}

fn side_text(side: &Match) -> String {
    let Match { nets, not_nets, sets, not_sets, service_sets, ports, port_sets, not_ports, not_port_sets } = side;
    let mut words = Vec::new();
    list(&mut words, "nets", nets);
    list(&mut words, "not-nets", not_nets);
    list(&mut words, "sets", sets);
    list(&mut words, "not-sets", not_sets);
    list(&mut words, "services", service_sets);
    list(&mut words, "ports", ports);
    list(&mut words, "port-sets", port_sets);
    list(&mut words, "not-ports", not_ports);
    list(&mut words, "not-port-sets", not_port_sets);
    words.join(" ")
}

fn list<T: fmt::Display>(words: &mut Vec<String>, name: &str, items: &[T]) {
    if !items.is_empty() {
        words.push(format!("{name} {}", joined(items)));
    }
}

fn joined<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn write_endpoint(out: &mut String, endpoint: &Endpoint) -> fmt::Result {
    let Endpoint { interface, addresses, mac, tiers, profiles, allowed_sources, floating, limits } = endpoint;
    write!(out, " {interface} {}", joined(addresses))?;
    if let Some(mac) = mac {
        write!(out, " mac {mac}")?;
    }
    writeln!(out)?;
    write_tiers(out, "", tiers)?;
    write_profiles(out, profiles)?;
    if !allowed_sources.is_empty() {
        writeln!(out, "  sources {}", joined(allowed_sources))?;
    }
    for FloatingAddress { external, internal } in floating {
        writeln!(out, "  floating {external} to {internal}")?;
    }
    let Limits {
        ingress_packets,
        egress_packets,
        ingress_connections,
        egress_connections,
        dscp,
        ingress_bandwidth,
        egress_bandwidth,
    } = limits;
    for (direction, bandwidth) in [("ingress", ingress_bandwidth), ("egress", egress_bandwidth)] {
        let Some(Bandwidth { rate, burst, peak }) = bandwidth else { continue };
        write!(out, "  limit {direction} {rate} bytes/s burst {burst}")?;
        if let Some(PeakRate { rate, burst }) = peak {
            write!(out, " peak {rate} bytes/s burst {burst}")?;
        }
        writeln!(out)?;
    }
    for (direction, packets, connections) in
        [("ingress", ingress_packets, ingress_connections), ("egress", egress_packets, egress_connections)]
    {
        if let Some(PacketRate { per_second, burst }) = packets {
            writeln!(out, "  limit {direction} {per_second} packets/s burst {burst}")?;
        }
        if let Some(connections) = connections {
            writeln!(out, "  limit {direction} {connections} connections")?;
        }
    }
    dscp.map_or(Ok(()), |dscp| writeln!(out, "  dscp {dscp}"))
}

fn write_tiers(out: &mut String, what: &str, tiers: &[TierPolicies]) -> fmt::Result {
    for TierPolicies { tier, default_action, ingress, egress } in tiers {
        writeln!(out, "  {what}tier {tier} end {default_action:?} ingress {} egress {}", ids(ingress), ids(egress))?;
    }
    Ok(())
}

fn write_profiles(out: &mut String, profiles: &[std::sync::Arc<str>]) -> fmt::Result {
    if profiles.is_empty() { Ok(()) } else { writeln!(out, "  profiles {}", profiles.join(",")) }
}

fn ids<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() { "-".to_owned() } else { joined(items) }
}
