//! What the kernel tells of packets and connections: NFLOG and conntrack over netlink.
//!
//! The codecs are pure; [`Tap`] and [`Connections`] are thin sockets around them. Every wait has a deadline, nothing is kept in between, and
//! what the kernel could not hand over is counted.

mod conntrack;
mod error;
mod nflog;
mod packet;
mod socket;
mod tap;

pub use conntrack::{Connections, ConntrackError, Tracked};
pub use error::Error;
pub use nflog::{Told, parse};
pub use packet::flow;
pub use tap::{Heard, Tap};
