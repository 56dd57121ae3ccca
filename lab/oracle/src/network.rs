//! The node and its pods as namespaces, and flows as real packets through them.
//!
//! Pods have no addresses of their own: what arrives at one is seen by its raw socket and answered by nobody, so
//! that every packet is the first of its connection. Nothing outlives this: a namespace goes with its last socket.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tortie_desired::{RouteTarget, Tables};
use tortie_net::{Family, IpNet, Mac, Protocol, host_net};
use tortie_netlink::{AddressSpec, Handle, Netns, NextHop, Route, RouteProtocol, VethPeer, VethSpec, sysctl_write};
use tortie_verdict::Packet;

use crate::flow::Flow;
use crate::frame::{self, Mark};
use crate::place::{INTERFACES, OUTSIDE, Origin, node_address, pod_addresses};
use crate::socket;

/// Where barriers come in and go out, in a namespace of their own that no policy is about.
const BARRIER: [&str; 2] = ["in", "out"];
const BARRIER_ADDRESS: [u8; 4] = [198, 18, 0, 1];
const POD_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOST_MAC: Mac = Mac::WORKLOAD_HOST_SIDE;
/// So many packets are sent at once: fewer than a queue of the kernel holds.
const BURST: usize = 128;
/// Protocols of packets to the node itself that are listened for.
const LOCAL: [u8; 11] = [1, 6, 17, 47, 49, 58, 89, 112, 132, 136, 254];

/// One end of a veth pair, outside of the node.
struct Port {
    socket: OwnedFd,
    /// Index of the node's end.
    link: u32,
    _netns: Netns,
}

/// The node, its pods and what is outside.
pub struct Network {
    node: Netns,
    kernel: Handle,
    pods: Vec<Port>,
    outside: Port,
    barrier: Barrier,
    own: Vec<(Family, OwnedFd)>,
    local: Vec<(Family, OwnedFd)>,
    conntrack: OwnedFd,
    batch: u32,
    routes: BTreeMap<IpNet, u32>,
}

/// A node without any rule, through which a packet takes as many steps as through the one under test.
struct Barrier {
    enter: Port,
    leave: Port,
    _netns: Netns,
}

impl Network {
    /// Makes all of it; needs root.
    pub fn new() -> Result<Network> {
        let (node, mut kernel) = router()?;
        // Connection tracking calls UDP-Lite packets with a right checksum invalid.
        node.run(|| std::fs::write("/proc/sys/net/netfilter/nf_conntrack_checksum", "0"))??;
        let pods = INTERFACES.iter().map(|name| port(&node, &mut kernel, name)).collect::<Result<Vec<Port>>>()?;
        let (outside, barrier) = (port(&node, &mut kernel, OUTSIDE)?, barrier()?);
        let lo = kernel.link("lo")?.index;
        for family in Family::ALL {
            kernel.add_address(&AddressSpec::new(lo, host_net(node_address(family))))?;
            let gateway: IpAddr = if family == Family::V4 { [169, 254, 9, 1].into() } else { "fe80::9:1".parse()? };
            let all: IpNet = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" }.parse()?;
            kernel.set_neighbour(outside.link, gateway, POD_MAC)?;
            let hop = NextHop { onlink: true, ..NextHop::via(gateway, outside.link) };
            kernel.add_route(Route::via(all, vec![hop], RouteProtocol::STATIC))?;
        }
        for (pod, Port { link, .. }) in pods.iter().enumerate() {
            for addr in Family::ALL.into_iter().flat_map(|family| pod_addresses(pod, family)) {
                kernel.set_neighbour(*link, addr, POD_MAC)?;
            }
        }
        let (own, local, conntrack) = node.run(|| {
            let own = Family::ALL.map(|family| anyhow::Ok((family, socket::own(family)?)));
            let own = own.into_iter().collect::<Result<Vec<_>>>()?;
            let of =
                |family| LOCAL.map(Protocol).map(|protocol| anyhow::Ok((family, socket::local(family, protocol)?)));
            let local = Family::ALL.into_iter().flat_map(of).collect::<Result<Vec<_>>>();
            anyhow::Ok((own, local?, socket::conntrack()?))
        })??;
        let routes = BTreeMap::new();
        Ok(Network { node, kernel, pods, outside, barrier, own, local, conntrack, batch: 0, routes })
    }

    /// The node's namespace, where backends work.
    pub fn node(&self) -> &Netns {
        &self.node
    }

    /// Gives the kernel the routes to the tables' endpoints, and no other.
    pub fn route(&mut self, tables: &Tables) -> Result<()> {
        let mut wanted = BTreeMap::new();
        for (net, route) in &tables.routes {
            if let RouteTarget::Workload { interface } = &route.target
                && let Some(pod) = INTERFACES.iter().position(|name| *name == &**interface)
            {
                wanted.insert(*net, self.pods[pod].link);
            }
        }
        let route = |(net, link): (&IpNet, &u32)| Route::link(*net, *link, RouteProtocol::STATIC);
        for gone in self.routes.iter().filter(|(net, link)| wanted.get(*net) != Some(*link)) {
            self.kernel.delete_route(route(gone))?;
        }
        for new in wanted.iter().filter(|(net, link)| self.routes.get(*net) != Some(*link)) {
            self.kernel.add_route(route(new))?;
        }
        self.routes = wanted;
        Ok(())
    }

    /// Sends every flow's packet, and says of each whether it arrived where its destination is.
    pub fn send(&mut self, flows: &[Flow]) -> Result<Vec<bool>> {
        // The kernel has a queue for each processor, and they do not wait for each other.
        let here = Pid::from_raw(0);
        let before = sched_getaffinity(here)?;
        let mut one = CpuSet::new();
        one.set((0..CpuSet::count()).find(|cpu| before.is_set(*cpu).unwrap_or(false)).context("a processor")?)?;
        sched_setaffinity(here, &one)?;
        let arrived = self.rounds(flows);
        sched_setaffinity(here, &before)?;
        arrived
    }

    fn rounds(&mut self, flows: &[Flow]) -> Result<Vec<bool>> {
        let mut arrived = vec![false; flows.len()];
        let mut left: Vec<usize> = (0..flows.len()).collect();
        while !left.is_empty() {
            // No two packets of a round are of one connection.
            let mut connections = BTreeSet::new();
            let (now, later): (Vec<usize>, Vec<usize>) = left
                .into_iter()
                .partition(|at| connection(&flows[*at].packet).is_none_or(|key| connections.insert(key)));
            socket::forget_connections(&self.conntrack)?;
            for burst in now.chunks(BURST) {
                self.burst(flows, burst, &mut arrived)?;
            }
            left = later;
        }
        Ok(arrived)
    }

    fn burst(&mut self, flows: &[Flow], burst: &[usize], arrived: &mut [bool]) -> Result<()> {
        self.batch += 1;
        let mut sent = Vec::with_capacity(burst.len());
        for (index, at) in burst.iter().enumerate() {
            let Flow { origin, packet } = &flows[*at];
            let mark = Mark { batch: self.batch, index: u32::try_from(index).context("a burst is small")? };
            let bytes = frame::encode(packet, mark);
            match origin {
                Origin::Pod(pod) => socket::put(&self.pods[*pod].socket, &ethernet(packet, &bytes))?,
                Origin::Outside => socket::put(&self.outside.socket, &ethernet(packet, &bytes))?,
                Origin::Host => {
                    let own = self.own.iter().find(|(family, _)| *family == packet.family());
                    let (_, socket) = own.context("there is a socket for each family")?;
                    socket::put_own(socket, packet.dst, &bytes)?;
                }
            }
            sent.push(bytes);
        }
        self.barrier()?;
        let mut buffer = [0; 2048];
        for port in self.pods.iter().chain([&self.outside]) {
            while let Some(seen) = socket::next(&port.socket, &mut buffer)? {
                let Some(packet) = seen.get(14..).and_then(frame::settled) else { continue };
                let Some(index) = self.index(&packet) else { continue };
                if sent.get(index).is_some_and(|bytes| frame::settled(bytes).as_ref() == Some(&packet)) {
                    arrived[burst[index]] = true;
                }
            }
        }
        for (family, socket) in &self.local {
            while let Some(seen) = socket::next(socket, &mut buffer)? {
                let content = if *family == Family::V4 { frame::payload(seen) } else { seen };
                let Some(index) = self.index(content) else { continue };
                if sent.get(index).is_some_and(|bytes| frame::payload(bytes) == content) {
                    arrived[burst[index]] = true;
                }
            }
        }
        Ok(())
    }

    /// The number of a packet of this burst.
    fn index(&self, packet: &[u8]) -> Option<usize> {
        let Mark { batch, index } = Mark::read(packet)?;
        (batch == self.batch).then_some(index as usize)
    }

    /// Waits until the node is done with everything that was sent before. The kernel has one queue for all namespaces
    /// of a processor, and it keeps its order: when a packet that takes as many turns comes out of the other node, all
    /// before it are dealt with.
    fn barrier(&mut self) -> Result<()> {
        let far = IpAddr::from(BARRIER_ADDRESS);
        let packet = Packet::udp([203, 0, 113, 1].into(), 1, far, 1);
        let begun = Instant::now();
        let mut buffer = [0; 2048];
        for index in 0..8 {
            let mark = Mark { batch: self.batch, index };
            let bytes = frame::encode(&packet, mark);
            socket::put(&self.barrier.enter.socket, &ethernet(&packet, &bytes))?;
            let deadline = begun + Duration::from_millis(100 * (u64::from(index) + 1));
            while Instant::now() < deadline {
                while let Some(seen) = socket::next(&self.barrier.leave.socket, &mut buffer)? {
                    let found = seen.get(14..).and_then(frame::settled);
                    if found.is_some_and(|found| self.index(&found).is_some()) {
                        return Ok(());
                    }
                }
                std::thread::yield_now();
            }
        }
        bail!("a node without rules passes nothing on")
    }
}

/// A namespace that forwards.
fn router() -> Result<(Netns, Handle)> {
    let node = Netns::unnamed()?;
    let mut kernel = Handle::open_in(&node)?;
    kernel.set_loopback_up()?;
    node.run(|| {
        for keys in [["ipv4", "conf", "all", "forwarding"], ["ipv6", "conf", "all", "forwarding"]] {
            sysctl_write(&keys, "1")?;
        }
        for device in ["all", "default"] {
            for key in ["rp_filter", "send_redirects", "accept_redirects"] {
                sysctl_write(&["ipv4", "conf", device, key], "0")?;
            }
            sysctl_write(&["ipv6", "conf", device, "accept_dad"], "0")?;
        }
        tortie_netlink::Result::Ok(())
    })??;
    Ok((node, kernel))
}

fn barrier() -> Result<Barrier> {
    let (netns, mut kernel) = router()?;
    let [enter, leave] = BARRIER;
    let (enter, leave) = (port(&netns, &mut kernel, enter)?, port(&netns, &mut kernel, leave)?);
    let far = IpAddr::from(BARRIER_ADDRESS);
    kernel.set_neighbour(leave.link, far, POD_MAC)?;
    kernel.add_route(Route::link(host_net(far), leave.link, RouteProtocol::STATIC))?;
    Ok(Barrier { enter, leave, _netns: netns })
}

/// Makes an interface of the node whose other end is alone in a namespace.
fn port(node: &Netns, kernel: &mut Handle, name: &str) -> Result<Port> {
    let netns = Netns::unnamed()?;
    netns.run(|| {
        for device in ["all", "default"] {
            sysctl_write(&["ipv6", "conf", device, "disable_ipv6"], "1")?;
        }
        tortie_netlink::Result::Ok(())
    })??;
    let peer = VethPeer { name: "eth0", mac: Some(POD_MAC), netns: Some(netns.as_fd()) };
    let link = kernel.create_veth(&VethSpec { name, mac: Some(HOST_MAC), mtu: None, up: true, peer })?;
    // A new interface takes the larger of this and what all interfaces have.
    node.run(|| sysctl_write(&["ipv4", "conf", name, "rp_filter"], "0"))??;
    let mut inside = Handle::open_in(&netns)?;
    inside.set_link_up("eth0", true)?;
    let index = inside.link("eth0")?.index;
    let socket = netns.run(|| socket::frames(index))??;
    Ok(Port { socket, link, _netns: netns })
}

/// What connection tracking takes for one connection: either direction; and where it may not look at ports, without.
/// `None`: ICMP packets have identifiers of their own.
fn connection(packet: &Packet) -> Option<([(IpAddr, u16); 2], Protocol)> {
    let Packet { src, dst, protocol, src_port, dst_port, icmp } = *packet;
    if icmp.is_some() {
        return None;
    }
    let looks = [Protocol::TCP, Protocol::UDP].contains(&protocol);
    let ports = if looks { (src_port, dst_port) } else { (0, 0) };
    let mut ends = [(src, ports.0), (dst, ports.1)];
    ends.sort();
    Some((ends, protocol))
}

fn ethernet(packet: &Packet, bytes: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet.family() == Family::V4 { [8, 0] } else { [0x86, 0xdd] };
    let (Mac(to), Mac(from)) = (HOST_MAC, POD_MAC);
    [&to[..], &from[..], &kind, bytes].concat()
}
