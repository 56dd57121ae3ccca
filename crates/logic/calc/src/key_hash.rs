//! Hashes that stand for keys of which nothing else is kept.

use std::hash::{BuildHasher as _, Hash, Hasher as _, RandomState};

/// 128 bits that a key has by itself: SipHash under a secret of this process, so that nobody can find two keys with
/// the same ones, and by chance there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyHash([u64; 2]);

impl KeyHash {
    /// For a table.
    pub(crate) fn short(self) -> u64 {
        self.0[0]
    }
}

/// The secret.
#[derive(Debug, Default)]
pub(crate) struct KeyHasher(RandomState);

impl KeyHasher {
    pub(crate) fn hash(&self, key: impl Hash) -> KeyHash {
        let mut first = self.0.build_hasher();
        key.hash(&mut first);
        let mut second = first.clone();
        second.write_u8(1);
        KeyHash([first.finish(), second.finish()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_have_one_hash_and_others_another() {
        let hasher = KeyHasher::default();
        let hash = |key: (&str, &str)| hasher.hash(key);
        assert_eq!(hash(("ab", "c")), hash(("ab", "c")));
        assert_ne!(hash(("ab", "c")), hash(("a", "bc")));
        let KeyHash([first, second]) = hash(("ab", "c"));
        assert_ne!(first, second);
    }
}
