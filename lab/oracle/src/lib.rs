//! Random policy on real packets: what the kernel does against what the resources mean.
//!
//! A world (resources of every kind) follows from a seed; so do the flows through it. Each flow's first packet is
//! sent through a node's namespace, and must fare as the oracle says, which must say what the resources mean. When
//! they differ, the world is shrunk to the least that still shows it and printed as YAML. `mutants` breaks the rules
//! on purpose, to show that such a fault would be seen. Nothing of this is part of the binary.

pub mod backend;
pub mod expect;
mod flow;
mod frame;
pub mod generate;
mod host_meaning;
#[path = "../../../crates/logic/calc/tests/model/meaning/mod.rs"]
mod meaning;
pub mod mutants;
mod network;
pub mod place;
mod report;
mod rng;
mod shrink;
mod socket;
mod trial;

pub use backend::{Backend, IptablesBackend, NftablesBackend};
pub use flow::{Flow, flows};
pub use generate::{Facts, facts};
pub use network::Network;
pub use report::report;
pub use rng::Rng;
pub use shrink::shrink;
pub use trial::{Counts, Disagreement, Trial};
