//! A selector in the index: parsed as long as it matches something, and text as long as it does not.

use std::borrow::Cow;

use tortie_selector::{MAX_DEPTH, Selector};

use super::filing::Choice;
use super::groups::GroupId;
use super::ids::Ids;

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

    pub(super) fn join(&mut self, group: GroupId) {
        self.groups.insert(group);
        self.settle();
    }

    pub(super) fn part(&mut self, group: GroupId) {
        self.groups.remove(group);
        self.settle();
    }

    /// Keeps the form that fits what it matches now.
    pub(super) fn settle(&mut self) {
        match &self.kept {
            Kept::Parsed(selector) if self.groups.is_empty() => {
                let text = selector.canonical();
                // Nested deeper, it could have been made by joining, and would not be read again.
                if text.bytes().filter(|byte| *byte == b'(').count() <= MAX_DEPTH {
                    self.kept = Kept::Text(text.into());
                }
            }
            Kept::Text(_) if !self.groups.is_empty() => self.kept = Kept::Parsed(self.selector().into_owned()),
            Kept::Parsed(_) | Kept::Text(_) => {}
        }
    }
}
