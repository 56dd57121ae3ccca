//! First packets of connections, aimed at what the rules of the little world can tell apart.

use std::fmt;
use std::net::IpAddr;

use tortie_net::{Family, Protocol};
use tortie_verdict::Packet;

use crate::generate::{ICMP_TYPES, ICMPV6_TYPES, NUMBERS, PORTS};
use crate::place::{INTERFACES, Origin, node_address, outside_addresses, pod_addresses};
use crate::rng::Rng;

/// A packet and where it enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where it enters.
    pub origin: Origin,
    /// The packet.
    pub packet: Packet,
}

impl Flow {
    /// Whether it goes to the node itself.
    pub fn to_host(&self) -> bool {
        self.packet.dst == node_address(self.packet.family())
    }

    /// Whether connection tracking calls the packet invalid: no connection begins with it. Messages about errors
    /// count too, as these tell of no connection. What neighbour discovery uses is not tracked.
    pub fn is_invalid(&self) -> bool {
        let (protocol, family) = (self.packet.protocol, self.packet.family());
        match (protocol, family, self.packet.icmp) {
            (Protocol::ICMP, Family::V4, Some((icmp_type, _))) => ![8, 13, 15, 17].contains(&icmp_type),
            (Protocol::ICMPV6, Family::V6, Some((icmp_type, _))) => {
                ![128, 139, 130, 131, 132, 133, 134, 135, 136, 143].contains(&icmp_type)
            }
            (Protocol::ICMP | Protocol::ICMPV6, _, _) => true,
            _ => false,
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Packet { src, dst, protocol, src_port, dst_port, icmp } = self.packet;
        write!(f, "in by {}: {protocol} {src}", self.origin)?;
        if protocol.has_ports() {
            return write!(f, " port {src_port} to {dst} port {dst_port}");
        }
        write!(f, " to {dst}")?;
        match icmp {
            Some((icmp_type, code)) => write!(f, " type {icmp_type} code {code}"),
            None => Ok(()),
        }
    }
}

/// So many flows; the same for the same seed.
pub fn flows(seed: u64, count: usize) -> Vec<Flow> {
    let mut rng = Rng::new(seed ^ 0xf10f);
    (0..count).map(|_| flow(&mut rng)).collect()
}

fn flow(rng: &mut Rng) -> Flow {
    let family = rng.pick(&Family::ALL);
    let outside = outside_addresses(family);
    let (from, to) = (rng.below(INTERFACES.len()), rng.below(INTERFACES.len()));
    let own = |rng: &mut Rng, pod| rng.pick(&pod_addresses(pod, family));
    let (origin, src) = match rng.below(100) {
        0..70 => (Origin::Pod(from), own(rng, from)),
        // The source of another pod, of nobody, or of the node itself is not its own.
        70..74 => (Origin::Pod(from), rng.pick(&outside)),
        74..76 => (Origin::Pod(from), own(rng, to)),
        76..94 => (Origin::Outside, rng.pick(&outside)),
        _ => (Origin::Host, node_address(family)),
    };
    let dst = match rng.below(100) {
        0..65 => own(rng, if origin == Origin::Pod(to) { (to + 1) % INTERFACES.len() } else { to }),
        65..93 => rng.pick(&outside),
        _ => node_address(family),
    };
    Flow { origin, packet: packet(rng, src, dst) }
}

fn packet(rng: &mut Rng, src: IpAddr, dst: IpAddr) -> Packet {
    let family = Family::of(src);
    let (icmp, types) = match family {
        Family::V4 => (Protocol::ICMP, ICMP_TYPES),
        Family::V6 => (Protocol::ICMPV6, ICMPV6_TYPES),
    };
    let bare = Packet { src, dst, protocol: icmp, src_port: 0, dst_port: 0, icmp: None };
    match rng.below(100) {
        0..75 => {
            let protocol = rng.pick(&[
                Protocol::TCP,
                Protocol::TCP,
                Protocol::TCP,
                Protocol::UDP,
                Protocol::UDP,
                Protocol::UDP,
                Protocol::SCTP,
                Protocol::UDPLITE,
            ]);
            let (src_port, dst_port) = (port(rng), port(rng));
            Packet { protocol, src_port, dst_port, ..bare }
        }
        75..90 => {
            let icmp_type = if rng.percent(85) { rng.pick(&types) } else { rng.pick(&types) ^ 1 };
            let exempt =
                [src, dst].contains(&node_address(family)) && family == Family::V6 && (130..137).contains(&icmp_type);
            let icmp_type = if exempt { 128 } else { icmp_type };
            Packet { icmp: Some((icmp_type, rng.pick(&[0, 0, 1, 2]))), ..bare }
        }
        // The other family's ICMP is a protocol like any other.
        90..92 => Packet { protocol: if icmp == Protocol::ICMP { Protocol::ICMPV6 } else { Protocol::ICMP }, ..bare },
        _ => {
            let numbers = [&NUMBERS[..], &[NUMBERS[0] + 2, 254]].concat();
            Packet { protocol: Protocol(rng.pick(&numbers)), ..bare }
        }
    }
}

/// A port that rules name, or its neighbour.
fn port(rng: &mut Rng) -> u16 {
    let port = rng.pick(&PORTS);
    match rng.below(8) {
        0 => port.saturating_add(1),
        1 => port - 1,
        2 => rng.pick(&[40_000, 78, 83]),
        _ => port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_brings_the_same_flows() {
        assert_eq!(flows(7, 50), flows(7, 50));
        assert_ne!(flows(7, 50), flows(8, 50));
    }
}
