//! Addresses that are never given out on their own.

use std::net::IpAddr;

use ipnet::IpNet;

/// The prefixes of all reservations, sorted and without overlaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    nets: Vec<IpNet>,
}

impl Reserved {
    /// The reservation of these prefixes.
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Reserved {
        let nets: Vec<IpNet> = nets.into_iter().map(|net| net.trunc()).collect();
        Reserved { nets: IpNet::aggregate(&nets) }
    }

    /// Whether the address is reserved.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.nets.iter().any(|net| net.contains(&addr))
    }

    /// Whether any address of the prefix is reserved.
    pub fn touches(&self, cidr: IpNet) -> bool {
        self.nets.iter().any(|net| net.contains(&cidr) || cidr.contains(net))
    }

    /// The reserved prefix that holds all of this one. Prefixes that touch were joined, so this finds every such case.
    pub fn covering(&self, cidr: IpNet) -> Option<IpNet> {
        self.nets.iter().copied().find(|net| net.contains(&cidr))
    }

    /// How many addresses of the prefix are reserved.
    pub fn count(&self, cidr: IpNet) -> u128 {
        if self.covering(cidr).is_some() {
            return crate::order::addresses(cidr);
        }
        let inside = self.nets.iter().filter(|net| cidr.contains(*net));
        inside.fold(0, |sum: u128, net| sum.saturating_add(crate::order::addresses(*net)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_halves_reserve_the_whole() {
        let net = |text: &str| text.parse::<IpNet>().expect("a literal");
        let reserved = Reserved::new([net("10.0.0.0/27"), net("10.0.0.32/27"), net("10.0.1.7/32"), net("10.0.1.7/32")]);
        assert_eq!(reserved.covering(net("10.0.0.0/26")), Some(net("10.0.0.0/26")));
        assert_eq!(reserved.covering(net("10.0.1.0/26")), None);
        assert!(reserved.touches(net("10.0.1.0/26")) && !reserved.touches(net("10.0.2.0/26")));
        assert_eq!((reserved.count(net("10.0.0.0/24")), reserved.count(net("10.0.1.0/26"))), (64, 1));
    }
}
