//! Classes and selectors, each knowing which of the other it matches.
//!
//! Invariant: after every call, the group of a class has exactly the selectors that match the class's effective labels.

use hashbrown::HashTable;
use tortie_selector::Selector;

use super::drawers::{Drawer, Drawers};
use super::entry::{Entries, Entry};
use super::filing::{Cabinet, Choice, Filing, choices, short_hash};
use super::groups::Groups;
use super::ids::Ids;
use super::parents::{ParentId, Parents};
use super::reader::Reader;
use super::shapes::{Packed, Shapes};
use super::{Effective, Identity, Pairs};
use crate::slab::Slab;

/// Number of a selector in one index.
pub(crate) type SelectorId = u32;
/// Number of a class in one index.
pub(crate) type ClassId = u32;
/// Number that the index's owner gave to an endpoint or network set.
pub(crate) type ItemId = u32;

#[derive(Debug)]
struct Class {
    /// Own labels, and whom it inherits from.
    labels: Packed,
    items: Ids,
}

/// New matches of a class, worked out but not in force yet.
#[derive(Debug)]
pub(crate) struct Shift {
    pub(crate) class: ClassId,
    /// Selectors that start or stop to match.
    pub(crate) flipped: Vec<SelectorId>,
    matches: Vec<SelectorId>,
}

/// New labels of a profile, worked out but not in force yet.
#[derive(Debug)]
pub(crate) struct Plan {
    parent: ParentId,
    labels: Option<Packed>,
    pub(crate) shifts: Vec<Shift>,
}

/// What matches what.
#[derive(Debug, Default)]
pub(crate) struct Index {
    shapes: Shapes,
    classes: Slab<Class>,
    by_labels: HashTable<ClassId>,
    parents: Parents,
    groups: Groups,
    selectors: Entries,
    /// Selectors, for what new labels can match.
    cabinet: Cabinet,
    /// Classes and profiles, for what a new selector can match.
    drawers: Drawers,
}

impl Index {
    /// The class of this identity; made, without items, if there is none. Balance with [`Index::leave`] or
    /// [`Index::enter`].
    pub(crate) fn class_for(&mut self, identity: &Identity<'_>) -> ClassId {
        let Identity { own, parents } = identity;
        let parents: Vec<ParentId> = parents.iter().map(|name| self.parents.find_or_make(name)).collect();
        let labels = self.shapes.pack(own, &parents);
        let hash = labels.hash.spread();
        let same = |id: &ClassId| self.classes.get(*id).is_some_and(|class| class.labels == labels);
        if let Some(id) = self.by_labels.find(hash, same) {
            self.shapes.release(labels.shape);
            return *id;
        }
        let matches = self.matching(&self.effective(&labels, None));
        let id = self.classes.insert(Class { labels, items: Ids::None });
        for parent in parents {
            self.parents.get_mut(parent).classes.insert(id);
        }
        let Index { shapes, classes, by_labels, parents: _, groups, selectors, cabinet: _, drawers } = self;
        let class = classes.get(id).expect("just made");
        drawers.carry(id, shapes.labels(&class.labels));
        groups.place(selectors, id, &matches);
        let hash_of = |id: &ClassId| classes.get(*id).map_or(0, |class| class.labels.hash.spread());
        by_labels.insert_unique(hash, id, hash_of);
        id
    }

    /// The selectors that match a class, sorted.
    pub(crate) fn matches(&self, class: ClassId) -> &[SelectorId] {
        self.groups.selectors(class)
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
        let Class { labels, items: _ } = self.classes.remove(class).expect("it was just there");
        if let Ok(entry) = self.by_labels.find_entry(labels.hash.spread(), |id| *id == class) {
            entry.remove();
        }
        self.drawers.drop_carrier(class, self.shapes.labels(&labels));
        self.groups.remove(&mut self.selectors, class);
        for parent in labels.parents() {
            self.parents.get_mut(parent).classes.remove(class);
            self.parents.sweep(parent);
        }
        self.shapes.release(labels.shape);
    }

    /// The items of a class.
    pub(crate) fn items(&self, class: ClassId) -> impl Iterator<Item = ItemId> + '_ {
        self.classes.get(class).map_or(Ids::EMPTY, |class| &class.items).iter()
    }

    /// The classes that a selector matches. A class without items may be among them for the length of one change.
    pub(crate) fn classes_of(&self, selector: SelectorId) -> impl Iterator<Item = ClassId> + '_ {
        self.groups_of(selector).iter().flat_map(|group| self.groups.classes(group))
    }

    /// How many classes a selector matches.
    pub(crate) fn class_count(&self, selector: SelectorId) -> usize {
        self.groups_of(selector).iter().map(|group| self.groups.count(group)).sum()
    }

    fn groups_of(&self, selector: SelectorId) -> &Ids {
        self.selectors.get(selector).map_or(Ids::EMPTY, Entry::groups)
    }

    /// The canonical text of a selector.
    pub(crate) fn canonical(&self, selector: SelectorId) -> &str {
        self.selectors.get(selector).map_or("", Entry::canonical)
    }

    pub(crate) fn add_selector(&mut self, selector: Selector) -> SelectorId {
        let (choice, filing) = self.best_filing(&selector);
        if let Filing::Values(key, _) = &filing {
            let Index { shapes, classes, parents, drawers, .. } = self;
            drawers.want(key, || drawer(key, shapes, classes, parents));
        }
        let classes = self.matched(&selector, self.meeting(&filing));
        let id = self.selectors.insert(Entry::new(selector.clone(), choice));
        self.groups.add(&mut self.selectors, id, &classes);
        self.selectors.settle(id);
        self.cabinet.insert(id, &filing);
        id
    }

    pub(crate) fn remove_selector(&mut self, id: SelectorId) {
        let Some(entry) = self.selectors.remove(id) else { return };
        let selector = entry.selector();
        let filing = Filing::of(&selector, entry.choice);
        self.cabinet.remove(id, &filing);
        if let Filing::Values(key, _) = &filing {
            self.drawers.unwant(key);
        }
        self.groups.forget(&mut self.selectors, id, entry.groups().iter().collect());
    }

    /// What would change if the labels of a profile became these; `None` if nothing. Nothing changes before
    /// [`Index::set_parent`].
    pub(crate) fn plan_parent(&mut self, name: &str, labels: Option<&Pairs<'_>>) -> Option<Plan> {
        let parent = match labels {
            Some(_) => self.parents.find_or_make(name),
            None => self.parents.find(name)?,
        };
        let labels = labels.map(|labels| self.shapes.pack(labels, &[]));
        let found = self.parents.get(parent).expect("just found or made");
        if found.labels == labels {
            if let Some(labels) = labels {
                self.shapes.release(labels.shape);
            }
            self.parents.sweep(parent);
            return None;
        }
        let shift = |class: ClassId| {
            let Class { labels: own, items: _ } = self.classes.get(class)?;
            let before = self.groups.selectors(class);
            let after = self.matching(&self.effective(own, Some((parent, labels.as_ref()))));
            let flipped = symmetric_difference(before, &after);
            Some(Shift { class, flipped, matches: after })
        };
        let shifts = found.classes.iter().filter_map(shift).collect();
        Some(Plan { parent, labels, shifts })
    }

    /// Carries out what [`Index::plan_parent`] said of just this change.
    pub(crate) fn set_parent(&mut self, plan: Plan) {
        let Plan { parent, labels, shifts } = plan;
        let Index { shapes, parents, drawers, .. } = self;
        if let Some(old) = parents.lend(parent, labels) {
            drawers.drop_lender(parent, shapes.labels(&old));
            shapes.release(old.shape);
        }
        if let Some(labels) = &parents.get_mut(parent).labels {
            drawers.lend(parent, shapes.labels(labels));
        }
        self.parents.sweep(parent);
        for Shift { class, flipped: _, matches } in shifts {
            self.groups.place(&mut self.selectors, class, &matches);
        }
    }

    /// Whether something inherits from this profile.
    pub(crate) fn inherits(&self, name: &str) -> bool {
        let found = self.parents.find(name).and_then(|id| self.parents.get(id));
        found.is_some_and(|parent| !parent.classes.is_empty())
    }

    /// The number of a profile that is there; it keeps it as long as it is.
    pub(crate) fn parent(&self, name: &str) -> Option<ParentId> {
        let there = |id: &ParentId| self.parents.get(*id).is_some_and(|parent| parent.labels.is_some());
        self.parents.find(name).filter(there)
    }

    /// The labels that a profile lends; `None` if it is not there.
    pub(crate) fn lent(&self, name: &str) -> Option<Pairs<'_>> {
        let labels = self.parents.get(self.parents.find(name)?)?.labels.as_ref()?;
        Some(Pairs::new(self.shapes.labels(labels)))
    }

    fn class_mut(&mut self, class: ClassId) -> &mut Class {
        self.classes.get_mut(class).expect("a class lives as long as it has items")
    }

    /// `instead`: labels that one of the profiles is taken to lend.
    fn effective<'a>(&'a self, labels: &'a Packed, instead: Option<(ParentId, Option<&'a Packed>)>) -> Effective<'a> {
        let lent = |id: ParentId| match instead {
            Some((changed, labels)) if changed == id => labels,
            _ => self.parents.get(id)?.labels.as_ref(),
        };
        let sources = std::iter::once(labels).chain(labels.parents().filter_map(lent)).collect();
        Effective { shapes: &self.shapes, sources }
    }

    fn matching(&self, effective: &Effective<'_>) -> Vec<SelectorId> {
        if self.cabinet.is_empty() {
            return Vec::new();
        }
        let mut out: Vec<SelectorId> = self.cabinet.candidates(effective.all()).collect();
        out.sort_unstable();
        out.dedup();
        out.retain(|id| self.selectors.get(*id).is_some_and(|entry| entry.selector().matches(effective)));
        out
    }

    /// Those of some classes that a selector matches, each once.
    fn matched(&self, selector: &Selector, mut classes: Vec<ClassId>) -> Vec<ClassId> {
        classes.sort_unstable();
        classes.dedup();
        let mut reader = Reader::new(&self.shapes);
        let may_inherit = self.may_inherit(selector, classes.len());
        classes.retain(|id| {
            let labels = &self.classes.get(*id).expect("labels are filed for living classes only").labels;
            let parents = may_inherit.then(|| labels.parents()).into_iter().flatten();
            reader.turn_to(labels, parents.filter_map(|parent| self.parents.get(parent)?.labels.as_ref()));
            selector.matches(&reader)
        });
        classes
    }

    /// Whether any profile may lend a label that the selector asks for. It is looked for only where that is less than
    /// asking the profiles of so many classes.
    fn may_inherit(&self, selector: &Selector, classes: usize) -> bool {
        let lends = |key: &str| self.parents.lent_shapes().any(|shape| self.shapes.place(shape, key).is_some());
        classes <= self.parents.lent_shapes().len() || selector.any_key(lends)
    }

    /// The condition that the fewest meet and the fewest selectors are found by now.
    fn best_filing<'a>(&self, selector: &'a Selector) -> (Choice, Filing<'a>) {
        let Some(choices) = choices(selector) else { return (Choice(0), Filing::Never) };
        let cost = |filing: &Filing<'_>| self.crowd(filing) + self.cabinet.crowd(filing);
        let best = match choices.len() {
            0 | 1 => choices.into_iter().enumerate().next(),
            _ => choices.into_iter().enumerate().take(usize::from(u16::MAX)).min_by_key(|(_, filing)| cost(filing)),
        };
        let (at, filing) = best.unwrap_or((0, Filing::Anything));
        (Choice(u16::try_from(at).expect("no more were looked at")), filing)
    }

    /// How many meet a condition, as far as that is known without looking at every value.
    fn crowd(&self, filing: &Filing<'_>) -> usize {
        match filing {
            Filing::Values(key, values) => match self.drawers.get(key) {
                Some(drawer) => values.iter().map(|value| drawer.crowd(value)).sum(),
                None => self.shapes.count(key),
            },
            Filing::Present(key) => self.shapes.count(key),
            Filing::Anything => usize::MAX / 2,
            Filing::Never => 0,
        }
    }

    /// The classes that could meet a condition, some more than once.
    fn meeting(&self, filing: &Filing<'_>) -> Vec<ClassId> {
        let heirs = |parent: ParentId| self.parents.get(parent).into_iter().flat_map(|parent| parent.classes.iter());
        match filing {
            Filing::Values(key, values) => {
                let Some(drawer) = self.drawers.get(key) else { return Vec::new() };
                let lent = values.iter().flat_map(|value| drawer.lenders(value)).flat_map(heirs);
                values.iter().flat_map(|value| drawer.carriers(value)).chain(lent).collect()
            }
            Filing::Present(key) => {
                let Some(shapes) = self.shapes.having(key) else { return Vec::new() };
                let carriers = self.classes.iter().filter(|(_, class)| shapes.contains(class.labels.shape));
                let lends = |labels: &Packed| shapes.contains(labels.shape);
                let lenders = self.parents.iter().filter(|(_, parent)| parent.labels.as_ref().is_some_and(lends));
                carriers.map(|(id, _)| id).chain(lenders.flat_map(|(id, _)| heirs(id))).collect()
            }
            Filing::Anything => self.classes.iter().map(|(id, _)| id).collect(),
            Filing::Never => Vec::new(),
        }
    }
}

/// Who carries and lends a key now.
fn drawer(key: &str, shapes: &Shapes, classes: &Slab<Class>, parents: &Parents) -> Drawer {
    let Some(having) = shapes.having(key) else { return Drawer::default() };
    let hash = |labels: &Packed| {
        let value = if having.contains(labels.shape) { shapes.value(labels, key) } else { None };
        value.map(|value| short_hash(&[value]))
    };
    let carried = classes.iter().filter_map(|(id, class)| Some((hash(&class.labels)?, id)));
    let lent = parents.iter().filter_map(|(id, parent)| Some((hash(parent.labels.as_ref()?)?, id)));
    Drawer::new(carried.collect(), lent.collect())
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
