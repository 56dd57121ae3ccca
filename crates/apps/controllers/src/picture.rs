//! What a store told so far.

use std::collections::{BTreeMap, BTreeSet};

use tortie_api::{HostEndpoint, Kind, Node, Resource};
use tortie_control::{Course, Ledger, Users, is_copy};
use tortie_facts::{Filter, Key, OwnerKind, Revision, SyncStatus, Update, Value};
use tortie_store::mirror::Batch;

/// The facts of one store.
#[derive(Default)]
pub(crate) struct Picture {
    facts: BTreeMap<Key, (Value, Revision)>,
    unreadable: BTreeSet<String>,
    /// Whether a fact went back to an older revision since this was asked.
    back: bool,
    in_sync: bool,
    /// Whether policies that are no copies are left out.
    copies_alone: bool,
    trouble: Option<String>,
}

/// The one object of a cluster's settings of a kind.
pub(crate) fn default_of(kind: Kind) -> Key {
    Key::resource(kind, "", "default")
}

impl Picture {
    /// What controllers follow in the datastore of the network's facts.
    /// `copies`: copies of what Kubernetes has are kept in it.
    pub(crate) fn filter(copies: bool) -> Filter {
        let copied: &[Kind] = if copies { &[Kind::NetworkPolicy, Kind::Profile] } else { &[] };
        let kinds = [
            Kind::Node,
            Kind::WorkloadEndpoint,
            Kind::HostEndpoint,
            Kind::IpPool,
            Kind::IpReservation,
            Kind::KubeControllersConfiguration,
            Kind::ClusterInformation,
        ];
        let rest = [Filter::Blocks, Filter::AllAffinities(OwnerKind::Host), Filter::IpamConfig];
        Filter::Any(kinds.iter().chain(copied).copied().map(Filter::Kind).chain(rest).collect())
    }

    /// A picture that keeps no policies but copies of Kubernetes'.
    pub(crate) fn with_copies_alone() -> Picture {
        Picture { copies_alone: true, ..Picture::default() }
    }

    /// Takes in what happened; whether anything did.
    pub(crate) fn apply(&mut self, batch: Batch) -> bool {
        if batch.is_empty() {
            return false;
        }
        let Batch { updates, invalid, status, trouble } = batch;
        for Update { key, value, revision } in updates {
            self.unreadable.remove(&key.path());
            let policy = matches!(&key, Key::Resource { kind: Kind::NetworkPolicy, namespace: _, name: _ });
            if self.copies_alone && policy && !is_copy(&key) {
                continue;
            }
            self.back |= self.facts.get(&key).is_some_and(|(_, known)| value.is_some() && revision < *known);
            match value {
                Some(value) => drop(self.facts.insert(key, (value, revision))),
                None => drop(self.facts.remove(&key)),
            }
        }
        self.unreadable.extend(invalid.into_iter().map(|entry| entry.path));
        if let Some(status) = status {
            self.in_sync = status == SyncStatus::InSync;
            self.trouble = None;
        }
        if let Some(trouble) = trouble
            && !self.in_sync
        {
            self.trouble = Some(trouble);
        }
        true
    }

    pub(crate) fn in_sync(&self) -> bool {
        self.in_sync
    }

    /// Why it is not in sync.
    pub(crate) fn reason(&self) -> String {
        self.trouble.clone().unwrap_or_else(|| "the first listing is not done yet".to_owned())
    }

    /// Whether a fact went back to an older revision since the last time that this was asked: a backup that was
    /// restored, or a stale replica.
    pub(crate) fn course(&mut self) -> Course {
        if std::mem::take(&mut self.back) { Course::Back } else { Course::Forward }
    }

    fn iter(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.facts.iter().map(|(key, (value, _))| (key, value))
    }

    /// The facts, for what picks its own out of them.
    pub(crate) fn facts(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.iter()
    }

    pub(crate) fn users(&self) -> Users {
        Users::new(self.iter(), self.unreadable.iter().map(String::as_str))
    }

    pub(crate) fn ledger(&self) -> Ledger {
        Ledger::new(self.iter())
    }

    /// A resource with its revision.
    pub(crate) fn resource(&self, key: &Key) -> Option<(&Resource, Revision)> {
        let (value, revision) = self.facts.get(key)?;
        Some((value.as_resource()?, *revision))
    }

    pub(crate) fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.facts.values().filter_map(|(value, _)| value.as_resource()).map(|resource| &**resource)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.resources().filter_map(|one| if let Resource::Node(node) = one { Some(&**node) } else { None })
    }

    pub(crate) fn host_endpoints(&self) -> BTreeMap<String, HostEndpoint> {
        let all = self.resources().filter_map(|one| match one {
            Resource::HostEndpoint(endpoint) => Some((endpoint.metadata.name.clone(), (**endpoint).clone())),
            _ => None,
        });
        all.collect()
    }

    /// Whether something of a kind can't be read.
    pub(crate) fn has_unreadable(&self, kind: Kind) -> bool {
        let of_kind = |path: &String| match Key::from_path(path) {
            Ok(Key::Resource { kind: found, namespace: _, name: _ }) => found == kind,
            Ok(_) => false,
            Err(_) => true,
        };
        self.unreadable.iter().any(of_kind)
    }
}
