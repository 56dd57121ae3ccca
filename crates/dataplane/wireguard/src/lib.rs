//! WireGuard devices in user space, where the kernel has none.
//!
//! A device is a process of its own, so that it outlives the node as a kernel's device does, and its private key is
//! nowhere but in that process:
//!
//! ```text
//! node --(Userspace: starts it, asks over a UNIX socket in its state folder)--> process
//! pods <--> kernel's routes <--> TUN device <--> process (Device: keys, peers, prefixes) <--> UDP <--> other nodes
//! ```
//!
//! Invariants: the TUN device stays when its process dies, so packets are dropped then and never go in the clear; the
//! process ends when its TUN device is deleted; what no peer's key opened, or comes from a source that is not that
//! peer's, is never handed on.

mod client;
mod control;
mod device;
mod prefixes;
mod process;
mod tun;
mod udp;

pub use client::Userspace;
pub use control::{Asked, asked, parse_state, print_change, print_state};
pub use device::{Device, Output};
pub use process::run;
