//! What the kernel tells of packets: NFLOG over netlink, as typed events.
//!
//! The codec is pure; [`Tap`] is a thin socket around it. Every wait has a deadline, nothing is kept in between, and
//! what the kernel could not hand over is counted.

mod error;
mod nflog;
mod packet;
mod tap;
mod wire;

pub use error::Error;
pub use nflog::{Told, parse};
pub use packet::flow;
pub use tap::{Heard, Tap};
