//! Established flows, and whether policy still allows them.
//!
//! Invariant: a flow is judged as its first packet would be now, by the oracle and the whole of the tables. A flow that
//! concerns neither a workload nor a host endpoint of this node is nobody's to judge.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::Tables;
use tortie_net::{IpNet, Protocol, host_net};
use tortie_verdict::{Packet, Source, Target, Way, evaluate_way};

/// Addresses and ports of a packet; ports are 0 where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

/// A flow as the kernel tracks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// IP protocol.
    pub protocol: Protocol,
    /// Its first packet as it was before any NAT.
    pub original: Ends,
    /// The answer to it as it is before NAT is undone: its source is where the flow really leads to.
    pub reply: Ends,
    /// ICMP type and code of the first packet.
    pub icmp: Option<(u8, u8)>,
}

impl Connection {
    /// The flow as it would be if the other side had begun it.
    pub fn from_the_other_side(&self) -> Connection {
        let Connection { protocol, original, reply, icmp } = *self;
        Connection { protocol, original: reply, reply: original, icmp }
    }
}

/// What is to be known of the node to tell where flows come from and go to.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// The node's own addresses.
    pub own: BTreeSet<IpAddr>,
    /// The interfaces that routes lead through.
    pub routes: BTreeMap<IpNet, Arc<str>>,
}

impl Surroundings {
    /// The interface towards an address. Packets from there are taken to come in by it.
    fn interface(&self, addr: IpAddr) -> Option<&str> {
        let whole = host_net(addr);
        let nets = (0..=whole.prefix_len()).rev().filter_map(|len| Some(IpNet::new(addr, len).ok()?.trunc()));
        nets.filter_map(|net| self.routes.get(&net)).next().map(|name| &**name)
    }
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It goes on.
    Allowed,
    /// It must stop.
    Denied,
    /// It does not concern this node's policy.
    Foreign,
}

/// The interface of who is not known. No interface has such a name.
const SOMEWHERE: &str = "?";

/// Judges flows. Good for as long as the endpoints of the tables stay.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    workloads: HashMap<IpAddr, Arc<str>>,
    /// What some workloads may use as sources beside their addresses.
    sources: Vec<(IpNet, Arc<str>)>,
}

impl Judge {
    /// A judge under these tables. Of several workloads with one address the first has it, as in the oracle.
    pub fn new(tables: &Tables) -> Judge {
        let mut judge = Judge::default();
        for endpoint in tables.endpoints.values() {
            for addr in &endpoint.addresses {
                judge.workloads.entry(*addr).or_insert_with(|| endpoint.interface.clone());
            }
            judge.sources.extend(endpoint.allowed_sources.iter().map(|net| (*net, endpoint.interface.clone())));
        }
        judge
    }

    /// What becomes of a flow under tables with the endpoints that the judge was made with.
    pub fn standing(&self, tables: &Tables, around: &Surroundings, connection: &Connection) -> Standing {
        let Connection { protocol, original, reply, icmp } = *connection;
        let (src, dst) = (original.src, reply.src);
        let packet = Packet { src, dst, protocol, src_port: original.src_port, dst_port: reply.src_port, icmp };
        let further = || self.sources.iter().find(|(net, _)| net.contains(&src)).map(|(_, name)| name);
        let own = |addr: IpAddr| around.own.contains(&addr) || addr.is_loopback();
        let sender = self.workloads.get(&src).or_else(|| if own(src) { None } else { further() });
        let receiver = self.workloads.get(&dst);
        if sender.is_none() && receiver.is_none() && tables.host_endpoints.is_empty() {
            return Standing::Foreign;
        }
        let source = match sender {
            Some(interface) => Source::Interface(interface),
            None if own(src) => Source::Host,
            None => Source::Interface(around.interface(src).unwrap_or(SOMEWHERE)),
        };
        let target = if receiver.is_none() && own(dst) { Target::Host } else { Target::Routed };
        let leaves_by = match receiver {
            Some(interface) => Some(&**interface),
            None => around.interface(dst),
        };
        let way = Way { source, target, leaves_by, arrived_for: (original.dst, original.dst_port) };
        if evaluate_way(tables, &packet, &way).allowed { Standing::Allowed } else { Standing::Denied }
    }
}
