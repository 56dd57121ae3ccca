//! Maps and sets by prefix, each family by itself: a prefix of IPv4 takes 5 bytes there, and 18 as one of either family.
//!
//! Invariant: the order is that of `IpNet`, IPv4 first.

use std::collections::BTreeMap;

use tortie_net::{Family, IpNet, Ipv4Net, Ipv6Net};

/// A map by prefix.
#[derive(Clone, Debug)]
pub(crate) struct PrefixMap<V> {
    v4: BTreeMap<Ipv4Net, V>,
    v6: BTreeMap<Ipv6Net, V>,
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        PrefixMap { v4: BTreeMap::new(), v6: BTreeMap::new() }
    }
}

impl<V> PrefixMap<V> {
    pub(crate) fn get(&self, prefix: IpNet) -> Option<&V> {
        match prefix {
            IpNet::V4(net) => self.v4.get(&net),
            IpNet::V6(net) => self.v6.get(&net),
        }
    }

    pub(crate) fn get_mut(&mut self, prefix: IpNet) -> Option<&mut V> {
        match prefix {
            IpNet::V4(net) => self.v4.get_mut(&net),
            IpNet::V6(net) => self.v6.get_mut(&net),
        }
    }

    pub(crate) fn insert(&mut self, prefix: IpNet, value: V) -> Option<V> {
        match prefix {
            IpNet::V4(net) => self.v4.insert(net, value),
            IpNet::V6(net) => self.v6.insert(net, value),
        }
    }

    pub(crate) fn remove(&mut self, prefix: IpNet) -> Option<V> {
        match prefix {
            IpNet::V4(net) => self.v4.remove(&net),
            IpNet::V6(net) => self.v6.remove(&net),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpNet, &V)> {
        let v4 = self.v4.iter().map(|(net, value)| (IpNet::V4(*net), value));
        v4.chain(self.v6.iter().map(|(net, value)| (IpNet::V6(*net), value)))
    }

    /// Keeps what `keep` says, of one family or of both.
    pub(crate) fn retain(&mut self, family: Option<Family>, mut keep: impl FnMut(IpNet, &mut V) -> bool) {
        if family != Some(Family::V6) {
            self.v4.retain(|net, value| keep(IpNet::V4(*net), value));
        }
        if family != Some(Family::V4) {
            self.v6.retain(|net, value| keep(IpNet::V6(*net), value));
        }
    }
}

/// A set of prefixes.
#[derive(Clone, Debug, Default)]
pub(crate) struct PrefixSet(PrefixMap<()>);

impl PrefixSet {
    pub(crate) fn insert(&mut self, prefix: IpNet) {
        self.0.insert(prefix, ());
    }

    pub(crate) fn pop_first(&mut self) -> Option<IpNet> {
        let PrefixMap { v4, v6 } = &mut self.0;
        let v4 = v4.pop_first().map(|(net, ())| IpNet::V4(net));
        v4.or_else(|| v6.pop_first().map(|(net, ())| IpNet::V6(net)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Extend<IpNet> for PrefixSet {
    fn extend<I: IntoIterator<Item = IpNet>>(&mut self, prefixes: I) {
        prefixes.into_iter().for_each(|prefix| self.insert(prefix));
    }
}
