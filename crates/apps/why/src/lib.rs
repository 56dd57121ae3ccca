//! Why a packet is allowed or denied, and what a node should hold: answered from the store alone, no agent is asked.
//!
//! The tables of every node on the way come from the same calculation that the agents run, the verdicts from the
//! oracle that their rules are tested against. Invariant: a change is only proposed after it was tried on those tables
//! and turned the verdict.

mod change;
pub mod cli;
mod label;
mod own;
mod point;
mod report;
mod search;
mod show;
mod text;
mod uplink;
mod way;
mod world;

pub use change::Change;
pub use point::{Point, Sort, find};
pub use report::{Report, explain_flow};
pub use search::suggest;
pub use way::{Flow, Hop, Origin};
pub use world::World;
