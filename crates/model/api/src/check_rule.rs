//! What upstream refuses about rules.

use ipnet::IpNet;
use tortie_net::{Family, Protocol};

use crate::check::Findings;
use crate::check_metadata;
use crate::path::Path;
use crate::rule::{Action, EntityRule, HttpMatch, Rule, ServiceMatch};
use crate::{IcmpFields, IpNetText, Port, RuleProtocol};

/// Which way the traffic of a rule goes, and whether its policy lives in a namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) ingress: bool,
    /// Profiles and global policies have no namespace that a service match could fall back on.
    pub(crate) namespaced: bool,
}

pub(crate) fn rules(rules: &[Rule], path: &Path<'_>, setting: Setting, out: &mut Findings) {
    out.at_most(path, rules, 1024);
    for (i, rule) in rules.iter().enumerate() {
        check(rule, &path.index(i), setting, out);
    }
}

fn check(rule: &Rule, path: &Path<'_>, setting: Setting, out: &mut Findings) {
    let Rule { action, ip_version, protocol, icmp, not_protocol, not_icmp, source, destination, http, metadata } = rule;
    if let Some(version) = ip_version.filter(|v| Family::from_version(*v).is_none()) {
        out.wrong(&path.field("ipVersion"), version, "4 or 6");
    }
    protocols(*protocol, *not_protocol, *ip_version, path, out);
    icmp_fields(icmp.as_ref(), *protocol, &path.field("icmp"), out);
    icmp_fields(not_icmp.as_ref(), *protocol, &path.field("notICMP"), out);
    let ends = [("source", source), ("destination", destination)];
    for (name, end) in ends {
        entity(end, &path.field(name), out);
        ports_fit(end, *protocol, &path.field(name), out);
    }
    families(rule, path, out);
    services(rule, path, setting, out);
    if let Some(http) = http {
        http_fits(http, *action, *protocol, setting, &path.field("http"), out);
    }
    if let Some(metadata) = metadata {
        check_metadata::annotations(&metadata.annotations, &path.field("metadata").field("annotations"), out);
    }
}

fn protocols(
    protocol: Option<RuleProtocol>,
    not_protocol: Option<RuleProtocol>,
    ip_version: Option<u8>,
    path: &Path<'_>,
    out: &mut Findings,
) {
    for (name, protocol) in [("protocol", protocol), ("notProtocol", not_protocol)] {
        let Some(protocol) = protocol.map(RuleProtocol::protocol) else { continue };
        let path = path.field(name);
        if protocol.0 == 0 {
            out.wrong(&path, 0, "a protocol name or a number from 1 to 255");
        }
        let version = match protocol {
            Protocol::ICMP => 4,
            Protocol::ICMPV6 => 6,
            _ => continue,
        };
        if ip_version.is_some_and(|v| v != version) {
            out.wrong(&path, protocol, format!("ipVersion {version} together with this protocol"));
        }
    }
}

fn icmp_fields(icmp: Option<&IcmpFields>, protocol: Option<RuleProtocol>, path: &Path<'_>, out: &mut Findings) {
    let Some(IcmpFields { icmp_type, code }) = icmp else { return };
    if let Some(255) = icmp_type {
        out.wrong(&path.field("type"), 255, "a number from 0 to 254");
    }
    if let (None, Some(code)) = (icmp_type, code) {
        out.wrong(&path.field("code"), code, "a code only together with a type");
    }
    if !protocol.is_some_and(|p| [Protocol::ICMP, Protocol::ICMPV6].contains(&p.protocol())) {
        let found = protocol.map_or("no protocol".to_owned(), |p| format!("protocol {p}"));
        out.wrong(path, found, "protocol ICMP or ICMPv6 together with ICMP fields");
    }
}

fn entity(end: &EntityRule, path: &Path<'_>, out: &mut Findings) {
    let EntityRule {
        nets,
        selector,
        namespace_selector,
        services,
        ports,
        not_nets,
        not_selector,
        not_ports,
        service_accounts,
    } = end;
    for (name, nets) in [("nets", nets), ("notNets", not_nets)] {
        let path = path.field(name);
        out.at_most(&path, nets, 256);
        out.unique(&path, nets);
        for (i, net) in nets.iter().enumerate() {
            out.masked(&path.index(i), net, None);
        }
    }
    for (i, net) in not_nets.iter().enumerate().filter(|(_, net)| net.net().is_some_and(|n| n.prefix_len() == 0)) {
        out.wrong(&path.field("notNets").index(i), net, "a prefix that leaves something over: no packet can match");
    }
    for (name, ports) in [("ports", ports), ("notPorts", not_ports)] {
        out.at_most(&path.field(name), ports, 50);
    }
    out.selector(&path.field("selector"), selector);
    out.namespace_selector(&path.field("notSelector"), not_selector);
    let at = path.field("namespaceSelector");
    out.namespace_selector(&at, namespace_selector);
    let squeezed: String = namespace_selector.split([' ', '\t']).collect();
    if squeezed.contains("global(") && squeezed != "global()" {
        out.wrong(&at, format!("{namespace_selector:?}"), "global() alone, not joined with anything");
    }
    if let Some(accounts) = service_accounts {
        out.namespace_selector(&path.field("serviceAccounts").field("selector"), &accounts.selector);
    }
    if let Some(ServiceMatch { name, namespace }) = services {
        let at = path.field("services");
        if name.is_empty() {
            out.wrong(&at.field("name"), "", "the name of a service");
        }
        out.name(&at.field("name"), name);
        out.name(&at.field("namespace"), namespace);
        let clash = [
            ("selector", !selector.is_empty()),
            ("notSelector", !not_selector.is_empty()),
            ("namespaceSelector", !namespace_selector.is_empty()),
            ("nets", !nets.is_empty()),
            ("notNets", !not_nets.is_empty()),
            ("serviceAccounts", service_accounts.is_some()),
        ];
        for (other, _) in clash.iter().filter(|(_, set)| *set) {
            out.wrong(
                &at,
                format!("services with {other}"),
                "services alone: it excludes selectors, nets and service accounts",
            );
        }
    }
}

fn ports_fit(end: &EntityRule, protocol: Option<RuleProtocol>, path: &Path<'_>, out: &mut Findings) {
    for (name, ports) in [("ports", &end.ports), ("notPorts", &end.not_ports)] {
        let path = path.field(name);
        for (i, port) in ports.iter().enumerate() {
            match port {
                Port::Range(range) if range.first() == 0 => out.wrong(&path.index(i), port, "ports from 1 to 65535"),
                Port::Named(name) => out.port_name(&path.index(i), name),
                Port::Range(_) => {}
            }
        }
        let carries = |p: RuleProtocol| [Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&p.protocol());
        match protocol {
            None if ports.iter().any(|p| matches!(p, Port::Range(_))) => {
                out.wrong(
                    &path,
                    "numeric ports without protocol",
                    "protocol TCP, UDP or SCTP together with numeric ports",
                );
            }
            Some(protocol) if !ports.is_empty() && !carries(protocol) => {
                out.wrong(
                    &path,
                    format!("ports with protocol {protocol}"),
                    "protocol TCP, UDP or SCTP together with ports",
                );
            }
            None | Some(_) => {}
        }
    }
}

/// All prefixes of a rule are of one family, and of that of `ipVersion`.
fn families(rule: &Rule, path: &Path<'_>, out: &mut Findings) {
    let mut seen = rule.ip_version.and_then(Family::from_version);
    for (end, name) in [(&rule.source, "source"), (&rule.destination, "destination")] {
        for (nets, field) in [(&end.nets, "nets"), (&end.not_nets, "notNets")] {
            for (i, net) in nets.iter().enumerate() {
                let Some(family) = net.net().map(|n: IpNet| Family::of_net(n)) else { continue };
                let expected = *seen.get_or_insert(family);
                if expected != family {
                    let at = path.field(name);
                    let at = at.field(field);
                    let IpNetText(text) = net;
                    out.wrong(&at.index(i), format!("{text:?}"), format!("{expected}, as the rest of the rule"));
                }
            }
        }
    }
}

fn services(rule: &Rule, path: &Path<'_>, setting: Setting, out: &mut Findings) {
    let source = path.field("source");
    let destination = path.field("destination");
    let (there, at, barred, barred_at, why) = if setting.ingress {
        (&rule.source, &source, &rule.destination, &destination, "no services in the destination of an ingress rule")
    } else {
        (&rule.destination, &destination, &rule.source, &source, "no services in the source of an egress rule")
    };
    if barred.services.is_some() {
        out.wrong(&barred_at.field("services"), "services", why);
    }
    if let Some(ServiceMatch { name: _, namespace }) = &there.services
        && namespace.is_empty()
        && !setting.namespaced
    {
        out.wrong(&at.field("services").field("namespace"), "", "a namespace, as the policy has none itself");
    }
    let EntityRule { services, ports, not_ports, .. } = &rule.destination;
    if services.is_some() && !(ports.is_empty() && not_ports.is_empty()) {
        out.wrong(
            &destination.field("ports"),
            "ports with services",
            "no ports together with services, which bring their own",
        );
    }
}

fn http_fits(
    http: &HttpMatch,
    action: Action,
    protocol: Option<RuleProtocol>,
    setting: Setting,
    path: &Path<'_>,
    out: &mut Findings,
) {
    if action != Action::Allow {
        out.wrong(path, format!("http with action {action}"), "action Allow together with http");
    }
    if !setting.ingress {
        out.wrong(path, "http in an egress rule", "http in ingress rules only");
    }
    if let Some(protocol) = protocol.filter(|p| p.protocol() != Protocol::TCP) {
        out.wrong(path, format!("http with protocol {protocol}"), "protocol TCP, or none, together with http");
    }
    let HttpMatch { methods, paths } = http;
    out.at_most(&path.field("methods"), methods, 20);
    out.unique(&path.field("methods"), methods);
    out.at_most(&path.field("paths"), paths, 20);
    for (i, item) in paths.iter().enumerate() {
        let at = path.field("paths");
        let at = at.index(i);
        match (item.exact.as_str(), item.prefix.as_str()) {
            ("", "") => out.wrong(&at, "", "either exact or prefix"),
            (text, "") | ("", text) => {
                if text.len() > 1024 || !text.starts_with('/') || text.contains(['?', ' ', '#']) {
                    out.wrong(
                        &at,
                        format!("{text:?}"),
                        "a path that begins with '/', has none of '?', '#' and blanks, and at most 1024 bytes",
                    );
                }
            }
            (_, _) => out.wrong(&at, "exact and prefix", "either exact or prefix"),
        }
    }
}
