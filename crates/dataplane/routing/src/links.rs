//! The kernel's links, as far as routes need them.
//!
//! Invariant: an event that comes late never hides a link that is there. So two links may bear one name until the
//! event of the older one's end has come.

use std::collections::{BTreeMap, BTreeSet};

use tortie_netlink::Link;

/// Names, indices and whether links are up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links {
    by_index: BTreeMap<u32, (String, bool)>,
    by_name: BTreeMap<String, BTreeSet<u32>>,
}

impl Links {
    pub(crate) fn new(links: &[Link]) -> Links {
        let mut all = Links::default();
        for link in links {
            all.set(link);
        }
        all
    }

    /// Records a link; returns the name that it had and whether it was up.
    pub(crate) fn set(&mut self, link: &Link) -> Option<(String, bool)> {
        let old = self.remove(link.index);
        self.by_index.insert(link.index, (link.name.clone(), link.up));
        self.by_name.entry(link.name.clone()).or_default().insert(link.index);
        old
    }

    /// Forgets a link; returns its name and whether it was up.
    pub(crate) fn remove(&mut self, index: u32) -> Option<(String, bool)> {
        let old = self.by_index.remove(&index)?;
        if let Some(indices) = self.by_name.get_mut(&old.0) {
            indices.remove(&index);
            if indices.is_empty() {
                self.by_name.remove(&old.0);
            }
        }
        Some(old)
    }

    pub(crate) fn name(&self, index: u32) -> Option<&str> {
        self.by_index.get(&index).map(|(name, _)| name.as_str())
    }

    /// The index of a link that is there and up; of the newest by index, if several are known by the name.
    pub(crate) fn up_index(&self, name: &str) -> Option<u32> {
        let index = *self.by_name.get(name)?.last()?;
        self.by_index.get(&index).filter(|(_, up)| *up).map(|_| index)
    }
}
