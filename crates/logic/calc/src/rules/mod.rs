//! What sets and ports do rules need?
//!
//! Turns rules as written into resolved rules. Invariant: what can't be resolved never opens anything: an `Allow` or
//! `Log` is left out, a `Deny` or `Pass` becomes a `Deny` without the condition that is not understood.

mod entity;

use std::collections::BTreeMap;

use tortie_api as api;
use tortie_desired::{Action, IcmpMatch, Match, Rule, SetId};
use tortie_net::{Family, IpNet, Protocol};

use crate::selectors::Selectors;
use crate::sets::SetSpec;
use entity::{End, Side};
pub(crate) use entity::{both, namespace_is};

/// Rules resolved, with the sets that they need and what could not be resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Resolved {
    pub(crate) ingress: Vec<Rule>,
    pub(crate) egress: Vec<Rule>,
    pub(crate) sets: BTreeMap<SetId, SetSpec>,
    pub(crate) problems: Vec<String>,
}

impl Resolved {
    /// Resolves the rules of a policy of this namespace; empty for global policies and profiles.
    pub(crate) fn of(known: &mut Selectors, namespace: &str, ingress: &[api::Rule], egress: &[api::Rule]) -> Resolved {
        let mut out = Resolved::default();
        out.ingress = out.rules(known, "ingress", namespace, ingress);
        out.egress = out.rules(known, "egress", namespace, egress);
        out
    }

    fn rules(&mut self, known: &mut Selectors, list: &str, namespace: &str, rules: &[api::Rule]) -> Vec<Rule> {
        let mut out = Vec::with_capacity(rules.len());
        for (index, rule) in rules.iter().enumerate() {
            let mut problems = Vec::new();
            let mut sets = BTreeMap::new();
            let resolved = resolve(known, namespace, rule, &mut sets, &mut problems);
            let usable = problems.is_empty();
            let path = format!("spec.{list}[{index}]");
            self.problems.extend(problems.into_iter().map(|problem| format!("{path}: {problem}")));
            let Some(mut resolved) = resolved else { continue };
            if !usable {
                match resolved.action {
                    Action::Allow | Action::Log => continue,
                    Action::Deny | Action::Pass => resolved.action = Action::Deny,
                }
            }
            self.sets.extend(sets);
            out.push(resolved);
        }
        out
    }
}

/// Where the resolved rule of this index stands among the rules as written: those that no packet can match are left out.
/// `namespace` is that of the policy; empty for global policies and profiles.
pub fn index_as_written(namespace: &str, rules: &[api::Rule], resolved: usize) -> Option<usize> {
    let mut known = Selectors::default();
    let mut kept =
        |rule: &api::Rule| !Resolved::of(&mut known, namespace, std::slice::from_ref(rule), &[]).ingress.is_empty();
    rules.iter().enumerate().filter(|(_, rule)| kept(rule)).nth(resolved).map(|(at, _)| at)
}

/// The rule without what is not understood, which `problems` tells; `None` if no packet can match it.
fn resolve(
    known: &mut Selectors,
    namespace: &str,
    rule: &api::Rule,
    sets: &mut BTreeMap<SetId, SetSpec>,
    problems: &mut Vec<String>,
) -> Option<Rule> {
    let api::Rule {
        action,
        ip_version,
        protocol,
        icmp,
        not_protocol,
        not_icmp,
        source,
        destination,
        http,
        metadata: _,
    } = rule;
    if http.is_some() {
        problems.push("http: matching requests is not supported here".to_owned());
    }
    let protocol = protocol.map(api::RuleProtocol::protocol);
    let mut side = |what: &str, end: End, entity: &api::EntityRule| {
        let Side { known: _, conditions, needs, problems: found } =
            entity::resolve(known, namespace, protocol, end, entity);
        sets.extend(needs);
        problems.extend(found.into_iter().map(|problem| format!("{what}.{problem}")));
        conditions
    };
    let source = side("source", End::Source, source);
    let destination = side("destination", End::Destination, destination);
    let wanted = ip_version.and_then(Family::from_version);
    let family = match families(wanted, &[&source, &destination]) {
        (true, true) => None,
        (true, false) => Some(Family::V4),
        (false, true) => Some(Family::V6),
        (false, false) => return None,
    };
    Some(Rule {
        action: match action {
            api::Action::Allow => Action::Allow,
            api::Action::Deny => Action::Deny,
            api::Action::Log => Action::Log,
            api::Action::Pass => Action::Pass,
        },
        family,
        protocol,
        not_protocol: not_protocol.map(api::RuleProtocol::protocol),
        icmp: icmp.as_ref().and_then(icmp_match),
        not_icmp: not_icmp.as_ref().and_then(icmp_match),
        source,
        destination,
    })
}

fn icmp_match(fields: &api::IcmpFields) -> Option<IcmpMatch> {
    let api::IcmpFields { icmp_type, code } = fields;
    Some(IcmpMatch { icmp_type: (*icmp_type)?, code: *code })
}

/// Whether packets of IPv4 and of IPv6 can match. As upstream: a list of prefixes none of which is of a family rules
/// that family out, even if the list is one of exceptions.
fn families(wanted: Option<Family>, sides: &[&Match]) -> (bool, bool) {
    let possible = |family: Family| {
        let has_none = |nets: &[IpNet]| !nets.is_empty() && !nets.iter().any(|net| Family::of_net(*net) == family);
        let all_excluded = |nets: &[IpNet]| nets.iter().any(|n| Family::of_net(*n) == family && n.prefix_len() == 0);
        wanted.is_none_or(|wanted| wanted == family)
            && !sides
                .iter()
                .any(|side| has_none(&side.nets) || has_none(&side.not_nets) || all_excluded(&side.not_nets))
    };
    (possible(Family::V4), possible(Family::V6))
}

/// The protocol's name in ids of named-port sets; as upstream, in lower case.
pub(crate) fn protocol_text(protocol: Option<Protocol>) -> String {
    protocol.map_or_else(|| "any".to_owned(), |protocol| protocol.to_string().to_lowercase())
}
