//! Which items have an address?
//!
//! Nearly every address has one owner, for which no more than its number and a hash of the address is kept.

use std::collections::HashMap;

use hashbrown::{DefaultHashBuilder, HashTable};
use tortie_net::IpNet;

use super::item::Kept;
use crate::labels::ItemId;
use crate::short_hash::ShortHash;
use crate::slab::Slab;

/// The one owner of an address, which is among the item's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Single {
    item: ItemId,
    hash: ShortHash,
}

/// The owners of every address.
#[derive(Debug, Default)]
pub(super) struct Owners {
    single: HashTable<Single>,
    shared: HashMap<IpNet, Vec<ItemId>>,
    hasher: DefaultHashBuilder,
}

impl Owners {
    /// Notes that an item has these, which none of its notes are about.
    pub(super) fn own(&mut self, items: &Slab<Kept>, item: ItemId, nets: &[IpNet]) {
        for net in nets {
            if let Some(owners) = self.shared.get_mut(net) {
                owners.push(item);
                continue;
            }
            let hash = self.hash(net);
            let other = |single: &Single| single.item != item && single.hash == hash && has(items, single.item, *net);
            match self.single.find_entry(hash.spread(), other) {
                Ok(entry) => {
                    let (first, _) = entry.remove();
                    self.shared.insert(*net, vec![first.item, item]);
                }
                Err(_) => self.insert(Single { item, hash }),
            }
        }
    }

    /// Forgets that an item has these.
    pub(super) fn disown(&mut self, item: ItemId, nets: &[IpNet]) {
        for net in nets {
            let hash = self.hash(net);
            let Some(owners) = self.shared.get_mut(net) else {
                let own = Single { item, hash };
                if let Ok(entry) = self.single.find_entry(hash.spread(), |single| *single == own) {
                    entry.remove();
                }
                continue;
            };
            owners.retain(|owner| *owner != item);
            if let [last] = owners[..] {
                self.shared.remove(net);
                self.insert(Single { item: last, hash });
            }
        }
    }

    /// Who has just this address or prefix.
    pub(super) fn of<'a>(&'a self, items: &'a Slab<Kept>, net: IpNet) -> impl Iterator<Item = ItemId> + 'a {
        let hash = self.hash(&net);
        let single = self.single.find(hash.spread(), |single| single.hash == hash && has(items, single.item, net));
        let shared = self.shared.get(&net);
        single.map(|single| single.item).into_iter().chain(shared.into_iter().flatten().copied())
    }

    fn insert(&mut self, single: Single) {
        self.single.insert_unique(single.hash.spread(), single, |single| single.hash.spread());
    }

    fn hash(&self, net: &IpNet) -> ShortHash {
        ShortHash::of(&self.hasher, net)
    }
}

fn has(items: &Slab<Kept>, item: ItemId, net: IpNet) -> bool {
    items.get(item).is_some_and(|kept| kept.held.nets.as_slice().binary_search(&net).is_ok())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::item::{Held, Nets, Ports};
    use super::*;
    use crate::key_hash::KeyHasher;

    fn net(number: u32) -> IpNet {
        IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(number)))
    }

    #[test]
    fn every_owner_is_known_whoever_comes_and_goes() {
        let (mut owners, mut items) = (Owners::default(), Slab::default());
        let mut model: BTreeMap<ItemId, BTreeSet<u32>> = BTreeMap::new();
        for step in 0..3000_u32 {
            let random = step.wrapping_mul(2_654_435_761) >> 16;
            match model.keys().nth(random as usize % 8).copied().filter(|_| step % 3 == 2) {
                Some(item) => {
                    let kept: Kept = items.remove(item).expect("it is there");
                    owners.disown(item, kept.held.nets.as_slice());
                    model.remove(&item);
                }
                None if model.len() < 8 => {
                    let own: BTreeSet<u32> = (0..random % 5).map(|n| (random >> (2 * n)) % 16).collect();
                    let nets: Vec<IpNet> = own.iter().copied().map(net).collect();
                    let held = Held { nets: Nets::from(nets.clone()), ports: Ports::default() };
                    let item = items.insert(Kept { key: KeyHasher::default().hash(step), class: 0, held });
                    owners.own(&items, item, &nets);
                    model.insert(item, own);
                }
                None => {}
            }
            for number in 0..16 {
                let found: BTreeSet<ItemId> = owners.of(&items, net(number)).collect();
                let meant = model.iter().filter(|(_, own)| own.contains(&number)).map(|(item, _)| *item).collect();
                assert_eq!(found, meant, "{number} after step {step}");
            }
        }
    }
}
