//! Prefixes to look at, many at once and seldom asked for: a list is half the cost of a set.
//!
//! Invariant: its length is at most twice the number of different prefixes, or small.

use ipnet::IpNet;

/// Below this length the same prefix may be there many times.
const SMALL: usize = 1024;

/// A set of prefixes.
#[derive(Debug, Default)]
pub(crate) struct Dirty(Vec<IpNet>);

impl Dirty {
    pub(crate) fn insert(&mut self, net: IpNet) {
        if self.0.len() == self.0.capacity() && self.0.len() >= SMALL {
            self.sort();
            self.0.reserve(self.0.len());
        }
        self.0.push(net);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, net: &IpNet) -> bool {
        self.0.contains(net)
    }

    /// Takes them all, each once, in order.
    pub(crate) fn take(&mut self) -> Vec<IpNet> {
        self.sort();
        std::mem::take(&mut self.0)
    }

    fn sort(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
    }
}

impl Extend<IpNet> for Dirty {
    fn extend<I: IntoIterator<Item = IpNet>>(&mut self, nets: I) {
        nets.into_iter().for_each(|net| self.insert(net));
    }
}

impl<'a> Extend<&'a IpNet> for Dirty {
    fn extend<I: IntoIterator<Item = &'a IpNet>>(&mut self, nets: I) {
        self.extend(nets.into_iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_there_once_and_repeating_costs_nothing() {
        let net = |n: u32| IpNet::new(std::net::Ipv4Addr::from(n).into(), 32).expect("a length");
        let mut dirty = Dirty::default();
        for n in 0..100_000 {
            dirty.insert(net((n * 7) % 1000));
        }
        assert!(dirty.0.capacity() <= 4 * SMALL, "{}", dirty.0.capacity());
        assert!(dirty.contains(&net(999)) && !dirty.contains(&net(1000)));
        assert_eq!(dirty.take(), (0..1000).map(net).collect::<Vec<_>>());
        assert!(dirty.is_empty());
    }
}
