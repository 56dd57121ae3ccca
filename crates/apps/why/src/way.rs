//! The way of a flow's first packet: the node that it leaves, then the node at which it arrives.

use anyhow::{Result, bail};
use tortie_net::{Family, Protocol};
use tortie_verdict::{Packet, Source, Target, Verdict, Way, evaluate_way};

use crate::point::{Point, Sort};
use crate::{World, uplink};

/// The port that a packet comes from, unless it matters: the first of the kernel's range for clients.
const CLIENT_PORT: u16 = 32768;

/// A flow to be judged.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Where it comes from.
    pub source: Point,
    /// Where it goes.
    pub destination: Point,
    /// Its first packet, as it leaves.
    pub packet: Packet,
}

impl Flow {
    /// A flow between two points in the first family that both have. The port counts for protocols that have ports;
    /// of ICMP, it is an echo request.
    pub fn between(source: Point, destination: Point, protocol: Protocol, port: u16) -> Result<Flow> {
        let both = |family: Family| {
            let of = |point: &Point| point.addresses.iter().copied().find(|addr| Family::of(*addr) == family);
            of(&source).zip(of(&destination))
        };
        let Some((src, dst)) = Family::ALL.into_iter().find_map(both) else {
            bail!("{} and {} have no address family in common", source.name, destination.name);
        };
        let packet = if protocol == Protocol::ICMP || protocol == Protocol::ICMPV6 {
            Packet::ping(src, dst)
        } else {
            let ports = if protocol.has_ports() { (CLIENT_PORT, port) } else { (0, 0) };
            Packet { protocol, ..Packet::tcp(src, ports.0, dst, ports.1) }
        };
        for point in [&source, &destination] {
            if let Sort::Workload { id, node: _, interface } = &point.sort
                && interface.is_empty()
            {
                bail!("endpoint {id} has no interfaceName, so its node can't connect it");
            }
        }
        Ok(Flow { source, destination, packet })
    }
}

/// Where a packet comes from, as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It arrives on this interface of a workload.
    Workload(String),
    /// It arrives from the network.
    Network,
    /// The node itself sent it.
    Host,
}

/// What one node does with the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The node.
    pub node: String,
    /// Where the packet comes from.
    pub origin: Origin,
    /// Where it goes.
    pub target: Target,
    /// The packet as this node sees it.
    pub packet: Packet,
    /// What happens.
    pub verdict: Verdict,
}

/// The nodes that judge the packet, up to the first that denies it. None: no node of the cluster sees it.
pub fn judge(world: &mut World, flow: &Flow) -> Vec<Hop> {
    let mut hops = Vec::new();
    let (from, to) = (flow.source.node(), flow.destination.node());
    let mut packet = flow.packet;
    // An address in a node's block that nobody has sends nothing: a packet that claims it comes from the network.
    let sends = !matches!(flow.source.sort, Sort::Address { .. } | Sort::NetworkSet(_));
    if let Some(node) = from.filter(|_| sends) {
        let origin = match &flow.source.sort {
            Sort::Workload { id: _, node: _, interface } => Origin::Workload(interface.clone()),
            Sort::Node(_) => Origin::Host,
            Sort::NetworkSet(_) | Sort::Address { block_of: _ } => Origin::Network,
        };
        let own = flow.destination.sort == Sort::Node(node.to_owned());
        let target = if own { Target::Host } else { Target::Routed };
        hops.push(hop(world, node, origin, target, packet));
        if hops.iter().any(|hop| !hop.verdict.allowed) || to == from {
            return hops;
        }
        packet = translated(world, node, flow, packet);
    }
    if let Some(node) = to {
        let target = match flow.destination.sort {
            Sort::Node(_) => Target::Host,
            Sort::Workload { .. } | Sort::NetworkSet(_) | Sort::Address { .. } => Target::Routed,
        };
        hops.push(hop(world, node, Origin::Network, target, packet));
    }
    hops
}

/// Whether every node on the way lets the packet go on.
pub fn allowed(hops: &[Hop]) -> bool {
    hops.iter().all(|hop| hop.verdict.allowed)
}

fn hop(world: &mut World, node: &str, origin: Origin, target: Target, packet: Packet) -> Hop {
    let uplink = uplink::of(world.facts(), node);
    let source = match &origin {
        Origin::Workload(interface) => Source::Interface(interface),
        Origin::Network => Source::Interface(&uplink),
        Origin::Host => Source::Host,
    };
    let way = Way { leaves_by: Some(&uplink), ..Way::new(&packet, source, target) };
    let verdict = evaluate_way(&world.node(node).tables, &packet, &way);
    Hop { node: node.to_owned(), origin, target, packet, verdict }
}

/// The packet with the node's own source address, if it leaves the pools and its pool says so.
fn translated(world: &mut World, node: &str, flow: &Flow, packet: Packet) -> Packet {
    let pools = &world.node(node).tables.pools;
    let outgoing = pools.iter().any(|(net, pool)| pool.nat_outgoing && net.contains(&packet.src));
    let inside = pools.keys().any(|net| net.contains(&packet.dst));
    if !outgoing || inside || !matches!(flow.source.sort, Sort::Workload { .. }) {
        return packet;
    }
    let key = tortie_facts::Key::resource(tortie_api::Kind::Node, "", node);
    let Some(tortie_api::Resource::Node(found)) = world.resource(&key) else { return packet };
    let own = found.spec.bgp.iter().flat_map(|bgp| [&bgp.ipv4_address, &bgp.ipv6_address]);
    let own = own.filter_map(|text| text.addr()).find(|addr| Family::of(*addr) == packet.family());
    Packet { src: own.unwrap_or(packet.src), ..packet }
}
