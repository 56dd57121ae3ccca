//! What Kubernetes' own objects say, kept as copies in a datastore that is apart from Kubernetes' API: NetworkPolicies as
//! policies `knp.default.NAME`, namespaces and service accounts as profiles, labels of pods on their endpoints. As
//! upstream, a copy is made, corrected and deleted, and its metadata are left alone.

use std::collections::{BTreeMap, BTreeSet};

use tortie_api::{Kind, Metadata, NetworkPolicy, Profile, Resource, WorkloadEndpoint};
use tortie_facts::{Filter, Key};

/// What the copy's name begins with, before the name of Kubernetes' policy.
const POLICY: &str = "knp.default.";

/// Which copies are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// NetworkPolicies.
    pub policies: bool,
    /// Namespaces, as profiles.
    pub namespaces: bool,
    /// Service accounts, as profiles.
    pub accounts: bool,
    /// Labels and service accounts of pods, on endpoints that a node made.
    pub pods: bool,
}

/// A write that brings the copies closer.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// There is no copy yet.
    Create(Resource),
    /// The copy differs; it is to be replaced as it is known.
    Replace(Resource),
    /// What was copied is gone.
    Delete(Key),
}

/// What a copy is made of, by its kind in Kubernetes; `None` for a key that is no copy.
fn copied(which: Copied, key: &Key) -> Option<(Kind, bool)> {
    let Key::Resource { kind, namespace: _, name } = key else { return None };
    match kind {
        Kind::NetworkPolicy if name.starts_with(POLICY) => Some((Kind::KubernetesNetworkPolicy, which.policies)),
        Kind::Profile if name.starts_with("kns.") => Some((Kind::Profile, which.namespaces)),
        Kind::Profile if name.starts_with("ksa.") => Some((Kind::Profile, which.accounts)),
        _ => None,
    }
}

/// Whether a key of the datastore may be a copy, other than an endpoint.
pub fn is_copy(key: &Key) -> bool {
    let all = Copied { policies: true, namespaces: true, accounts: true, pods: true };
    copied(all, key).is_some()
}

/// What to follow in Kubernetes.
pub fn copied_filter() -> Filter {
    Filter::Any([Kind::KubernetesNetworkPolicy, Kind::Profile].map(Filter::Kind).to_vec())
}

/// The object of Kubernetes that a copy is of, as the fact that the Kubernetes API tells.
pub fn source_of(copy: &Key) -> Option<Key> {
    match copy {
        Key::Resource { kind: Kind::NetworkPolicy, namespace, name } => {
            Some(Key::resource(Kind::KubernetesNetworkPolicy, namespace, name.strip_prefix(POLICY)?))
        }
        Key::Resource { kind: Kind::Profile, .. } => Some(copy.clone()),
        _ => None,
    }
}

/// The copy of a fact of Kubernetes, as it is made.
fn copy_of(fact: &Resource) -> Option<Resource> {
    match fact {
        Resource::KubernetesNetworkPolicy(policy) => {
            let name = format!("{POLICY}{}", policy.metadata.name);
            let metadata = Metadata::in_namespace(&policy.metadata.namespace, name);
            Some(NetworkPolicy { metadata, spec: policy.spec.clone() }.into())
        }
        Resource::Profile(profile) => {
            let metadata = Metadata::named(&profile.metadata.name);
            Some(Profile { metadata, spec: profile.spec.clone() }.into())
        }
        _ => None,
    }
}

/// The stored copy with the contents of the wanted one; `None` if it has them.
fn corrected(stored: &Resource, wanted: &Resource) -> Option<Resource> {
    match (stored, wanted) {
        (Resource::NetworkPolicy(old), Resource::NetworkPolicy(new)) if old.spec != new.spec => {
            Some(NetworkPolicy { metadata: old.metadata.clone(), spec: new.spec.clone() }.into())
        }
        (Resource::Profile(old), Resource::Profile(new)) if old.spec != new.spec => {
            Some(Profile { metadata: old.metadata.clone(), spec: new.spec.clone() }.into())
        }
        _ => None,
    }
}

fn key_of(resource: &Resource) -> Key {
    Key::resource(resource.kind(), &resource.metadata().namespace, &resource.metadata().name)
}

/// What is to be written, profiles before policies. `theirs`: what Kubernetes tells; `ours`: what the datastore holds;
/// `unreadable`: whether something of a kind of Kubernetes' can't be read, so that nothing of it counts as gone. A
/// Kubernetes without any namespace is a fault, not a fact: then nothing is deleted.
pub fn copies<'a>(
    which: Copied,
    theirs: impl IntoIterator<Item = &'a Resource>,
    ours: impl IntoIterator<Item = &'a Resource>,
    unreadable: impl Fn(Kind) -> bool,
) -> Vec<Change> {
    let ours: BTreeMap<Key, &Resource> = ours.into_iter().map(|one| (key_of(one), one)).collect();
    let mut pods: BTreeMap<(&str, &str), &WorkloadEndpoint> = BTreeMap::new();
    let (mut profiles, mut policies, mut there) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut namespaces = 0_usize;
    for fact in theirs {
        if let Resource::WorkloadEndpoint(pod) = fact {
            pods.insert((&pod.metadata.namespace, &pod.spec.pod), pod);
            continue;
        }
        let Some(copy) = copy_of(fact) else { continue };
        let key = key_of(&copy);
        let Some((_, true)) = copied(which, &key) else { continue };
        namespaces += usize::from(copy.metadata().name.starts_with("kns."));
        let of_kind = if copy.kind() == Kind::Profile { &mut profiles } else { &mut policies };
        match ours.get(&key) {
            None => of_kind.push(Change::Create(copy)),
            Some(stored) => of_kind.extend(corrected(stored, &copy).map(Change::Replace)),
        }
        there.insert(key);
    }
    let mut changes = profiles;
    changes.append(&mut policies);
    if which.pods {
        changes.extend(ours.values().filter_map(|stored| relabelled(stored, &pods)).map(Change::Replace));
    }
    let gone = |key: &Key| {
        copied(which, key).is_some_and(|(source, kept)| kept && !unreadable(source)) && !there.contains(key)
    };
    if namespaces > 0 || !which.namespaces {
        changes.extend(ours.keys().filter(|key| gone(key)).cloned().map(Change::Delete));
    }
    changes
}

/// An endpoint of a pod with the labels and the account that Kubernetes tells now; `None` if it has them.
fn relabelled(stored: &Resource, pods: &BTreeMap<(&str, &str), &WorkloadEndpoint>) -> Option<Resource> {
    let Resource::WorkloadEndpoint(stored) = stored else { return None };
    let pod = pods.get(&(stored.metadata.namespace.as_str(), stored.spec.pod.as_str()))?;
    let same = stored.metadata.labels == pod.metadata.labels
        && stored.spec.service_account_name == pod.spec.service_account_name;
    if same || stored.spec.orchestrator != "k8s" {
        return None;
    }
    let mut wanted = (**stored).clone();
    wanted.metadata.labels = pod.metadata.labels.clone();
    wanted.spec.service_account_name = pod.spec.service_account_name.clone();
    Some(wanted.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_api::{KubernetesNetworkPolicy, NetworkPolicySpec, ProfileSpec, WorkloadEndpointSpec};

    const ALL: Copied = Copied { policies: true, namespaces: true, accounts: true, pods: true };

    fn theirs(order: f64) -> Resource {
        let spec = NetworkPolicySpec { order: Some(order), ..NetworkPolicySpec::default() };
        KubernetesNetworkPolicy { metadata: Metadata::in_namespace("shop", "web"), spec }.into()
    }

    fn profile(name: &str, label: &str) -> Resource {
        let labels_to_apply = [("pcns.env".to_owned(), label.to_owned())].into();
        Profile { metadata: Metadata::named(name), spec: ProfileSpec { labels_to_apply, ..ProfileSpec::default() } }
            .into()
    }

    fn endpoint(name: &str, orchestrator: &str, label: &str) -> Resource {
        let mut metadata = Metadata::in_namespace("shop", name);
        metadata.labels.insert("app", label);
        let spec = WorkloadEndpointSpec {
            orchestrator: orchestrator.into(),
            pod: "web-1".into(),
            ip_networks: vec!["10.0.0.1/32".into()],
            ..WorkloadEndpointSpec::default()
        };
        WorkloadEndpoint { metadata, spec }.into()
    }

    /// Applies changes to what is stored.
    fn after(ours: &[Resource], changes: &[Change]) -> Vec<Resource> {
        let mut all: BTreeMap<Key, Resource> = ours.iter().map(|one| (key_of(one), one.clone())).collect();
        for change in changes {
            match change {
                Change::Create(one) | Change::Replace(one) => drop(all.insert(key_of(one), one.clone())),
                Change::Delete(key) => drop(all.remove(key)),
            }
        }
        all.into_values().collect()
    }

    #[test]
    fn copies_come_change_and_go_and_a_second_pass_writes_nothing() {
        let from = [theirs(1000.0), profile("kns.shop", "a"), profile("ksa.shop.default", "b")];
        let first = copies(ALL, &from, &[], |_| false);
        let keys = first.iter().map(|change| match change {
            Change::Create(one) => key_of(one).path(),
            other => panic!("{other:?}"),
        });
        let keys: Vec<_> = keys.collect();
        assert_eq!(
            keys,
            ["profiles/kns.shop", "profiles/ksa.shop.default", "networkpolicies/shop/knp.default.web"]
                .map(|path| format!("/calico/resources/v3/projectcalico.org/{path}"))
        );
        let mut ours = after(&[], &first);
        ours[0].metadata_mut().annotations.insert("note".into(), "kept".into());
        assert_eq!(copies(ALL, &from, &ours, |_| false), []);

        let from = [theirs(7.0), profile("kns.shop", "z")];
        let second = copies(ALL, &from, &ours, |_| false);
        assert_eq!(second.len(), 3, "{second:?}");
        let ours = after(&ours, &second);
        assert_eq!(copies(ALL, &from, &ours, |_| false), []);
        assert!(ours.iter().any(|one| one.metadata().annotations.contains_key("note")), "metadata stay: {ours:?}");
        assert!(matches!(&second[2], Change::Delete(key) if source_of(key) == Some(key.clone())), "{second:?}");
    }

    #[test]
    fn nothing_is_deleted_on_what_may_be_a_fault_and_what_is_no_copy_stays() {
        let own = NetworkPolicy { metadata: Metadata::in_namespace("shop", "own"), ..NetworkPolicy::default() };
        let copy = copy_of(&theirs(1.0)).expect("a policy");
        let ours = [copy.clone(), own.into(), profile("k8s-pod-network", "x"), profile("kns.shop", "a")];
        assert_eq!(copies(ALL, &[], &ours, |_| false), [], "a Kubernetes without namespaces");
        let namespace = [profile("kns.shop", "a")];
        assert_eq!(copies(ALL, &namespace, &ours, |kind| kind == Kind::KubernetesNetworkPolicy), []);
        assert_eq!(copies(Copied { policies: false, ..ALL }, &namespace, &ours, |_| false), []);
        assert_eq!(copies(ALL, &namespace, &ours, |_| false), [Change::Delete(key_of(&copy))]);
    }

    #[test]
    fn pods_lend_labels_to_the_endpoints_that_nodes_made() {
        let from = [profile("kns.shop", "a"), endpoint("k-k8s-web--1-eth0", "k8s", "new")];
        let ours = [profile("kns.shop", "a"), endpoint("n-k8s-web--1-eth0", "k8s", "old"), endpoint("x", "cni", "old")];
        let changes = copies(ALL, &from, &ours, |_| false);
        let [Change::Replace(Resource::WorkloadEndpoint(found))] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!(
            (found.metadata.name.as_str(), found.metadata.labels.get("app")),
            ("n-k8s-web--1-eth0", Some("new"))
        );
        assert_eq!(found.spec.ip_networks.len(), 1, "addresses are the node's to tell");
        assert_eq!(copies(Copied { pods: false, ..ALL }, &from, &ours, |_| false), []);
    }
}
