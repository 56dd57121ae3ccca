//! What is wanted for each prefix, before links and gateways are looked at.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
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

    /// Sets or removes a learned route; `true` if that changes anything.
    pub(crate) fn set_learned(&mut self, net: IpNet, learned: Option<Learned>) -> bool {
        let learned = learned.filter(|learned| !learned.next_hops.is_empty()).map(|mut learned| {
            learned.next_hops.sort_unstable();
            learned.next_hops.dedup();
            learned
        });
        let Some(learned) = learned else { return self.learned.remove(&net).is_some() };
        match self.learned.entry(net) {
            Entry::Occupied(slot) if *slot.get() == learned => false,
            Entry::Occupied(mut slot) => {
                slot.insert(learned);
                true
            }
            Entry::Vacant(slot) => {
                slot.insert(learned);
                true
            }
        }
    }

    /// What wins for a prefix, and the gateways that were learned for it.
    pub(crate) fn get(&self, net: &IpNet) -> (Option<Wanted<'_>>, &[IpAddr]) {
        let learned = self.learned.get(net);
        let gateways = learned.map(|learned| learned.next_hops.as_slice()).unwrap_or_default();
        let wanted = match self.desired.get(net) {
            Some(RouteTarget::Workload { interface }) => {
                Some(match learned.filter(|learned| self.takes_over(learned)) {
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

/// The interface that a route names; others find theirs by the gateway.
fn interface_of(target: &RouteTarget) -> Option<Arc<str>> {
    match target {
        RouteTarget::Workload { interface } => Some(interface.clone()),
        RouteTarget::Tunnel { device, node: _, via: _ } => Some(Arc::from(device.name())),
        RouteTarget::Blackhole | RouteTarget::Node { node: _, via: _ } => None,
    }
}
