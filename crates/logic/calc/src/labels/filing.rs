//! Under which label a selector is filed, so that a change of labels meets only selectors that can care.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::SelectorId;

/// The one condition of a selector that it is found by.
#[derive(Clone, Debug)]
pub(crate) enum Filing {
    /// The label has one of these values.
    Values(String, BTreeSet<String>),
    /// The label is there.
    Present(String),
    /// Nothing can be said: it is tried on everything.
    Anything,
    /// It can't match anything at all.
    Never,
}

/// Selectors by the condition that they are filed under.
#[derive(Debug, Default)]
pub(crate) struct Cabinet {
    by_value: BTreeMap<String, BTreeMap<String, BTreeSet<SelectorId>>>,
    by_key: BTreeMap<String, BTreeSet<SelectorId>>,
    anything: BTreeSet<SelectorId>,
}

impl Cabinet {
    pub(crate) fn insert(&mut self, id: SelectorId, filing: &Filing) {
        match filing {
            Filing::Values(key, values) => {
                let drawer = self.by_value.entry(key.clone()).or_default();
                for value in values {
                    drawer.entry(value.clone()).or_default().insert(id);
                }
            }
            Filing::Present(key) => {
                self.by_key.entry(key.clone()).or_default().insert(id);
            }
            Filing::Anything => {
                self.anything.insert(id);
            }
            Filing::Never => {}
        }
    }

    pub(crate) fn remove(&mut self, id: SelectorId, filing: &Filing) {
        match filing {
            Filing::Values(key, values) => {
                let Some(drawer) = self.by_value.get_mut(key) else { return };
                for value in values {
                    take_out(drawer, value, id);
                }
                if drawer.is_empty() {
                    self.by_value.remove(key);
                }
            }
            Filing::Present(key) => take_out(&mut self.by_key, key, id),
            Filing::Anything => {
                self.anything.remove(&id);
            }
            Filing::Never => {}
        }
    }

    /// Every selector that could match something with these labels, each once.
    pub(crate) fn candidates<'a>(
        &'a self,
        labels: &'a BTreeMap<&Arc<str>, &Arc<str>>,
    ) -> impl Iterator<Item = SelectorId> + 'a {
        let by_value = labels.iter().filter_map(|(key, value)| self.by_value.get(&***key)?.get(&***value)).flatten();
        let by_key = labels.keys().filter_map(|key| self.by_key.get(&***key)).flatten();
        self.anything.iter().chain(by_key).chain(by_value).copied()
    }
}

fn take_out(drawer: &mut BTreeMap<String, BTreeSet<SelectorId>>, key: &str, id: SelectorId) {
    let Some(ids) = drawer.get_mut(key) else { return };
    ids.remove(&id);
    if ids.is_empty() {
        drawer.remove(key);
    }
}
