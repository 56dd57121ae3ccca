//! Maps and sets by prefix, each family by itself: a prefix of IPv4 takes 5 bytes there, and 18 as one of either family.
//!
//! Invariant: a map is walked in an order that follows from what was done to it, never from a hash. Who shows prefixes
//! to somebody sorts them.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher};

use hashbrown::DefaultHashBuilder;
use tortie_net::{Family, IpNet, Ipv4Net, Ipv6Net};

use super::index::Index;

/// A prefix of IPv4, in as few bytes as it takes, which are compared as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, packed)]
struct V4 {
    address: u32,
    length: u8,
}

impl From<Ipv4Net> for V4 {
    fn from(net: Ipv4Net) -> Self {
        V4 { address: net.addr().to_bits(), length: net.prefix_len() }
    }
}

impl From<V4> for IpNet {
    fn from(V4 { address, length }: V4) -> Self {
        IpNet::V4(Ipv4Net::new_assert(address.into(), length))
    }
}

impl Hash for V4 {
    /// As one number.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.address) << 8 | u64::from(self.length));
    }
}

/// What becomes of an entry that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It stays.
    Keep,
    /// It stays, and is taken up later.
    Mark,
    /// It goes.
    Remove,
}

/// A map of one family: entries in a row, and a hash table of their places.
#[derive(Clone, Debug)]
struct Table<K, V> {
    row: Vec<Option<Entry<K, V>>>,
    /// Places in the row without an entry.
    free: Vec<u32>,
    places: Index,
    hasher: DefaultHashBuilder,
}

#[derive(Clone, Debug)]
struct Entry<K, V> {
    key: K,
    /// It waits to be taken up.
    marked: bool,
    value: V,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Table { row: Vec::new(), free: Vec::new(), places: Index::default(), hasher: DefaultHashBuilder::default() }
    }
}

/// A row that is shorter gives no places back.
const SHORT: usize = 1024;

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    fn hash(&self, key: K) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    fn find(&self, key: K) -> Option<u32> {
        self.find_hashed(key, self.hash(key))
    }

    fn find_hashed(&self, key: K, hash: u32) -> Option<u32> {
        self.places.find(hash, |place| self.at(place).is_some_and(|entry| entry.key == key))
    }

    fn at(&self, place: u32) -> Option<&Entry<K, V>> {
        self.row.get(place as usize)?.as_ref()
    }

    fn at_mut(&mut self, place: u32) -> Option<&mut Entry<K, V>> {
        self.row.get_mut(place as usize)?.as_mut()
    }

    fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let place = self.find(key)?;
        self.at_mut(place).map(|entry| &mut entry.value)
    }

    /// The place of a prefix, and whether it was taken just now, with the value that `new` makes.
    fn place(&mut self, key: K, new: impl FnOnce() -> V) -> (u32, bool) {
        let hash = self.hash(key);
        if let Some(place) = self.find_hashed(key, hash) {
            return (place, false);
        }
        let entry = Some(Entry { key, marked: false, value: new() });
        let place = match self.free.pop() {
            Some(place) => {
                self.row[place as usize] = entry;
                place
            }
            None => {
                self.row.push(entry);
                u32::try_from(self.row.len() - 1).expect("more would not fit into memory")
            }
        };
        self.places.insert(hash, place);
        (place, true)
    }

    fn insert(&mut self, key: K, value: V) {
        match self.get_mut(key) {
            Some(old) => *old = value,
            None => drop(self.place(key, || value)),
        }
    }

    fn remove_at(&mut self, place: u32) -> Option<V> {
        let Entry { key, value, .. } = self.row.get_mut(place as usize)?.take()?;
        self.places.remove(self.hash(key), place);
        self.free.push(place);
        Some(value)
    }

    /// Gives memory back where most places are free. Places change.
    fn shrink(&mut self) {
        if self.row.len() >= SHORT && self.places.len() <= self.row.len() / 4 {
            self.row.retain(Option::is_some);
            self.row.shrink_to_fit();
            self.free = Vec::new();
            self.places = Index::with_room(self.row.len());
            for (place, entry) in (0..).zip(self.row.iter().flatten()) {
                self.places.insert(self.hasher.hash_one(entry.key) as u32, place);
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry<K, V>> {
        self.row.iter().flatten()
    }

    fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry<K, V>> {
        self.row.iter_mut().flatten()
    }

    fn retain(&mut self, mut keep: impl FnMut(K, &mut V) -> bool) {
        for place in (0..).take(self.row.len()) {
            if self.at_mut(place).is_some_and(|entry| !keep(entry.key, &mut entry.value)) {
                self.remove_at(place);
            }
        }
    }

    /// Looks at an entry and does with it what is said; the second answer: it is to wait, and did not until now.
    fn look<R>(&mut self, place: u32, look: impl FnOnce(K, &mut V) -> (R, Then)) -> Option<(R, bool)> {
        let entry = self.at_mut(place)?;
        let (answer, then) = look(entry.key, &mut entry.value);
        let waits = match then {
            Then::Keep => false,
            Then::Mark => !std::mem::replace(&mut entry.marked, true),
            Then::Remove => {
                self.remove_at(place);
                false
            }
        };
        Some((answer, waits))
    }
}

/// A map by prefix. Entries can be marked, and are taken up in the order in which that was done.
#[derive(Clone, Debug)]
pub(crate) struct PrefixMap<V> {
    v4: Table<V4, V>,
    v6: Table<Ipv6Net, V>,
    /// The places of what is marked; some may have been removed since.
    marked: VecDeque<(Family, u32)>,
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        PrefixMap { v4: Table::default(), v6: Table::default(), marked: VecDeque::new() }
    }
}

impl<V> PrefixMap<V> {
    pub(crate) fn get(&self, prefix: IpNet) -> Option<&V> {
        match prefix {
            IpNet::V4(net) => self.v4.at(self.v4.find(net.into())?).map(|entry| &entry.value),
            IpNet::V6(net) => self.v6.at(self.v6.find(net)?).map(|entry| &entry.value),
        }
    }

    pub(crate) fn get_mut(&mut self, prefix: IpNet) -> Option<&mut V> {
        match prefix {
            IpNet::V4(net) => self.v4.get_mut(net.into()),
            IpNet::V6(net) => self.v6.get_mut(net),
        }
    }

    /// Sets the value of a prefix.
    pub(crate) fn insert(&mut self, prefix: IpNet, value: V) {
        match prefix {
            IpNet::V4(net) => self.v4.insert(net.into(), value),
            IpNet::V6(net) => self.v6.insert(net, value),
        }
    }

    /// Looks at the value of a prefix, which `new` makes if there is none; `look` is told whether it did.
    pub(crate) fn update<R>(
        &mut self,
        prefix: IpNet,
        new: impl FnOnce() -> V,
        look: impl FnOnce(&mut V, bool) -> (R, Then),
    ) -> Option<R> {
        let place = match prefix {
            IpNet::V4(net) => self.v4.place(net.into(), new),
            IpNet::V6(net) => self.v6.place(net, new),
        };
        self.look(Family::of_net(prefix), place.0, |_, value| look(value, place.1))
    }

    /// Makes looking at each of these next faster.
    pub(crate) fn foresee(&self, prefixes: impl Iterator<Item = IpNet> + Clone) {
        let v4 = prefixes.clone().filter_map(|prefix| if let IpNet::V4(net) = prefix { Some(net) } else { None });
        let v6 = prefixes.filter_map(|prefix| if let IpNet::V6(net) = prefix { Some(net) } else { None });
        self.v4.places.foresee(v4.map(|net| self.v4.hash(net.into())));
        self.v6.places.foresee(v6.map(|net| self.v6.hash(net)));
    }

    /// Looks at the value of a prefix, if there is one.
    pub(crate) fn revise<R>(&mut self, prefix: IpNet, look: impl FnOnce(&mut V) -> (R, Then)) -> Option<R> {
        let place = match prefix {
            IpNet::V4(net) => self.v4.find(net.into())?,
            IpNet::V6(net) => self.v6.find(net)?,
        };
        let answer = self.look(Family::of_net(prefix), place, |_, value| look(value));
        self.shrink();
        answer
    }

    pub(crate) fn remove(&mut self, prefix: IpNet) {
        self.revise(prefix, |_| ((), Then::Remove));
    }

    /// Takes up what was marked first.
    pub(crate) fn take_up<R>(&mut self, look: impl FnOnce(IpNet, &mut V) -> (R, Then)) -> Option<R> {
        loop {
            let (family, place) = self.marked.pop_front()?;
            let was_marked = match family {
                Family::V4 => self.v4.at_mut(place).is_some_and(|entry| std::mem::take(&mut entry.marked)),
                Family::V6 => self.v6.at_mut(place).is_some_and(|entry| std::mem::take(&mut entry.marked)),
            };
            if was_marked {
                let answer = self.look(family, place, look);
                self.shrink();
                return answer;
            }
        }
    }

    /// Marks everything.
    pub(crate) fn mark_all(&mut self) {
        fn all<K: Copy + Eq + Hash, V>(table: &mut Table<K, V>) -> impl Iterator<Item = u32> {
            (0..).zip(&mut table.row).filter_map(|(place, entry)| {
                let entry = entry.as_mut()?;
                (!std::mem::replace(&mut entry.marked, true)).then_some(place)
            })
        }
        self.marked.extend(all(&mut self.v4).map(|place| (Family::V4, place)));
        self.marked.extend(all(&mut self.v6).map(|place| (Family::V6, place)));
    }

    fn look<R>(&mut self, family: Family, place: u32, look: impl FnOnce(IpNet, &mut V) -> (R, Then)) -> Option<R> {
        let (answer, waits) = match family {
            Family::V4 => self.v4.look(place, |net, value| look(net.into(), value))?,
            Family::V6 => self.v6.look(place, |net, value| look(IpNet::V6(net), value))?,
        };
        if waits {
            self.marked.push_back((family, place));
        }
        Some(answer)
    }

    /// Gives memory back; not while places are noted as marked.
    fn shrink(&mut self) {
        if self.marked.is_empty() {
            self.v4.shrink();
            self.v6.shrink();
            if self.marked.capacity() > SHORT {
                self.marked = VecDeque::new();
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpNet, &V)> {
        let v4 = self.v4.entries().map(|entry| (IpNet::from(entry.key), &entry.value));
        v4.chain(self.v6.entries().map(|entry| (IpNet::V6(entry.key), &entry.value)))
    }

    /// Every value, to be changed.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let v4 = self.v4.entries_mut().map(|entry| &mut entry.value);
        v4.chain(self.v6.entries_mut().map(|entry| &mut entry.value))
    }

    /// Every entry of a family, to be changed.
    pub(crate) fn of_family_mut(&mut self, family: Family) -> impl Iterator<Item = (IpNet, &mut V)> {
        let (v4, v6) = match family {
            Family::V4 => (Some(&mut self.v4), None),
            Family::V6 => (None, Some(&mut self.v6)),
        };
        let v4 = v4.into_iter().flat_map(Table::entries_mut);
        let v6 = v6.into_iter().flat_map(Table::entries_mut);
        let v4 = v4.map(|entry| (IpNet::from(entry.key), &mut entry.value));
        v4.chain(v6.map(|entry| (IpNet::V6(entry.key), &mut entry.value)))
    }

    /// Keeps what `keep` says, of one family or of both.
    pub(crate) fn retain(&mut self, family: Option<Family>, mut keep: impl FnMut(IpNet, &mut V) -> bool) {
        if family != Some(Family::V6) {
            self.v4.retain(|net, value| keep(IpNet::from(net), value));
        }
        if family != Some(Family::V4) {
            self.v6.retain(|net, value| keep(IpNet::V6(net), value));
        }
        self.shrink();
    }

    /// How many prefixes there are.
    pub(crate) fn len(&self) -> usize {
        self.v4.places.len() + self.v6.places.len()
    }
}

impl<V> FromIterator<(IpNet, V)> for PrefixMap<V> {
    fn from_iter<I: IntoIterator<Item = (IpNet, V)>>(entries: I) -> Self {
        let mut map = PrefixMap::default();
        entries.into_iter().for_each(|(prefix, value)| map.insert(prefix, value));
        map
    }
}

/// A set of prefixes, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrefixSet {
    v4: BTreeSet<V4>,
    v6: BTreeSet<Ipv6Net>,
}

impl PrefixSet {
    pub(crate) fn insert(&mut self, prefix: IpNet) {
        match prefix {
            IpNet::V4(net) => drop(self.v4.insert(net.into())),
            IpNet::V6(net) => drop(self.v6.insert(net)),
        }
    }

    fn pop_first(&mut self) -> Option<IpNet> {
        let v4 = self.v4.pop_first().map(IpNet::from);
        v4.or_else(|| self.v6.pop_first().map(IpNet::V6))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Takes out the first ones, up to so many.
    pub(crate) fn take(&mut self, count: usize) -> Vec<IpNet> {
        std::iter::from_fn(|| self.pop_first()).take(count).collect()
    }
}

impl Extend<IpNet> for PrefixSet {
    /// For many at once: they are sorted first.
    fn extend<I: IntoIterator<Item = IpNet>>(&mut self, prefixes: I) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push(V4::from(net)),
                IpNet::V6(net) => v6.push(net),
            }
        }
        self.v4.append(&mut v4.into_iter().collect());
        self.v6.append(&mut v6.into_iter().collect());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn prefix(number: u32) -> IpNet {
        let text = if number.is_multiple_of(3) {
            format!("fd00::{number:x}/128")
        } else {
            format!("10.{}.{}.0/24", number / 256 % 256, number % 256)
        };
        text.parse().expect("a prefix")
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u32, u8),
        Update(u32, u8, bool),
        Revise(u32, u8, Then),
        TakeUp(bool),
        MarkAll,
        Retain(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let then = prop_oneof![Just(Then::Keep), Just(Then::Mark), Just(Then::Remove)];
        let step = prop_oneof![
            4 => (0..40_u32, 0..5_u8).prop_map(|(net, value)| Step::Insert(net, value)),
            8 => (0..40_u32, 0..5_u8, any::<bool>()).prop_map(|(net, value, mark)| Step::Update(net, value, mark)),
            8 => (0..40_u32, 0..5_u8, then).prop_map(|(net, value, then)| Step::Revise(net, value, then)),
            6 => any::<bool>().prop_map(Step::TakeUp),
            1 => Just(Step::MarkAll),
            1 => (0..5_u8).prop_map(Step::Retain),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Beside a map in order and a list of what was marked.
        #[test]
        fn entries_and_marks_are_as_in_a_plain_map(steps in steps()) {
            let mut map: PrefixMap<u8> = PrefixMap::default();
            let (mut model, mut marked): (BTreeMap<IpNet, u8>, Vec<IpNet>) = (BTreeMap::new(), Vec::new());
            let mark = |marked: &mut Vec<IpNet>, net| if !marked.contains(&net) { marked.push(net) };
            for step in steps {
                match step {
                    Step::Insert(net, value) => {
                        map.insert(prefix(net), value);
                        model.insert(prefix(net), value);
                    }
                    Step::Update(net, value, marks) => {
                        let then = if marks { Then::Mark } else { Then::Keep };
                        let found = map.update(prefix(net), || 9, |slot, new| ((std::mem::replace(slot, value), new), then));
                        let before = model.insert(prefix(net), value);
                        prop_assert_eq!(found, Some((before.unwrap_or(9), before.is_none())));
                        if marks {
                            mark(&mut marked, prefix(net));
                        }
                    }
                    Step::Revise(net, value, then) => {
                        let found = map.revise(prefix(net), |slot| (std::mem::replace(slot, value), then));
                        prop_assert_eq!(found, model.get(&prefix(net)).copied());
                        if found.is_none() {
                            continue;
                        }
                        model.insert(prefix(net), value);
                        match then {
                            Then::Keep => {}
                            Then::Mark => mark(&mut marked, prefix(net)),
                            Then::Remove => {
                                model.remove(&prefix(net));
                                marked.retain(|other| *other != prefix(net));
                            }
                        }
                    }
                    Step::TakeUp(keep) => {
                        let then = if keep { Then::Keep } else { Then::Remove };
                        let taken = map.take_up(|net, value| ((net, *value), then));
                        // A place that was given away and taken again may come up earlier, at its old turn.
                        prop_assert_eq!(taken.is_none(), marked.is_empty());
                        let Some((net, value)) = taken else { continue };
                        prop_assert!(marked.contains(&net));
                        prop_assert_eq!(model.get(&net), Some(&value));
                        marked.retain(|other| *other != net);
                        if !keep {
                            model.remove(&net);
                        }
                    }
                    Step::MarkAll => {
                        map.mark_all();
                        model.keys().for_each(|net| mark(&mut marked, *net));
                    }
                    Step::Retain(least) => {
                        map.retain(Some(Family::V4), |_, value| *value >= least);
                        model.retain(|net, value| matches!(net, IpNet::V6(_)) || *value >= least);
                        marked.retain(|net| model.contains_key(net));
                    }
                }
                prop_assert_eq!(map.iter().map(|(net, value)| (net, *value)).collect::<BTreeMap<_, _>>(), model.clone());
                prop_assert_eq!(map.len(), model.len());
                prop_assert!((0..40).all(|net| map.get(prefix(net)) == model.get(&prefix(net))));
            }
        }
    }

    #[test]
    fn what_is_marked_comes_in_its_turn_and_once() {
        let mut map: PrefixMap<u32> = (0..10).map(|number| (prefix(number), number)).collect();
        for number in [7, 3, 7, 0, 3] {
            map.revise(prefix(number), |_| ((), Then::Mark));
        }
        let taken: Vec<u32> = std::iter::from_fn(|| map.take_up(|_, number| (*number, Then::Keep))).collect();
        assert_eq!(taken, [7, 3, 0]);
    }

    #[test]
    fn memory_is_given_back_once_nothing_waits() {
        let mut map: PrefixMap<u32> = (0..60_000).map(|number| (prefix(number), number)).collect();
        for number in 100..60_000 {
            map.revise(prefix(number), |_| ((), Then::Mark));
        }
        let before = map.v4.row.len();
        while map.take_up(|_, _| ((), Then::Remove)).is_some() {}
        assert!(map.v4.row.len() < before / 16, "{} of {before}", map.v4.row.len());
        assert!((0..100).all(|number| map.get(prefix(number)) == Some(&number)));
        assert_eq!(map.len(), 100);
    }

    #[test]
    fn an_entry_of_sixteen_bytes_takes_eight_more() {
        assert_eq!(size_of::<Option<Entry<V4, [u64; 2]>>>(), 24);
    }
}
