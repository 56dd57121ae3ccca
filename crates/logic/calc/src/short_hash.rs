//! Hashes that are kept beside what they are of, so that a table that grows need not look at the keys again.

use std::hash::{BuildHasher as _, Hash};

use hashbrown::DefaultHashBuilder;

/// Half of a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShortHash(u32);

impl ShortHash {
    pub(crate) fn of(hasher: &DefaultHashBuilder, value: impl Hash) -> ShortHash {
        ShortHash(u32::try_from(hasher.hash_one(value) >> 32).expect("half of it fits"))
    }

    /// For a table, which looks at the top bits of a hash as well as at the lowest.
    pub(crate) fn spread(self) -> u64 {
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
