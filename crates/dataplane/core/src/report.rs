//! What an apply loop did, and what it could not do.

use std::collections::BTreeMap;
use std::fmt;

/// Why an entry is not as wanted, by what can be done about it. The text names the entry and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// This kernel can't do it; no attempt will succeed until something else changes.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// Somebody else holds the place; ours comes once theirs goes.
    #[error("held by somebody else: {0}")]
    Conflict(String),
    /// Something that it needs is not there; ours comes once that does.
    #[error("waiting: {0}")]
    Missing(String),
    /// It failed; it will be tried again.
    #[error("{0}")]
    Failed(String),
}

/// The edits of one commit that failed, by key.
///
/// There is no conversion from an error on purpose: `?` can't skip the rest of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures<K>(BTreeMap<K, Cause>);

impl<K: Ord> Default for Failures<K> {
    fn default() -> Self {
        Failures(BTreeMap::new())
    }
}

impl<K: Ord> Failures<K> {
    /// Nothing failed so far.
    pub fn new() -> Self {
        Failures::default()
    }

    /// Adds a failure; a later one of the same key wins.
    pub fn add(&mut self, key: K, cause: Cause) {
        self.0.insert(key, cause);
    }

    /// Whether everything succeeded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys failed.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes the failure of a key out.
    pub fn take(&mut self, key: &K) -> Option<Cause> {
        self.0.remove(key)
    }

    /// The failures by key.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Cause)> {
        self.0.iter()
    }
}

/// What one pass did, and every entry that is not as wanted after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report<K> {
    /// Entries written in this pass.
    pub written: usize,
    /// Entries removed in this pass.
    pub removed: usize,
    /// Why nothing could be observed, if that failed; nothing is written then that was not known before.
    pub blind: Option<Cause>,
    /// Entries whose last attempt failed, in this pass or before, and that still differ.
    pub failures: BTreeMap<K, Cause>,
}

impl<K: Ord> Default for Report<K> {
    fn default() -> Self {
        Report { written: 0, removed: 0, blind: None, failures: BTreeMap::new() }
    }
}

impl<K: Ord> Report<K> {
    /// Whether all that was tried succeeded.
    pub fn is_clean(&self) -> bool {
        self.blind.is_none() && self.failures.is_empty()
    }

    /// Whether the pass changed anything.
    pub fn wrote(&self) -> bool {
        self.written + self.removed > 0
    }
}

impl<K: Ord + fmt::Display> fmt::Display for Report<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { written, removed, blind, failures } = self;
        write!(f, "{written} written, {removed} removed, {} failing", failures.len())?;
        if let Some(cause) = blind {
            write!(f, "; can't observe: {cause}")?;
        }
        failures.iter().try_for_each(|(key, cause)| write!(f, "; {key}: {cause}"))
    }
}
