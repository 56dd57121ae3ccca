//! Members of desired sets to elements, and prefixes to the disjoint prefixes that interval sets need.
//!
//! Prefixes are nested or disjoint, never half overlapping; so the elements of a set of prefixes are those members
//! that no other member covers.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::IpNet;
use tortie_desired::{Member, Members, SetKind};
use tortie_net::{Family, Protocol, host_net};

use crate::model::{Element, SetType};

/// The type of one family's part of a set.
pub(crate) fn set_type(kind: SetKind, family: Family) -> SetType {
    match kind {
        SetKind::Addresses => SetType::Addresses(family),
        SetKind::Nets => SetType::Nets(family),
        SetKind::Ports => SetType::AddressPorts(family),
    }
}

/// All elements of one family's part of a set. Members that the kind excludes are left out.
pub(crate) fn elements(kind: SetKind, family: Family, members: &Members) -> BTreeSet<Element> {
    let own = members.iter().filter(|m| m.family() == family);
    match kind {
        SetKind::Addresses | SetKind::Ports => own.filter_map(|m| single(kind, m)).collect(),
        SetKind::Nets => maximal(own.filter_map(|m| match m {
            Member::Net(net) => Some(*net),
            Member::Port { .. } => None,
        })),
    }
}

/// Whether there are members of IPv6: of each form of members, they are the last ones.
pub(crate) fn has_v6(members: &Members) -> bool {
    let first_port = Member::Port { addr: Ipv4Addr::UNSPECIFIED.into(), protocol: Protocol(0), port: 0 };
    let last = [members.last_before(&first_port), members.last()];
    last.into_iter().flatten().any(|member| member.family() == Family::V6)
}

/// The element of a member of a set whose members don't interact; `None` if the kind excludes the member.
pub(crate) fn single(kind: SetKind, member: &Member) -> Option<Element> {
    match (kind, member) {
        (SetKind::Addresses, Member::Net(net)) => (*net == host_net(net.addr())).then(|| Element::Address(net.addr())),
        // What has no ports must not match by the bytes that stand where ports would.
        (SetKind::Ports, Member::Port { addr, protocol, port }) => {
            protocol.has_ports().then_some(Element::AddressPort { addr: *addr, protocol: *protocol, port: *port })
        }
        (SetKind::Addresses | SetKind::Nets, Member::Port { .. })
        | (SetKind::Ports | SetKind::Nets, Member::Net(_)) => None,
    }
}

/// Those of the prefixes, in ascending order, that no other one covers.
pub(crate) fn maximal(nets: impl IntoIterator<Item = IpNet>) -> BTreeSet<Element> {
    let mut last: Option<IpNet> = None;
    // Collected, not put in one after the other: then the tree has no gaps.
    let uncovered = nets.into_iter().filter(|net| {
        let covered = last.is_some_and(|l| l.contains(net));
        if !covered {
            last = Some(*net);
        }
        !covered
    });
    uncovered.map(Element::Net).collect()
}

/// What changes in the elements of a set of prefixes when `changed` members came or went.
///
/// `after` holds the members as they are now, `current` the elements as they were: added and removed elements come
/// back. Costs grow with the changed members and what they cover, not with the set.
pub(crate) fn change_nets<'a>(
    after: &Members,
    current: &BTreeSet<Element>,
    changed: impl Iterator<Item = &'a Member>,
) -> (BTreeSet<Element>, BTreeSet<Element>) {
    let (mut added, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for member in changed {
        let Member::Net(net) = member else { continue };
        let wanted = match covering(after, *net) {
            Some(top) => BTreeSet::from([Element::Net(top)]),
            None => maximal(inside(after, *net)),
        };
        for element in current.range(Element::Net(*net)..) {
            match element {
                Element::Net(inner) if net.contains(inner) => {
                    if !wanted.contains(element) {
                        removed.insert(element.clone());
                    }
                }
                _ => break,
            }
        }
        added.extend(wanted.into_iter().filter(|e| !current.contains(e)));
    }
    (added, removed)
}

/// The widest member that covers the prefix, itself included.
fn covering(members: &Members, net: IpNet) -> Option<IpNet> {
    (0..=net.prefix_len()).find_map(|len| {
        let wider = IpNet::new(net.addr(), len).expect("not longer than the prefix itself").trunc();
        members.contains(&Member::Net(wider)).then_some(wider)
    })
}

fn inside(members: &Members, net: IpNet) -> impl Iterator<Item = IpNet> {
    members.range(Member::Net(net)..).map_while(move |member| match member {
        Member::Net(inner) if net.contains(inner) => Some(*inner),
        Member::Net(_) | Member::Port { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets() -> impl Strategy<Value = BTreeSet<Member>> {
        let net = (0u32..64, 24u8..=32, any::<bool>()).prop_map(|(low, len, wide)| {
            let len = if wide { len } else { 32 };
            let addr = std::net::Ipv4Addr::from(0x0a00_0000 | low << 2);
            Member::Net(IpNet::new(addr.into(), len).expect("at most 32").trunc())
        });
        proptest::collection::btree_set(net, 0..24)
    }

    proptest! {
        #[test]
        fn changing_step_by_step_equals_starting_afresh(before in nets(), after in nets()) {
            let changed: Vec<_> = before.symmetric_difference(&after).collect();
            let (before, after) = (Members::from(before.clone()), Members::from(after.clone()));
            let mut current = elements(SetKind::Nets, Family::V4, &before);
            let (added, removed) = change_nets(&after, &current, changed.into_iter());
            prop_assert!(removed.iter().all(|e| current.remove(e)));
            prop_assert!(added.into_iter().all(|e| current.insert(e)));
            prop_assert_eq!(current, elements(SetKind::Nets, Family::V4, &after));
        }

        #[test]
        fn members_of_ipv6_are_seen(members in nets(), six in any::<bool>(), ports in any::<bool>()) {
            let mut members = Members::from(members);
            let port = |addr| Member::Port { addr, protocol: Protocol::TCP, port: 80 };
            members.extend(ports.then(|| port([10, 0, 0, 1].into())));
            members.extend(six.then(|| Member::Net("fd00::/64".parse().expect("literal"))));
            prop_assert_eq!(has_v6(&members), six);
            members.insert(port(std::net::Ipv6Addr::UNSPECIFIED.into()));
            prop_assert!(has_v6(&members));
        }

        #[test]
        fn elements_are_disjoint_and_cover_every_member(members in nets()) {
            let kept: Vec<IpNet> = elements(SetKind::Nets, Family::V4, &members.clone().into())
                .into_iter()
                .filter_map(|e| if let Element::Net(net) = e { Some(net) } else { None })
                .collect();
            for member in &members {
                let Member::Net(net) = member else { continue };
                prop_assert_eq!(kept.iter().filter(|k| k.contains(net)).count(), 1);
            }
        }
    }
}
