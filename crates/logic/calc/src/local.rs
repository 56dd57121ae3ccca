//! Which endpoints are mine?
//!
//! Keeps what the tables need of each workload endpoint of this node, and which of them changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use tortie_desired::{EndpointId, FloatingAddress, Limits};
use tortie_net::{IpNet, Mac};

use crate::labels::LabelSet;

/// A local endpoint, without the policies that apply to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalEndpoint {
    pub(crate) interface: Arc<str>,
    /// Sorted, without repeats.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
    pub(crate) profiles: Arc<[Arc<str>]>,
    /// Its own labels.
    pub(crate) labels: LabelSet,
    /// Sorted, without repeats.
    pub(crate) allowed_sources: Vec<IpNet>,
    /// Sorted, without repeats.
    pub(crate) floating: Vec<FloatingAddress>,
    pub(crate) limits: Limits,
    /// Whether it is OpenStack's, which has floating addresses in any case.
    pub(crate) openstack: bool,
}

/// The workload endpoints of this node.
#[derive(Debug, Default)]
pub(crate) struct Local {
    endpoints: BTreeMap<EndpointId, LocalEndpoint>,
    /// How many have each name.
    names: HashMap<Arc<str>, usize>,
    dirty: BTreeSet<EndpointId>,
}

impl Local {
    /// An endpoint came, changed or went; whether that was news.
    pub(crate) fn set(&mut self, id: &EndpointId, endpoint: Option<LocalEndpoint>) -> bool {
        if self.endpoints.get(id) == endpoint.as_ref() {
            return false;
        }
        let (is, was) = (endpoint.is_some(), self.endpoints.contains_key(id));
        match endpoint {
            Some(endpoint) => self.endpoints.insert(id.clone(), endpoint),
            None => self.endpoints.remove(id),
        };
        let count = self.names.entry(id.name.clone()).or_default();
        *count = *count + usize::from(is) - usize::from(was);
        if *count == 0 {
            self.names.remove(&id.name);
        }
        self.dirty.insert(id.clone());
        true
    }

    pub(crate) fn get(&self, id: &EndpointId) -> Option<&LocalEndpoint> {
        self.endpoints.get(id)
    }

    /// Whether an endpoint of this name is here, in whatever namespace. Cheap: nearly all are elsewhere.
    pub(crate) fn may_have(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&EndpointId, &LocalEndpoint)> {
        self.endpoints.iter()
    }

    pub(crate) fn mark(&mut self, ids: impl IntoIterator<Item = EndpointId>) {
        self.dirty.extend(ids);
    }

    /// All endpoints may have changed.
    pub(crate) fn mark_all(&mut self) {
        self.dirty.extend(self.endpoints.keys().cloned());
    }

    pub(crate) fn take_dirty(&mut self) -> BTreeSet<EndpointId> {
        std::mem::take(&mut self.dirty)
    }
}
