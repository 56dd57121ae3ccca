//! What a peer was told, and what it still has to be told.
//!
//! Invariant: a prefix that is neither told nor pending is unknown to the peer. Changes merge per prefix, so a slow
//! peer costs one entry per prefix, however often it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tortie_net::{Family, IpNet};

use super::family_range;
use crate::attribute::Attributes;
use crate::family::Families;

/// Adj-RIB-Out of one session.
#[derive(Debug, Default)]
pub(crate) struct AdjOut {
    /// Prefixes that the peer holds from us; `None` where it shall be told again whatever it holds.
    pub(crate) told: BTreeMap<IpNet, Option<Arc<Attributes>>>,
    /// Prefixes to look at.
    pub(crate) pending: BTreeSet<IpNet>,
    /// Families whose End-of-RIB is still to be sent.
    pub(crate) end_of_rib_due: Families,
    /// Families whose refresh is to be announced before the next route, and whose end is to be marked (RFC 7313).
    pub(crate) begin_due: Families,
    pub(crate) end_due: Families,
}

impl AdjOut {
    /// Makes the whole family be told again (RFC 2918).
    pub(crate) fn refresh(&mut self, family: Family, marked: bool) {
        self.begin_due.set(family, marked);
        self.end_due.set(family, marked);
        for (prefix, attributes) in self.told.range_mut(family_range(family)) {
            *attributes = None;
            self.pending.insert(*prefix);
        }
    }
}
