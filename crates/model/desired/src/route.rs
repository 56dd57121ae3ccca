//! Routes that the calculation asks for, and the pools that traffic rules need.

use std::net::IpAddr;
use std::sync::Arc;

use crate::TunnelDevice;

/// Where packets for a prefix go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// To a workload of this node, on link through its interface.
    Workload {
        /// Host side of the workload's interface.
        interface: Arc<str>,
    },
    /// Nowhere: the prefix is a block of this node, and what has no more specific route must not loop.
    Blackhole,
    /// To another node's block, without encapsulation.
    Node {
        /// Name of the node.
        node: Arc<str>,
        /// The node's address, the next hop.
        via: IpAddr,
    },
    /// To another node's block, through a tunnel.
    Tunnel {
        /// The device.
        device: TunnelDevice,
        /// Name of the node.
        node: Arc<str>,
        /// The address of the node's own end, on link on the device: a key of [`crate::Tables::vteps`], or with IPIP
        /// the node's own address.
        via: IpAddr,
    },
}

/// A route that this node should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where packets go.
    pub target: RouteTarget,
}

/// What traffic rules need to know of an IP pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Whether packets from the pool to outside every pool get the node's address.
    pub nat_outgoing: bool,
}
