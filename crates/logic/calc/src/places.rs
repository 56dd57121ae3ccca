//! On which node is each address of a workload?
//!
//! Asked only with `routeSource: WorkloadIPs`, where routes lead to addresses of workloads and not to blocks, so other
//! nodes' workloads are kept for nothing else. Of several workloads with one address the first by its name has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// A workload: namespace and name.
type Id = (Arc<str>, Box<str>);

/// All workloads of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Places {
    of: BTreeMap<Id, (Arc<str>, BTreeSet<IpAddr>)>,
    at: BTreeMap<IpAddr, BTreeSet<Id>>,
}

impl Places {
    /// A workload came, changed or went: its node and its addresses. Returns the addresses that this concerns, each
    /// with the node that has it now.
    pub(crate) fn set(
        &mut self,
        id: Id,
        place: Option<(Arc<str>, BTreeSet<IpAddr>)>,
    ) -> Vec<(IpAddr, Option<Arc<str>>)> {
        let old = match place.clone() {
            Some(place) => self.of.insert(id.clone(), place),
            None => self.of.remove(&id),
        };
        if old == place {
            return Vec::new();
        }
        let addresses = |place: &Option<(Arc<str>, BTreeSet<IpAddr>)>| {
            place.as_ref().map(|(_, addresses)| addresses.clone()).unwrap_or_default()
        };
        let (old, new) = (addresses(&old), addresses(&place));
        for address in old.difference(&new) {
            if let Some(ids) = self.at.get_mut(address) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.at.remove(address);
                }
            }
        }
        for address in &new {
            self.at.entry(*address).or_default().insert(id.clone());
        }
        old.union(&new).map(|address| (*address, self.node(*address))).collect()
    }

    fn node(&self, address: IpAddr) -> Option<Arc<str>> {
        let first = self.at.get(&address)?.first()?;
        self.of.get(first).map(|(node, _)| node.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a model that looks through all workloads.
        #[test]
        fn the_first_by_name_has_an_address(
            steps in proptest::collection::vec(
                (0..4_u8, proptest::option::of((0..3_u8, proptest::collection::btree_set(0..4_u8, 0..3)))), 1..30),
        ) {
            let address = |last: &u8| IpAddr::from([10, 0, 0, *last]);
            let mut places = Places::default();
            let mut all: BTreeMap<u8, (u8, BTreeSet<u8>)> = BTreeMap::new();
            let mut told: BTreeMap<IpAddr, Arc<str>> = BTreeMap::new();
            for (name, place) in steps {
                match place.clone() {
                    Some(place) => all.insert(name, place),
                    None => all.remove(&name),
                };
                let id = (Arc::from("ns"), name.to_string().into_boxed_str());
                let place = place.map(|(node, last)| (Arc::from(node.to_string()), last.iter().map(address).collect()));
                for (address, node) in places.set(id, place) {
                    match node {
                        Some(node) => told.insert(address, node),
                        None => told.remove(&address),
                    };
                }
                let mut model: BTreeMap<IpAddr, Arc<str>> = BTreeMap::new();
                for (node, addresses) in all.values() {
                    for last in addresses {
                        model.entry(address(last)).or_insert_with(|| Arc::from(node.to_string()));
                    }
                }
                prop_assert_eq!(&told, &model);
            }
        }
    }
}
