//! The one writer of kernel routes: workload routes, blackholes of own blocks, routes to nodes, routes learned by BGP.
//!
//! [`Routing`] decides from what is wanted and from the kernel's links which route each prefix gets (`render`), knows
//! our own routes without memory (`ours`), and drives them through the apply loop (`target`: observe and commit).
//! [`Shaping`] keeps limits of bandwidth. [`Tunnels`] does the same for tunnel devices and the far ends that they lead to.
//! For one prefix a workload wins over a blackhole, that over a node, that over what was learned.

mod connected;
mod dirty;
mod interface;
mod key;
mod links;
mod options;
mod ours;
mod render;
mod report;
mod routing;
mod shaping;
mod target;
mod tunnel;
mod wants;
mod wireguard;

pub use interface::{configure_lax_interface, configure_workload_interface, enable_forwarding};
pub use key::RouteKey;
pub use options::{BgpRoutes, Options};
pub use ours::Ownership;
pub use report::{RoutingReport, Waiting};
pub use routing::Routing;
pub use shaping::{Shaper, ShaperKey, ShaperTable, Shaping, Toward};
pub use target::RouteTable;
pub use tunnel::{
    DeviceKind, DeviceState, DeviceTable, ForwardingKey, ForwardingTable, NeighbourKey, NeighbourTable, TunnelReport,
    Tunnels,
};
pub use wants::Learned;
pub use wireguard::{WireguardReport, Wireguards};
