//! What a flush tells of endpoints, tunnels and static sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_desired::{Batch, Endpoint, EndpointId, HostEndpoint, HostInterface, Member, SetChange, SetId, SetKind};
use tortie_net::IpNet;

use super::Calculator;
use crate::batch::{put, replace};
use crate::config::WorkloadSettings;
use crate::matching::is_host;

impl Calculator {
    /// Tunnels, their far ends, and the routes to other nodes. Comes after this node's own routes, which win.
    pub(super) fn flush_remote(&mut self, out: &mut Batch) {
        for (net, route) in &mut out.routes {
            if route.is_none() {
                *route = self.flushed.remote.get(net).cloned();
            }
        }
        self.tunnels.set_wanted(self.config.vxlan(self.bgp.labels(&self.node)), self.routes.vxlan_families());
        if self.tunnels.settle(&self.node) {
            out.tunnels = replace(&mut self.flushed.tunnels, self.tunnels.devices().clone());
            out.vteps = replace(&mut self.flushed.vteps, self.tunnels.vteps().clone());
            self.remote.mark_all();
        }
        let routes = &self.routes;
        for (net, route) in self.remote.take(&self.node, &self.tunnels, |block| routes.vxlan(block)) {
            let told = put(&mut self.flushed.remote, net, route);
            out.routes.extend(told.filter(|(net, _)| !self.flushed.routes.contains_key(net)));
        }
    }

    pub(super) fn flush_endpoints(&mut self, out: &mut Batch) {
        let mut dirty = self.local.take_dirty();
        dirty.extend(self.matching.take_endpoints());
        let mut seen = BTreeMap::new();
        for id in dirty {
            if is_host(&id) {
                self.hosts.mark();
                continue;
            }
            let WorkloadSettings { floating, source_spoofing } = self.workload_settings;
            let endpoint = self.local.get(&id).map(|local| {
                Arc::new(Endpoint {
                    interface: local.interface.clone(),
                    addresses: local.addresses.clone(),
                    mac: local.mac,
                    tiers: self.matching.tiers_of(&id, &mut seen).normal.clone(),
                    profiles: self.profiles.listed(&local.profiles),
                    allowed_sources: if source_spoofing { local.allowed_sources.clone() } else { Vec::new() },
                    floating: if floating || local.openstack { local.floating.clone() } else { Vec::new() },
                    limits: local.limits,
                })
            });
            out.endpoints.extend(put(&mut self.flushed.endpoints, id, endpoint));
        }
        let Some(governed) = self.hosts.take() else { return };
        let mut now = BTreeMap::new();
        for (interface, name) in governed {
            let Some(host) = self.hosts.get(&name) else { continue };
            let id = EndpointId { namespace: Arc::from(""), name: name.clone() };
            let applied = self.matching.tiers_of(&id, &mut seen).clone();
            // Upstream has no untracked policy for all interfaces.
            let untracked = if interface == HostInterface::All { Vec::new() } else { applied.untracked };
            let endpoint = HostEndpoint {
                name,
                untracked,
                pre_dnat: applied.pre_dnat,
                forward: applied.forward,
                tiers: applied.normal,
                profiles: self.profiles.listed(&host.profiles),
            };
            now.insert(interface, Arc::new(endpoint));
        }
        out.host_endpoints = replace(&mut self.flushed.host_endpoints, now);
    }

    /// The set of all nodes' addresses, while outgoing NAT asks for it.
    pub(super) fn flush_all_hosts(&mut self, out: &mut Batch) {
        let wanted = self.flushed.settings.nat.exclude_hosts;
        let now: Option<BTreeSet<Member>> =
            wanted.then(|| self.bgp.addresses().map(|addr| Member::Net(IpNet::from(addr))).collect());
        if now == self.flushed.all_hosts {
            return;
        }
        let change = match (&self.flushed.all_hosts, &now) {
            (Some(old), Some(now)) => SetChange::Delta {
                added: now.difference(old).copied().collect(),
                removed: old.difference(now).copied().collect(),
            },
            (None, Some(now)) => SetChange::Whole { kind: SetKind::Addresses, members: now.clone() },
            (_, None) => SetChange::Removed,
        };
        out.sets.insert(SetId::new(SetId::ALL_HOSTS), change);
        self.flushed.all_hosts = now;
    }
}
