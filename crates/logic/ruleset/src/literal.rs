//! Lists that rules carry themselves, as conditions: one item is compared directly, more become a literal set.
//!
//! A literal set is named by its content, so equal lists share one set and a changed list is another set. Lists of
//! addresses that a policy admits are what people change most. Where a backend changes sets and rules in one step, these
//! are named after their rule instead: then a changed list is a change of elements, and no rule is touched. So that
//! this holds for a single address too, it is a set of one; long lists, of which copies would cost more than the rules,
//! are shared all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use tortie_desired::{Match as Wanted, Rule as Desired};
use tortie_net::{Family, PortRange, host_net};

use crate::model::{Element, Match, Name, Set, SetType, Side};
use crate::names::Names;
use crate::sets::maximal;

/// The longest list that has a set of its own though others may be equal.
const LONGEST_OWN: usize = 128;

/// The literal sets of the chain that is being rendered.
pub(crate) struct Literals {
    names: Names,
    /// The chain after whose rules lists are named; `None`: they are named by their content.
    chain: Option<Name>,
    /// What the rule at hand says but for its lists of prefixes, and which of the rules it is that say the same.
    rule: Option<(String, usize)>,
    /// How many rules said the same so far.
    seen: BTreeMap<String, usize>,
    pub(crate) sets: BTreeMap<Name, Arc<Set>>,
}

impl Literals {
    /// Lists are named by their content.
    pub(crate) fn new(names: Names) -> Literals {
        Literals { names, chain: None, rule: None, seen: BTreeMap::new(), sets: BTreeMap::new() }
    }

    /// Lists of prefixes are named after the rules of a chain.
    pub(crate) fn of_rules(names: Names, chain: Name) -> Literals {
        Literals { chain: Some(chain), ..Literals::new(names) }
    }

    /// The lists to come are those of this rule.
    pub(crate) fn turn_to(&mut self, rule: &Desired) {
        let has_nets = [&rule.source, &rule.destination].into_iter().any(|end| !end.nets.is_empty());
        self.rule = (self.chain.is_some() && has_nets).then(|| {
            let bare = |end: &Wanted| Wanted { nets: Vec::new(), ..end.clone() };
            let rest = Desired { source: bare(&rule.source), destination: bare(&rule.destination), ..rule.clone() };
            let rest = format!("{rest:?}");
            let number = self.seen.entry(rest.clone()).or_default();
            *number += 1;
            (rest, *number)
        });
    }

    /// The address is in one of the prefixes, or in none with `negate`; `None` if no prefix is of the family.
    pub(crate) fn nets(&mut self, side: Side, family: Family, nets: &[IpNet], negate: bool) -> Option<Match> {
        let own: BTreeSet<IpNet> = nets.iter().map(IpNet::trunc).filter(|n| Family::of_net(*n) == family).collect();
        let kept = maximal(own);
        let only: Vec<IpNet> = kept.iter().filter_map(net_of).collect();
        let hosts = only.iter().all(|n| *n == host_net(n.addr()));
        let is_own = !negate && self.rule.is_some();
        let (set_type, elements) = match only[..] {
            [] => return None,
            [net] if !(hosts && is_own) => return Some(Match::Address { side, net, negate }),
            _ if hosts => (SetType::Addresses(family), only.iter().map(|n| Element::Address(n.addr())).collect()),
            _ => (SetType::Nets(family), kept),
        };
        let set = match &self.rule {
            Some((rest, number)) if is_own && elements.len() <= LONGEST_OWN => {
                let chain = self.chain.as_deref().unwrap_or_default();
                let name = format!("{chain} {rest} {number} {side:?} {set_type:?}");
                self.put(Some(family), &name, set_type, elements)
            }
            _ => self.set(Some(family), set_type, elements),
        };
        Some(Match::AddressIn { side, family, set, negate })
    }

    /// The port is in one of the ranges, or in none with `negate`; `None` if there is no range.
    pub(crate) fn ports(&mut self, side: Side, ranges: &[PortRange], negate: bool) -> Option<Match> {
        let merged = merge(ranges);
        match merged[..] {
            [] => None,
            [range] => Some(Match::Port { side, range, negate }),
            _ => {
                let set = self.set(None, SetType::Ports, merged.into_iter().map(Element::Ports).collect());
                Some(Match::PortIn { side, set, negate })
            }
        }
    }

    fn set(&mut self, family: Option<Family>, set_type: SetType, elements: BTreeSet<Element>) -> Name {
        let content: Vec<String> = elements.iter().map(text_of).collect();
        self.put(family, &format!("{set_type:?} {}", content.join(" ")), set_type, elements)
    }

    /// `text` is what the set is known by.
    fn put(&mut self, family: Option<Family>, text: &str, set_type: SetType, elements: BTreeSet<Element>) -> Name {
        let name = self.names.literal(family, text);
        self.sets.entry(name.clone()).or_insert_with(|| Arc::new(Set { set_type, elements }));
        name
    }
}

fn net_of(element: &Element) -> Option<IpNet> {
    match element {
        Element::Net(net) => Some(*net),
        Element::Address(_)
        | Element::AddressPort { .. }
        | Element::Ports(_)
        | Element::Interface(_)
        | Element::InterfaceAddress(_) => None,
    }
}

fn text_of(element: &Element) -> String {
    match element {
        Element::Address(addr) => addr.to_string(),
        Element::Net(net) => net.to_string(),
        Element::Ports(range) => range.to_string(),
        Element::AddressPort { addr, protocol, port } => format!("{addr},{},{port}", protocol.0),
        Element::Interface(name) => name.to_string(),
        Element::InterfaceAddress(behind) => format!("{},{}", behind.interface, behind.addr),
    }
}

/// Ranges that neither overlap nor touch.
fn merge(ranges: &[PortRange]) -> Vec<PortRange> {
    let sorted: BTreeSet<PortRange> = ranges.iter().copied().collect();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if u32::from(range.first()) <= u32::from(last.last()) + 1 => {
                let end = last.last().max(range.last());
                *last = PortRange::new(last.first(), end).expect("the end only grows");
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_overlap_or_touch_become_one() {
        let range = |a, b| PortRange::new(a, b).expect("ascending");
        let merged = merge(&[range(20, 30), range(1, 10), range(11, 12), range(25, 28), range(65535, 65535)]);
        assert_eq!(merged, [range(1, 12), range(20, 30), range(65535, 65535)]);
    }
}
