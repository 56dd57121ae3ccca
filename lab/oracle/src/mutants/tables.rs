//! A calculation gone wrong: another order, a list for the wrong direction, a condition that was forgotten.

use std::collections::BTreeSet;
use std::mem::{swap, take};
use std::sync::Arc;

use ipnet::IpNet;
use tortie_desired::{
    Action, Endpoint, HostAction, IcmpMatch, Match, Member, Policy, Profile, Rule, SetKind, Tables, TierAction,
    TierPolicies,
};
use tortie_net::{Family, PortRange};

fn endpoints(tables: &mut Tables, change: impl Fn(&mut Endpoint)) {
    tables.endpoints.values_mut().for_each(|endpoint| change(Arc::make_mut(endpoint)));
}

fn tiers(tables: &mut Tables, change: impl Fn(&mut TierPolicies)) {
    endpoints(tables, |endpoint| endpoint.tiers.iter_mut().for_each(&change));
}

/// The lists of rules of policies and profiles, ingress first.
fn lists(tables: &mut Tables, change: impl Fn(&mut Vec<Rule>, &mut Vec<Rule>)) {
    for policy in tables.policies.values_mut() {
        let Policy { tier: _, stage: _, ingress, egress } = Arc::make_mut(policy);
        change(ingress, egress);
    }
    for profile in tables.profiles.values_mut() {
        let Profile { ingress, egress } = Arc::make_mut(profile);
        change(ingress, egress);
    }
}

fn each_list(tables: &mut Tables, change: impl Fn(&mut Vec<Rule>)) {
    lists(tables, |ingress, egress| {
        change(ingress);
        change(egress);
    });
}

fn rules(tables: &mut Tables, change: impl Fn(&mut Rule)) {
    each_list(tables, |rules| rules.iter_mut().for_each(&change));
}

fn ends(tables: &mut Tables, change: impl Fn(&mut Match)) {
    rules(tables, |rule| {
        change(&mut rule.source);
        change(&mut rule.destination);
    });
}

fn action(tables: &mut Tables, from: Action, to: Action) {
    rules(tables, |rule| {
        if rule.action == from {
            rule.action = to;
        }
    });
}

fn ports(tables: &mut Tables, change: impl Fn(u16, u16) -> (u16, u16)) {
    ends(tables, |end| {
        for range in end.ports.iter_mut().chain(&mut end.not_ports) {
            let (first, last) = change(range.first(), range.last());
            *range = PortRange::new(first.min(last), last).unwrap_or(*range);
        }
    });
}

fn members(tables: &mut Tables, change: impl Fn(SetKind, &mut BTreeSet<Member>)) {
    for (kind, members) in tables.sets.values_mut() {
        let mut all = members.iter().copied().collect();
        change(*kind, &mut all);
        *members = all.into();
    }
}

fn nets(tables: &mut Tables, change: impl Fn(u8, u8) -> u8) {
    ends(tables, |end| {
        for net in &mut end.nets {
            let len = change(net.prefix_len(), net.max_prefix_len());
            *net = IpNet::new(net.addr(), len).map_or(*net, |net| net.trunc());
        }
    });
}

/// Sets without members count as if they were not asked for.
fn without_empty_sets(tables: &mut Tables) {
    let empty: BTreeSet<_> = tables.sets.iter().filter(|(_, (_, m))| m.is_empty()).map(|(id, _)| id.clone()).collect();
    ends(tables, |end| end.sets.retain(|set| !empty.contains(set)));
}

/// Every mutant of the calculation.
pub(super) const ALL: [(&str, fn(&mut Tables)); 56] = [
    ("tiers in reverse order", |t| endpoints(t, |e| e.tiers.reverse())),
    ("the first tier is forgotten", |t| endpoints(t, |e| drop((!e.tiers.is_empty()).then(|| e.tiers.remove(0))))),
    ("the last tier is forgotten", |t| endpoints(t, |e| drop(e.tiers.pop()))),
    ("policies of a tier in reverse order", |t| {
        tiers(t, |tier| {
            tier.ingress.reverse();
            tier.egress.reverse();
        });
    }),
    ("the last policy of a tier is forgotten for ingress", |t| tiers(t, |tier| drop(tier.ingress.pop()))),
    ("the last policy of a tier is forgotten for egress", |t| tiers(t, |tier| drop(tier.egress.pop()))),
    ("ingress and egress policies swapped", |t| tiers(t, |tier| swap(&mut tier.ingress, &mut tier.egress))),
    ("egress takes the ingress policies", |t| tiers(t, |tier| tier.egress = tier.ingress.clone())),
    ("every tier's default is Pass", |t| tiers(t, |tier| tier.default_action = TierAction::Pass)),
    ("every tier's default is Deny", |t| tiers(t, |tier| tier.default_action = TierAction::Deny)),
    ("profiles in reverse order", |t| endpoints(t, |e| e.profiles.reverse())),
    ("the last profile is forgotten", |t| endpoints(t, |e| drop(e.profiles.pop()))),
    ("only the first address of an endpoint", |t| endpoints(t, |e| e.addresses.truncate(1))),
    ("rules in reverse order", |t| each_list(t, |rules| rules.reverse())),
    ("the first rule is forgotten", |t| each_list(t, |rules| drop((!rules.is_empty()).then(|| rules.remove(0))))),
    ("the last rule is forgotten", |t| each_list(t, |rules| drop(rules.pop()))),
    ("ingress and egress rules swapped", |t| lists(t, swap)),
    ("Pass allows", |t| action(t, Action::Pass, Action::Allow)),
    ("Pass denies", |t| action(t, Action::Pass, Action::Deny)),
    ("Pass does nothing", |t| action(t, Action::Pass, Action::Log)),
    ("Deny does nothing", |t| action(t, Action::Deny, Action::Log)),
    ("Deny passes", |t| action(t, Action::Deny, Action::Pass)),
    ("Allow passes", |t| action(t, Action::Allow, Action::Pass)),
    ("Log allows", |t| action(t, Action::Log, Action::Allow)),
    ("Log denies", |t| action(t, Action::Log, Action::Deny)),
    ("ipVersion is ignored", |t| rules(t, |rule| rule.family = None)),
    ("protocol is ignored", |t| rules(t, |rule| rule.protocol = None)),
    ("notProtocol is ignored", |t| rules(t, |rule| rule.not_protocol = None)),
    ("notProtocol is taken for protocol", |t| {
        rules(t, |rule| rule.protocol = rule.protocol.or(rule.not_protocol.take()));
    }),
    ("icmp is ignored", |t| rules(t, |rule| rule.icmp = None)),
    ("the code of icmp is ignored", |t| {
        rules(t, |rule| rule.icmp = rule.icmp.map(|icmp| IcmpMatch { code: None, ..icmp }));
    }),
    ("notICMP is ignored", |t| rules(t, |rule| rule.not_icmp = None)),
    ("the code of notICMP is ignored", |t| {
        rules(t, |rule| rule.not_icmp = rule.not_icmp.map(|icmp| IcmpMatch { code: None, ..icmp }));
    }),
    ("source and destination swapped", |t| rules(t, |rule| swap(&mut rule.source, &mut rule.destination))),
    ("nets are ignored", |t| ends(t, |end| end.nets.clear())),
    ("only the first of nets", |t| ends(t, |end| end.nets.truncate(1))),
    ("notNets are ignored", |t| ends(t, |end| end.not_nets.clear())),
    ("notNets are taken for nets", |t| ends(t, |end| end.nets.append(&mut end.not_nets))),
    ("prefixes of nets a bit too long", |t| nets(t, |len, max| (len + 1).min(max))),
    ("prefixes of nets a bit too short", |t| nets(t, |len, _| len.saturating_sub(1))),
    ("selectors are ignored", |t| ends(t, |end| end.sets.clear())),
    ("notSelector is ignored", |t| ends(t, |end| end.not_sets.clear())),
    ("notSelector is taken for selector", |t| ends(t, |end| end.sets.append(&mut end.not_sets))),
    ("a selector without members matches everything", without_empty_sets),
    ("sets lack their last member", |t| {
        members(t, |_, members| members.pop_last().map_or((), |_| ()));
    }),
    ("sets lack their IPv6 members", |t| members(t, |_, members| members.retain(|m| m.family() == Family::V4))),
    ("numeric ports are ignored", |t| ends(t, |end| end.ports.clear())),
    ("a port above the last of a range matches", |t| ports(t, |first, last| (first, last.saturating_add(1)))),
    ("the last port of a range does not match", |t| ports(t, |first, last| (first, last - 1))),
    ("the first port of a range does not match", |t| ports(t, |first, last| (first.saturating_add(1), last))),
    ("notPorts are ignored", |t| ends(t, |end| end.not_ports.clear())),
    ("named ports are ignored", |t| ends(t, |end| end.port_sets.clear())),
    ("named notPorts are ignored", |t| ends(t, |end| end.not_port_sets.clear())),
    ("named ports hide numeric ones", |t| {
        ends(t, |end| drop((!end.port_sets.is_empty()).then(|| take(&mut end.ports))));
    }),
    ("packets of invalid state pass", |t| t.settings.accept_invalid = true),
    ("workloads reach the host", |t| t.settings.endpoint_to_host = HostAction::Accept),
];
