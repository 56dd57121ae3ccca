//! What holds of any tables.

use std::collections::BTreeSet;

use tortie_desired::{
    Batch, HostEndpoint, Member, RouteTarget, Rule, SetChange, SetId, SetKind, Step, Tables, TunnelDevice,
};

fn sets_of(rules: &[Rule]) -> impl Iterator<Item = &SetId> {
    rules.iter().flat_map(|rule| rule.source.set_ids().chain(rule.destination.set_ids()))
}

/// Panics unless every reference is met, nothing is there without a use, and members suit their sets.
pub fn tables(tables: &Tables) {
    let mut used_sets = BTreeSet::new();
    let (mut used_policies, mut used_profiles) = (BTreeSet::new(), BTreeSet::new());
    for policy in tables.policies.values() {
        used_sets.extend(sets_of(&policy.ingress).chain(sets_of(&policy.egress)));
    }
    for policy in tables.staged.values() {
        used_sets.extend(sets_of(&policy.ingress).chain(sets_of(&policy.egress)));
    }
    for profile in tables.profiles.values() {
        used_sets.extend(sets_of(&profile.ingress).chain(sets_of(&profile.egress)));
    }
    for endpoint in tables.endpoints.values() {
        assert!(endpoint.addresses.is_sorted(), "{endpoint:?}");
        used_profiles.extend(endpoint.profiles.iter());
        for tier in &endpoint.tiers {
            assert!(!(tier.ingress.is_empty() && tier.egress.is_empty()), "{endpoint:?}");
            used_policies.extend(tier.ingress.iter().chain(&tier.egress));
        }
    }
    for endpoint in tables.host_endpoints.values() {
        used_profiles.extend(endpoint.profiles.iter());
        let HostEndpoint { name: _, untracked, pre_dnat, forward, tiers, profiles: _ } = &**endpoint;
        for tier in [untracked, pre_dnat, forward, tiers].into_iter().flatten() {
            assert!(!(tier.ingress.is_empty() && tier.egress.is_empty()), "{endpoint:?}");
            used_policies.extend(tier.ingress.iter().chain(&tier.egress));
        }
    }
    let all_hosts = SetId::new(SetId::ALL_HOSTS);
    if tables.settings.nat.exclude_hosts {
        used_sets.insert(&all_hosts);
    }
    let previewed = tables.previews.iter().flat_map(|(id, tiers)| {
        assert!(tables.endpoints.contains_key(id), "{id}");
        tiers.iter().flat_map(|tier| tier.ingress.iter().chain(&tier.egress))
    });
    let on_hosts = tables.host_previews.iter().flat_map(|(interface, endpoint)| {
        assert!(tables.host_endpoints.contains_key(interface), "{interface}");
        let HostEndpoint { name: _, untracked, pre_dnat, forward, tiers, profiles: _ } = &**endpoint;
        let tiers = [untracked, pre_dnat, forward, tiers].into_iter().flatten();
        tiers.flat_map(|tier| tier.ingress.iter().chain(&tier.egress))
    });
    let used_staged: BTreeSet<_> = previewed.chain(on_hosts).filter(|policy| policy.kind.staged()).collect();
    let staged = tables.staged.keys().collect::<BTreeSet<_>>();
    assert!(staged.is_superset(&used_staged), "staged policies");
    assert!(staged == used_staged || !tables.host_endpoints.is_empty(), "staged policies");
    assert!(used_policies.iter().all(|policy| !policy.kind.staged()), "a staged policy is enforced");
    assert_eq!(tables.sets.keys().collect::<BTreeSet<_>>(), used_sets, "sets");
    let policies = tables.policies.keys().collect::<BTreeSet<_>>();
    if tables.host_endpoints.is_empty() {
        assert_eq!(policies, used_policies, "policies");
    } else {
        // Untracked policy of the host endpoint of all interfaces is of no use.
        assert!(policies.is_superset(&used_policies), "policies");
    }
    assert!(used_profiles.iter().all(|name| tables.profiles.contains_key(*name)), "profiles");
    for (net, route) in &tables.routes {
        if let RouteTarget::Tunnel { device, node, via } = &route.target {
            let far = if *device == TunnelDevice::Ipip {
                tables.ipip.as_ref().and_then(|ipip| ipip.peers.get(via))
            } else {
                assert!(tables.tunnels.contains_key(device), "{net}: {route:?}");
                tables.vteps.get(via).map(|vtep| &vtep.node)
            };
            assert_eq!(far, Some(node), "{net}: {route:?}");
        }
    }
    for (id, (kind, members)) in &tables.sets {
        for member in members {
            let fits = match (kind, member) {
                (SetKind::Addresses, Member::Net(net)) => net.prefix_len() == net.max_prefix_len(),
                (SetKind::Nets, Member::Net(net)) => *net == net.trunc(),
                (SetKind::Ports, Member::Port { addr: _, protocol: _, port: _ }) => true,
                (SetKind::Addresses | SetKind::Nets, Member::Port { addr: _, protocol: _, port: _ })
                | (SetKind::Ports, Member::Net(_)) => false,
            };
            assert!(fits, "{member:?} in {kind:?} {id}");
        }
    }
}

/// Panics unless the batch changes just what it says, and each of its steps meets its references.
pub fn batch(before: &Tables, batch: &Batch) {
    for (id, change) in &batch.sets {
        let old = before.sets.get(id);
        match change {
            SetChange::Whole { kind, members: _ } => {
                assert!(old.is_none_or(|(old, _)| old != kind), "{id} is told whole without need");
            }
            SetChange::Delta { added, removed } => {
                let (_, members) = old.unwrap_or_else(|| panic!("a delta to {id}, which is not there"));
                let news = added.iter().all(|member| !members.contains(member));
                assert!(news && removed.iter().all(|member| members.contains(member)), "{id}: {change:?}");
                assert!(!(added.is_empty() && removed.is_empty()), "{id}: an empty delta");
            }
            SetChange::Removed => assert!(old.is_some(), "{id} is removed but was not there"),
        }
    }
    let mut sets: BTreeSet<SetId> = before.sets.keys().cloned().collect();
    let mut policies: BTreeSet<_> = before.policies.keys().cloned().collect();
    let mut tunnels: BTreeSet<_> = before.tunnels.keys().copied().collect();
    tunnels.extend(before.ipip.as_ref().map(|_| TunnelDevice::Ipip));
    let mut vteps: BTreeSet<_> = before.vteps.keys().copied().collect();
    for step in batch.in_order() {
        match step {
            Step::Set(id, SetChange::Removed) => assert!(sets.remove(id), "{id}"),
            Step::Set(id, SetChange::Whole { .. } | SetChange::Delta { .. }) => {
                sets.insert(id.clone());
            }
            Step::Policy(id, Some(policy)) => {
                assert_ne!(before.policies.get(id), Some(policy), "{id} did not change");
                assert!(sets_of(&policy.ingress).chain(sets_of(&policy.egress)).all(|set| sets.contains(set)), "{id}");
                policies.insert(id.clone());
            }
            Step::Policy(id, None) => assert!(policies.remove(id), "{id}"),
            Step::Endpoint(id, Some(endpoint)) => {
                assert_ne!(before.endpoints.get(id), Some(endpoint), "{id} did not change");
                let used = endpoint.tiers.iter().flat_map(|tier| tier.ingress.iter().chain(&tier.egress));
                assert!(used.into_iter().all(|policy| policies.contains(policy)), "{id}");
            }
            Step::Endpoint(id, None) => assert!(before.endpoints.contains_key(id), "{id}"),
            Step::HostEndpoint(interface, Some(endpoint)) => {
                assert_ne!(before.host_endpoints.get(interface), Some(endpoint), "{interface} did not change");
                let HostEndpoint { name: _, untracked, pre_dnat, forward, tiers, profiles: _ } = &**endpoint;
                let lists = [untracked, pre_dnat, forward, tiers].into_iter().flatten();
                let mut used = lists.flat_map(|tier| tier.ingress.iter().chain(&tier.egress));
                assert!(used.all(|policy| policies.contains(policy)), "{interface}");
            }
            Step::HostEndpoint(interface, None) => {
                assert!(before.host_endpoints.contains_key(interface), "{interface}");
            }
            Step::Tunnel(device, Some(_)) => drop(tunnels.insert(device)),
            Step::Tunnel(device, None) => assert!(tunnels.remove(&device), "{device}"),
            Step::Ipip(Some(_)) => drop(tunnels.insert(TunnelDevice::Ipip)),
            Step::Ipip(None) => assert!(tunnels.remove(&TunnelDevice::Ipip)),
            Step::Wireguard(_, Some(device)) => {
                let mut seen: BTreeSet<_> = device.plain.iter().collect();
                let mut keys = BTreeSet::new();
                for peer in device.peers.values() {
                    assert!(keys.insert(peer.key), "{device:?}");
                    assert!(peer.allowed.iter().all(|net| seen.insert(net)), "{device:?}");
                }
            }
            Step::Wireguard(family, None) => assert!(before.wireguard.contains_key(&family)),
            Step::Vtep(addr, Some(_)) => drop(vteps.insert(*addr)),
            Step::Vtep(addr, None) => assert!(vteps.remove(addr), "{addr}"),
            Step::Route(net, Some(route)) => {
                if let RouteTarget::Tunnel { device, node: _, via } = &route.target {
                    let far = *device == TunnelDevice::Ipip || vteps.contains(via);
                    assert!(tunnels.contains(device) && far, "{net}: {route:?}");
                }
            }
            Step::Route(net, None) => assert!(before.routes.contains_key(net), "{net}"),
            Step::Profile(..) => {}
        }
    }
}
