//! A selector in the index: parsed as long as it matches something, and text as long as it does not.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};

use hashbrown::HashMap;
use tortie_selector::{MAX_DEPTH, Selector};

use super::SelectorId;
use super::filing::Choice;
use super::groups::GroupId;
use super::ids::Ids;
use crate::slab::Slab;

/// When so many are remembered, all are forgotten.
const MOST: usize = 512;

/// All selectors of an index.
#[derive(Debug, Default)]
pub(super) struct Entries {
    slab: Slab<Entry>,
    /// What was parsed of late: policies with one selector share it.
    parsed: HashMap<Box<str>, Selector>,
}

impl Deref for Entries {
    type Target = Slab<Entry>;

    fn deref(&self) -> &Slab<Entry> {
        &self.slab
    }
}

impl DerefMut for Entries {
    fn deref_mut(&mut self) -> &mut Slab<Entry> {
        &mut self.slab
    }
}

impl Entries {
    /// A selector matches one group more.
    pub(super) fn join(&mut self, selector: SelectorId, group: GroupId) {
        self.change(selector, |groups| groups.insert(group));
    }

    /// A selector matches one group less.
    pub(super) fn part(&mut self, selector: SelectorId, group: GroupId) {
        self.change(selector, |groups| groups.remove(group));
    }

    /// Keeps a selector in the form that fits what it matches now.
    pub(super) fn settle(&mut self, selector: SelectorId) {
        self.change(selector, |_| ());
    }

    fn change(&mut self, selector: SelectorId, change: impl FnOnce(&mut Ids)) {
        let entry = self.slab.get_mut(selector).expect("groups have living selectors only");
        change(&mut entry.groups);
        entry.settle(&mut self.parsed);
    }
}

#[derive(Debug)]
enum Kept {
    Parsed(Selector),
    /// The canonical text.
    Text(Box<str>),
}

#[derive(Debug)]
pub(super) struct Entry {
    kept: Kept,
    pub(super) choice: Choice,
    groups: Ids,
}

impl Entry {
    /// A selector that matches nothing yet.
    pub(super) fn new(selector: Selector, choice: Choice) -> Entry {
        Entry { kept: Kept::Parsed(selector), choice, groups: Ids::None }
    }

    pub(super) fn selector(&self) -> Cow<'_, Selector> {
        match &self.kept {
            Kept::Parsed(selector) => Cow::Borrowed(selector),
            Kept::Text(text) => Cow::Owned(Selector::parse(text).expect("canonical text of so few parentheses parses")),
        }
    }

    pub(super) fn canonical(&self) -> &str {
        match &self.kept {
            Kept::Parsed(selector) => selector.canonical(),
            Kept::Text(text) => text,
        }
    }

    /// The groups of classes that it matches.
    pub(super) fn groups(&self) -> &Ids {
        &self.groups
    }

    fn settle(&mut self, parsed: &mut HashMap<Box<str>, Selector>) {
        match &self.kept {
            Kept::Parsed(selector) if self.groups.is_empty() => {
                let text = selector.canonical();
                // Nested deeper, it could have been made by joining, and would not be read again.
                if text.bytes().filter(|byte| *byte == b'(').count() <= MAX_DEPTH {
                    self.kept = Kept::Text(text.into());
                }
            }
            Kept::Text(text) if !self.groups.is_empty() => {
                let known = parsed.get(text).cloned();
                let selector = known.unwrap_or_else(|| {
                    let selector = self.selector().into_owned();
                    if parsed.len() >= MOST {
                        parsed.clear();
                    }
                    parsed.insert(text.clone(), selector.clone());
                    selector
                });
                self.kept = Kept::Parsed(selector);
            }
            Kept::Parsed(_) | Kept::Text(_) => {}
        }
    }
}
