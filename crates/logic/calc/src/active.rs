//! What is out: the policies or profiles that the last flush left active, and the sets that they hold on to.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::sets::{IpSets, SetSpec};

/// Resolved rules with the sets that they need.
#[derive(Debug, PartialEq)]
pub(crate) struct Body<T> {
    pub(crate) rules: Arc<T>,
    pub(crate) sets: Arc<[SetSpec]>,
}

impl<T> Clone for Body<T> {
    fn clone(&self) -> Self {
        Body { rules: self.rules.clone(), sets: self.sets.clone() }
    }
}

/// Active bodies by their keys.
#[derive(Debug)]
pub(crate) struct Active<K, T> {
    out: BTreeMap<K, Body<T>>,
}

impl<K, T> Default for Active<K, T> {
    fn default() -> Self {
        Active { out: BTreeMap::new() }
    }
}

impl<K: Clone + Ord, T: PartialEq> Active<K, T> {
    /// Makes a body active, or another, or none; what to tell, if that is news. Sets are taken before others are let
    /// go, so one that both need stays.
    pub(crate) fn settle(&mut self, key: &K, now: Option<Body<T>>, sets: &mut IpSets) -> Option<Option<Arc<T>>> {
        let old = self.out.get(key);
        if old == now.as_ref() {
            return None;
        }
        for spec in now.iter().flat_map(|body| body.sets.iter()) {
            sets.acquire(spec);
        }
        for spec in old.iter().flat_map(|body| body.sets.iter()) {
            sets.release(spec.id());
        }
        let told = match (old, &now) {
            (Some(old), Some(now)) if old.rules == now.rules => None,
            (_, now) => Some(now.as_ref().map(|body| body.rules.clone())),
        };
        match now {
            Some(body) => self.out.insert(key.clone(), body),
            None => self.out.remove(key),
        };
        told
    }
}
