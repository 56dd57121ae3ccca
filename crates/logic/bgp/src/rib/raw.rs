//! What a peer sent, before filters: kept only for peers whose filters look at received routes.
//!
//! Invariant: with filters, every path of the peer in the RIB comes from a path here, so that changed filters can be
//! applied without asking the peer again.

use std::sync::Arc;

use tortie_net::{Family, IpNet};

use super::Path;
use super::prefixes::PrefixMap;
use crate::attribute::Attributes;

/// A path as it was received.
#[derive(Clone, Debug)]
pub(crate) struct RawPath {
    pub(crate) attributes: Arc<Attributes>,
    /// Kept from before the peer's restart, not heard again yet.
    pub(crate) stale: bool,
}

impl RawPath {
    pub(crate) fn of(path: &Path) -> RawPath {
        RawPath { attributes: Arc::clone(&path.attributes), stale: path.stale }
    }
}

/// Adj-RIB-In of one peer.
#[derive(Debug, Default)]
pub(crate) struct Raw(pub(crate) PrefixMap<RawPath>);

impl Raw {
    pub(crate) fn put(&mut self, prefix: IpNet, attributes: &Arc<Attributes>) {
        self.0.insert(prefix, RawPath { attributes: Arc::clone(attributes), stale: false });
    }

    pub(crate) fn mark_stale(&mut self, family: Family, keep_stale: bool) {
        self.retain(family, |path| !std::mem::replace(&mut path.stale, true) || keep_stale);
    }

    pub(crate) fn sweep_stale(&mut self, family: Family) {
        self.retain(family, |path| !path.stale);
    }

    pub(crate) fn drop_family(&mut self, family: Family) {
        self.retain(family, |_| false);
    }

    fn retain(&mut self, family: Family, mut keep: impl FnMut(&mut RawPath) -> bool) {
        self.0.retain(Some(family), |_, path| keep(path));
    }
}
