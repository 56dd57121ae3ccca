//! Classes that the same selectors match, together: a selector that thousands match is noted once.
//!
//! Invariant: no two groups have the same selectors, none is without classes, and a selector's entry names just the
//! groups that have it.

use std::hash::BuildHasher as _;
use std::num::NonZeroU32;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::entry::Entries;
use super::{ClassId, SelectorId};
use crate::slab::{Beside, Slab};

/// Number of a group.
pub(super) type GroupId = u32;

/// No class.
const END: ClassId = ClassId::MAX;

/// A group's number plus one, so that where there is no link takes no room beside those that are.
#[derive(Clone, Copy, Debug)]
struct Of(NonZeroU32);

impl Of {
    fn new(group: GroupId) -> Of {
        Of(NonZeroU32::MIN.saturating_add(group))
    }

    fn id(self) -> GroupId {
        self.0.get() - 1
    }
}

/// Where a class stands in the list of its group.
#[derive(Clone, Copy, Debug)]
struct Link {
    group: Of,
    before: ClassId,
    after: ClassId,
}

#[derive(Debug)]
struct Group {
    /// Sorted.
    selectors: Vec<SelectorId>,
    /// Of the selectors, whatever their order, so that one more or less is a small change.
    hash: u64,
    first: ClassId,
    last: ClassId,
    count: usize,
}

/// All groups, and which one each class is of.
#[derive(Debug, Default)]
pub(super) struct Groups {
    known: Slab<Group>,
    by_selectors: HashTable<GroupId>,
    hasher: DefaultHashBuilder,
    /// By class.
    links: Beside<Link>,
}

impl Groups {
    /// The selectors that match a class, sorted.
    pub(super) fn selectors(&self, class: ClassId) -> &[SelectorId] {
        self.links.get(class).map_or(&[], |link| &self.group(link.group.id()).selectors)
    }

    /// How many classes a group has.
    pub(super) fn count(&self, group: GroupId) -> usize {
        self.known.get(group).map_or(0, |group| group.count)
    }

    /// The classes of a group.
    pub(super) fn classes(&self, group: GroupId) -> impl Iterator<Item = ClassId> + '_ {
        let next = |class: ClassId| (class != END).then_some(class);
        let first = self.known.get(group).and_then(|group| next(group.first));
        std::iter::successors(first, move |class| next(self.link(*class).after))
    }

    /// These selectors, sorted, are what matches a class, which may be a new one.
    pub(super) fn place(&mut self, entries: &mut Entries, class: ClassId, selectors: &[SelectorId]) {
        if self.links.get(class).is_some_and(|link| self.group(link.group.id()).selectors == selectors) {
            return;
        }
        let group =
            self.find(self.hash(selectors), selectors).unwrap_or_else(|| self.make(entries, selectors.to_vec()));
        self.remove(entries, class);
        self.push(group, class);
    }

    /// A class goes.
    pub(super) fn remove(&mut self, entries: &mut Entries, class: ClassId) {
        let Some(Link { group, before, after }) = self.links.take(class) else { return };
        let id = group.id();
        if before != END {
            self.link_mut(before).after = after;
        }
        if after != END {
            self.link_mut(after).before = before;
        }
        let group = self.group_mut(id);
        if group.first == class {
            group.first = after;
        }
        if group.last == class {
            group.last = before;
        }
        group.count -= 1;
        if group.count == 0 {
            self.dissolve(entries, id);
        }
    }

    /// A selector comes, and matches these classes, each named once.
    pub(super) fn add(&mut self, entries: &mut Entries, selector: SelectorId, classes: &[ClassId]) {
        if let Some(only) = self.whole_group(classes) {
            self.widen(entries, selector, only);
            return;
        }
        let mut found: Vec<(GroupId, ClassId)> =
            classes.iter().map(|class| (self.link(*class).group.id(), *class)).collect();
        found.sort_by_key(|(group, _)| *group);
        for alike in found.chunk_by(|(a, _), (b, _)| a == b) {
            let (id, _) = alike[0];
            if self.group(id).count == alike.len() {
                self.widen(entries, selector, id);
                continue;
            }
            let mut selectors = self.group(id).selectors.clone();
            let at = selectors.partition_point(|other| *other < selector);
            selectors.insert(at, selector);
            let made = self.make(entries, selectors);
            for (_, class) in alike {
                self.remove(entries, *class);
                self.push(made, *class);
            }
        }
    }

    /// The group that these, each named once, are all of.
    fn whole_group(&self, classes: &[ClassId]) -> Option<GroupId> {
        let id = self.link(*classes.first()?).group.id();
        let all = self.group(id).count == classes.len();
        (all && classes.iter().all(|class| self.link(*class).group.id() == id)).then_some(id)
    }

    /// A selector comes, and matches all of a group.
    fn widen(&mut self, entries: &mut Entries, selector: SelectorId, id: GroupId) {
        self.rename(id, |selectors| {
            let at = selectors.partition_point(|other| *other < selector);
            selectors.insert(at, selector);
        });
        entries.join(selector, id);
    }

    /// A selector goes, whose entry named these groups and is gone.
    pub(super) fn forget(&mut self, entries: &mut Entries, selector: SelectorId, groups: Vec<GroupId>) {
        for id in groups {
            let Group { selectors, hash, .. } = self.group(id);
            let less: Vec<SelectorId> = selectors.iter().copied().filter(|other| *other != selector).collect();
            let twin = self.find(hash ^ self.hasher.hash_one(selector), &less);
            self.rename(id, |selectors| *selectors = less);
            if let Some(twin) = twin {
                let (small, large) =
                    if self.group(id).count < self.group(twin).count { (id, twin) } else { (twin, id) };
                let classes: Vec<ClassId> = self.classes(small).collect();
                for class in classes {
                    self.remove(entries, class);
                    self.push(large, class);
                }
            }
        }
    }

    fn make(&mut self, entries: &mut Entries, selectors: Vec<SelectorId>) -> GroupId {
        let hash = self.hash(&selectors);
        let id = self.known.insert(Group { selectors, hash, first: END, last: END, count: 0 });
        let Groups { known, by_selectors, hasher: _, links: _ } = self;
        by_selectors.insert_unique(hash, id, |id| hash_of(known, *id));
        for selector in &self.group(id).selectors {
            entries.join(*selector, id);
        }
        id
    }

    fn dissolve(&mut self, entries: &mut Entries, id: GroupId) {
        let Some(Group { selectors, hash, .. }) = self.known.remove(id) else { return };
        if let Ok(found) = self.by_selectors.find_entry(hash, |other| *other == id) {
            found.remove();
        }
        for selector in selectors {
            entries.part(selector, id);
        }
    }

    /// Other selectors for all of a group.
    fn rename(&mut self, id: GroupId, change: impl FnOnce(&mut Vec<SelectorId>)) {
        let old = self.group(id).hash;
        if let Ok(found) = self.by_selectors.find_entry(old, |other| *other == id) {
            found.remove();
        }
        change(&mut self.group_mut(id).selectors);
        let hash = self.hash(&self.group(id).selectors);
        self.group_mut(id).hash = hash;
        let Groups { known, by_selectors, hasher: _, links: _ } = self;
        by_selectors.insert_unique(hash, id, |id| hash_of(known, *id));
    }

    fn push(&mut self, id: GroupId, class: ClassId) {
        let group = self.group_mut(id);
        let before = std::mem::replace(&mut group.last, class);
        group.count += 1;
        if before == END {
            group.first = class;
        } else {
            self.link_mut(before).after = class;
        }
        self.links.put(class, Link { group: Of::new(id), before, after: END });
    }

    fn find(&self, hash: u64, selectors: &[SelectorId]) -> Option<GroupId> {
        self.by_selectors.find(hash, |id| self.group(*id).selectors == selectors).copied()
    }

    fn hash(&self, selectors: &[SelectorId]) -> u64 {
        selectors.iter().fold(0, |hash, selector| hash ^ self.hasher.hash_one(selector))
    }

    fn group(&self, id: GroupId) -> &Group {
        self.known.get(id).expect("links name living groups")
    }

    fn group_mut(&mut self, id: GroupId) -> &mut Group {
        self.known.get_mut(id).expect("links name living groups")
    }

    fn link(&self, class: ClassId) -> Link {
        *self.links.get(class).expect("every class is of a group")
    }

    fn link_mut(&mut self, class: ClassId) -> &mut Link {
        self.links.get_mut(class).expect("every class is of a group")
    }
}

fn hash_of(known: &Slab<Group>, id: GroupId) -> u64 {
    known.get(id).map_or(0, |group| group.hash)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use tortie_selector::Selector;

    use super::super::entry::Entry;
    use super::super::filing::Choice;
    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// The class, which may be new, has of the living selectors those whose bit is set.
        Place(ClassId, u16),
        Remove(ClassId),
        /// A selector for the classes whose bit is set.
        Add(u16),
        Forget(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let class = || 0..12_u32;
        prop_oneof![
            (class(), any::<u16>()).prop_map(|(class, bits)| Step::Place(class, bits)),
            class().prop_map(Step::Remove),
            prop_oneof![Just(u16::MAX), any::<u16>()].prop_map(Step::Add),
            any::<u8>().prop_map(Step::Forget),
        ]
    }

    fn has(bits: u16, at: u32) -> bool {
        bits >> (at % 16) & 1 == 1
    }

    type Model = BTreeMap<ClassId, BTreeSet<SelectorId>>;

    fn check(groups: &Groups, entries: &Entries, model: &Model) -> Result<(), TestCaseError> {
        for (class, selectors) in model {
            prop_assert!(groups.selectors(*class).iter().eq(selectors), "class {}", class);
        }
        let mut seen = BTreeSet::new();
        for (id, group) in groups.known.iter() {
            prop_assert!(seen.insert(group.selectors.clone()), "two groups of {:?}", group.selectors);
            prop_assert_eq!(groups.classes(id).count(), groups.count(id));
            prop_assert!(group.count > 0);
        }
        for (id, entry) in entries.iter() {
            let mut classes: Vec<ClassId> = entry.groups().iter().flat_map(|group| groups.classes(group)).collect();
            classes.sort_unstable();
            let meant = model.iter().filter(|(_, selectors)| selectors.contains(&id)).map(|(class, _)| *class);
            prop_assert!(classes.into_iter().eq(meant), "selector {}", id);
        }
        Ok(())
    }

    #[test]
    fn a_link_that_is_not_there_takes_no_more_room() {
        assert_eq!(size_of::<Option<Link>>(), 12);
        assert_eq!([0, 7, u32::MAX - 2].map(|id| Of::new(id).id()), [0, 7, u32::MAX - 2]);
    }

    proptest! {
        #[test]
        fn they_are_a_map_from_classes_to_selectors_and_back(steps in prop::collection::vec(step(), 1..60)) {
            let (mut groups, mut entries, mut model) = (Groups::default(), Entries::default(), Model::new());
            let mut living: BTreeSet<SelectorId> = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Place(class, bits) => {
                        let selectors: Vec<SelectorId> = living.iter().copied().filter(|id| has(bits, *id)).collect();
                        groups.place(&mut entries, class, &selectors);
                        model.insert(class, selectors.into_iter().collect());
                    }
                    Step::Remove(class) => {
                        groups.remove(&mut entries, class);
                        model.remove(&class);
                    }
                    Step::Add(bits) => {
                        let id = entries.insert(Entry::new(Selector::all(), Choice(0)));
                        living.insert(id);
                        let classes: Vec<ClassId> = model.keys().copied().filter(|class| has(bits, *class)).collect();
                        groups.add(&mut entries, id, &classes);
                        classes.iter().for_each(|class| {
                            model.entry(*class).or_default().insert(id);
                        });
                    }
                    Step::Forget(at) => {
                        let Some(id) = living.iter().copied().nth(usize::from(at) % living.len().max(1)) else { continue };
                        living.remove(&id);
                        let entry = entries.remove(id).expect("it is there");
                        groups.forget(&mut entries, id, entry.groups().iter().collect());
                        model.values_mut().for_each(|selectors| {
                            selectors.remove(&id);
                        });
                    }
                }
                check(&groups, &entries, &model)?;
            }
        }
    }
}
