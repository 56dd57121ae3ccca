//! Labels by themselves: as they are read, and as one block of bytes.

use std::sync::Arc;

/// So many labels are set afterwards as a rule.
const SET_LATER: usize = 2;

/// Labels as they are read, sorted by key, each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Pairs<'a> {
    /// Of two with one key the later wins.
    pub(crate) fn new(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Pairs<'a> {
        let labels = labels.into_iter();
        // Few are left out by those who give less than they may.
        let (least, most) = labels.size_hint();
        let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(most.unwrap_or(least).min(64) + SET_LATER);
        pairs.extend(labels);
        if !pairs.is_sorted_by(|(a, _), (b, _)| a < b) {
            // Stable, and nearly in order as a rule.
            pairs.sort_by_key(|(key, _)| *key);
            pairs.dedup_by(|later, kept| {
                let same = later.0 == kept.0;
                if same {
                    kept.1 = later.1;
                }
                same
            });
        }
        Pairs(pairs)
    }

    /// Puts a label there, whatever was under its key.
    pub(crate) fn set(&mut self, key: &'a str, value: &'a str) {
        match self.0.binary_search_by_key(&key, |(known, _)| *known) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(&'a str, &'a str)> {
        self.0.iter()
    }
}

/// Labels as one block of bytes, sorted by key, each key once. Cheap to clone.
///
/// Layout: for each label the lengths of key and value, then both texts. A length is in groups of seven bits, the
/// lowest first, with the top bit set on all but the last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LabelSet(Arc<[u8]>);

impl LabelSet {
    /// Packs labels.
    pub(crate) fn new(labels: &Pairs<'_>) -> LabelSet {
        let mut bytes = Vec::with_capacity(labels.iter().map(|(key, value)| key.len() + value.len() + 4).sum());
        for (key, value) in labels.iter() {
            put_length(&mut bytes, key.len());
            put_length(&mut bytes, value.len());
            bytes.extend_from_slice(key.as_bytes());
            bytes.extend_from_slice(value.as_bytes());
        }
        LabelSet(bytes.into())
    }

    /// Keys and values, sorted by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (key, value, after) = split(rest)?;
            rest = after;
            Some((text(key), text(value)))
        })
    }

    /// The value under a key.
    pub(crate) fn get(&self, wanted: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == wanted).map(|(_, value)| value)
    }
}

/// How many bytes a length takes.
pub(super) fn size_of_length(length: usize) -> usize {
    (usize::BITS - (length | 1).leading_zeros()).div_ceil(7) as usize
}

pub(super) fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length > 0x7f {
        out.push(0x80 | low_bits(length));
        length >>= 7;
    }
    out.push(low_bits(length));
}

fn low_bits(number: usize) -> u8 {
    u8::try_from(number & 0x7f).expect("seven bits fit")
}

pub(super) fn take_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    // Nearly all of them.
    if let [length @ 0..0x80, rest @ ..] = bytes {
        return Some((usize::from(*length), rest));
    }
    take_long_length(bytes)
}

fn take_long_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0;
    for (at, byte) in bytes.iter().enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((length, &bytes[at + 1..]));
        }
    }
    None
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (key_length, rest) = take_length(bytes)?;
    let (value_length, rest) = take_length(rest)?;
    let (key, rest) = rest.split_at(key_length);
    let (value, rest) = rest.split_at(value_length);
    Some((key, value, rest))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("texts were packed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_found() {
        let long = "x".repeat(70_000);
        let mut labels = Pairs::new([("b", "0"), ("a", "1"), ("", ""), ("a", "3"), ("é", "ü")]);
        labels.set("c", &long);
        labels.set("b", "2");
        let set = LabelSet::new(&labels);
        let all: Vec<_> = set.iter().collect();
        assert_eq!(all, [("", ""), ("a", "3"), ("b", "2"), ("c", long.as_str()), ("é", "ü")]);
        assert_eq!(set.get("a"), Some("3"));
        assert_eq!(set.get("c").map(str::len), Some(70_000));
        assert_eq!(set.get("d"), None);
        assert_eq!(LabelSet::new(&Pairs::new([])).iter().count(), 0);
        for length in [0, 1, 127, 128, 16_383, 16_384, usize::MAX] {
            let mut out = Vec::new();
            put_length(&mut out, length);
            assert_eq!(out.len(), size_of_length(length), "{length}");
        }
    }
}
