//! What is wanted for each prefix, before links and gateways are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_dataplane::Walk;
use tortie_desired::{Route as DesiredRoute, RouteTarget, TunnelDevice};

/// A route learned by BGP: the best path, or several that share the traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Gateways.
    pub next_hops: Vec<IpAddr>,
    /// Metric in the kernel, lower wins; 0 is the kernel's default.
    pub metric: u32,
    /// It wins over a workload of this node that has the same address, as the new place of a workload that moved does.
    pub over_workloads: bool,
}

impl Learned {
    /// With each gateway once and in order; `None` without any.
    fn normal(mut self) -> Option<Learned> {
        self.next_hops.sort_unstable();
        self.next_hops.dedup();
        (!self.next_hops.is_empty()).then_some(self)
    }
}

/// What is wanted for one prefix, after conflicts are decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// On link through a workload's interface.
    Workload(&'a Arc<str>),
    /// Nowhere.
    Blackhole,
    /// Through another node.
    Node(IpAddr),
    /// Through another node's end of a tunnel.
    Tunnel(TunnelDevice, IpAddr),
    /// As BGP says.
    Learned(&'a Learned),
}

/// All that is wanted. Calculated routes win over learned ones, unless those are preferred to workloads of this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wants {
    desired: BTreeMap<IpNet, RouteTarget>,
    learned: BTreeMap<IpNet, Learned>,
    by_interface: BTreeMap<Arc<str>, BTreeSet<IpNet>>,
}

impl Wants {
    /// Sets or removes a calculated route; `true` if that changes anything.
    pub(crate) fn set_desired(&mut self, net: IpNet, route: Option<&DesiredRoute>) -> bool {
        let target = route.map(|DesiredRoute { target }| target.clone());
        let old = match &target {
            Some(target) => self.desired.insert(net, target.clone()),
            None => self.desired.remove(&net),
        };
        if old == target {
            return false;
        }
        if let Some(interface) = old.as_ref().and_then(interface_of)
            && let Some(nets) = self.by_interface.get_mut(&interface)
        {
            nets.remove(&net);
            if nets.is_empty() {
                self.by_interface.remove(&interface);
            }
        }
        if let Some(interface) = target.as_ref().and_then(interface_of) {
            self.by_interface.entry(interface).or_default().insert(net);
        }
        true
    }

    /// Sets or removes learned routes, the last of several for a prefix. Returns the prefixes that are to be looked at
    /// because of that: those with another route than before, and all without one.
    pub(crate) fn learn(&mut self, mut changes: Vec<(IpNet, Option<Learned>)>) -> Vec<IpNet> {
        changes.iter_mut().for_each(|(net, learned)| {
            *net = net.trunc();
            *learned = learned.take().and_then(Learned::normal);
        });
        // The last one comes first, and stays.
        changes.reverse();
        changes.sort_by_key(|(net, _)| *net);
        changes.dedup_by(|(one, _), (other, _)| one == other);
        let mut known = Walk::new(&self.learned, changes.len());
        changes.retain(|(net, learned)| learned.is_none() || known.get(net) != learned.as_ref());
        let nets = changes.iter().map(|(net, _)| *net).collect();
        let more = changes.len() >= self.learned.len();
        let mut put = Vec::with_capacity(if more { changes.len() } else { 0 });
        for (net, learned) in changes {
            match learned {
                // One by one is dear if nearly everything is new: then the two are merged.
                Some(learned) if more => put.push((net, learned)),
                Some(learned) => drop(self.learned.insert(net, learned)),
                None => drop(self.learned.remove(&net)),
            }
        }
        self.learned.append(&mut put.into_iter().collect());
        nets
    }

    /// Looks up about so many ascending prefixes.
    pub(crate) fn walk(&self, nets: usize) -> WantsWalk<'_> {
        WantsWalk { wants: self, desired: Walk::new(&self.desired, nets), learned: Walk::new(&self.learned, nets) }
    }

    /// Whether a learned route wins over a workload. One that leads to a workload does not: a workload that is a
    /// router must not get the packets of others on its node.
    fn takes_over(&self, learned: &Learned) -> bool {
        let Learned { next_hops, metric: _, over_workloads } = learned;
        *over_workloads && next_hops.iter().all(|hop| self.workload(*hop).is_none())
    }

    /// The interface of the workload that has an address.
    pub(crate) fn workload(&self, address: IpAddr) -> Option<&Arc<str>> {
        match self.desired.get(&IpNet::from(address)) {
            Some(RouteTarget::Workload { interface }) => Some(interface),
            Some(
                RouteTarget::Blackhole
                | RouteTarget::Node { node: _, via: _ }
                | RouteTarget::Tunnel { device: _, node: _, via: _ },
            )
            | None => None,
        }
    }

    /// Every prefix that anything is wanted for.
    pub(crate) fn nets(&self) -> BTreeSet<IpNet> {
        self.desired.keys().chain(self.learned.keys()).copied().collect()
    }

    /// The prefixes with a learned route.
    pub(crate) fn learned_nets(&self) -> impl Iterator<Item = IpNet> {
        self.learned.keys().copied()
    }

    /// The prefixes with a calculated route.
    pub(crate) fn desired_nets(&self) -> impl Iterator<Item = &IpNet> {
        self.desired.keys()
    }

    /// The prefixes that go to a workload's interface or into a tunnel's.
    pub(crate) fn of_interface(&self, interface: &str) -> impl Iterator<Item = IpNet> {
        self.by_interface.get(interface).into_iter().flatten().copied()
    }

    /// The prefixes that are blackholes.
    pub(crate) fn blackholes(&self) -> impl Iterator<Item = IpNet> {
        self.desired.iter().filter(|(_, target)| **target == RouteTarget::Blackhole).map(|(net, _)| *net)
    }
}

/// Ascending prefixes looked up.
pub(crate) struct WantsWalk<'a> {
    wants: &'a Wants,
    desired: Walk<'a, IpNet, RouteTarget>,
    learned: Walk<'a, IpNet, Learned>,
}

impl<'a> WantsWalk<'a> {
    /// What wins for the next prefix, and the gateways that were learned for it.
    pub(crate) fn get(&mut self, net: &IpNet) -> (Option<Wanted<'a>>, &'a [IpAddr]) {
        let learned = self.learned.get(net);
        let gateways = learned.map(|learned| learned.next_hops.as_slice()).unwrap_or_default();
        let wanted = match self.desired.get(net) {
            Some(RouteTarget::Workload { interface }) => {
                Some(match learned.filter(|learned| self.wants.takes_over(learned)) {
                    Some(learned) => Wanted::Learned(learned),
                    None => Wanted::Workload(interface),
                })
            }
            Some(RouteTarget::Blackhole) => Some(Wanted::Blackhole),
            Some(RouteTarget::Node { node: _, via }) => Some(Wanted::Node(*via)),
            Some(RouteTarget::Tunnel { device, node: _, via }) => Some(Wanted::Tunnel(*device, *via)),
            None => learned.map(Wanted::Learned),
        };
        (wanted, gateways)
    }
}

/// The interface that a route names; others find theirs by the gateway.
fn interface_of(target: &RouteTarget) -> Option<Arc<str>> {
    match target {
        RouteTarget::Workload { interface } => Some(interface.clone()),
        RouteTarget::Tunnel { device, node: _, via: _ } => Some(Arc::from(device.name())),
        RouteTarget::Blackhole | RouteTarget::Node { node: _, via: _ } => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change() -> impl Strategy<Value = (IpNet, Option<Learned>)> {
        let hops = proptest::option::of(proptest::collection::vec(1_u8..4, 0..3));
        (0_u8..8, hops).prop_map(|(net, hops)| {
            let next_hops = |hops: Vec<u8>| hops.into_iter().map(|n| IpAddr::from([10, 0, 0, n])).collect();
            let learned = hops.map(|hops| Learned { next_hops: next_hops(hops), ..Learned::default() });
            (IpNet::from(IpAddr::from([11, 0, 0, net])), learned)
        })
    }

    proptest! {
        #[test]
        fn many_at_once_are_the_same_as_one_by_one(
            rounds in proptest::collection::vec(proptest::collection::vec(change(), 0..12), 0..6),
        ) {
            let (mut at_once, mut singly) = (Wants::default(), Wants::default());
            for changes in rounds {
                let before = at_once.learned.clone();
                for change in &changes {
                    singly.learn(vec![change.clone()]);
                }
                let withdrawn = |net: &IpNet| !singly.learned.contains_key(net);
                let told: BTreeSet<IpNet> = changes.iter().map(|(net, _)| *net).collect();
                let news = told.into_iter().filter(|net| withdrawn(net) || before.get(net) != singly.learned.get(net));
                prop_assert_eq!(at_once.learn(changes.clone()), news.collect::<Vec<_>>());
                prop_assert_eq!(&at_once.learned, &singly.learned);
            }
        }
    }
}
