//! Under which label a selector is filed, so that a change of labels meets only selectors that can care.

use std::collections::{BTreeSet, HashMap};

use tortie_selector::{Restriction, Selector};

use super::SelectorId;
use super::ids::Ids;

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

impl Filing {
    /// The label that the condition is about.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Filing::Values(key, _) | Filing::Present(key) => Some(key),
            Filing::Anything | Filing::Never => None,
        }
    }
}

/// The conditions that a selector can be filed by; `None` if it can't match anything at all.
pub(crate) fn choices(selector: &Selector) -> Option<Vec<Filing>> {
    let mut out = Vec::new();
    for (key, restriction) in selector.restrictions() {
        if !restriction.satisfiable() {
            return None;
        }
        let Restriction { must_be_present, must_be_absent: _, one_of } = restriction;
        match one_of {
            Some(values) => out.push(Filing::Values(key, values)),
            None if must_be_present => out.push(Filing::Present(key)),
            None => {}
        }
    }
    Some(out)
}

/// Selectors by the condition that they are filed under.
#[derive(Debug, Default)]
pub(crate) struct Cabinet {
    by_value: HashMap<String, HashMap<String, Ids>>,
    by_key: HashMap<String, Ids>,
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
            Filing::Present(key) => self.by_key.entry(key.clone()).or_default().insert(id),
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

    /// How many selectors are filed under this condition already.
    pub(crate) fn crowd(&self, filing: &Filing) -> usize {
        match filing {
            Filing::Values(key, values) => {
                let drawer = self.by_value.get(key);
                values.iter().filter_map(|value| drawer?.get(value)).map(Ids::len).sum()
            }
            Filing::Present(key) => self.by_key.get(key).map_or(0, Ids::len),
            Filing::Anything => self.anything.len(),
            Filing::Never => 0,
        }
    }

    /// Every selector that could match something with these labels; some more than once.
    pub(crate) fn candidates<'a>(
        &'a self,
        labels: impl Iterator<Item = (&'a str, &'a str)> + 'a,
    ) -> impl Iterator<Item = SelectorId> + 'a {
        let filed = labels.flat_map(|(key, value)| {
            let by_value = self.by_value.get(key).and_then(|drawer| drawer.get(value));
            self.by_key.get(key).into_iter().chain(by_value).flat_map(Ids::iter)
        });
        self.anything.iter().copied().chain(filed)
    }
}

fn take_out(drawer: &mut HashMap<String, Ids>, key: &str, id: SelectorId) {
    let Some(ids) = drawer.get_mut(key) else { return };
    ids.remove(id);
    if ids.is_empty() {
        drawer.remove(key);
    }
}
