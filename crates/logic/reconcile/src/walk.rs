//! Many look-ups in a map, in order.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

/// Looks up ascending keys of a map: one by one if they are few, else by going through the map beside them.
#[derive(Debug)]
pub struct Walk<'a, K, V> {
    map: &'a BTreeMap<K, V>,
    rest: Option<Peekable<btree_map::Iter<'a, K, V>>>,
}

impl<'a, K: Ord, V> Walk<'a, K, V> {
    /// A walk for about so many keys.
    pub fn new(map: &'a BTreeMap<K, V>, keys: usize) -> Walk<'a, K, V> {
        let many = keys >= map.len() / 8;
        Walk { map, rest: many.then(|| map.iter().peekable()) }
    }

    /// The value of a key, which is none that was asked for before nor below such a one.
    pub fn get(&mut self, key: &K) -> Option<&'a V> {
        let Some(rest) = &mut self.rest else { return self.map.get(key) };
        while rest.next_if(|(next, _)| *next < key).is_some() {}
        rest.next_if(|(next, _)| *next == key).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_keys_find_the_same() {
        let map: BTreeMap<u32, u32> = (0..100).map(|n| (n * 2, n)).collect();
        for keys in [1, 100] {
            let mut walk = Walk::new(&map, keys);
            for key in (0..250).step_by(7) {
                assert_eq!(walk.get(&key), map.get(&key));
            }
        }
    }
}
