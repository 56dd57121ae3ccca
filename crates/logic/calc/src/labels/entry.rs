//! A selector in the index: parsed as long as it matches something, and text as long as it does not.

use std::borrow::Cow;

use tortie_selector::{MAX_DEPTH, Selector};

use super::ClassId;
use super::filing::Choice;
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
    classes: Ids,
}

impl Entry {
    pub(super) fn new(selector: Selector, choice: Choice, classes: Ids) -> Entry {
        let mut entry = Entry { kept: Kept::Parsed(selector), choice, classes };
        entry.settle();
        entry
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

    pub(super) fn classes(&self) -> &Ids {
        &self.classes
    }

    pub(super) fn join(&mut self, class: ClassId) {
        self.classes.insert(class);
        self.settle();
    }

    pub(super) fn part(&mut self, class: ClassId) {
        self.classes.remove(class);
        self.settle();
    }

    fn settle(&mut self) {
        match &self.kept {
            Kept::Parsed(selector) if self.classes.is_empty() => {
                let text = selector.canonical();
                // Nested deeper, it could have been made by joining, and would not be read again.
                if text.bytes().filter(|byte| *byte == b'(').count() <= MAX_DEPTH {
                    self.kept = Kept::Text(text.into());
                }
            }
            Kept::Text(_) if !self.classes.is_empty() => self.kept = Kept::Parsed(self.selector().into_owned()),
            Kept::Parsed(_) | Kept::Text(_) => {}
        }
    }
}
