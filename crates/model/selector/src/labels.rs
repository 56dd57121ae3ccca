//! What a selector is matched against.

use std::collections::BTreeMap;

/// A set of labels: at most one value a key.
pub trait Labels {
    /// The value of this key, if the label is present.
    fn get(&self, key: &str) -> Option<&str>;

    /// Whether the label is present with just this value.
    fn is(&self, key: &str, value: &str) -> bool {
        self.get(key) == Some(value)
    }

    /// Whether the label is present.
    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
}

impl Labels for BTreeMap<String, String> {
    fn get(&self, key: &str) -> Option<&str> {
        BTreeMap::get(self, key).map(String::as_str)
    }
}

/// An endpoint's own labels over those it inherits: its own value wins, then the first parent that has the key.
#[derive(Clone, Copy, Debug)]
pub struct Inherited<'a> {
    /// The endpoint's own labels.
    pub own: &'a BTreeMap<String, String>,
    /// The labels of its profiles, in the order in which the endpoint lists them.
    pub parents: &'a [&'a BTreeMap<String, String>],
}

impl Labels for Inherited<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.own.get(key).or_else(|| self.parents.iter().find_map(|parent| parent.get(key))).map(String::as_str)
    }
}
