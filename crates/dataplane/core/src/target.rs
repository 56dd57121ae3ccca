//! The port to one kind of kernel state.

use std::collections::BTreeMap;
use std::fmt;

use tortie_reconcile::Edit;

use crate::{Cause, Failures};

/// One kind of kernel state that is kept as wanted.
///
/// Contract: an implementation says by which marks a node without memory knows its own entries (protocol number,
/// name prefix, …); it never reports, changes or removes others. Values that it reports compare equal to the values
/// that were put, so that a second pass writes nothing.
pub trait Target {
    /// The identity of an entry. Ordered lowest dependency first; shown in reports.
    type Key: Ord + Clone + fmt::Display;
    /// All that is kept of an entry.
    type Value: Clone + PartialEq + fmt::Debug;

    /// Everything there that is ours.
    fn observe(&mut self) -> Result<BTreeMap<Self::Key, Self::Value>, Cause>;

    /// Makes edits, each for a different key, in order as far as order matters. What fails is added to the result and
    /// must not keep the rest from being tried. Removing what is gone already is a success.
    fn commit(&mut self, edits: &[Edit<Self::Key, Self::Value>]) -> Failures<Self::Key>;
}
