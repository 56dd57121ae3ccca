//! In what order do policies apply to an endpoint?
//!
//! Tiers by order (none is last), then name; policies by order, then upstream's text `name/namespace/kind`. The tier
//! `default` and those of Kubernetes' cluster policies are there even when nobody made them. A tier that is missing comes after all others and ends in `Deny`, as
//! upstream: its policies close what they select, and open what they allow, but never before anything else.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use tortie_desired::{PolicyId, PolicyKind, PolicyStage, TierAction, TierPolicies};

use crate::strings::TierName;

/// Tiers with fixed settings, by name.
const BUILT_IN: [(&str, Tier); 3] = [
    ("default", Tier { order: 1_000_000.0, action: TierAction::Deny }),
    ("kube-admin", Tier { order: 1_000.0, action: TierAction::Pass }),
    ("kube-baseline", Tier { order: 10_000_000.0, action: TierAction::Pass }),
];

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tier {
    /// Infinite if none is given.
    pub(crate) order: f64,
    pub(crate) action: TierAction,
}

/// A policy's place among all.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) id: PolicyId,
    pub(crate) tier: TierName,
    /// Infinite if none is given.
    pub(crate) order: f64,
    pub(crate) scope: Scope,
}

impl Place {
    /// The order within a tier.
    fn cmp(&self, other: &Place) -> Ordering {
        self.order.total_cmp(&other.order).then_with(|| compare_ties(&self.id, &other.id))
    }
}

/// As [`tie`] of both compares: most names differ before one of them ends.
fn compare_ties(a: &PolicyId, b: &PolicyId) -> Ordering {
    let (a_name, b_name) = (a.name.as_bytes(), b.name.as_bytes());
    let both = a_name.len().min(b_name.len());
    a_name[..both].cmp(&b_name[..both]).then_with(|| tie(a).cmp(tie(b)))
}

/// The bytes of `name/namespace/kind`. The slash counts: `a-b` comes before `a`.
fn tie(id: &PolicyId) -> impl Iterator<Item = u8> {
    let kind = match id.kind {
        PolicyKind::GlobalNetworkPolicy => "GlobalNetworkPolicy",
        PolicyKind::KubernetesClusterNetworkPolicy => "KubernetesClusterNetworkPolicy",
        PolicyKind::KubernetesNetworkPolicy => "KubernetesNetworkPolicy",
        PolicyKind::NetworkPolicy => "NetworkPolicy",
        PolicyKind::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
        PolicyKind::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
        PolicyKind::StagedNetworkPolicy => "StagedNetworkPolicy",
    };
    [&*id.name, "/", &*id.namespace, "/", kind].into_iter().flat_map(str::bytes)
}

/// To what a policy applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub(crate) ingress: bool,
    pub(crate) egress: bool,
    pub(crate) stage: PolicyStage,
    /// Whether it is for what is forwarded through a host endpoint too.
    pub(crate) forward: bool,
}

/// The policies of an endpoint by where they are evaluated; workloads have the normal ones only.
#[derive(Clone, Debug, Default)]
pub(crate) struct Applied {
    pub(crate) normal: Vec<TierPolicies>,
    pub(crate) forward: Vec<TierPolicies>,
    pub(crate) pre_dnat: Vec<TierPolicies>,
    pub(crate) untracked: Vec<TierPolicies>,
    /// `normal` if staged policies were enforced; `None` if that makes no difference.
    pub(crate) preview: Option<Arc<[TierPolicies]>>,
    /// The same of all lists, for host endpoints.
    pub(crate) host_preview: Option<Arc<Applied>>,
}

/// No policy at all.
pub(crate) static NONE: Applied = Applied {
    normal: Vec::new(),
    forward: Vec::new(),
    pre_dnat: Vec::new(),
    untracked: Vec::new(),
    preview: None,
    host_preview: None,
};

/// Adds a policy to the tier that is being filled, which is the last of the list.
fn add(list: &mut Vec<TierPolicies>, tier: &TierPolicies, id: &PolicyId, ingress: bool, egress: bool) {
    if !ingress && !egress {
        return;
    }
    if list.last().is_none_or(|last| last.tier != tier.tier) {
        list.push(tier.clone());
    }
    let Some(last) = list.last_mut() else { return };
    last.ingress.extend(ingress.then(|| id.clone()));
    last.egress.extend(egress.then(|| id.clone()));
}

/// All tiers.
#[derive(Debug, Default)]
pub(crate) struct Tiers {
    known: BTreeMap<Arc<str>, Tier>,
}

impl Tiers {
    /// A tier came, changed or went; whether that was news.
    pub(crate) fn set(&mut self, name: &str, tier: Option<Tier>) -> bool {
        if self.known.get(name) == tier.as_ref() {
            return false;
        }
        match tier {
            Some(tier) => self.known.insert(Arc::from(name), tier),
            None => self.known.remove(name),
        };
        true
    }

    pub(crate) fn is_missing(&self, name: &str) -> bool {
        built_in(name).is_none() && !self.known.contains_key(name)
    }

    /// These policies by tier and in order. Tiers without any are left out.
    pub(crate) fn of<'a>(&self, policies: impl Iterator<Item = &'a Place>) -> Applied {
        let mut by_tier: BTreeMap<&Arc<str>, Vec<&Place>> = BTreeMap::new();
        for place in policies {
            by_tier.entry(&*place.tier).or_default().push(place);
        }
        let mut tiers: Vec<(&Arc<str>, Vec<&Place>)> = by_tier.into_iter().collect();
        // Stable, so names decide among equals.
        tiers.sort_by(|(a, _), (b, _)| {
            let missing = self.is_missing(a).cmp(&self.is_missing(b));
            missing.then(self.get(a).order.total_cmp(&self.get(b).order))
        });
        for (_, places) in &mut tiers {
            places.sort_by(|a, b| a.cmp(b));
        }
        let staged = tiers.iter().flat_map(|(_, places)| places).any(|place| place.id.kind.staged());
        let enforced = self.filtered(&tiers, false);
        if !staged {
            return enforced;
        }
        let all = self.filtered(&tiers, true);
        let preview = (all.normal != enforced.normal).then(|| all.normal.as_slice().into());
        Applied { preview, host_preview: Some(Arc::new(all)), ..enforced }
    }

    /// The policies with or without staged ones.
    fn filtered(&self, tiers: &[(&Arc<str>, Vec<&Place>)], with_staged: bool) -> Applied {
        let mut out = Applied::default();
        for (name, places) in tiers {
            let empty = |default_action| TierPolicies {
                tier: (*name).clone(),
                default_action,
                ingress: Vec::new(),
                egress: Vec::new(),
            };
            // What is evaluated early never ends a packet's way by itself.
            let (tier, early) = (empty(self.get(name).action), empty(TierAction::Pass));
            for Place { id, tier: _, order: _, scope } in places.iter().copied() {
                if id.kind.staged() && !with_staged {
                    continue;
                }
                let Scope { ingress, egress, stage, forward } = *scope;
                match stage {
                    PolicyStage::Untracked => add(&mut out.untracked, &early, id, ingress, egress),
                    PolicyStage::PreDnat => add(&mut out.pre_dnat, &early, id, ingress, false),
                    PolicyStage::Normal => {
                        add(&mut out.normal, &tier, id, ingress, egress);
                        if forward {
                            add(&mut out.forward, &tier, id, ingress, egress);
                        }
                    }
                }
            }
        }
        out
    }

    fn get(&self, name: &str) -> Tier {
        let missing = Tier { order: f64::INFINITY, action: TierAction::Deny };
        self.known.get(name).copied().or_else(|| built_in(name)).unwrap_or(missing)
    }
}

fn built_in(name: &str) -> Option<Tier> {
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, tier)| *tier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_broken_by_upstreams_text() {
        let scope = Scope { ingress: true, egress: true, stage: PolicyStage::Normal, forward: false };
        let rank = |order, name: &str, namespace: &str, kind| Place {
            id: PolicyId { name: name.into(), namespace: namespace.into(), kind },
            tier: Arc::new("default".into()),
            order,
            scope,
        };
        let sorted = [
            rank(-1.0, "z", "", PolicyKind::GlobalNetworkPolicy),
            rank(1.0, "a-b", "ns", PolicyKind::NetworkPolicy),
            rank(1.0, "a", "", PolicyKind::GlobalNetworkPolicy),
            rank(1.0, "a", "ns", PolicyKind::NetworkPolicy),
            rank(1.0, "ab", "ns", PolicyKind::NetworkPolicy),
            rank(f64::INFINITY, "a", "ns", PolicyKind::NetworkPolicy),
        ];
        assert!(sorted.is_sorted_by(|a, b| a.cmp(b).is_lt()));
    }

    #[test]
    fn ties_compare_as_their_texts() {
        let names = ["", "a", "a-", "a-b", "a.b", "a/b", "ab", "b"];
        let kinds = [PolicyKind::NetworkPolicy, PolicyKind::StagedNetworkPolicy];
        let ids: Vec<PolicyId> = names
            .iter()
            .flat_map(|name| names.map(|namespace| (*name, namespace)))
            .flat_map(|(name, namespace)| kinds.map(|kind| (name, namespace, kind)))
            .map(|(name, namespace, kind)| PolicyId { name: name.into(), namespace: namespace.into(), kind })
            .collect();
        for (a, b) in ids.iter().flat_map(|a| ids.iter().map(move |b| (a, b))) {
            assert_eq!(compare_ties(a, b), tie(a).cmp(tie(b)), "{a:?} {b:?}");
        }
    }
}
