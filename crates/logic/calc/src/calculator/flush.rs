//! What a flush tells of endpoints, tunnels, BGP and static sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_desired::{
    Batch, Endpoint, EndpointId, HostEndpoint, HostInterface, Member, Route, RouteTarget, SetChange, SetId, SetKind,
};
use tortie_net::IpNet;

use super::Calculator;
use crate::batch::{put, replace, replace_set};
use crate::bgp::Workload;
use crate::config::WorkloadSettings;
use crate::labels::{LabelSet, Pairs};
use crate::local::LocalEndpoint;
use crate::matching::is_host;
use crate::sets::IpSets;
use crate::tiers::Applied;
use crate::tunnels::Wanted;

impl Calculator {
    /// Tunnels, their far ends, and the routes to other nodes. Comes after this node's own routes, which win.
    pub(super) fn flush_remote(&mut self, out: &mut Batch) {
        for (net, route) in &mut out.routes {
            if route.is_none() {
                *route = self.flushed.remote.get(net).or_else(|| self.flushed.peer_routes.get(net)).cloned();
            }
        }
        let labels = self.bgp.labels(&self.node);
        self.tunnels.set_wanted(Wanted {
            vxlan: self.config.vxlan(labels),
            ipip: self.config.ipip(labels),
            blocks: self.config.cluster_routes(labels),
            learned: self.bgp.cluster_routes(&self.node),
            pools: self.routes.encapsulated(),
        });
        if self.tunnels.settle(&self.node) {
            out.tunnels = replace(&mut self.flushed.tunnels, self.tunnels.devices().clone());
            let ipip = self.tunnels.ipip_device().cloned();
            if ipip != self.flushed.ipip {
                self.flushed.ipip.clone_from(&ipip);
                out.ipip = Some(ipip);
            }
            out.vteps = replace(&mut self.flushed.vteps, self.tunnels.vteps().clone());
            self.remote.mark_all();
        }
        self.wireguard.set_settings(self.config.wireguard(self.bgp.labels(&self.node)));
        let (remote, blocks_changed) = (&self.remote, self.remote.is_dirty());
        if let Some(devices) = self.wireguard.take(&self.node, blocks_changed, || remote.held()) {
            out.wireguard = replace(&mut self.flushed.wireguard, devices);
        }
        let routes = &self.routes;
        for (net, route) in self.remote.take(&self.node, &self.tunnels, |block| routes.encap(block)) {
            let told = put(&mut self.flushed.remote, net, route);
            let told = told.map(|(net, route)| (net, route.or_else(|| self.flushed.peer_routes.get(&net).cloned())));
            out.routes.extend(told.filter(|(net, _)| !self.flushed.routes.contains_key(net)));
        }
    }

    pub(super) fn flush_bgp(&mut self, out: &mut Batch) {
        // Nobody else asks for their labels.
        let asked = self.bgp.selects_workloads();
        let mine = self.local.iter().filter(|_| asked).map(|(_, endpoint)| endpoint);
        let workloads: Vec<Workload<'_>> = mine.map(|endpoint| workload(&self.sets, endpoint)).collect();
        if let Some((speaker, mut peers)) = self.bgp.take(&self.node, self.config.started_with.router_id, &workloads) {
            if speaker != self.flushed.bgp_speaker {
                self.flushed.bgp_speaker = speaker.clone();
                out.bgp_speaker = Some(speaker);
            }
            let behind =
                peers.by_address.iter().filter_map(|(addr, peer)| Some((*addr, peer.reachable_by?, &peer.name)));
            let routes = behind.map(|(addr, via, name)| {
                (IpNet::from(addr), Route { target: RouteTarget::Node { node: name.clone(), via } })
            });
            let told = replace(&mut self.flushed.peer_routes, routes.collect());
            let others = |net: &IpNet| self.flushed.routes.contains_key(net) || self.flushed.remote.contains_key(net);
            out.routes.extend(told.into_iter().filter(|(net, _)| !others(net)));
            out.bgp_peers = replace(&mut self.flushed.bgp_peers, std::mem::take(&mut peers.by_address));
            self.flushed.bgp = peers;
            self.flushed.services = self.bgp.services(&self.node, |name| self.sets.behind(name));
        }
        let mut announced = self.flushed.workload_announcements.clone();
        announced.extend(&self.flushed.services);
        out.announcements = replace_set(&mut self.flushed.announcements, announced);
        let singles = self.bgp.asks_for_addresses();
        let prefixes = self.routes.prefixes(&self.local, singles, self.bgp.cluster_routes(&self.node));
        let policy = self.bgp.policy(&self.node, prefixes, &self.flushed.services, &self.flushed.bgp);
        if policy != self.flushed.bgp_policy {
            self.flushed.bgp_policy = policy.clone();
            out.bgp_policy = Some(policy);
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
            let local = self.local.get(&id);
            let applied = self.matching.tiers_of(&id, &mut seen);
            let preview = applied.preview.clone().filter(|_| local.is_some());
            let endpoint = local.map(|local| {
                Arc::new(Endpoint {
                    interface: local.interface.clone(),
                    addresses: local.addresses.clone(),
                    mac: local.mac,
                    tiers: applied.normal.clone(),
                    profiles: self.profiles.listed(&self.sets, &local.profiles),
                    allowed_sources: if source_spoofing { local.allowed_sources.clone() } else { Vec::new() },
                    floating: if floating || local.openstack { local.floating.clone() } else { Vec::new() },
                    limits: local.limits,
                })
            });
            out.previews.extend(put(&mut self.flushed.previews, id.clone(), preview));
            out.endpoints.extend(put(&mut self.flushed.endpoints, id, endpoint));
        }
        let Some(governed) = self.hosts.take() else { return };
        let (mut now, mut previews) = (BTreeMap::new(), BTreeMap::new());
        for (interface, name) in governed {
            let Some(host) = self.hosts.get(&name) else { continue };
            let id = EndpointId { namespace: Arc::from(""), name: name.clone() };
            let applied = self.matching.tiers_of(&id, &mut seen);
            let profiles = self.profiles.listed(&self.sets, &host.profiles);
            let endpoint = |applied: &Applied| {
                // Upstream has no untracked policy for all interfaces.
                let untracked = Some(&applied.untracked).filter(|_| interface != HostInterface::All);
                Arc::new(HostEndpoint {
                    name: name.clone(),
                    untracked: untracked.cloned().unwrap_or_default(),
                    pre_dnat: applied.pre_dnat.clone(),
                    forward: applied.forward.clone(),
                    tiers: applied.normal.clone(),
                    profiles: profiles.clone(),
                })
            };
            previews.extend(applied.host_preview.as_deref().map(|all| (interface.clone(), endpoint(all))));
            now.insert(interface.clone(), endpoint(applied));
        }
        previews.retain(|interface, preview| now.get(interface) != Some(preview));
        out.host_endpoints = replace(&mut self.flushed.host_endpoints, now);
        out.host_previews = replace(&mut self.flushed.host_previews, previews);
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
            (None, Some(now)) => SetChange::Whole { kind: SetKind::Addresses, members: now.clone().into() },
            (_, None) => SetChange::Removed,
        };
        out.sets.insert(SetId::new(SetId::ALL_HOSTS), change);
        self.flushed.all_hosts = now;
    }
}

/// A workload with its own labels and, under other keys, those of its profiles, of which the first wins.
fn workload<'a>(sets: &IpSets, endpoint: &'a LocalEndpoint) -> Workload<'a> {
    let lent: Vec<Pairs<'_>> = endpoint.profiles.iter().rev().filter_map(|name| sets.lent(name)).collect();
    let inherited = lent.iter().flat_map(|pairs| pairs.iter().copied());
    let labels = LabelSet::new(&Pairs::new(inherited.chain(endpoint.labels.iter())));
    Workload { labels, addresses: &endpoint.addresses, interface: &endpoint.interface }
}
