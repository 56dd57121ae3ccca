//! Prefixes as BGP packs them: a length in bits, then just enough bytes (RFC 4271 section 4.3).
//!
//! Invariant: a `Nlri` was checked when it was made, so walking it cannot fail.

use std::net::{Ipv4Addr, Ipv6Addr};

use tortie_net::{Family, IpNet, Ipv4Net, Ipv6Net};

/// A run of packed prefixes of one family, borrowed from the message that brought it.
#[derive(Clone, Copy, Debug)]
pub struct Nlri<'a> {
    family: Family,
    bytes: &'a [u8],
}

impl<'a> Nlri<'a> {
    /// Checks a run of prefixes; `None` if a length is above the family's or a prefix is cut short.
    pub fn new(family: Family, bytes: &'a [u8]) -> Option<Nlri<'a>> {
        let mut rest = bytes;
        while let [bits, tail @ ..] = rest {
            if *bits > family.bits() {
                return None;
            }
            rest = tail.get(usize::from(bits.div_ceil(8))..)?;
        }
        Some(Nlri { family, bytes })
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The family of all prefixes.
    pub fn family(&self) -> Family {
        self.family
    }
}

impl Iterator for Nlri<'_> {
    type Item = IpNet;

    fn next(&mut self) -> Option<IpNet> {
        let [bits, tail @ ..] = self.bytes else { return None };
        let (data, rest) = tail.split_at_checked(usize::from(bits.div_ceil(8)))?;
        self.bytes = rest;
        match self.family {
            Family::V4 => {
                let mut octets = [0; 4];
                octets.get_mut(..data.len())?.copy_from_slice(data);
                Ipv4Net::new(Ipv4Addr::from(octets), *bits).ok().map(|net| IpNet::V4(net.trunc()))
            }
            Family::V6 => {
                let mut octets = [0; 16];
                octets.get_mut(..data.len())?.copy_from_slice(data);
                Ipv6Net::new(Ipv6Addr::from(octets), *bits).ok().map(|net| IpNet::V6(net.trunc()))
            }
        }
    }
}

/// Bytes that a prefix takes when packed.
pub(crate) fn packed_len(prefix: IpNet) -> usize {
    1 + usize::from(prefix.prefix_len().div_ceil(8))
}

/// Appends one packed prefix. Its host bits must be zero.
pub(crate) fn pack(prefix: IpNet, out: &mut Vec<u8>) {
    let bytes = usize::from(prefix.prefix_len().div_ceil(8));
    out.push(prefix.prefix_len());
    match prefix {
        IpNet::V4(net) => out.extend_from_slice(&net.addr().octets()[..bytes]),
        IpNet::V6(net) => out.extend_from_slice(&net.addr().octets()[..bytes]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_round_trip_and_host_bits_are_dropped() {
        let mut out = Vec::new();
        let prefixes: Vec<IpNet> =
            ["0.0.0.0/0", "10.1.0.0/26", "10.1.2.3/32"].iter().map(|p| p.parse().expect("literal")).collect();
        prefixes.iter().for_each(|p| pack(*p, &mut out));
        assert_eq!(out.len(), prefixes.iter().map(|p| packed_len(*p)).sum::<usize>());
        assert_eq!(Nlri::new(Family::V4, &out).expect("valid").collect::<Vec<_>>(), prefixes);
        let odd = Nlri::new(Family::V4, &[9, 10, 0xff]).expect("valid").next();
        assert_eq!(odd, Some("10.128.0.0/9".parse().expect("literal")));
    }

    #[test]
    fn overlong_and_cut_prefixes_are_refused() {
        for bytes in [&[33, 1, 2, 3, 4, 5][..], &[24, 10, 0][..], &[8][..]] {
            assert!(Nlri::new(Family::V4, bytes).is_none(), "{bytes:?}");
        }
        assert!(Nlri::new(Family::V6, &[129; 20]).is_none());
    }
}
