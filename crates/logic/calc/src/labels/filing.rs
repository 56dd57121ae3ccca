//! Under which label a selector is filed, so that a change of labels meets only selectors that can care.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use hashbrown::HashMap;
use tortie_selector::{Restriction, Selector};

use super::SelectorId;

/// More than so many are not told apart when conditions are compared.
const MANY: usize = 64;

/// The one condition of a selector that it is found by.
#[derive(Clone, Debug)]
pub(crate) enum Filing<'a> {
    /// The label has one of these values.
    Values(&'a str, Vec<&'a str>),
    /// The label is there.
    Present(&'a str),
    /// Nothing can be said: it is tried on everything.
    Anything,
    /// It can't match anything at all.
    Never,
}

/// Which of its choices a selector is filed under; all that is kept of a [`Filing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice(pub(crate) u16);

impl<'a> Filing<'a> {
    /// What [`choices`] had at this place.
    pub(crate) fn of(selector: &'a Selector, Choice(at): Choice) -> Filing<'a> {
        let Some(choices) = choices(selector) else { return Filing::Never };
        choices.into_iter().nth(usize::from(at)).unwrap_or(Filing::Anything)
    }
}

/// The conditions that a selector can be filed by; `None` if it can't match anything at all.
pub(crate) fn choices(selector: &Selector) -> Option<Vec<Filing<'_>>> {
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

/// A short hash of a text or a pair of texts: what is found by it is tried in full.
pub(crate) fn short_hash(texts: &[&str]) -> u32 {
    let mut hasher = DefaultHasher::new();
    texts.hash(&mut hasher);
    u32::try_from(hasher.finish() >> 32).expect("half of it fits")
}

/// Numbers under short hashes.
#[derive(Debug, Default)]
pub(crate) struct Postings(BTreeSet<(u32, u32)>);

impl Postings {
    pub(crate) fn insert(&mut self, hash: u32, id: u32) {
        self.0.insert((hash, id));
    }

    pub(crate) fn remove(&mut self, hash: u32, id: u32) {
        self.0.remove(&(hash, id));
    }

    pub(crate) fn under(&self, hash: u32) -> impl Iterator<Item = u32> + '_ {
        self.0.range((hash, 0)..=(hash, u32::MAX)).map(|(_, id)| *id)
    }

    /// How many there are under a hash, as far as that matters.
    pub(crate) fn crowd(&self, hash: u32) -> usize {
        self.under(hash).take(MANY).count()
    }
}

impl FromIterator<(u32, u32)> for Postings {
    fn from_iter<I: IntoIterator<Item = (u32, u32)>>(postings: I) -> Postings {
        Postings(postings.into_iter().collect())
    }
}

/// Selectors by the condition that they are filed under.
#[derive(Debug, Default)]
pub(crate) struct Cabinet {
    by_value: Postings,
    by_key: Postings,
    /// How many selectors are filed under each key.
    asked: HashMap<Box<str>, usize>,
    anything: BTreeSet<SelectorId>,
}

impl Cabinet {
    pub(crate) fn insert(&mut self, id: SelectorId, filing: &Filing<'_>) {
        match filing {
            Filing::Values(key, values) => {
                self.ask(key);
                for value in values {
                    self.by_value.insert(short_hash(&[key, value]), id);
                }
            }
            Filing::Present(key) => {
                self.ask(key);
                self.by_key.insert(short_hash(&[key]), id);
            }
            Filing::Anything => {
                self.anything.insert(id);
            }
            Filing::Never => {}
        }
    }

    pub(crate) fn remove(&mut self, id: SelectorId, filing: &Filing<'_>) {
        match filing {
            Filing::Values(key, values) => {
                for value in values {
                    self.by_value.remove(short_hash(&[key, value]), id);
                }
                self.unask(key);
            }
            Filing::Present(key) => {
                self.by_key.remove(short_hash(&[key]), id);
                self.unask(key);
            }
            Filing::Anything => {
                self.anything.remove(&id);
            }
            Filing::Never => {}
        }
    }

    /// How many selectors are filed under this condition already, as far as that matters.
    pub(crate) fn crowd(&self, filing: &Filing<'_>) -> usize {
        match filing {
            Filing::Values(key, values) => {
                values.iter().map(|value| self.by_value.crowd(short_hash(&[key, value]))).sum()
            }
            Filing::Present(key) => self.by_key.crowd(short_hash(&[key])),
            Filing::Anything => self.anything.len(),
            Filing::Never => 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.anything.is_empty()
    }

    /// Every selector that could match something with these labels; some more than once.
    pub(crate) fn candidates<'a>(
        &'a self,
        labels: impl Iterator<Item = (&'a str, &'a str)> + 'a,
    ) -> impl Iterator<Item = SelectorId> + 'a {
        let filed = labels.filter(|(key, _)| self.asked.contains_key(*key)).flat_map(|(key, value)| {
            let by_value = self.by_value.under(short_hash(&[key, value]));
            self.by_key.under(short_hash(&[key])).chain(by_value)
        });
        self.anything.iter().copied().chain(filed)
    }

    fn ask(&mut self, key: &str) {
        match self.asked.get_mut(key) {
            Some(users) => *users += 1,
            None => {
                self.asked.insert(key.into(), 1);
            }
        }
    }

    fn unask(&mut self, key: &str) {
        let Some(users) = self.asked.get_mut(key) else { return };
        *users -= 1;
        if *users == 0 {
            self.asked.remove(key);
        }
    }
}
