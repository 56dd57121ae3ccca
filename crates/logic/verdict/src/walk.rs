//! The packet's way: host endpoint in, egress of the workload that sent it, ingress of the workload that receives it,
//! host endpoint out.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_desired::{Endpoint, EndpointId, HostAction, RouteTarget, Tables, TunnelDevice};
use tortie_net::{Family, Protocol};

use crate::host::{self, Ruling};
use crate::lists::Look;
use crate::step::TunnelKind;
use crate::{Direction, Packet, Source, Stage, Step, Target, Verdict, Way};

/// IP in IP (RFC 2003).
const IPIP: Protocol = Protocol(4);
/// The interface by which the node speaks to itself.
const LOOPBACK: &str = "lo";

/// Judges the first packet of a connection under these tables.
///
/// What is not policed is allowed: packets between the network and a node without host endpoints, and from the node to
/// its workloads. Neighbour discovery, which backends let through for every workload, is not to be asked about here,
/// nor what limits on traffic do.
pub fn evaluate(tables: &Tables, packet: &Packet, source: Source<'_>, target: Target) -> Verdict {
    evaluate_way(tables, packet, &Way::new(packet, source, target))
}

/// Judges the first packet of a connection on a way that is known in full.
pub fn evaluate_way(tables: &Tables, packet: &Packet, way: &Way<'_>) -> Verdict {
    let mut steps = Vec::new();
    let allowed = Walk { tables, packet, way, steps: &mut steps }.all();
    Verdict { allowed, steps }
}

/// Judges a packet by the rules of one direction of one endpoint alone; `None` if there is no such endpoint.
pub fn evaluate_endpoint(tables: &Tables, id: &EndpointId, direction: Direction, packet: &Packet) -> Option<Verdict> {
    let endpoint = tables.endpoints.get(id)?;
    let mut steps = Vec::new();
    let allowed = Look { tables, id, direction, packet, steps: &mut steps }.all(&endpoint.tiers, &endpoint.profiles);
    Some(Verdict { allowed, steps })
}

struct Walk<'a> {
    tables: &'a Tables,
    packet: &'a Packet,
    way: &'a Way<'a>,
    steps: &'a mut Vec<Step>,
}

impl<'a> Walk<'a> {
    fn all(&mut self) -> bool {
        if self.packet.family() != Family::of(self.packet.dst) {
            self.steps.push(Step::MixedFamilies);
            return false;
        }
        match (self.way.source, self.way.target) {
            (Source::Interface(name), target) => self.arrives(name, target),
            (Source::Host, Target::Routed) => self.sent_by_host(),
            (Source::Host, Target::Host) => self.leaves_host(Some(LOOPBACK)) && self.arrives(LOOPBACK, Target::Host),
        }
    }

    /// A packet that came in by an interface.
    fn arrives(&mut self, name: &str, target: Target) -> bool {
        let sender = by_interface(self.tables, name);
        let prefixes = &self.tables.settings.interface_prefixes;
        let of_workload =
            sender.is_some() || prefixes.iter().any(|prefix| !prefix.is_empty() && name.starts_with(&**prefix));
        let mut accepted = false;
        let (dst, dst_port) = self.way.arrived_for;
        let arrived = Packet { dst, dst_port, ..*self.packet };
        if !of_workload {
            match self.ask(Some(name), Stage::Untracked, Direction::Ingress, arrived) {
                Ruling::Passes => {}
                Ruling::Accepted => accepted = true,
                Ruling::Denied => return false,
            }
        }
        if !accepted {
            match self.ask(Some(name), Stage::PreDnat, Direction::Ingress, arrived) {
                Ruling::Passes => {}
                Ruling::Accepted => accepted = true,
                Ruling::Denied => return false,
            }
        }
        if target == Target::Routed
            && !accepted
            && self.ask(Some(name), Stage::Forward, Direction::Ingress, *self.packet) == Ruling::Denied
        {
            return false;
        }
        // A workload is at the far end of no tunnel, whatever source it names.
        let peer = (!of_workload).then_some(self.packet.src);
        if target == Target::Host
            && (sender.is_some() || !of_workload)
            && let Some(allowed) = self.tunnel(peer)
        {
            return allowed;
        }
        if of_workload && !self.leaves_workload(name, sender) {
            return false;
        }
        match target {
            Target::Host if of_workload => self.reaches_host(),
            Target::Host if accepted => true,
            Target::Host => {
                if host::of_interface(self.tables, Some(name)).is_none() {
                    self.steps.push(Step::NotOurs);
                    return true;
                }
                self.ask(Some(name), Stage::Normal, Direction::Ingress, *self.packet) != Ruling::Denied
            }
            Target::Routed => self.forwarded(of_workload),
        }
    }

    fn leaves_workload(&mut self, name: &str, sender: Option<(&'a EndpointId, &'a Endpoint)>) -> bool {
        let Some((id, endpoint)) = sender else {
            self.steps.push(Step::UnknownInterface(Arc::from(name)));
            return false;
        };
        let (packet, settings) = (self.packet, &self.tables.settings);
        if packet.family() == Family::V6 && !settings.ipv6 {
            self.steps.push(Step::Ipv6Off(id.clone()));
            return false;
        }
        let allowed_source = endpoint.allowed_sources.iter().any(|net| net.contains(&packet.src));
        if !endpoint.addresses.contains(&packet.src) && !allowed_source {
            self.steps.push(Step::Spoofed(id.clone()));
            return false;
        }
        let vxlan = packet.protocol == Protocol::UDP && packet.dst_port == settings.vxlan_port;
        if vxlan && !settings.vxlan_from_workloads || packet.protocol == IPIP && !settings.ipip_from_workloads {
            self.steps.push(Step::Encapsulated(id.clone()));
            return false;
        }
        self.lists(id, endpoint, Direction::Egress)
    }

    /// A workload's packet to the node itself, which the workload's policy allows.
    fn reaches_host(&mut self) -> bool {
        let action = self.tables.settings.endpoint_to_host;
        self.steps.push(Step::ToHost(action));
        match action {
            HostAction::Drop => false,
            HostAction::Accept | HostAction::Return => true,
        }
    }

    fn forwarded(&mut self, from_workload: bool) -> bool {
        let (tables, packet) = (self.tables, self.packet);
        if let Some((net, true)) = best_route(tables, packet) {
            self.steps.push(Step::Blackhole(net));
            return false;
        }
        let found = receiver(tables, packet);
        if let Some((id, endpoint)) = found
            && !self.enters_workload(id, endpoint)
        {
            return false;
        }
        let out = found.map(|(_, endpoint)| &*endpoint.interface).or(self.way.leaves_by);
        if self.ask(out, Stage::Forward, Direction::Egress, *packet) == Ruling::Denied {
            return false;
        }
        let managed = tables.settings.ipv6 || packet.family() == Family::V4;
        if let Some(net) = tables.settings.service_loops.iter().find(|net| managed && net.contains(&packet.dst)) {
            self.steps.push(Step::ServiceLoop(*net));
            return false;
        }
        if found.is_none() && !from_workload {
            self.steps.push(Step::NotOurs);
        }
        true
    }

    fn enters_workload(&mut self, id: &EndpointId, endpoint: &Endpoint) -> bool {
        if self.packet.family() == Family::V6 && !self.tables.settings.ipv6 {
            self.steps.push(Step::Ipv6Off(id.clone()));
            return false;
        }
        self.lists(id, endpoint, Direction::Ingress)
    }

    fn sent_by_host(&mut self) -> bool {
        if let Some((net, true)) = best_route(self.tables, self.packet) {
            self.steps.push(Step::Blackhole(net));
            return false;
        }
        let Some((id, _)) = receiver(self.tables, self.packet) else { return self.leaves_host(self.way.leaves_by) };
        self.steps.push(Step::FromHost(id.clone()));
        true
    }

    fn leaves_host(&mut self, interface: Option<&str>) -> bool {
        let (dst, dst_port) = self.way.arrived_for;
        match self.ask(interface, Stage::Untracked, Direction::Egress, Packet { dst, dst_port, ..*self.packet }) {
            Ruling::Passes => {}
            Ruling::Accepted => return true,
            Ruling::Denied => return false,
        }
        if host::of_interface(self.tables, interface).is_none() {
            self.steps.push(Step::NotOurs);
            return true;
        }
        if self.tunnel(Some(self.packet.dst)) == Some(true) {
            return true;
        }
        self.ask(interface, Stage::Normal, Direction::Egress, *self.packet) != Ruling::Denied
    }

    /// Whether the packet is one of this node's tunnels, and may be exchanged with this peer; `None`: with a workload.
    fn tunnel(&mut self, peer: Option<IpAddr>) -> Option<bool> {
        let Packet { protocol, dst_port, .. } = *self.packet;
        let family = self.packet.family();
        let vxlan = self.tables.tunnels.get(&TunnelDevice::vxlan(family));
        let managed = self.tables.settings.ipv6 || family == Family::V4;
        let external =
            || peer.is_some_and(|peer| self.tables.settings.external_nodes.iter().any(|net| net.contains(&peer)));
        let udp = |port: u16| protocol == Protocol::UDP && dst_port == port && managed;
        let (kind, allowed) = if vxlan.is_some_and(|vxlan| udp(vxlan.port)) {
            (TunnelKind::Vxlan, self.tables.vteps.values().any(|vtep| Some(vtep.underlay) == peer) || external())
        } else if let Some(ipip) = self.tables.ipip.as_ref().filter(|_| protocol == IPIP && family == Family::V4) {
            (TunnelKind::Ipip, peer.is_some_and(|peer| ipip.peers.contains_key(&peer)) || external())
        } else {
            // Of strangers the policy of the host decides.
            let device = self.tables.wireguard.get(&family).filter(|device| udp(device.port));
            device.filter(|device| device.peers.values().any(|known| Some(known.endpoint) == peer))?;
            (TunnelKind::Wireguard, true)
        };
        self.steps.push(Step::Tunnel { kind, allowed });
        Some(allowed)
    }

    fn ask(&mut self, interface: Option<&str>, stage: Stage, direction: Direction, packet: Packet) -> Ruling {
        host::ask(self.tables, interface, stage, direction, &packet, self.steps)
    }

    fn lists(&mut self, id: &EndpointId, endpoint: &Endpoint, direction: Direction) -> bool {
        let mut look = Look { tables: self.tables, id, direction, packet: self.packet, steps: self.steps };
        look.all(&endpoint.tiers, &endpoint.profiles)
    }
}

fn by_interface<'a>(tables: &'a Tables, name: &str) -> Option<(&'a EndpointId, &'a Endpoint)> {
    let found = tables.endpoints.iter().find(|(_, endpoint)| &*endpoint.interface == name);
    found.map(|(id, endpoint)| (id, &**endpoint))
}

/// The most specific route for the destination, and whether it is a black hole.
fn best_route(tables: &Tables, packet: &Packet) -> Option<(IpNet, bool)> {
    let covering = tables.routes.iter().filter(|(net, _)| net.contains(&packet.dst));
    let (net, route) = covering.max_by_key(|(net, _)| net.prefix_len())?;
    Some((*net, route.target == RouteTarget::Blackhole))
}

/// The endpoint to which the packet is delivered: the one that its route leads to, or else the one with its address.
fn receiver<'a>(tables: &'a Tables, packet: &Packet) -> Option<(&'a EndpointId, &'a Endpoint)> {
    let routed = tables.routes.get(&IpNet::from(packet.dst)).and_then(|route| match &route.target {
        RouteTarget::Workload { interface } => by_interface(tables, interface),
        RouteTarget::Blackhole
        | RouteTarget::Node { node: _, via: _ }
        | RouteTarget::Tunnel { device: _, node: _, via: _ } => None,
    });
    routed.or_else(|| {
        let found = tables.endpoints.iter().find(|(_, endpoint)| endpoint.addresses.contains(&packet.dst));
        found.map(|(id, endpoint)| (id, &**endpoint))
    })
}
