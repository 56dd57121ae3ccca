//! Which endpoints and network sets match a selector, with labels inherited from profiles?
//!
//! Everything with the same own labels and the same profiles forms one class. Selectors are matched against classes,
//! so thousands of replicas cost as much as one.

mod drawers;
mod entry;
mod filing;
mod groups;
mod ids;
mod index;
mod parents;
mod reader;
mod set;
mod shapes;

use std::borrow::Cow;

use tortie_selector::Labels;

pub(crate) use index::{ClassId, Index, ItemId, SelectorId, symmetric_difference};
pub(crate) use parents::ParentId;
pub(crate) use set::{LabelSet, Pairs};

use shapes::{Packed, Shapes};

/// What decides which selectors an endpoint matches: its own labels, and the profiles whose labels it inherits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity<'a> {
    pub(crate) own: Pairs<'a>,
    pub(crate) parents: Vec<Cow<'a, str>>,
}

/// A class's labels as selectors see them: own labels first, then those of the first profile that has the key.
struct Effective<'a> {
    shapes: &'a Shapes,
    sources: Vec<&'a Packed>,
}

impl Effective<'_> {
    /// Every label that is there, those that another hides too.
    fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sources.iter().flat_map(|labels| self.shapes.labels(labels))
    }
}

impl Labels for Effective<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.sources.iter().find_map(|labels| self.shapes.value(labels, key))
    }
}
