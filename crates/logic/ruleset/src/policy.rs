//! Rules of policies and profiles as chains.
//!
//! One desired rule becomes one ruleset rule wherever it can. It becomes several, of which any may match, when it
//! looks at addresses (one per family) or offers alternatives (ports or named ports, several services). A rule that
//! can match nothing becomes none: empty means nothing.

use std::sync::Arc;

use ipnet::IpNet;
use tortie_desired::{
    Action, IcmpMatch, LogLimit, Match as Wanted, PolicyId, PolicyStage, Rule as Desired, SetId, SetKind, Settings,
};
use tortie_net::{Family, Protocol};

use crate::cause::{Cause, CauseOwner};
use crate::literal::Literals;
use crate::model::{Chain, Direction, Match, Name, Rate, Rule, Side, Statement, Verdict};
use crate::names::Names;
use crate::record;

/// The mark bit that says, between a policy's chain and the chain that jumped there, that a rule said Pass.
/// Upstream uses the same bit for the same purpose.
pub const PASS_MARK: u32 = 0x20000;

/// The mark bit that says that a policy before connection tracking or before destination NAT allowed the packet, so
/// that later policies of host endpoints need not be asked. Upstream's bit.
pub const ACCEPT_MARK: u32 = 0x10000;

/// The bit of a flow's mark (connmark) that says that policy changed and denies the flow now. In packets' marks upstream
/// uses this bit for what it drops.
pub const REVOKED_MARK: u32 = 0x40000;

/// What the rules are rendered with.
pub(crate) struct Context<'a> {
    pub(crate) names: Names,
    pub(crate) settings: &'a Settings,
    /// The kind of a set that is there.
    pub(crate) kind_of: &'a dyn Fn(&SetId) -> Option<SetKind>,
    /// Whether sets have an IPv6 part; otherwise it is empty.
    pub(crate) v6_parts: bool,
    /// Where the policy is evaluated; `None`: it is a profile, so that Pass has no tier to leave.
    pub(crate) stage: Option<PolicyStage>,
    /// Whose rules they are.
    pub(crate) owner: &'a CauseOwner,
    pub(crate) direction: Direction,
    /// The chain after whose rules lists of addresses are named; `None`: by their content.
    pub(crate) lists_of: Option<&'a Name>,
    /// What log lines start with.
    pub(crate) log_prefix: &'a Arc<str>,
}

/// What log lines of a policy or profile start with: the setting with `%t`, `%k`, `%n` and `%p` filled in.
pub(crate) fn log_prefix(settings: &Settings, policy: Option<(&PolicyId, &str)>, profile: &str) -> Arc<str> {
    let (tier, kind, name, full) = match policy {
        Some((id, tier)) if id.namespace.is_empty() => (tier, id.kind.short(), &*id.name, id.name.to_string()),
        Some((id, tier)) => (tier, id.kind.short(), &*id.name, format!("{}/{}", id.namespace, id.name)),
        None => ("", "pro", profile, profile.to_owned()),
    };
    let mut out = String::new();
    let mut rest = &*settings.log_prefix;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (known, text) = match rest[at + 1..].chars().next() {
            Some('t') => (true, tier),
            Some('k') => (true, kind),
            Some('n') => (true, name),
            Some('p') => (true, full.as_str()),
            Some(_) | None => (false, "%"),
        };
        out.push_str(text);
        rest = &rest[at + if known { 2 } else { 1 }..];
    }
    out.push_str(rest);
    out.push_str(": ");
    out.into()
}

/// How denied packets end.
pub(crate) fn deny(settings: &Settings) -> Verdict {
    if settings.reject_denied { Verdict::Reject } else { Verdict::Drop }
}

/// The chain of one direction's rules.
pub(crate) fn chain(rules: &[Desired], context: &Context<'_>) -> Chain {
    let mut literals = match context.lists_of {
        Some(chain) => Literals::of_rules(context.names, chain.clone()),
        None => Literals::new(context.names),
    };
    let mut rendered = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        literals.turn_to(rule);
        for matches in expand(rule, context, &mut literals) {
            rendered.push(act(rule.action, index, matches, context));
        }
    }
    Chain { base: None, rules: rendered, literals: literals.sets }
}

/// The chain of one direction's rules that the backend can't hold: it ends every packet.
pub(crate) fn closed(context: &Context<'_>) -> Chain {
    let cause = Cause::Missing { owner: context.owner.clone(), direction: context.direction };
    let verdict = if is_early(context) { Verdict::Drop } else { deny(context.settings) };
    Chain { rules: vec![record::end(context.settings, [], &cause, verdict)], ..Chain::default() }
}

/// Whether it is evaluated where packets can only be dropped.
fn is_early(context: &Context<'_>) -> bool {
    matches!(context.stage, Some(PolicyStage::PreDnat | PolicyStage::Untracked))
}

fn act(action: Action, index: usize, mut matches: Vec<Match>, context: &Context<'_>) -> Rule {
    let early = is_early(context);
    let (statements, verdict) = match action {
        Action::Allow if context.stage == Some(PolicyStage::Untracked) => {
            (vec![Statement::NoTrack, Statement::SetMark(ACCEPT_MARK)], Some(Verdict::Accept))
        }
        Action::Allow if early => (vec![Statement::SetMark(ACCEPT_MARK)], Some(Verdict::Accept)),
        Action::Allow => (vec![], Some(Verdict::Accept)),
        Action::Deny if early => return denied(index, matches, context, Verdict::Drop),
        Action::Deny => return denied(index, matches, context, deny(context.settings)),
        Action::Pass if context.stage.is_some() => (vec![Statement::SetMark(PASS_MARK)], Some(Verdict::Return)),
        // After the profiles comes nothing but the denial.
        Action::Pass => return denied(index, matches, context, deny(context.settings)),
        Action::Log => {
            matches.extend(context.settings.log_limit.map(|limit| {
                let LogLimit { rate, period, burst } = limit;
                Match::Rate { rate: Rate { packets: rate, period, burst }, over: false }
            }));
            (vec![Statement::Log { prefix: context.log_prefix.clone() }], None)
        }
    };
    Rule { matches, statements, verdict }
}

fn denied(index: usize, matches: Vec<Match>, context: &Context<'_>, verdict: Verdict) -> Rule {
    let cause = Cause::Rule { owner: context.owner.clone(), direction: context.direction, index };
    record::end(context.settings, matches, &cause, verdict)
}

/// The conditions of the rules that stand for a desired rule; none if it can match no packet.
fn expand(rule: &Desired, context: &Context<'_>, literals: &mut Literals) -> Vec<Vec<Match>> {
    let Desired { action: _, family, protocol, not_protocol, icmp, not_icmp, source, destination } = rule;
    let by_address = [source, destination].into_iter().any(looks_at_addresses);
    let ports = Ports {
        wanted: [source, destination].into_iter().any(|m| !m.ports.is_empty() && m.port_sets.is_empty()),
        looked_at: [source, destination].into_iter().any(|m| !m.ports.is_empty() || !m.not_ports.is_empty()),
    };
    // The bytes of a type mean that only in the ICMP of the packet's own family.
    let by_icmp = icmp.is_some() || not_icmp.is_some();
    let families: Vec<Option<Family>> = match family {
        Some(family) => vec![Some(*family)],
        None if by_address || by_icmp => Family::ALL.into_iter().map(Some).collect(),
        None => vec![None],
    };
    let mut all = Vec::new();
    for family in families {
        if family == Some(Family::V6) && !context.settings.ipv6 {
            continue;
        }
        for mut matches in protocols(family, *protocol, ports, *icmp, *not_icmp) {
            if let Some(differ) = not_protocol {
                matches.push(Match::Protocol { protocol: *differ, negate: true });
            }
            let mut alternatives = vec![matches];
            for (side, wanted) in [(Side::Source, source), (Side::Destination, destination)] {
                alternatives = end(side, wanted, family, alternatives, context, literals);
            }
            for mut alternative in alternatives {
                alternative.sort_by_key(cost);
                all.push(alternative);
            }
        }
    }
    all
}

/// Conditions that cost little go first, so that most packets leave a rule early; and a protocol goes before what
/// makes sense for that protocol only.
fn cost(condition: &Match) -> u8 {
    match condition {
        // An IPv6 rule mostly follows an IPv4 twin, which has tested port and protocol for the packets of both.
        Match::Conntrack(_)
        | Match::Translated
        | Match::Revoked { .. }
        | Match::Mark(_)
        | Match::InterfacePrefix { .. }
        | Match::BorrowedSource { .. }
        | Match::Family(Family::V6) => 0,
        Match::Protocol { .. } => 1,
        Match::Port { .. } => 2,
        // A type is looked at only in the ICMP of the family: the sort keeps the family before it.
        Match::Family(Family::V4) | Match::Icmp { .. } => 3,
        Match::Address { .. } => 4,
        Match::PortIn { .. } => 5,
        Match::AddressIn { .. } | Match::InterfaceIn { .. } | Match::InterfaceAddressIn { .. } => 6,
        Match::AddressPortIn { .. } => 7,
        // They count what comes to them.
        Match::Rate { .. } | Match::ConnectionsOver(_) => 8,
    }
}

/// What a rule says about port numbers.
#[derive(Clone, Copy, Debug, Default)]
struct Ports {
    /// Whether only packets with ports can match.
    wanted: bool,
    /// Whether port numbers are compared, for packets that have them.
    looked_at: bool,
}

const PORTED: [Protocol; 4] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::UDPLITE];

fn has_ports(matches: &[Match]) -> bool {
    matches.iter().any(|m| matches!(m, Match::Protocol { protocol, negate: false } if protocol.has_ports()))
}

fn looks_at_addresses(wanted: &Wanted) -> bool {
    let Wanted { nets, not_nets, sets, not_sets, service_sets, ports: _, port_sets, not_ports: _, not_port_sets } =
        wanted;
    !nets.is_empty()
        || !not_nets.is_empty()
        || [sets, not_sets, service_sets, port_sets, not_port_sets].into_iter().any(|s| !s.is_empty())
}

/// Family, protocol and ICMP conditions: alternatives, or none if they contradict each other.
fn protocols(
    family: Option<Family>,
    protocol: Option<Protocol>,
    ports: Ports,
    icmp: Option<IcmpMatch>,
    not_icmp: Option<IcmpMatch>,
) -> Vec<Vec<Match>> {
    let is = |protocol| Match::Protocol { protocol, negate: false };
    let own: Vec<Match> = family.map(Match::Family).into_iter().collect();
    let with = |more: Vec<Match>| own.iter().cloned().chain(more).collect::<Vec<_>>();
    let of_family = family.map(|f| if f == Family::V4 { Protocol::ICMP } else { Protocol::ICMPV6 });
    let is_icmp = |p: Protocol| Some(p) == of_family;
    // What names a type but no protocol means the ICMP of its family.
    let protocol = if icmp.is_some() { protocol.or(of_family) } else { protocol };
    match protocol {
        Some(protocol) if ports.wanted && !protocol.has_ports() => vec![],
        Some(protocol) if icmp.is_some() && !is_icmp(protocol) => vec![],
        Some(protocol) => {
            let differ = not_icmp.filter(|_| is_icmp(protocol)).map(|m| icmp_match(m, true));
            let equal = icmp.map(|m| icmp_match(m, false));
            vec![with([is(protocol)].into_iter().chain(equal).chain(differ).collect())]
        }
        None if ports.looked_at => {
            let differ = |p| Match::Protocol { protocol: p, negate: true };
            let mut all: Vec<_> = PORTED.into_iter().map(|p| with(vec![is(p)])).collect();
            if !ports.wanted {
                let rest = protocols(family, None, Ports::default(), None, not_icmp);
                all.extend(rest.into_iter().map(|own| [own, PORTED.map(differ).to_vec()].concat()));
            }
            all
        }
        None => match (not_icmp, of_family) {
            (Some(differ), Some(icmp)) => vec![
                with(vec![Match::Protocol { protocol: icmp, negate: true }]),
                with(vec![is(icmp), icmp_match(differ, true)]),
            ],
            (Some(_), None) | (None, _) => vec![own],
        },
    }
}

fn icmp_match(wanted: IcmpMatch, negate: bool) -> Match {
    let IcmpMatch { icmp_type, code } = wanted;
    Match::Icmp { icmp_type, code, negate }
}

/// Adds the conditions on one end of the packet to every alternative.
fn end(
    side: Side,
    wanted: &Wanted,
    family: Option<Family>,
    before: Vec<Vec<Match>>,
    context: &Context<'_>,
    literals: &mut Literals,
) -> Vec<Vec<Match>> {
    let Wanted { nets, not_nets, sets, not_sets, service_sets, ports, port_sets, not_ports, not_port_sets } = wanted;
    let mut common = Vec::new();
    let not_ports = literals.ports(side, not_ports, true);
    if let Some(family) = family {
        if !nets.is_empty() {
            match any_of(literals, side, family, nets) {
                Conditions::Never => return vec![],
                Conditions::All(more) => common.extend(more),
            }
        }
        match literals.nets(side, family, not_nets, true) {
            // No address of the family lies outside of it.
            Some(Match::Address { net, .. }) if net.prefix_len() == 0 => return vec![],
            outside => common.extend(outside),
        }
        for (ids, ports, negate) in [(sets, false, false), (not_sets, false, true), (not_port_sets, true, true)] {
            for id in ids {
                match in_set(side, family, id, ports, negate, context) {
                    Some(found) => common.push(found),
                    None if negate => {}
                    None => return vec![],
                }
            }
        }
    }
    let in_sets = |ids: &[SetId]| -> Vec<Match> {
        ids.iter().filter_map(|id| in_set(side, family?, id, true, false, context)).collect()
    };
    // A condition that a port differs holds for packets without ports.
    let differ = |b: &[Match]| not_ports.clone().filter(|_| has_ports(b));
    let with = |b: Vec<Match>| b.iter().cloned().chain(common.clone()).chain(differ(&b)).collect();
    let mut alternatives: Vec<Vec<Match>> = before.into_iter().map(with).collect();
    if !ports.is_empty() || !port_sets.is_empty() {
        let numbered: Vec<Vec<Match>> = alternatives.iter().filter(|a| has_ports(a)).cloned().collect();
        let numbers: Vec<Match> = literals.ports(side, ports, false).into_iter().collect();
        alternatives = [cross(&numbered, &numbers), cross(&alternatives, &in_sets(port_sets))].concat();
    }
    if !service_sets.is_empty() {
        alternatives = cross(&alternatives, &in_sets(service_sets));
    }
    alternatives
}

enum Conditions {
    Never,
    All(Option<Match>),
}

fn any_of(literals: &mut Literals, side: Side, family: Family, nets: &[IpNet]) -> Conditions {
    match literals.nets(side, family, nets, false) {
        None => Conditions::Never,
        // Every address of the family lies in it.
        Some(Match::Address { net, .. }) if net.prefix_len() == 0 => Conditions::All(None),
        found => Conditions::All(found),
    }
}

/// `None` if there is no such set, or if it holds what is not looked for: it counts as empty.
fn in_set(side: Side, family: Family, id: &SetId, ports: bool, negate: bool, context: &Context<'_>) -> Option<Match> {
    if family == Family::V6 && !context.v6_parts {
        return None;
    }
    let kind = (context.kind_of)(id)?;
    let set = context.names.set(family, kind, id);
    match kind {
        SetKind::Addresses | SetKind::Nets => (!ports).then_some(Match::AddressIn { side, family, set, negate }),
        SetKind::Ports => ports.then_some(Match::AddressPortIn { side, family, set, negate }),
    }
}

fn cross(alternatives: &[Vec<Match>], choices: &[Match]) -> Vec<Vec<Match>> {
    let with = |a: &Vec<Match>, c: &Match| a.iter().cloned().chain([c.clone()]).collect();
    choices.iter().flat_map(|c| alternatives.iter().map(move |a| with(a, c))).collect()
}
