//! In which order a node looks through the blocks of a pool.
//!
//! Nodes start at different places, so that they rarely want the same block; one node always starts at the same place,
//! so that its own concurrent requests agree on one block.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::block::Now;
use crate::reserved::Reserved;

/// How many addresses a prefix holds; the largest number for ::/0.
pub fn addresses(cidr: IpNet) -> u128 {
    1u128.checked_shl(u32::from(cidr.max_prefix_len() - cidr.prefix_len())).unwrap_or(u128::MAX)
}

/// The walk through a pool's blocks: all of them, once, from a start that depends on the seed.
#[derive(Clone, Debug)]
pub struct Order {
    pool: IpNet,
    block_size: u8,
    count: u128,
    start: u128,
    step: u128,
}

fn fnv1(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash: u32, byte| hash.wrapping_mul(0x0100_0193) ^ u32::from(byte))
}

fn spread(seed: u64) -> u64 {
    let a = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ (a >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ (b >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ (c >> 31)
}

impl Order {
    /// The walk for an owner. Blocks of one address start at a place that depends on the time instead.
    pub fn new(pool: IpNet, block_size: u8, owner: &str, now: Now) -> Order {
        let bits = block_size.saturating_sub(pool.prefix_len()).min(127);
        let single = block_size == pool.max_prefix_len();
        let seed = if single { now.0 } else { u64::from(fnv1(owner)) };
        let count = 1u128 << bits;
        let random = u128::from(spread(seed)) << 64 | u128::from(spread(!seed));
        Order { pool, block_size, count, start: random % count, step: 0 }
    }

    /// How late in the walk a block of the pool comes.
    pub fn position(&self, block: IpNet) -> u128 {
        let bits = u32::from(self.pool.max_prefix_len() - self.block_size);
        let far = match (self.pool.network(), block.network()) {
            (IpAddr::V4(base), IpAddr::V4(addr)) => u128::from(u32::from(addr).wrapping_sub(u32::from(base))),
            (IpAddr::V6(base), IpAddr::V6(addr)) => u128::from(addr).wrapping_sub(u128::from(base)),
            _ => 0,
        };
        let index = far.checked_shr(bits).unwrap_or(0) % self.count;
        (index + self.count - self.start) % self.count
    }

    fn at(&self, step: u128) -> IpNet {
        let index = (self.start + step) % self.count;
        let far = index.checked_shl(u32::from(self.pool.max_prefix_len() - self.block_size)).unwrap_or(0);
        let addr: IpAddr = match self.pool.network() {
            IpAddr::V4(base) => Ipv4Addr::from(u32::from(base).wrapping_add(far as u32)).into(),
            IpAddr::V6(base) => Ipv6Addr::from(u128::from(base).wrapping_add(far)).into(),
        };
        IpNet::new(addr, self.block_size).expect("a block is no longer than an address")
    }

    /// The next block that is not wholly reserved; reserved stretches are passed over at once.
    pub fn next(&mut self, reserved: &Reserved) -> Option<IpNet> {
        while self.step < self.count {
            let block = self.at(self.step);
            let Some(stretch) = reserved.covering(block) else {
                self.step += 1;
                return Some(block);
            };
            if stretch.contains(&self.pool) {
                self.step = self.count;
                return None;
            }
            // The blocks from this one to the end of the stretch, or of the pool, where the walk wraps round.
            let last = IpNet::new(stretch.broadcast(), self.block_size).expect("a block is no longer than an address");
            let here = (self.start + self.step) % self.count;
            let end = (self.position(last.trunc()) + self.start) % self.count;
            self.step += if end >= here { end - here + 1 } else { self.count - here };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(pool: &str, size: u8, owner: &str, reserved: &Reserved) -> Vec<IpNet> {
        let mut order = Order::new(pool.parse().expect("a literal"), size, owner, Now(7));
        std::iter::from_fn(|| order.next(reserved)).collect()
    }

    #[test]
    fn a_walk_meets_every_block_once_and_starts_where_the_owner_says() {
        for (pool, size) in [("10.1.0.0/20", 26), ("fd00::/112", 122), ("10.1.0.0/26", 26), ("10.0.0.8/29", 32)] {
            let found = walk(pool, size, "node-1", &Reserved::default());
            let net: IpNet = pool.parse().expect("a literal");
            let mut sorted = found.clone();
            sorted.sort();
            assert_eq!(sorted, net.subnets(size).expect("fits").collect::<Vec<_>>());
            let order = Order::new(net, size, "node-1", Now(7));
            for (step, block) in found.iter().enumerate() {
                assert_eq!(order.position(*block), step as u128);
            }
        }
        let none = Reserved::default();
        assert_eq!(walk("10.0.0.0/16", 26, "a", &none), walk("10.0.0.0/16", 26, "a", &none));
        assert_ne!(walk("10.0.0.0/16", 26, "a", &none)[0], walk("10.0.0.0/16", 26, "b", &none)[0]);
    }

    #[test]
    fn reserved_stretches_are_passed_over() {
        let nets =
            ["10.0.0.0/25", "10.0.1.0/26", "10.0.3.128/25"].map(|text| text.parse::<IpNet>().expect("a literal"));
        let reserved = Reserved::new(nets);
        for owner in ["a", "b", "c", "d", "e", "f", "g"] {
            let mut found = walk("10.0.0.0/22", 26, owner, &reserved);
            found.sort();
            let all = "10.0.0.0/22".parse::<IpNet>().expect("a literal").subnets(26).expect("fits");
            assert_eq!(found, all.filter(|block| reserved.covering(*block).is_none()).collect::<Vec<_>>());
        }
        let half = Reserved::new(["fd00::/65".parse::<IpNet>().expect("a literal")]);
        let mut order = Order::new("fd00::/64".parse().expect("a literal"), 122, "a", Now(0));
        assert!(order.next(&half).is_some_and(|block| half.covering(block).is_none()));
    }
}
