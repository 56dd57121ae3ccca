//! The CNI plugins `calico` and `calico-ipam`: small clients of the node's socket.
//!
//! The plugin reads its environment and configuration, runs a foreign IPAM plugin if the configuration names one, and
//! asks the node, which holds the store, the addresses and the kernel. The answer comes once the kernel holds the
//! pod's routes and policy. Without a node the plugin fails with the retryable error code 11.

pub mod conf;
mod delegate;
mod environment;
mod gates;
mod known;
pub mod plugin;
mod pod_cidrs;
pub mod spec;
pub mod waits;
pub mod wire;

pub use environment::Environment;
