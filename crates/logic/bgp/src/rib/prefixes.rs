//! Maps and sets by prefix, each family by itself: a prefix of IPv4 takes 5 bytes there, and 18 as one of either family.
//!
//! Invariant: the order is that of `IpNet`, IPv4 first.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use tortie_net::{Family, IpNet, Ipv4Net, Ipv6Net};

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

/// A map by prefix.
#[derive(Clone, Debug)]
pub(crate) struct PrefixMap<V> {
    v4: BTreeMap<V4, V>,
    v6: BTreeMap<Ipv6Net, V>,
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        PrefixMap { v4: BTreeMap::new(), v6: BTreeMap::new() }
    }
}

impl<V> PrefixMap<V> {
    pub(crate) fn get(&self, prefix: IpNet) -> Option<&V> {
        match prefix {
            IpNet::V4(net) => self.v4.get(&net.into()),
            IpNet::V6(net) => self.v6.get(&net),
        }
    }

    pub(crate) fn get_mut(&mut self, prefix: IpNet) -> Option<&mut V> {
        match prefix {
            IpNet::V4(net) => self.v4.get_mut(&net.into()),
            IpNet::V6(net) => self.v6.get_mut(&net),
        }
    }

    pub(crate) fn insert(&mut self, prefix: IpNet, value: V) -> Option<V> {
        match prefix {
            IpNet::V4(net) => self.v4.insert(net.into(), value),
            IpNet::V6(net) => self.v6.insert(net, value),
        }
    }

    pub(crate) fn remove(&mut self, prefix: IpNet) -> Option<V> {
        match prefix {
            IpNet::V4(net) => self.v4.remove(&net.into()),
            IpNet::V6(net) => self.v6.remove(&net),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpNet, &V)> {
        let v4 = self.v4.iter().map(|(net, value)| (IpNet::from(*net), value));
        v4.chain(self.v6.iter().map(|(net, value)| (IpNet::V6(*net), value)))
    }

    /// Every value, to be changed.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.v4.values_mut().chain(self.v6.values_mut())
    }

    /// Every entry of a family, to be changed.
    pub(crate) fn of_family_mut(&mut self, family: Family) -> impl Iterator<Item = (IpNet, &mut V)> {
        let (v4, v6) = match family {
            Family::V4 => (Some(&mut self.v4), None),
            Family::V6 => (None, Some(&mut self.v6)),
        };
        let v4 = v4.into_iter().flatten().map(|(net, value)| (IpNet::from(*net), value));
        v4.chain(v6.into_iter().flatten().map(|(net, value)| (IpNet::V6(*net), value)))
    }

    /// The value of a prefix, which `new` makes if there is none.
    pub(crate) fn update<R>(
        &mut self,
        prefix: IpNet,
        new: impl FnOnce() -> V,
        found: impl FnOnce(&mut V, bool) -> R,
    ) -> R {
        fn of<K: Ord, V, R>(
            map: &mut BTreeMap<K, V>,
            key: K,
            new: impl FnOnce() -> V,
            found: impl FnOnce(&mut V, bool) -> R,
        ) -> R {
            match map.entry(key) {
                Entry::Vacant(slot) => found(slot.insert(new()), true),
                Entry::Occupied(slot) => found(slot.into_mut(), false),
            }
        }
        match prefix {
            IpNet::V4(net) => of(&mut self.v4, net.into(), new, found),
            IpNet::V6(net) => of(&mut self.v6, net, new, found),
        }
    }

    /// Looks at the value of a prefix, if there is one, and keeps it if the second answer says so.
    pub(crate) fn revise<R>(&mut self, prefix: IpNet, look: impl FnOnce(&mut V) -> (R, bool)) -> Option<R> {
        fn of<K: Ord, V, R>(map: &mut BTreeMap<K, V>, key: K, look: impl FnOnce(&mut V) -> (R, bool)) -> Option<R> {
            let Entry::Occupied(mut slot) = map.entry(key) else { return None };
            let (answer, keep) = look(slot.get_mut());
            if !keep {
                slot.remove();
            }
            Some(answer)
        }
        match prefix {
            IpNet::V4(net) => of(&mut self.v4, net.into(), look),
            IpNet::V6(net) => of(&mut self.v6, net, look),
        }
    }

    /// How many prefixes there are.
    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Keeps what `keep` says, of one family or of both.
    pub(crate) fn retain(&mut self, family: Option<Family>, mut keep: impl FnMut(IpNet, &mut V) -> bool) {
        if family != Some(Family::V6) {
            self.v4.retain(|net, value| keep(IpNet::from(*net), value));
        }
        if family != Some(Family::V4) {
            self.v6.retain(|net, value| keep(IpNet::V6(*net), value));
        }
    }
}

impl<V> FromIterator<(IpNet, V)> for PrefixMap<V> {
    fn from_iter<I: IntoIterator<Item = (IpNet, V)>>(entries: I) -> Self {
        let mut map = PrefixMap::default();
        entries.into_iter().for_each(|(prefix, value)| drop(map.insert(prefix, value)));
        map
    }
}

/// A set of prefixes.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrefixSet(PrefixMap<()>);

impl PrefixSet {
    pub(crate) fn insert(&mut self, prefix: IpNet) {
        self.0.insert(prefix, ());
    }

    pub(crate) fn pop_first(&mut self) -> Option<IpNet> {
        let PrefixMap { v4, v6 } = &mut self.0;
        let v4 = v4.pop_first().map(|(net, ())| net.into());
        v4.or_else(|| v6.pop_first().map(|(net, ())| IpNet::V6(net)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Extend<IpNet> for PrefixSet {
    fn extend<I: IntoIterator<Item = IpNet>>(&mut self, prefixes: I) {
        prefixes.into_iter().for_each(|prefix| self.insert(prefix));
    }
}

/// Prefixes to be told, a round after the other, each once a round and in order. What comes while a round is told is of
/// the next. A list that is sorted once, as there may be hundreds of thousands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds {
    /// What is left of this round, last first.
    round: Lists,
    /// The next one, in no order.
    next: Lists,
    /// How many of the next were different from each other when that was looked at last.
    different: usize,
}

#[derive(Clone, Debug, Default)]
struct Lists {
    v4: Vec<V4>,
    v6: Vec<Ipv6Net>,
}

/// So many prefixes may be in the next round before it is looked whether some are the same.
const UNSORTED: usize = 4096;

impl Rounds {
    pub(crate) fn insert(&mut self, prefix: IpNet) {
        match prefix {
            IpNet::V4(net) => self.next.v4.push(net.into()),
            IpNet::V6(net) => self.next.v6.push(net),
        }
        // However often they change, it holds no more than twice as many as there are.
        if self.next.len() >= UNSORTED.max(2 * self.different) {
            self.next.sort();
            self.different = self.next.len();
        }
    }

    pub(crate) fn pop_first(&mut self) -> Option<IpNet> {
        if self.round.len() == 0 {
            self.different = 0;
            self.round = std::mem::take(&mut self.next);
            self.round.sort();
        }
        let v4 = self.round.v4.pop().map(IpNet::from);
        v4.or_else(|| self.round.v6.pop().map(IpNet::V6))
    }
}

impl Extend<IpNet> for Rounds {
    fn extend<I: IntoIterator<Item = IpNet>>(&mut self, prefixes: I) {
        prefixes.into_iter().for_each(|prefix| self.insert(prefix));
    }
}

impl Lists {
    fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Last first, each once.
    fn sort(&mut self) {
        self.v4.sort_unstable_by(|a, b| b.cmp(a));
        self.v4.dedup();
        self.v6.sort_unstable_by(|a, b| b.cmp(a));
        self.v6.dedup();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn prefix(number: u16) -> IpNet {
        let text = if number.is_multiple_of(3) {
            format!("fd00::{number:x}/128")
        } else {
            format!("10.0.{}.0/24", number % 256)
        };
        text.parse().expect("a prefix")
    }

    proptest! {
        #[test]
        fn a_round_tells_each_once_in_order_and_nothing_is_lost(
            inserts in proptest::collection::vec((0..600_u16, any::<bool>()), 0..200),
        ) {
            let (mut rounds, mut waits, mut told) = (Rounds::default(), BTreeSet::new(), Vec::new());
            for (number, pops) in inserts {
                rounds.insert(prefix(number));
                waits.insert(prefix(number));
                if pops {
                    told.extend(rounds.pop_first());
                    // It may come again in the next round.
                }
            }
            let rest: Vec<IpNet> = std::iter::from_fn(|| rounds.pop_first()).collect();
            let all: BTreeSet<IpNet> = told.iter().chain(&rest).copied().collect();
            prop_assert_eq!(all, waits);
            // What is left is the rest of a round and the whole of the next.
            let falls = rest.windows(2).filter(|two| two[0] >= two[1]).count();
            prop_assert!(falls <= 1, "{rest:?}");
        }
    }

    #[test]
    fn what_changes_again_and_again_takes_no_more_room() {
        let mut rounds = Rounds::default();
        for number in 0..200_000_u32 {
            rounds.insert(prefix(u16::try_from(number % 50).expect("small")));
        }
        assert!(rounds.next.len() <= UNSORTED, "{}", rounds.next.len());
        let told: Vec<IpNet> = std::iter::from_fn(|| rounds.pop_first()).collect();
        assert_eq!(told.len(), 50);
        assert!(told.is_sorted());
    }
}
