//! Classes by their labels, for the keys alone that selectors ask for: of the labels that pods carry, most are never
//! asked for.

use std::collections::{BTreeSet, HashMap};

use super::ClassId;
use super::filing::Filing;
use super::ids::Ids;

/// Keys that no selector asks for any more stay this long beside those that are: selectors come and go.
const SPARE: usize = 16;

#[derive(Debug, Default)]
struct Drawer {
    /// How many selectors ask for the key.
    users: usize,
    by_value: HashMap<Box<str>, Ids>,
}

/// Classes by key and value. A class that has a key twice, hidden under another, is under both values.
#[derive(Debug, Default)]
pub(crate) struct Drawers {
    by_key: HashMap<String, Drawer>,
    unused: usize,
}

impl Drawers {
    /// One more selector asks for a key; whether its drawer is new, and so to be filled.
    pub(crate) fn want(&mut self, key: &str) -> bool {
        let mut new = false;
        let drawer = self.by_key.entry(key.to_owned()).or_insert_with(|| {
            new = true;
            Drawer::default()
        });
        drawer.users += 1;
        if drawer.users == 1 && !new {
            self.unused -= 1;
        }
        new
    }

    /// One selector less asks for a key.
    pub(crate) fn unwant(&mut self, key: &str) {
        let Some(drawer) = self.by_key.get_mut(key) else { return };
        drawer.users -= 1;
        if drawer.users == 0 {
            self.unused += 1;
        }
        if self.unused > self.by_key.len() / 2 + SPARE {
            self.by_key.retain(|_, drawer| drawer.users > 0);
            self.unused = 0;
        }
    }

    pub(crate) fn file(&mut self, class: ClassId, key: &str, value: &str) {
        let Some(drawer) = self.by_key.get_mut(key) else { return };
        match drawer.by_value.get_mut(value) {
            Some(classes) => classes.insert(class),
            None => {
                drawer.by_value.insert(value.into(), Ids::One(class));
            }
        }
    }

    pub(crate) fn unfile(&mut self, class: ClassId, key: &str, value: &str) {
        let Some(drawer) = self.by_key.get_mut(key) else { return };
        let Some(classes) = drawer.by_value.get_mut(value) else { return };
        classes.remove(class);
        if classes.is_empty() {
            drawer.by_value.remove(value);
        }
    }

    /// How many classes could meet a condition about a label.
    pub(crate) fn count(&self, filing: &Filing) -> usize {
        self.under(filing).map(Ids::len).sum()
    }

    /// The classes that could meet a condition; `None`: every class.
    pub(crate) fn meeting(&self, filing: &Filing) -> Option<BTreeSet<ClassId>> {
        match filing {
            Filing::Values(..) | Filing::Present(_) | Filing::Never => {
                Some(self.under(filing).flat_map(Ids::iter).collect())
            }
            Filing::Anything => None,
        }
    }

    fn under<'a>(&'a self, filing: &'a Filing) -> Box<dyn Iterator<Item = &'a Ids> + 'a> {
        match filing {
            Filing::Values(key, values) => {
                let drawer = self.by_key.get(key);
                Box::new(values.iter().filter_map(move |value| drawer?.by_value.get(value.as_str())))
            }
            Filing::Present(key) => Box::new(self.by_key.get(key).into_iter().flat_map(|d| d.by_value.values())),
            Filing::Anything | Filing::Never => Box::new(std::iter::empty()),
        }
    }
}
