//! Classes and selectors, each knowing which of the other it matches.
//!
//! Invariant: after every call, `class.matches` holds exactly the selectors that match the class's effective labels,
//! and `entry.classes` is its mirror image.

use std::collections::HashMap;
use std::sync::Arc;

use tortie_selector::Selector;

use super::drawers::Drawers;
use super::filing::{Cabinet, Filing, choices};
use super::ids::Ids;
use super::{Effective, Identity, LabelSet};
use crate::slab::Slab;

/// Number of a selector in one index.
pub(crate) type SelectorId = u32;
/// Number of a class in one index.
pub(crate) type ClassId = u32;
/// Number that the index's owner gave to an endpoint or network set.
pub(crate) type ItemId = u32;

#[derive(Debug)]
struct Class {
    identity: Identity,
    items: Ids,
    /// Sorted.
    matches: Vec<SelectorId>,
}

#[derive(Debug)]
struct Entry {
    selector: Selector,
    filing: Filing,
    classes: Ids,
}

#[derive(Debug, Default)]
struct Parent {
    labels: Option<LabelSet>,
    classes: Ids,
}

/// New matches of a class, worked out but not in force yet.
#[derive(Debug)]
pub(crate) struct Shift {
    pub(crate) class: ClassId,
    /// Selectors that start or stop to match.
    pub(crate) flipped: Vec<SelectorId>,
    matches: Vec<SelectorId>,
}

/// What matches what.
#[derive(Debug, Default)]
pub(crate) struct Index {
    classes: Slab<Class>,
    by_identity: HashMap<Identity, ClassId>,
    parents: HashMap<Arc<str>, Parent>,
    selectors: Slab<Entry>,
    /// Selectors, for what new labels can match.
    cabinet: Cabinet,
    /// Classes, for what a new selector can match.
    drawers: Drawers,
}

impl Index {
    /// The class of this identity; made, without items, if there is none. Balance with [`Index::leave`] or
    /// [`Index::enter`].
    pub(crate) fn class_for(&mut self, identity: Identity) -> ClassId {
        if let Some(id) = self.by_identity.get(&identity) {
            return *id;
        }
        for name in identity.parents.iter() {
            self.parents.entry(name.clone()).or_default();
        }
        let matches = self.matching(&self.effective(&identity));
        let id = self.classes.insert(Class { identity: identity.clone(), items: Ids::None, matches });
        for name in identity.parents.iter() {
            self.parents.entry(name.clone()).or_default().classes.insert(id);
        }
        self.file(id);
        for selector in self.matches(id).to_vec() {
            self.entry_mut(selector).classes.insert(id);
        }
        self.by_identity.insert(identity, id);
        id
    }

    /// The selectors that match a class, sorted.
    pub(crate) fn matches(&self, class: ClassId) -> &[SelectorId] {
        self.classes.get(class).map_or(&[], |class| &class.matches)
    }

    pub(crate) fn enter(&mut self, class: ClassId, item: ItemId) {
        self.class_mut(class).items.insert(item);
    }

    /// Takes an item out of its class; a class without items goes.
    pub(crate) fn leave(&mut self, class: ClassId, item: ItemId) {
        let found = self.class_mut(class);
        found.items.remove(item);
        if !found.items.is_empty() {
            return;
        }
        self.unfile(class);
        let Class { identity, items: _, matches } = self.classes.remove(class).expect("it was just there");
        for selector in matches {
            self.entry_mut(selector).classes.remove(class);
        }
        for name in identity.parents.iter() {
            let parent = self.parents.get_mut(name).expect("a class's parents have entries");
            parent.classes.remove(class);
            if parent.classes.is_empty() && parent.labels.is_none() {
                self.parents.remove(name);
            }
        }
        self.by_identity.remove(&identity);
    }

    /// The items of a class.
    pub(crate) fn items(&self, class: ClassId) -> impl Iterator<Item = ItemId> + '_ {
        self.classes.get(class).into_iter().flat_map(|class| class.items.iter())
    }

    /// The classes that a selector matches. A class without items may be among them for the length of one change.
    pub(crate) fn classes_of(&self, selector: SelectorId) -> impl Iterator<Item = ClassId> + '_ {
        self.selectors.get(selector).into_iter().flat_map(|entry| entry.classes.iter())
    }

    pub(crate) fn add_selector(&mut self, selector: Selector) -> SelectorId {
        let filing = self.best_filing(&selector);
        let matched = |id: &ClassId| {
            let class = self.classes.get(*id).expect("labels are filed for living classes only");
            selector.matches(&self.effective(&class.identity))
        };
        let classes: Ids = match self.drawers.meeting(&filing) {
            Some(candidates) => candidates.into_iter().filter(matched).collect(),
            None => self.classes.ids().filter(matched).collect(),
        };
        let id = self.selectors.insert(Entry { selector, filing, classes: classes.clone() });
        for class in classes.iter() {
            let matches = &mut self.class_mut(class).matches;
            if let Err(at) = matches.binary_search(&id) {
                matches.insert(at, id);
            }
        }
        let Entry { selector: _, filing, classes: _ } = self.selectors.get(id).expect("it was just put there");
        self.cabinet.insert(id, filing);
        id
    }

    pub(crate) fn remove_selector(&mut self, id: SelectorId) {
        let Some(Entry { selector, filing, classes }) = self.selectors.remove(id) else { return };
        self.cabinet.remove(id, &filing);
        for key in choices(&selector).iter().flatten().filter_map(Filing::key) {
            self.drawers.unwant(key);
        }
        for class in classes.iter() {
            let matches = &mut self.class_mut(class).matches;
            if let Ok(at) = matches.binary_search(&id) {
                matches.remove(at);
            }
        }
    }

    /// What would change if the labels of a profile became these. Nothing changes before [`Index::set_parent`].
    pub(crate) fn plan_parent(&self, name: &str, labels: Option<&LabelSet>) -> Vec<Shift> {
        let Some(parent) = self.parents.get(name) else { return Vec::new() };
        if parent.labels.as_ref() == labels {
            return Vec::new();
        }
        let shift = |class: ClassId| {
            let Class { identity, items: _, matches: before } = self.classes.get(class)?;
            let after = self.matching(&self.effective_with(identity, Some((name, labels))));
            let flipped = symmetric_difference(before, &after);
            Some(Shift { class, flipped, matches: after })
        };
        parent.classes.iter().filter_map(shift).collect()
    }

    /// Gives new labels to a profile; `plan` is what [`Index::plan_parent`] said of just this change.
    pub(crate) fn set_parent(&mut self, name: &Arc<str>, labels: Option<LabelSet>, plan: Vec<Shift>) {
        let shifted: Vec<ClassId> = plan.iter().map(|shift| shift.class).collect();
        for class in &shifted {
            self.unfile(*class);
        }
        let parent = self.parents.entry(name.clone()).or_default();
        parent.labels = labels;
        if parent.labels.is_none() && parent.classes.is_empty() {
            self.parents.remove(name);
        }
        for class in shifted {
            self.file(class);
        }
        for Shift { class, flipped, matches } in plan {
            for selector in flipped {
                let classes = &mut self.entry_mut(selector).classes;
                if matches.binary_search(&selector).is_ok() {
                    classes.insert(class);
                } else {
                    classes.remove(class);
                }
            }
            self.class_mut(class).matches = matches;
        }
    }

    fn class_mut(&mut self, class: ClassId) -> &mut Class {
        self.classes.get_mut(class).expect("a class lives as long as it has items")
    }

    fn entry_mut(&mut self, selector: SelectorId) -> &mut Entry {
        self.selectors.get_mut(selector).expect("classes match living selectors only")
    }

    fn effective<'a>(&'a self, identity: &'a Identity) -> Effective<'a> {
        self.effective_with(identity, None)
    }

    fn effective_with<'a>(
        &'a self,
        identity: &'a Identity,
        instead: Option<(&str, Option<&'a LabelSet>)>,
    ) -> Effective<'a> {
        with_parents(&self.parents, identity, instead)
    }

    fn file(&mut self, class: ClassId) {
        let Index { classes, by_identity: _, parents, selectors: _, cabinet: _, drawers } = self;
        let Some(found) = classes.get(class) else { return };
        for (key, value) in with_parents(parents, &found.identity, None).all() {
            drawers.file(class, key, value);
        }
    }

    fn unfile(&mut self, class: ClassId) {
        let Index { classes, by_identity: _, parents, selectors: _, cabinet: _, drawers } = self;
        let Some(found) = classes.get(class) else { return };
        for (key, value) in with_parents(parents, &found.identity, None).all() {
            drawers.unfile(class, key, value);
        }
    }

    fn matching(&self, effective: &Effective<'_>) -> Vec<SelectorId> {
        let found = self.cabinet.candidates(effective.all());
        let matched = |id: &SelectorId| self.selectors.get(*id).is_some_and(|entry| entry.selector.matches(effective));
        let mut out: Vec<SelectorId> = found.filter(matched).collect();
        out.sort_unstable();
        out.dedup();
        out.shrink_to_fit();
        out
    }

    /// The condition that the fewest classes meet and the fewest selectors are found by now. Every key that could have
    /// been chosen is kept filed from here on.
    fn best_filing(&mut self, selector: &Selector) -> Filing {
        let Some(choices) = choices(selector) else { return Filing::Never };
        for key in choices.iter().filter_map(Filing::key) {
            if self.drawers.want(key) {
                self.fill(key);
            }
        }
        let cost = |filing: &Filing| self.drawers.count(filing) + self.cabinet.crowd(filing);
        choices.into_iter().min_by_key(cost).unwrap_or(Filing::Anything)
    }

    fn fill(&mut self, wanted: &str) {
        let Index { classes, by_identity: _, parents, selectors: _, cabinet: _, drawers } = self;
        for id in classes.ids() {
            let Some(class) = classes.get(id) else { continue };
            for (key, value) in with_parents(parents, &class.identity, None).all() {
                if key == wanted {
                    drawers.file(id, key, value);
                }
            }
        }
    }
}

fn with_parents<'a>(
    parents: &'a HashMap<Arc<str>, Parent>,
    identity: &'a Identity,
    instead: Option<(&str, Option<&'a LabelSet>)>,
) -> Effective<'a> {
    let labels = |name: &Arc<str>| match instead {
        Some((changed, labels)) if changed == &**name => labels,
        _ => parents.get(name)?.labels.as_ref(),
    };
    Effective { own: &identity.own, parents: identity.parents.iter().filter_map(labels).collect() }
}

/// What is in just one of two sorted lists.
pub(crate) fn symmetric_difference(a: &[SelectorId], b: &[SelectorId]) -> Vec<SelectorId> {
    let only = |x: &[SelectorId], y: &[SelectorId]| {
        x.iter().copied().filter(|id| y.binary_search(id).is_err()).collect::<Vec<_>>()
    };
    let mut out = only(a, b);
    out.extend(only(b, a));
    out
}
