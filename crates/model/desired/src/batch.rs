//! An ordered change to the desired tables. Batches merge: memory is bounded by objects, not by events.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::{
    BgpPeer, BgpPolicy, BgpSpeaker, Endpoint, EndpointId, HostEndpoint, HostInterface, Ipip, Member, Members, Policy,
    PolicyId, Pool, Profile, Route, SetId, SetKind, Settings, TierPolicies, TunnelDevice, Vtep, Vxlan, Wireguard,
};
use tortie_net::Family;

/// What happens to one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetChange {
    /// The set is new, or all of it is replaced.
    Whole {
        /// Kind of the set.
        kind: SetKind,
        /// All members.
        members: Members,
    },
    /// Members change; `added` and `removed` share no member.
    Delta {
        /// Members that come.
        added: BTreeSet<Member>,
        /// Members that go.
        removed: BTreeSet<Member>,
    },
    /// The set goes.
    Removed,
}

/// A change to [`crate::Tables`]. `None` as a value removes the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// New settings.
    pub settings: Option<Settings>,
    /// Sets.
    pub sets: BTreeMap<SetId, SetChange>,
    /// Policies.
    pub policies: BTreeMap<PolicyId, Option<Arc<Policy>>>,
    /// Staged policies.
    pub staged: BTreeMap<PolicyId, Option<Arc<Policy>>>,
    /// The tiers of endpoints as they were if staged policies were enforced.
    pub previews: BTreeMap<EndpointId, Option<Arc<[TierPolicies]>>>,
    /// Host endpoints as they were if staged policies were enforced.
    pub host_previews: BTreeMap<HostInterface, Option<Arc<HostEndpoint>>>,
    /// Profiles.
    pub profiles: BTreeMap<Arc<str>, Option<Arc<Profile>>>,
    /// Endpoints.
    pub endpoints: BTreeMap<EndpointId, Option<Arc<Endpoint>>>,
    /// Host endpoints.
    pub host_endpoints: BTreeMap<HostInterface, Option<Arc<HostEndpoint>>>,
    /// Pools.
    pub pools: BTreeMap<IpNet, Option<Pool>>,
    /// VXLAN devices.
    pub tunnels: BTreeMap<TunnelDevice, Option<Vxlan>>,
    /// The IPIP device; the inner `None` takes it away.
    pub ipip: Option<Option<Ipip>>,
    /// WireGuard devices.
    pub wireguard: BTreeMap<Family, Option<Wireguard>>,
    /// Far ends of tunnels.
    pub vteps: BTreeMap<IpAddr, Option<Vtep>>,
    /// Routes.
    pub routes: BTreeMap<IpNet, Option<Route>>,
    /// The BGP identity; the inner `None` stops the speaker.
    pub bgp_speaker: Option<Option<BgpSpeaker>>,
    /// What holds for all BGP sessions.
    pub bgp_policy: Option<BgpPolicy>,
    /// BGP peers.
    pub bgp_peers: BTreeMap<IpAddr, Option<BgpPeer>>,
    /// Announced prefixes: present or not.
    pub announcements: BTreeMap<IpNet, bool>,
}

/// One step of a batch's safe order, for backends that can't commit everything at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A set comes or changes.
    Set(&'a SetId, &'a SetChange),
    /// A policy comes, changes or goes.
    Policy(&'a PolicyId, Option<&'a Arc<Policy>>),
    /// A profile comes, changes or goes.
    Profile(&'a Arc<str>, Option<&'a Arc<Profile>>),
    /// An endpoint comes, changes or goes.
    Endpoint(&'a EndpointId, Option<&'a Arc<Endpoint>>),
    /// A host endpoint comes, changes or goes.
    HostEndpoint(&'a HostInterface, Option<&'a Arc<HostEndpoint>>),
    /// A VXLAN device comes, changes or goes.
    Tunnel(TunnelDevice, Option<&'a Vxlan>),
    /// The IPIP device comes, changes or goes.
    Ipip(Option<&'a Ipip>),
    /// A WireGuard device comes, changes or goes.
    Wireguard(Family, Option<&'a Wireguard>),
    /// A tunnel's far end comes, changes or goes.
    Vtep(&'a IpAddr, Option<&'a Vtep>),
    /// A route comes, changes or goes.
    Route(&'a IpNet, Option<&'a Route>),
}

impl Batch {
    /// Whether the batch changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Batch::default()
    }

    /// The steps in a safe order: upserts from sets up to routes, then removals from routes down to sets. What is
    /// staged is no part of it, as no backend programs it.
    pub fn in_order(&self) -> impl Iterator<Item = Step<'_>> {
        let sets = |gone: bool| {
            self.sets.iter().filter(move |(_, c)| (**c == SetChange::Removed) == gone).map(|(k, c)| Step::Set(k, c))
        };
        let policies = |gone: bool| part(&self.policies, gone).map(|(k, v)| Step::Policy(k, v));
        let profiles = |gone: bool| part(&self.profiles, gone).map(|(k, v)| Step::Profile(k, v));
        let endpoints = |gone: bool| part(&self.endpoints, gone).map(|(k, v)| Step::Endpoint(k, v));
        let hosts = |gone: bool| part(&self.host_endpoints, gone).map(|(k, v)| Step::HostEndpoint(k, v));
        let tunnels = |gone: bool| part(&self.tunnels, gone).map(|(k, v)| Step::Tunnel(*k, v));
        let ipip = |gone: bool| {
            self.ipip.iter().map(Option::as_ref).filter(move |ipip| ipip.is_none() == gone).map(Step::Ipip)
        };
        let wireguard = |gone: bool| part(&self.wireguard, gone).map(|(k, v)| Step::Wireguard(*k, v));
        let vteps = |gone: bool| part(&self.vteps, gone).map(|(k, v)| Step::Vtep(k, v));
        let routes = |gone: bool| part(&self.routes, gone).map(|(k, v)| Step::Route(k, v));
        let up = sets(false).chain(policies(false)).chain(profiles(false)).chain(endpoints(false)).chain(hosts(false));
        let up = up.chain(tunnels(false)).chain(ipip(false)).chain(vteps(false)).chain(routes(false));
        let up = up.chain(wireguard(false));
        let down = wireguard(true)
            .chain(routes(true))
            .chain(vteps(true))
            .chain(ipip(true))
            .chain(tunnels(true))
            .chain(hosts(true))
            .chain(endpoints(true))
            .chain(profiles(true))
            .chain(policies(true))
            .chain(sets(true));
        up.chain(down)
    }

    /// Adds a later batch, so that applying the result equals applying both in turn.
    pub fn merge(&mut self, later: Batch) {
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
        } = later;
        if settings.is_some() {
            self.settings = settings;
        }
        for (id, change) in sets {
            match self.sets.remove(&id) {
                Some(earlier) => self.sets.insert(id, merge_sets(earlier, change)),
                None => self.sets.insert(id, change),
            };
        }
        self.policies.extend(policies);
        self.staged.extend(staged);
        self.previews.extend(previews);
        self.host_previews.extend(host_previews);
        self.profiles.extend(profiles);
        self.endpoints.extend(endpoints);
        self.host_endpoints.extend(host_endpoints);
        self.pools.extend(pools);
        self.tunnels.extend(tunnels);
        if ipip.is_some() {
            self.ipip = ipip;
        }
        self.wireguard.extend(wireguard);
        self.vteps.extend(vteps);
        self.routes.extend(routes);
        if bgp_speaker.is_some() {
            self.bgp_speaker = bgp_speaker;
        }
        if bgp_policy.is_some() {
            self.bgp_policy = bgp_policy;
        }
        self.bgp_peers.extend(bgp_peers);
        self.announcements.extend(announcements);
    }
}

fn part<K, V>(map: &BTreeMap<K, Option<V>>, gone: bool) -> impl Iterator<Item = (&K, Option<&V>)> {
    map.iter().filter(move |(_, v)| v.is_none() == gone).map(|(k, v)| (k, v.as_ref()))
}

fn merge_sets(earlier: SetChange, later: SetChange) -> SetChange {
    match (earlier, later) {
        (_, later @ (SetChange::Whole { .. } | SetChange::Removed)) => later,
        (SetChange::Whole { kind, mut members }, SetChange::Delta { added, removed }) => {
            for member in &removed {
                members.remove(member);
            }
            members.extend(added);
            SetChange::Whole { kind, members }
        }
        (SetChange::Delta { added: mut all, removed: mut gone }, SetChange::Delta { added, removed }) => {
            for member in removed {
                all.remove(&member);
                gone.insert(member);
            }
            for member in added {
                gone.remove(&member);
                all.insert(member);
            }
            SetChange::Delta { added: all, removed: gone }
        }
        // A delta to a set that is gone has nothing to change.
        (SetChange::Removed, SetChange::Delta { added: _, removed: _ }) => SetChange::Removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tables;

    fn member(text: &str) -> Member {
        Member::Net(text.parse().expect("a literal prefix"))
    }

    fn delta(added: &[&str], removed: &[&str]) -> Batch {
        let change = SetChange::Delta {
            added: added.iter().map(|t| member(t)).collect(),
            removed: removed.iter().map(|t| member(t)).collect(),
        };
        Batch { sets: BTreeMap::from([(SetId::new("s:1"), change)]), ..Batch::default() }
    }

    fn whole(members: &[&str]) -> Batch {
        let change =
            SetChange::Whole { kind: SetKind::Addresses, members: members.iter().map(|t| member(t)).collect() };
        Batch { sets: BTreeMap::from([(SetId::new("s:1"), change)]), ..Batch::default() }
    }

    #[test]
    fn merging_equals_applying_in_turn() {
        let gone = Batch { sets: BTreeMap::from([(SetId::new("s:1"), SetChange::Removed)]), ..Batch::default() };
        let steps = [
            whole(&["10.0.0.1/32", "10.0.0.2/32"]),
            delta(&["10.0.0.3/32"], &["10.0.0.1/32"]),
            delta(&["10.0.0.1/32"], &["10.0.0.3/32"]),
            gone,
        ];
        for a in &steps {
            for b in &steps {
                for c in &steps {
                    let mut in_turn = Tables::default();
                    in_turn.apply(&steps[0]);
                    let mut at_once = in_turn.clone();
                    let mut merged = a.clone();
                    merged.merge(b.clone());
                    merged.merge(c.clone());
                    for step in [a, b, c] {
                        in_turn.apply(step);
                    }
                    at_once.apply(&merged);
                    assert_eq!(in_turn, at_once, "{a:?} {b:?} {c:?}");
                }
            }
        }
    }

    #[test]
    fn references_come_after_their_referents_and_go_before_them() {
        let mut batch = whole(&[]);
        batch.sets.insert(SetId::new("s:0"), SetChange::Removed);
        let profile = |name: &str, there: bool| (Arc::from(name), there.then(|| Arc::new(Profile::default())));
        batch.profiles.extend([profile("old", false), profile("new", true)]);
        let kinds: Vec<_> = batch
            .in_order()
            .map(|step| match step {
                Step::Set(id, _) => id.to_string(),
                Step::Profile(name, _) => name.to_string(),
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert_eq!(kinds, ["s:1", "new", "old", "s:0"]);
    }
}
