//! Labels in one piece of memory: every resource has some, and a map would take two allocations for each of them.
//!
//! Invariant: keys ascend, each once.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::FusedIterator;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::empty::Empty;

/// Keys and values, as a map of texts: sorted by key, each key once, the last value winning. Made for the few dozen
/// labels of a resource: finding one takes time with their number, changing one copies all.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct LabelMap {
    /// The number of labels, then of each the lengths of key and value and both texts; nothing at all if there are none.
    /// A number is in groups of six bits, the lowest first, a character each, with the bit above them set in all but the
    /// last.
    text: Box<str>,
}

/// The labels of a [`LabelMap`], by key.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    left: usize,
    rest: &'a str,
}

const GROUP: u32 = 6;
const MORE: u8 = 1 << GROUP;

fn put_number(text: &mut String, mut number: usize) {
    let group = |number: usize| (number % usize::from(MORE)) as u8;
    while number >= usize::from(MORE) {
        text.push(char::from(MORE | group(number)));
        number >>= GROUP;
    }
    text.push(char::from(group(number)));
}

fn take_number(text: &mut &str) -> Option<usize> {
    let mut number = 0;
    for (at, byte) in text.bytes().enumerate() {
        number |= usize::from(byte % MORE) << (GROUP as usize * at);
        if byte < MORE {
            *text = text.get(at + 1..)?;
            return Some(number);
        }
    }
    None
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let key = take_number(&mut self.rest)?;
        let value = take_number(&mut self.rest)?;
        let (key, rest) = self.rest.split_at_checked(key)?;
        let (value, rest) = rest.split_at_checked(value)?;
        self.rest = rest;
        self.left -= 1;
        Some((key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl FusedIterator for Iter<'_> {}

impl LabelMap {
    /// No labels.
    pub fn new() -> LabelMap {
        LabelMap::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.iter().left
    }

    /// The labels, by key.
    pub fn iter(&self) -> Iter<'_> {
        let mut rest = &*self.text;
        let left = take_number(&mut rest).unwrap_or(0);
        Iter { left, rest }
    }

    /// The keys, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(key, _)| key)
    }

    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// Whether there is a value under a key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Sets the value under a key; returns the one that was there.
    pub fn insert(&mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Option<String> {
        let before = self.get(key.as_ref()).map(str::to_owned);
        self.extend([(key, value)]);
        before
    }

    /// Takes a key out; returns its value, if it was there.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        let value = self.get(key)?.to_owned();
        self.retain(|known, _| known != key);
        Some(value)
    }

    /// Keeps what `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        *self = self.iter().filter(|(key, value)| keep(key, value)).collect();
    }

    /// The same as a map.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

/// Labels as they are collected: all texts in a row, and where each key and value ends.
#[derive(Default)]
struct Collected {
    text: String,
    ends: Vec<(usize, usize)>,
}

impl Collected {
    fn push(&mut self, key: &str, value: &str) {
        self.text.push_str(key);
        let key_end = self.text.len();
        self.text.push_str(value);
        self.ends.push((key_end, self.text.len()));
    }

    fn finish(self) -> LabelMap {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        let pair = |(start, (key_end, end)): (usize, &(usize, usize))| {
            (&self.text[start..*key_end], &self.text[*key_end..*end])
        };
        let mut pairs: Vec<(&str, &str)> = starts.zip(&self.ends).map(pair).collect();
        if !pairs.is_sorted_by(|(a, _), (b, _)| a < b) {
            // Stable, so the last of a key is the one that stays.
            pairs.sort_by_key(|(key, _)| *key);
            pairs.dedup_by(|later, kept| {
                let same = later.0 == kept.0;
                if same {
                    kept.1 = later.1;
                }
                same
            });
        }
        let mut text = String::with_capacity(self.text.len() + 4 * pairs.len() + 1);
        if !pairs.is_empty() {
            put_number(&mut text, pairs.len());
        }
        for (key, value) in pairs {
            put_number(&mut text, key.len());
            put_number(&mut text, value.len());
            text.push_str(key);
            text.push_str(value);
        }
        LabelMap { text: text.into_boxed_str() }
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for LabelMap {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> LabelMap {
        let mut collected = Collected::default();
        labels.into_iter().for_each(|(key, value)| collected.push(key.as_ref(), value.as_ref()));
        collected.finish()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Extend<(K, V)> for LabelMap {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, labels: I) {
        let mut collected = Collected::default();
        self.iter().for_each(|(key, value)| collected.push(key, value));
        labels.into_iter().for_each(|(key, value)| collected.push(key.as_ref(), value.as_ref()));
        *self = collected.finish();
    }
}

impl<K: AsRef<str>, V: AsRef<str>, const N: usize> From<[(K, V); N]> for LabelMap {
    fn from(labels: [(K, V); N]) -> LabelMap {
        labels.into_iter().collect()
    }
}

impl From<BTreeMap<String, String>> for LabelMap {
    fn from(labels: BTreeMap<String, String>) -> LabelMap {
        labels.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a LabelMap {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl fmt::Debug for LabelMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl tortie_selector::Labels for LabelMap {
    fn get(&self, key: &str) -> Option<&str> {
        LabelMap::get(self, key)
    }
}

impl Empty for LabelMap {
    fn is_empty_value(&self) -> bool {
        self.is_empty()
    }
}

impl Serialize for LabelMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de> serde::Deserialize<'de> for LabelMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Collect)
    }
}

/// Reads a map of texts without an allocation for each.
struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = LabelMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LabelMap, A::Error> {
        let mut collected = Collected::default();
        while map.next_key_seed(Append(&mut collected.text))?.is_some() {
            let key_end = collected.text.len();
            map.next_value_seed(Append(&mut collected.text))?;
            collected.ends.push((key_end, collected.text.len()));
        }
        Ok(collected.finish())
    }
}

/// Reads a text to the end of another.
struct Append<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for Append<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_string(self)
    }
}

impl Visitor<'_> for Append<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for LabelMap {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        BTreeMap::<String, String>::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        BTreeMap::<String, String>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![4 => "[a-cé]{0,2}", 1 => (60..70_usize).prop_map(|n| "x".repeat(n)), 1 => any::<String>()]
    }

    proptest! {
        /// Beside a map.
        #[test]
        fn behaves_as_a_map(
            first in proptest::collection::vec((text(), text()), 0..12),
            changes in proptest::collection::vec((text(), proptest::option::of(text())), 0..8),
        ) {
            let mut labels: LabelMap = first.iter().map(|(key, value)| (key, value)).collect();
            let mut map: BTreeMap<String, String> = first.into_iter().collect();
            for (key, value) in changes {
                match value {
                    Some(value) => {
                        prop_assert_eq!(labels.insert(&key, &value), map.insert(key, value));
                    }
                    None => {
                        prop_assert_eq!(labels.remove(&key), map.remove(&key));
                    }
                }
                prop_assert_eq!(labels.to_map(), map.clone());
                prop_assert_eq!(labels.len(), map.len());
                prop_assert_eq!(labels.is_empty(), map.is_empty());
                prop_assert!(map.iter().all(|(key, value)| labels.get(key) == Some(value)));
                prop_assert_eq!(labels.get("no such"), None);
                prop_assert_eq!(&labels, &LabelMap::from(map.clone()));
            }
            let json = serde_json::to_string(&map).expect("texts");
            prop_assert_eq!(serde_json::to_string(&labels).expect("texts"), json.clone());
            prop_assert_eq!(serde_json::from_str::<LabelMap>(&json).expect("what was written"), labels.clone());
            prop_assert_eq!(format!("{labels:?}"), format!("{map:?}"));
        }

        #[test]
        fn long_texts_are_kept(lengths in proptest::collection::vec(0..300_000_usize, 1..4)) {
            let map: BTreeMap<String, String> =
                lengths.iter().enumerate().map(|(at, length)| (at.to_string(), "é".repeat(*length))).collect();
            prop_assert_eq!(LabelMap::from(map.clone()).to_map(), map);
        }
    }

    #[test]
    fn of_a_key_that_is_there_twice_the_last_value_stays() {
        let labels: LabelMap = serde_json::from_str(r#"{"b":"1","a":"2","b":"3"}"#).expect("a map");
        assert_eq!(labels, LabelMap::from([("a", "2"), ("b", "3")]));
        for wrong in ["[]", "null", r#"{"a":1}"#, r#"{"a":null}"#, "\"a\""] {
            let (ours, theirs) = (
                serde_json::from_str::<LabelMap>(wrong).expect_err(wrong).to_string(),
                serde_json::from_str::<BTreeMap<String, String>>(wrong).expect_err(wrong).to_string(),
            );
            assert_eq!(ours, theirs);
        }
    }
}
