//! Which peer a destination or source belongs to: the longest prefix that holds it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

/// Prefixes and whose they are. A prefix is one's alone: the last who gets it has it.
#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    /// By length, longest first when walked backwards; addresses as bits from the left.
    v4: BTreeMap<u8, HashMap<u128, u32>>,
    v6: BTreeMap<u8, HashMap<u128, u32>>,
}

impl Prefixes {
    pub(crate) fn insert(&mut self, net: IpNet, owner: u32) {
        let (family, length) = self.family(net.addr(), net.prefix_len());
        family.entry(length).or_default().insert(masked(net.addr(), length), owner);
    }

    /// Takes all prefixes of an owner away.
    pub(crate) fn remove_owner(&mut self, owner: u32) {
        for family in [&mut self.v4, &mut self.v6] {
            family.retain(|_, nets| {
                nets.retain(|_, held| *held != owner);
                !nets.is_empty()
            });
        }
    }

    /// Whose an address is.
    pub(crate) fn owner(&self, addr: IpAddr) -> Option<u32> {
        let family = if addr.is_ipv4() { &self.v4 } else { &self.v6 };
        family.iter().rev().find_map(|(length, nets)| nets.get(&masked(addr, *length)).copied())
    }

    /// Whose a prefix is.
    pub(crate) fn owner_of_net(&self, net: &IpNet) -> Option<u32> {
        let family = if net.addr().is_ipv4() { &self.v4 } else { &self.v6 };
        family.get(&net.prefix_len())?.get(&masked(net.addr(), net.prefix_len())).copied()
    }

    fn family(&mut self, addr: IpAddr, length: u8) -> (&mut BTreeMap<u8, HashMap<u128, u32>>, u8) {
        (if addr.is_ipv4() { &mut self.v4 } else { &mut self.v6 }, length)
    }
}

/// The first bits of an address, from the left of 128.
fn masked(addr: IpAddr, length: u8) -> u128 {
    let bits = match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()) << 96,
        IpAddr::V6(addr) => addr.to_bits(),
    };
    if length == 0 { 0 } else { bits & (u128::MAX << (128 - u32::from(length.min(128)))) }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn nets() -> impl Strategy<Value = Vec<(IpNet, u32)>> {
        // Few addresses, so that prefixes hold each other.
        let v4 = (0_u32..64, 0_u8..=32).prop_map(|(bits, length)| (IpAddr::from(Ipv4Addr::from(bits << 26)), length));
        let v6 =
            (0_u128..64, 0_u8..=128).prop_map(|(bits, length)| (IpAddr::from(Ipv6Addr::from(bits << 122)), length));
        let net = prop_oneof![v4, v6].prop_map(|(addr, length)| IpNet::new(addr, length).expect("in range").trunc());
        prop::collection::vec((net, 0_u32..4), 0..20)
    }

    proptest! {
        #[test]
        fn the_longest_prefix_wins(nets in nets(), gone in 0_u32..4, bits in 0_u32..64) {
            let mut prefixes = Prefixes::default();
            let mut plain = BTreeMap::new();
            for (net, owner) in nets {
                prefixes.insert(net, owner);
                plain.insert(net, owner);
            }
            prefixes.remove_owner(gone);
            plain.retain(|_, owner| *owner != gone);
            let addrs = [
                IpAddr::from(Ipv4Addr::from(bits << 26)),
                IpAddr::from(Ipv6Addr::from(u128::from(bits) << 122)),
            ];
            for addr in addrs {
                let longest = plain.iter().filter(|(net, _)| net.contains(&addr)).max_by_key(|(net, _)| net.prefix_len());
                prop_assert_eq!(prefixes.owner(addr), longest.map(|(_, owner)| *owner));
            }
            for (net, owner) in &plain {
                prop_assert_eq!(prefixes.owner_of_net(net), Some(*owner));
            }
        }
    }
}
