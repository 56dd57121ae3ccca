//! Who is in each set, counted once?
//!
//! Membership is not stored: an address is in a set if one of its owners is of a class that the set's selector
//! matches. Invariant: before anything changes, every member that the change could touch is noted with what it was
//! at the last flush; the flush compares. So an address of two owners stays until both are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashTable;
use tortie_desired::{Member, Members, SetChange, SetId, SetKind};
use tortie_net::IpNet;

use super::item::{Held, Kept, Nets, is_host};
use super::owners::Owners;
use super::services::{Services, Slice};
use super::{Item, ItemKey, PortName, Selected, SetSpec};
use crate::bgp::Behind;
use crate::key_hash::{KeyHash, KeyHasher};
use crate::labels::{ClassId, Index, ItemId, Pairs, ParentId, SelectorId, symmetric_difference};
use crate::slab::Slab;

#[derive(Debug)]
struct Set {
    spec: Selected,
    users: usize,
    /// The kind that the last flush told; `None`: the set is not out yet.
    out: Option<SetKind>,
    /// Members that may have changed since the last flush, and whether they were in.
    touched: BTreeMap<Member, bool>,
}

/// All sets that active rules use, and everything that can be in them.
#[derive(Debug, Default)]
pub(crate) struct IpSets {
    index: Index,
    by_key: HashTable<ItemId>,
    hasher: KeyHasher,
    items: Slab<Kept>,
    owners: Owners,
    ids: BTreeMap<SetId, SelectorId>,
    sets: BTreeMap<SelectorId, Set>,
    dirty: BTreeSet<SelectorId>,
    services: Services,
}

impl IpSets {
    /// Some of the addresses behind a service came, changed or went.
    /// Returns whether other endpoints are ready now.
    pub(crate) fn set_slice(&mut self, namespace: &Arc<str>, name: &str, slice: Option<Slice>) -> bool {
        self.services.set_slice(namespace, name, slice)
    }

    /// What is known of the endpoints of a service.
    pub(crate) fn behind(&self, service: &str) -> Behind {
        self.services.behind(service)
    }

    /// An item came, changed or went.
    pub(crate) fn set_item(&mut self, key: &ItemKey<'_>, item: Option<Item<'_>>) {
        let key = self.hasher.hash(key);
        let is = |id: &ItemId| self.items.get(*id).is_some_and(|kept| kept.key == key);
        match (self.by_key.find(key.short(), is).copied(), item) {
            (None, None) => {}
            (Some(id), None) => self.remove_item(id),
            (None, Some(item)) => self.add_item(key, item),
            (Some(id), Some(item)) => self.change_item(id, item),
        }
    }

    fn add_item(&mut self, key: KeyHash, item: Item<'_>) {
        let Item { identity, nets, ports } = item;
        let class = self.index.class_for(&identity);
        let held = Held { nets: nets.into(), ports: ports.into() };
        self.touch_class(class, &held);
        let id = self.items.insert(Kept { key, class, held });
        let Kept { key: _, class: _, held } = self.items.get(id).expect("just put there");
        self.owners.own(&self.items, id, held.nets.as_slice());
        self.index.enter(class, id);
        self.by_key.insert_unique(key.short(), id, |id| self.items.get(*id).map_or(0, |kept| kept.key.short()));
    }

    fn remove_item(&mut self, id: ItemId) {
        self.touch_item(id);
        let Kept { key, class, held } = self.items.remove(id).expect("keys name living items");
        if let Ok(entry) = self.by_key.find_entry(key.short(), |found| *found == id) {
            entry.remove();
        }
        self.owners.disown(id, held.nets.as_slice());
        self.index.leave(class, id);
    }

    fn change_item(&mut self, id: ItemId, item: Item<'_>) {
        let Item { identity, nets, ports } = item;
        let class = self.index.class_for(&identity);
        let new = Held { nets: nets.into(), ports: ports.into() };
        let Kept { key: _, class: old_class, held: old } = self.items.get(id).expect("keys name living items");
        let (old_class, same_ports) = (*old_class, old.ports == new.ports);
        let gone = without(old.nets.as_slice(), new.nets.as_slice());
        let came = without(new.nets.as_slice(), old.nets.as_slice());
        let same_nets = gone.is_empty() && came.is_empty();
        if old_class == class && same_ports && same_nets {
            return;
        }
        if same_nets && same_ports {
            let flipped = symmetric_difference(self.index.matches(old_class), self.index.matches(class));
            for selector in flipped {
                touch_held(&self.index, &self.items, &self.owners, &mut self.sets, selector, &new);
                self.dirty.insert(selector);
            }
        } else if old_class == class && same_ports {
            let changed: Vec<IpNet> = gone.iter().chain(&came).copied().collect();
            self.touch_class(class, &Held { nets: changed.into(), ports: new.ports.clone() });
        } else {
            self.touch_item(id);
            self.touch_class(class, &new);
        }
        self.owners.disown(id, &gone);
        let kept = self.items.get_mut(id).expect("keys name living items");
        (kept.class, kept.held) = (class, new);
        self.owners.own(&self.items, id, &came);
        if old_class != class {
            self.index.enter(class, id);
            self.index.leave(old_class, id);
        }
    }

    /// The labels that a profile lends came, changed or went.
    pub(crate) fn set_parent(&mut self, name: &str, labels: Option<&Pairs<'_>>) {
        let Some(plan) = self.index.plan_parent(name, labels) else { return };
        for shift in &plan.shifts {
            let items: Vec<ItemId> = self.index.items(shift.class).collect();
            for selector in &shift.flipped {
                for item in &items {
                    touch(&self.index, &self.items, &self.owners, &mut self.sets, *selector, *item);
                }
                self.dirty.insert(*selector);
            }
        }
        self.index.set_parent(plan);
    }

    /// The number of a profile that is there; it keeps it as long as it is.
    pub(crate) fn profile(&self, name: &str) -> Option<ParentId> {
        self.index.parent(name)
    }

    /// The labels that a profile lends; `None` if it is not there.
    pub(crate) fn lent(&self, name: &str) -> Option<Pairs<'_>> {
        self.index.lent(name)
    }

    /// One more user of a set; the first one makes it.
    pub(crate) fn acquire(&mut self, spec: &SetSpec) {
        let spec = match spec {
            SetSpec::Selected(spec) => spec,
            SetSpec::Service(spec) => return self.services.acquire(spec),
        };
        if let Some(selector) = self.ids.get(&spec.id) {
            self.sets.get_mut(selector).expect("ids name living sets").users += 1;
            return;
        }
        let selector = self.index.add_selector(spec.selector.clone());
        self.sets.insert(selector, Set { spec: spec.clone(), users: 1, out: None, touched: BTreeMap::new() });
        self.ids.insert(spec.id.clone(), selector);
        self.dirty.insert(selector);
    }

    /// One user less; a set without users goes with the next flush.
    pub(crate) fn release(&mut self, id: &SetId) {
        let Some(selector) = self.ids.get(id) else { return self.services.release(id) };
        let set = self.sets.get_mut(selector).expect("ids name living sets");
        set.users -= 1;
        if set.users == 0 {
            self.dirty.insert(*selector);
        }
    }

    /// What a set holds, for people.
    pub(crate) fn describe(&self, id: &SetId) -> Option<String> {
        match self.ids.get(id) {
            Some(selector) => Some(self.sets.get(selector)?.spec.describe()),
            None => self.services.describe(id),
        }
    }

    /// What changed since the last flush.
    pub(crate) fn flush(&mut self) -> BTreeMap<SetId, SetChange> {
        let mut out = self.services.flush();
        for selector in std::mem::take(&mut self.dirty) {
            let Some(set) = self.sets.get_mut(&selector) else { continue };
            if set.users == 0 {
                let Set { spec, users: _, out: was_out, touched: _ } = self.sets.remove(&selector).expect("just seen");
                self.index.remove_selector(selector);
                self.ids.remove(&spec.id);
                if was_out.is_some() {
                    out.insert(spec.id, SetChange::Removed);
                }
                continue;
            }
            let touched = std::mem::take(&mut set.touched);
            let (id, was) = (set.spec.id.clone(), set.out);
            let whole = match was {
                // Only prefixes can change the kind of a set.
                Some(_) if !touched.keys().any(is_prefix) => None,
                Some(kind) if kind == self.kind(selector) => None,
                Some(_) | None => Some(self.whole(selector)),
            };
            if let Some((kind, members)) = whole {
                out.insert(id, SetChange::Whole { kind, members });
                self.sets.get_mut(&selector).expect("just seen").out = Some(kind);
            } else {
                let (mut added, mut removed) = (BTreeSet::new(), BTreeSet::new());
                for (member, was_in) in touched {
                    match (was_in, self.holds(selector, &member)) {
                        (false, true) => added.insert(member),
                        (true, false) => removed.insert(member),
                        (true, true) | (false, false) => false,
                    };
                }
                if !(added.is_empty() && removed.is_empty()) {
                    out.insert(id, SetChange::Delta { added, removed });
                }
            }
        }
        out
    }

    fn kind(&self, selector: SelectorId) -> SetKind {
        if self.sets.get(&selector).is_some_and(|set| set.spec.port.is_some()) {
            return SetKind::Ports;
        }
        let mut items = self.index.classes_of(selector).flat_map(|class| self.index.items(class));
        let wide = items.any(|item| self.items.get(item).is_some_and(|kept| kept.held.is_wide()));
        if wide { SetKind::Nets } else { SetKind::Addresses }
    }

    /// All that a set holds, and the kind that it is of.
    fn whole(&self, selector: SelectorId) -> (SetKind, Members) {
        let port = self.sets.get(&selector).and_then(|set| set.spec.port.as_ref());
        // A class has one item as a rule.
        let (mut members, mut wide) = (Vec::with_capacity(self.index.class_count(selector)), false);
        for class in self.index.classes_of(selector) {
            for kept in self.index.items(class).filter_map(|item| self.items.get(item)) {
                match (&kept.held.nets, port) {
                    // Most of all that there is.
                    (Nets::One(net), None) => members.push(Member::Net(*net)),
                    (Nets::One(_) | Nets::Many(_), _) => members.extend(kept.held.members(port)),
                }
                wide |= kept.held.is_wide();
            }
        }
        let kind = match (port, wide) {
            (Some(_), _) => SetKind::Ports,
            (None, true) => SetKind::Nets,
            (None, false) => SetKind::Addresses,
        };
        (kind, members.into())
    }

    fn holds(&self, selector: SelectorId, member: &Member) -> bool {
        let port = self.sets.get(&selector).and_then(|set| set.spec.port.as_ref());
        holds(&self.index, &self.items, &self.owners, selector, port, member)
    }

    fn touch_item(&mut self, id: ItemId) {
        let class = self.items.get(id).expect("keys name living items").class;
        for selector in self.index.matches(class) {
            touch(&self.index, &self.items, &self.owners, &mut self.sets, *selector, id);
            self.dirty.insert(*selector);
        }
    }

    /// The item is about to bring its members into whatever matches this class.
    fn touch_class(&mut self, class: ClassId, held: &Held) {
        for selector in self.index.matches(class) {
            touch_held(&self.index, &self.items, &self.owners, &mut self.sets, *selector, held);
            self.dirty.insert(*selector);
        }
    }
}

/// What of one sorted list is not in the other.
fn without(nets: &[IpNet], others: &[IpNet]) -> Vec<IpNet> {
    nets.iter().copied().filter(|net| others.binary_search(net).is_err()).collect()
}

fn is_prefix(member: &Member) -> bool {
    match member {
        Member::Net(net) => !is_host(*net),
        Member::Port { addr: _, protocol: _, port: _ } => false,
    }
}

fn holds(
    index: &Index,
    items: &Slab<Kept>,
    owners: &Owners,
    selector: SelectorId,
    port: Option<&PortName>,
    member: &Member,
) -> bool {
    let net = match member {
        Member::Net(net) => *net,
        Member::Port { addr, protocol: _, port: _ } => IpNet::from(*addr),
    };
    let brings = |item: ItemId| {
        let matched = |kept: &Kept| index.matches(kept.class).binary_search(&selector).is_ok();
        items.get(item).is_some_and(|kept| matched(kept) && kept.held.brings(port, member))
    };
    owners.of(items, net).any(brings)
}

fn touch(
    index: &Index,
    items: &Slab<Kept>,
    owners: &Owners,
    sets: &mut BTreeMap<SelectorId, Set>,
    selector: SelectorId,
    item: ItemId,
) {
    let kept = items.get(item).expect("classes hold living items");
    touch_held(index, items, owners, sets, selector, &kept.held);
}

/// Notes what this set's members of this item are before they change. A set that is not out yet needs no notes.
fn touch_held(
    index: &Index,
    items: &Slab<Kept>,
    owners: &Owners,
    sets: &mut BTreeMap<SelectorId, Set>,
    selector: SelectorId,
    held: &Held,
) {
    let Some(Set { spec, users: _, out: Some(_), touched }) = sets.get_mut(&selector) else { return };
    let port = spec.port.as_ref();
    for member in held.members(port) {
        touched.entry(member).or_insert_with(|| holds(index, items, owners, selector, port, &member));
    }
}
