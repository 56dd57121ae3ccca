//! Host endpoints, and what Kubernetes and staged policies add, gone wrong.

use std::mem::{swap, take};
use std::sync::Arc;

use tortie_desired::{Failsafe, HostEndpoint, HostInterface, PolicyId, PolicyKind, Tables, TierAction, TierPolicies};
use tortie_net::{Family, Protocol};
use tortie_ruleset::{ACCEPT_MARK, Base, Match, Rule, Ruleset, Side, Verdict};
use tortie_verdict::with_staged;

use super::rules::{base, chains};

fn hosts(tables: &mut Tables, change: impl Fn(&mut HostEndpoint)) {
    tables.host_endpoints.values_mut().for_each(|host| change(Arc::make_mut(host)));
}

/// The lists of all stages.
fn tiers(tables: &mut Tables, change: impl Fn(&mut TierPolicies)) {
    hosts(tables, |host| {
        let HostEndpoint { name: _, untracked, pre_dnat, forward, tiers, profiles: _ } = host;
        [untracked, pre_dnat, forward, tiers].into_iter().flatten().for_each(&change);
    });
}

fn failsafes(tables: &mut Tables, change: impl Fn(&mut Failsafe)) {
    let settings = &mut tables.settings;
    settings.failsafe_inbound.iter_mut().chain(&mut settings.failsafe_outbound).for_each(change);
}

/// Policies for which `gone` says so are in no list of any endpoint.
fn without(tables: &mut Tables, gone: impl Fn(&PolicyId) -> bool) {
    let all = |tiers: &mut Vec<TierPolicies>| {
        for tier in tiers.iter_mut() {
            tier.ingress.retain(|id| !gone(id));
            tier.egress.retain(|id| !gone(id));
        }
        tiers.retain(|tier| !tier.ingress.is_empty() || !tier.egress.is_empty());
    };
    tables.endpoints.values_mut().for_each(|endpoint| all(&mut Arc::make_mut(endpoint).tiers));
}

/// A tier stands at the other end of the list.
fn misplaced(tables: &mut Tables, name: &str) {
    for endpoint in tables.endpoints.values_mut() {
        let tiers = &mut Arc::make_mut(endpoint).tiers;
        if let Some(at) = tiers.iter().position(|tier| &*tier.tier == name) {
            let tier = tiers.remove(at);
            let at = if at == 0 { tiers.len() } else { 0 };
            tiers.insert(at, tier);
        }
    }
}

/// Every mutant of the calculation.
pub(super) const TABLES: [(&str, fn(&mut Tables)); 25] = [
    ("host endpoints are forgotten", |t| t.host_endpoints.clear()),
    ("the host endpoint of all interfaces is forgotten", |t| drop(t.host_endpoints.remove(&HostInterface::All))),
    ("host endpoints of one interface are forgotten", |t| {
        t.host_endpoints.retain(|interface, _| *interface == HostInterface::All);
    }),
    ("a host endpoint of one interface is for all", |t| {
        let named = t.host_endpoints.iter().find(|(interface, _)| **interface != HostInterface::All);
        if let Some(host) = named.map(|(_, host)| host.clone()) {
            t.host_endpoints.insert(HostInterface::All, host);
        }
    }),
    ("untracked policies are forgotten", |t| hosts(t, |host| host.untracked.clear())),
    ("pre-DNAT policies are forgotten", |t| hosts(t, |host| host.pre_dnat.clear())),
    ("policies for what is forwarded are forgotten", |t| hosts(t, |host| host.forward.clear())),
    ("policies for the host itself are forgotten", |t| hosts(t, |host| host.tiers.clear())),
    ("all policies of a host are for what is forwarded", |t| hosts(t, |host| host.forward = host.tiers.clone())),
    ("only policies for what is forwarded are for the host itself", |t| {
        hosts(t, |host| host.tiers = host.forward.clone());
    }),
    ("untracked policies are asked before DNAT", |t| hosts(t, |host| host.pre_dnat.append(&mut host.untracked))),
    ("profiles of hosts are forgotten", |t| hosts(t, |host| host.profiles.clear())),
    ("the first profile of hosts is forgotten", |t| {
        hosts(t, |host| drop((!host.profiles.is_empty()).then(|| host.profiles.remove(0))));
    }),
    ("tiers of hosts in reverse order", |t| {
        hosts(t, |host| {
            host.forward.reverse();
            host.tiers.reverse();
        });
    }),
    ("ingress and egress of hosts swapped", |t| tiers(t, |tier| swap(&mut tier.ingress, &mut tier.egress))),
    ("every tier of hosts passes at its end", |t| tiers(t, |tier| tier.default_action = TierAction::Pass)),
    ("no inbound failsafe", |t| t.settings.failsafe_inbound.clear()),
    ("no outbound failsafe", |t| t.settings.failsafe_outbound.clear()),
    ("inbound and outbound failsafes swapped", |t| {
        swap(&mut t.settings.failsafe_inbound, &mut t.settings.failsafe_outbound);
    }),
    ("failsafes are for everybody", |t| failsafes(t, |failsafe| failsafe.net = None)),
    ("failsafes are all TCP's", |t| failsafes(t, |failsafe| failsafe.protocol = Protocol::TCP)),
    ("NetworkPolicies of Kubernetes are forgotten", |t| {
        without(t, |id| id.kind == PolicyKind::KubernetesNetworkPolicy);
    }),
    ("the tier of Kubernetes' administrators comes last", |t| misplaced(t, "kube-admin")),
    ("the baseline of Kubernetes comes first", |t| misplaced(t, "kube-baseline")),
    ("staged policies are enforced", |t| *t = with_staged(&take(t))),
];

/// No way from the base chain to the chains of endpoints.
fn no_way(ruleset: &mut Ruleset, at: Base) {
    base(ruleset, at, |rules| {
        rules.retain(|rule| !matches!(rule.verdict, Some(Verdict::Dispatch { .. } | Verdict::Goto(_))));
    });
}

fn without_failsafes(ruleset: &mut Ruleset, name: &str) {
    chains(ruleset, |known, _| known == name, Vec::clear);
}

fn of_host(prefixes: &'static [&'static str]) -> impl Fn(&str, &tortie_ruleset::Chain) -> bool {
    move |name, _| prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Every mutant of the renderer.
pub(super) const RULES: [(&str, fn(&mut Ruleset)); 15] = [
    ("no host endpoint before connection tracking, in", |r| no_way(r, Base::RawPrerouting)),
    ("no host endpoint before connection tracking, out", |r| no_way(r, Base::RawOutput)),
    ("no host endpoint before NAT", |r| no_way(r, Base::BeforeNat)),
    ("no host endpoint for what is forwarded, in", |r| no_way(r, Base::FromHost)),
    ("no host endpoint for what is forwarded, out", |r| no_way(r, Base::ToHost)),
    ("no host endpoint for what the host sends", |r| no_way(r, Base::Output)),
    ("what was accepted early is asked about again", |r| {
        chains(
            r,
            |_, chain| chain.base.is_some(),
            |rules| {
                rules.retain(|rule| !rule.matches.contains(&Match::Mark(ACCEPT_MARK)));
            },
        );
    }),
    ("the host's packets to its workloads are asked about", |r| {
        base(r, Base::Output, |rules| {
            let of_workload = |m: &Match| {
                matches!(m, Match::InterfacePrefix { side: Side::Destination, .. })
                    || matches!(m, Match::InterfaceIn { side: Side::Destination, .. })
            };
            rules.retain(|rule| !rule.matches.iter().any(of_workload));
        });
    }),
    ("IPv6 of the host is asked about where it is left alone", |r| {
        for at in [Base::Input, Base::Output, Base::FromHost, Base::ToHost, Base::RawPrerouting, Base::BeforeNat] {
            base(r, at, |rules| {
                rules.retain(|rule| *rule != Rule::new([Match::Family(Family::V6)], Verdict::Accept));
            });
        }
    }),
    ("inbound failsafes are not in the chain", |r| without_failsafes(r, "cali-failsafe-in")),
    ("outbound failsafes are not in the chain", |r| without_failsafes(r, "cali-failsafe-out")),
    ("failsafes are not before connection tracking", |r| {
        without_failsafes(r, "raw-cali-failsafe-in");
        without_failsafes(r, "raw-cali-failsafe-out");
    }),
    ("answers to failsafe ports are asked about before connection tracking", |r| {
        let of_source = |m: &Match| matches!(m, Match::Port { side: Side::Source, .. });
        chains(r, of_host(&["raw-cali-failsafe-"]), |rules| {
            rules.retain(|rule| !rule.matches.iter().any(of_source));
        });
    }),
    ("the end of a host's chains is open", |r| {
        chains(r, of_host(&["cali-fh-", "cali-th-"]), |rules| {
            drop(rules.pop_if(|rule| matches!(rule.verdict, Some(Verdict::Drop | Verdict::Reject))));
        });
    }),
    ("the end of a host's chains for what is forwarded is closed", |r| {
        chains(r, of_host(&["cali-fhfw-", "cali-thfw-"]), |rules| rules.push(Rule::new([], Verdict::Drop)));
    }),
];
