//! The lab: nodes, routers and pods out of network namespaces, the real binary in them, and the connectivity matrix.
//!
//! [`Lab::builder`] describes one, [`Lab`] is one, and dropping it leaves nothing behind. Everything that exists is
//! written to the lab's directory before it is made, so that any process can take it down, also after a crash.

pub mod binary;
mod builder;
pub mod cli;
pub mod cni;
mod daemon;
mod demo;
mod endpoint;
mod etcd;
mod fabric;
pub mod kubernetes;
mod lab;
mod matrix;
mod node;
mod place;
mod pod;
pub mod probe;
mod prober;
pub mod routes;
mod signals;
mod state;
mod teardown;
mod topology;
mod view;

pub use builder::LabBuilder;
pub use daemon::Daemon;
pub use lab::{Lab, require_root};
pub use matrix::{Matrix, Path};
pub use node::{Node, wait};
pub use place::Place;
pub use pod::Pod;
pub use probe::{Echo, Outcome, Probe, Transport};
pub use prober::{Prober, Report};
pub use state::{LabDir, NetnsDir, PodRecord, Process, Record};
pub use teardown::teardown;
pub use topology::{Attachment, Machine, Rules, Store, Subnet, Topology};
pub use view::View;
