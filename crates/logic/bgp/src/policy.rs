//! Filters: which routes pass to and from a peer, and how they change on the way.
//!
//! A peer's filters are asked in order, in each the rules in order; the first rule that matches decides. On the way in
//! a route passes if none decides. On the way out the rules of the whole speaker come last, and without them none passes.
//! Invariant: a decision depends on its arguments alone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::{BgpFilter, BgpPolicy, Community, ExportRule, FilterOperation, FilterRule, wildcard};
use tortie_net::{Family, IpNet};

use crate::attribute::Attributes;

/// LOCAL_PREF and the priority (the kernel's metric) of a route add up to this, as upstream has it.
pub const PRIORITY_SUM: u32 = 2_147_483_647;

/// A route as filters see it, besides its attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) prefix: IpNet,
    /// From a peer.
    pub(crate) learned: bool,
    /// The interface that it leads to, if that is known.
    pub(crate) interface: Option<&'a str>,
    /// The peer is in our AS.
    pub(crate) internal: bool,
}

/// What filters say of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Undecided,
    /// It passes, changed if there are attributes.
    Accept(Option<Attributes>),
    /// It does not pass.
    Reject,
}

/// Asks a chain of rules.
pub(crate) fn judge<'a>(
    rules: impl IntoIterator<Item = &'a FilterRule>,
    subject: Subject<'_>,
    route: &Attributes,
) -> Verdict {
    for rule in rules {
        if matches(rule, subject, route) {
            return match (rule.accept, rule.operations.as_slice()) {
                (false, _) => Verdict::Reject,
                (true, []) => Verdict::Accept(None),
                (true, operations) => Verdict::Accept(Some(changed(route, operations))),
            };
        }
    }
    Verdict::Undecided
}

/// The interface through which a next hop is reached: that of the longest prefix around it.
pub(crate) fn interface(links: &BTreeMap<IpNet, Arc<str>>, next_hop: IpAddr) -> Option<&str> {
    let around = links.iter().filter(|(net, _)| net.contains(&next_hop));
    around.max_by_key(|(net, _)| net.prefix_len()).map(|(_, name)| &**name)
}

/// The rules of several filters for received routes of a family.
pub(crate) fn import_rules(filters: &[Arc<BgpFilter>], family: Family) -> impl Iterator<Item = &FilterRule> {
    filters.iter().flat_map(move |filter| filter.import(family))
}

/// The rules of several filters for sent routes of a family.
pub(crate) fn export_rules(filters: &[Arc<BgpFilter>], family: Family) -> impl Iterator<Item = &FilterRule> {
    filters.iter().flat_map(move |filter| filter.export(family))
}

fn matches(rule: &FilterRule, subject: Subject<'_>, route: &Attributes) -> bool {
    let FilterRule {
        prefix,
        learned,
        interface,
        internal,
        community,
        as_path_prefix,
        priority,
        accept: _,
        operations: _,
    } = rule;
    prefix.is_none_or(|prefix| prefix.holds(subject.prefix))
        && (!learned || subject.learned)
        && interface.as_ref().is_none_or(|pattern| subject.interface.is_some_and(|name| wildcard(pattern, name)))
        && internal.is_none_or(|internal| internal == subject.internal)
        && community.is_none_or(|community| carries(route, community))
        && route.as_path.begins_with(as_path_prefix)
        && priority.is_none_or(|wanted| self::priority(route.preference()) == Some(wanted))
}

fn carries(route: &Attributes, community: Community) -> bool {
    match community {
        Community::Standard(value) => route.communities.contains(&value),
        Community::Large(value) => route.large_communities.contains(&value),
    }
}

fn changed(route: &Attributes, operations: &[FilterOperation]) -> Attributes {
    let mut out = route.clone();
    for operation in operations {
        match operation {
            FilterOperation::AddCommunity(community) => add(&mut out, *community),
            FilterOperation::PrependAsPath(numbers) => {
                for asn in numbers.iter().rev() {
                    out.as_path = out.as_path.prepended(*asn);
                }
            }
            FilterOperation::SetPriority(priority) => out.local_pref = Some(PRIORITY_SUM.saturating_sub(*priority)),
        }
    }
    out
}

/// Attaches a community, once.
pub(crate) fn add(route: &mut Attributes, community: Community) {
    if carries(route, community) {
        return;
    }
    match community {
        Community::Standard(value) => route.communities = with(&route.communities, value),
        Community::Large(value) => route.large_communities = with(&route.large_communities, value),
    }
}

fn with<T: Copy>(list: &[T], value: T) -> Box<[T]> {
    list.iter().copied().chain([value]).collect()
}

/// The priority of ordinary routes of a prefix's family.
pub fn normal_priority(policy: &BgpPolicy, prefix: IpNet) -> u32 {
    match Family::of_net(prefix) {
        Family::V4 => policy.normal_priority[0],
        Family::V6 => policy.normal_priority[1],
    }
}

/// The priority that a LOCAL_PREF stands for, at least 1; none above what priorities can say.
pub fn priority(preference: u32) -> Option<u32> {
    PRIORITY_SUM.checked_sub(preference).filter(|priority| *priority > 0)
}

/// Rules that let everything out, as a speaker outside of a cluster may have them.
pub fn tell_everything() -> Arc<BgpPolicy> {
    let all = [IpAddr::from([0; 4]), IpAddr::from([0; 16])].map(|addr| IpNet::new(addr, 0).expect("0 bits fit"));
    Arc::new(BgpPolicy { export: all.map(ExportRule::Tell).into(), ..BgpPolicy::default() })
}

/// Whether the speaker's own rules let a prefix out. `preference`: the route's LOCAL_PREF.
pub(crate) fn tells(policy: &BgpPolicy, prefix: IpNet, preference: u32) -> bool {
    let elevated = priority(preference).is_some_and(|priority| priority < normal_priority(policy, prefix));
    let decision = policy.export.iter().find_map(|rule| match rule {
        ExportRule::Refuse(net) => net.contains(&prefix).then_some(false),
        ExportRule::Block(net) => net.contains(&prefix).then_some(prefix == *net || elevated),
        ExportRule::Tell(net) => net.contains(&prefix).then_some(true),
    });
    decision.unwrap_or(false)
}

/// The communities that the speaker attaches to a prefix.
pub(crate) fn communities(policy: &BgpPolicy, prefix: IpNet) -> impl Iterator<Item = Community> {
    let around = policy.communities.iter().filter(move |(net, _)| net.contains(&prefix));
    around.flat_map(|(_, communities)| communities.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tortie_desired::{PrefixMatch, PrefixOperator};
    use tortie_net::AsNumber;

    use crate::attribute::AsPath;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a literal")
    }

    fn rule(accept: bool) -> FilterRule {
        FilterRule {
            prefix: None,
            learned: false,
            interface: None,
            internal: None,
            community: None,
            as_path_prefix: Vec::new(),
            priority: None,
            accept,
            operations: Vec::new(),
        }
    }

    fn route() -> Attributes {
        let as_path = AsPath::sequence(&[AsNumber(65001), AsNumber(65002)]);
        Attributes {
            as_path,
            communities: [7 << 16 | 8].into(),
            local_pref: Some(PRIORITY_SUM - 1024),
            ..Attributes::default()
        }
    }

    const SUBJECT: &str = "10.0.0.0/26";

    fn subject(interface: Option<&str>) -> Subject<'_> {
        Subject { prefix: net(SUBJECT), learned: interface.is_none(), interface, internal: false }
    }

    /// Each row: a rule that holds, and one like it that does not.
    #[test]
    fn every_match_holds_and_fails() {
        let prefix = |operator| Some(PrefixMatch { net: net("10.0.0.0/8"), operator, lengths: None });
        let rows = [
            (
                FilterRule { prefix: prefix(PrefixOperator::In), ..rule(true) },
                FilterRule { prefix: prefix(PrefixOperator::Equal), ..rule(true) },
            ),
            (FilterRule { internal: Some(false), ..rule(true) }, FilterRule { internal: Some(true), ..rule(true) }),
            (
                FilterRule { community: Some(Community::Standard(7 << 16 | 8)), ..rule(true) },
                FilterRule { community: Some(Community::Large([7, 8, 9])), ..rule(true) },
            ),
            (
                FilterRule { as_path_prefix: vec![AsNumber(65001)], ..rule(true) },
                FilterRule { as_path_prefix: vec![AsNumber(65002)], ..rule(true) },
            ),
            (FilterRule { priority: Some(1024), ..rule(true) }, FilterRule { priority: Some(512), ..rule(true) }),
            (FilterRule { learned: true, ..rule(true) }, FilterRule { interface: Some("eth*".into()), ..rule(true) }),
        ];
        for (holds, fails) in rows {
            assert_eq!(judge([&holds], subject(None), &route()), Verdict::Accept(None), "{holds:?}");
            assert_eq!(judge([&fails], subject(None), &route()), Verdict::Undecided, "{fails:?}");
        }
        let local = FilterRule { interface: Some("cali*".into()), ..rule(false) };
        assert_eq!(judge([&local], subject(Some("cali1")), &route()), Verdict::Reject);
        assert_eq!(
            judge([&FilterRule { learned: true, ..rule(true) }], subject(Some("cali1")), &route()),
            Verdict::Undecided
        );
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let never = FilterRule { internal: Some(true), ..rule(false) };
        assert_eq!(judge([&never, &rule(true), &rule(false)], subject(None), &route()), Verdict::Accept(None));
    }

    #[test]
    fn operations_change_what_passes() {
        let operations = vec![
            FilterOperation::AddCommunity(Community::Standard(1)),
            FilterOperation::AddCommunity(Community::Standard(1)),
            FilterOperation::AddCommunity(Community::Large([1, 2, 3])),
            FilterOperation::PrependAsPath(vec![AsNumber(1), AsNumber(2)]),
            FilterOperation::SetPriority(512),
        ];
        let Verdict::Accept(Some(out)) = judge([&FilterRule { operations, ..rule(true) }], subject(None), &route())
        else {
            panic!("accepted and changed");
        };
        assert_eq!(out.as_path.to_string(), "1 2 65001 65002");
        assert_eq!((&*out.communities, &*out.large_communities), (&[7 << 16 | 8, 1][..], &[[1, 2, 3]][..]));
        assert_eq!(out.local_pref, Some(PRIORITY_SUM - 512));
    }

    #[test]
    fn blocks_hide_what_is_within_unless_it_is_preferred() {
        let policy = BgpPolicy {
            export: vec![
                ExportRule::Refuse(net("10.9.0.0/16")),
                ExportRule::Block(net("10.0.0.0/26")),
                ExportRule::Tell(net("10.0.0.0/8")),
            ],
            normal_priority: [1024; 2],
            ..BgpPolicy::default()
        };
        let normal = PRIORITY_SUM - 1024;
        for (prefix, preference, told) in [
            ("10.0.0.0/26", normal, true),
            ("10.0.0.1/32", normal, false),
            ("10.0.0.1/32", 100, false),
            ("10.0.0.1/32", PRIORITY_SUM - 512, true),
            ("10.0.0.64/32", normal, true),
            ("10.9.1.0/26", normal, false),
            ("0.0.0.0/0", normal, false),
            ("2001:db8::/64", normal, false),
        ] {
            assert_eq!(tells(&policy, net(prefix), preference), told, "{prefix} {preference}");
        }
    }

    proptest! {
        /// Against a model that looks at every rule and takes the lowest index that holds.
        #[test]
        fn a_chain_agrees_with_the_slow_model(
            rows in proptest::collection::vec((0..4_u8, 0..3_u8, any::<bool>(), any::<bool>()), 0..6),
            third in 0..4_u8,
            length in 8..33_u8,
        ) {
            let prefix = IpNet::new([10, third, 0, 0].into(), length).expect("in range").trunc();
            let rules: Vec<FilterRule> = rows.iter().map(|(octet, operator, accept, internal)| {
                let operator = [PrefixOperator::In, PrefixOperator::NotIn, PrefixOperator::Equal][usize::from(*operator)];
                let net = IpNet::new([10, *octet, 0, 0].into(), 16).expect("in range");
                FilterRule {
                    prefix: Some(PrefixMatch { net, operator, lengths: None }),
                    internal: internal.then_some(true),
                    ..rule(*accept)
                }
            }).collect();
            let subject = Subject { prefix, learned: true, interface: None, internal: true };
            let model = rows.iter().find(|(octet, operator, _, _)| {
                let within = length >= 16 && third == *octet;
                match operator { 0 => within, 1 => !within, _ => length == 16 && third == *octet }
            });
            let expected = match model {
                None => Verdict::Undecided,
                Some((_, _, true, _)) => Verdict::Accept(None),
                Some((_, _, false, _)) => Verdict::Reject,
            };
            prop_assert_eq!(judge(&rules, subject, &route()), expected);
        }
    }
}
