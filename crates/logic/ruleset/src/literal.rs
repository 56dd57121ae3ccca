//! Lists that rules carry themselves, as conditions: one item is compared directly, more become a literal set.
//!
//! A literal set is named by its content, so equal lists share one set and a changed list is another set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use tortie_net::{Family, PortRange, host_net};

use crate::model::{Element, Match, Name, Set, SetType, Side};
use crate::names::Names;
use crate::sets::maximal;

/// The literal sets of the chain that is being rendered.
pub(crate) struct Literals {
    names: Names,
    pub(crate) sets: BTreeMap<Name, Arc<Set>>,
}

impl Literals {
    pub(crate) fn new(names: Names) -> Literals {
        Literals { names, sets: BTreeMap::new() }
    }

    /// The address is in one of the prefixes, or in none with `negate`; `None` if no prefix is of the family.
    pub(crate) fn nets(&mut self, side: Side, family: Family, nets: &[IpNet], negate: bool) -> Option<Match> {
        let own: BTreeSet<IpNet> = nets.iter().map(IpNet::trunc).filter(|n| Family::of_net(*n) == family).collect();
        let kept = maximal(own);
        let only: Vec<IpNet> = kept.iter().filter_map(net_of).collect();
        match only[..] {
            [] => None,
            [net] => Some(Match::Address { side, net, negate }),
            _ if only.iter().all(|n| *n == host_net(n.addr())) => {
                let addresses = only.iter().map(|n| Element::Address(n.addr())).collect();
                let set = self.set(Some(family), SetType::Addresses(family), addresses);
                Some(Match::AddressIn { side, family, set, negate })
            }
            _ => {
                let set = self.set(Some(family), SetType::Nets(family), kept);
                Some(Match::AddressIn { side, family, set, negate })
            }
        }
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
        let name = self.names.literal(family, &format!("{set_type:?} {}", content.join(" ")));
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
        | Element::InterfaceAddress { .. } => None,
    }
}

fn text_of(element: &Element) -> String {
    match element {
        Element::Address(addr) => addr.to_string(),
        Element::Net(net) => net.to_string(),
        Element::Ports(range) => range.to_string(),
        Element::AddressPort { addr, protocol, port } => format!("{addr},{},{port}", protocol.0),
        Element::Interface(name) => name.to_string(),
        Element::InterfaceAddress { interface, addr } => format!("{interface},{addr}"),
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
