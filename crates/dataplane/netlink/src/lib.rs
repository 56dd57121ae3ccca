//! Links, addresses, neighbours, forwarding entries, routes and rules of the kernel, network namespaces and their sysctls.
//!
//! Everything blocks, with a deadline on every answer; nothing here keeps state but sockets. No type of the wire
//! codec appears in this API. Errors say what the caller can do and carry the kernel's own words.

mod address;
mod change;
mod error;
mod fake;
mod genl;
mod handle;
mod ipip;
mod kernel;
mod link;
mod link_codec;
mod monitor;
mod neighbour;
mod netns;
mod qdisc;
mod route;
mod route_codec;
mod rule;
mod socket;
mod sysctl;
mod veth;
mod vxlan;
mod wire;
mod wireguard;

pub use address::{Address, AddressSpec};
pub use change::RouteChange;
pub use error::{Error, Result};
pub use fake::FakeKernel;
pub use handle::Handle;
pub use kernel::RouteKernel;
pub use link::{Link, LinkKind, LinkRef};
pub use monitor::{Event, Groups, Monitor};
pub use neighbour::{Neighbour, NeighbourState};
pub use netns::{NETNS_DIR, Netns, in_netns};
pub use qdisc::{Qdisc, Redirect, TokenBucket};
pub use route::{NextHop, Route, RouteFilter, RouteKind, RouteProtocol, Scope, TABLE_LOCAL, TABLE_MAIN};
pub use rule::Rule;
pub use sysctl::{sysctl_path, sysctl_read, sysctl_write, sysctl_write_if_different};
pub use veth::{VethPeer, VethSpec};
pub use vxlan::{FdbEntry, VxlanSpec};
pub use wireguard::{
    KernelWireguard, PrivateKey, Wireguard, WireguardChange, WireguardDevices, WireguardPeer, WireguardPeerState,
    WireguardState,
};
