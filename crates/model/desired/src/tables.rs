//! The whole desired state of one node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::{
    Batch, BgpPeer, BgpPolicy, BgpSpeaker, Endpoint, EndpointId, HostEndpoint, HostInterface, Ipip, Members, Policy,
    PolicyId, Pool, Profile, Route, SetChange, SetId, SetKind, Settings, TierPolicies, TunnelDevice, Vtep, Vxlan,
    Wireguard,
};
use tortie_net::Family;

/// Everything that one node's dataplane should hold, kinds in dependency order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Settings of the node.
    pub settings: Settings,
    /// Sets with their members.
    pub sets: BTreeMap<SetId, (SetKind, Members)>,
    /// Active policies.
    pub policies: BTreeMap<PolicyId, Arc<Policy>>,
    /// Active profiles.
    pub profiles: BTreeMap<Arc<str>, Arc<Profile>>,
    /// Staged policies that select a local endpoint. Never enforced: no backend reads them.
    pub staged: BTreeMap<PolicyId, Arc<Policy>>,
    /// The tiers of local endpoints that a staged policy selects, as they were if staged policies were enforced too.
    pub previews: BTreeMap<EndpointId, Arc<[TierPolicies]>>,
    /// The host endpoints that a staged policy selects, as they were if staged policies were enforced too.
    pub host_previews: BTreeMap<HostInterface, Arc<HostEndpoint>>,
    /// Local endpoints.
    pub endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
    /// The policy of the node's own interfaces.
    pub host_endpoints: BTreeMap<HostInterface, Arc<HostEndpoint>>,
    /// Pools by prefix.
    pub pools: BTreeMap<IpNet, Pool>,
    /// VXLAN devices.
    pub tunnels: BTreeMap<TunnelDevice, Vxlan>,
    /// The IPIP device.
    pub ipip: Option<Ipip>,
    /// WireGuard devices.
    pub wireguard: BTreeMap<Family, Wireguard>,
    /// Far ends of tunnels, by the address of their device; unique.
    pub vteps: BTreeMap<IpAddr, Vtep>,
    /// Routes by prefix.
    pub routes: BTreeMap<IpNet, Route>,
    /// This node's BGP identity; `None` when it does not speak BGP.
    pub bgp_speaker: Option<BgpSpeaker>,
    /// What holds for all BGP sessions.
    pub bgp_policy: BgpPolicy,
    /// BGP peers by address.
    pub bgp_peers: BTreeMap<IpAddr, BgpPeer>,
    /// Prefixes that this node announces.
    pub announcements: BTreeSet<IpNet>,
}

impl Tables {
    /// Applies a batch. Removing what is not there, or a delta to a set that is not there, changes nothing else.
    pub fn apply(&mut self, batch: &Batch) {
        let Batch {
            settings,
            sets,
            policies,
            staged,
            previews,
            host_previews,
            profiles,
            endpoints,
            host_endpoints,
            pools,
            tunnels,
            ipip,
            wireguard,
            vteps,
            routes,
            bgp_speaker,
            bgp_policy,
            bgp_peers,
            announcements,
        } = batch;
        if let Some(settings) = settings {
            self.settings = settings.clone();
        }
        for (id, change) in sets {
            match change {
                SetChange::Whole { kind, members } => {
                    self.sets.insert(id.clone(), (*kind, members.clone()));
                }
                SetChange::Delta { added, removed } => {
                    if let Some((_, members)) = self.sets.get_mut(id) {
                        for member in removed {
                            members.remove(member);
                        }
                        members.extend(added.iter().copied());
                    }
                }
                SetChange::Removed => {
                    self.sets.remove(id);
                }
            }
        }
        put_all(&mut self.policies, policies);
        put_all(&mut self.staged, staged);
        put_all(&mut self.previews, previews);
        put_all(&mut self.host_previews, host_previews);
        put_all(&mut self.profiles, profiles);
        put_all(&mut self.endpoints, endpoints);
        put_all(&mut self.host_endpoints, host_endpoints);
        put_all(&mut self.pools, pools);
        put_all(&mut self.tunnels, tunnels);
        if let Some(ipip) = ipip {
            self.ipip.clone_from(ipip);
        }
        put_all(&mut self.wireguard, wireguard);
        put_all(&mut self.vteps, vteps);
        put_all(&mut self.routes, routes);
        if let Some(speaker) = bgp_speaker {
            self.bgp_speaker = speaker.clone();
        }
        if let Some(policy) = bgp_policy {
            self.bgp_policy = policy.clone();
        }
        put_all(&mut self.bgp_peers, bgp_peers);
        for (net, present) in announcements {
            if *present {
                self.announcements.insert(*net);
            } else {
                self.announcements.remove(net);
            }
        }
    }
}

fn put_all<K: Clone + Ord, V: Clone>(table: &mut BTreeMap<K, V>, changes: &BTreeMap<K, Option<V>>) {
    for (key, value) in changes {
        match value {
            Some(value) => table.insert(key.clone(), value.clone()),
            None => table.remove(key),
        };
    }
}
