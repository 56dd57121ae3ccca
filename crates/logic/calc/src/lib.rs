//! Facts to desired tables, incrementally: [`Calculator`].
//!
//! Invariant: what is flushed is a function of the current facts, never of their history. One file a question; the
//! parts are plain structs, and `calculator.rs` alone passes the answers of one to the next.

mod active;
mod batch;
mod bgp;
mod bodies;
mod calculator;
mod config;
mod hosts;
mod key_hash;
mod labels;
mod local;
mod matching;
mod pack;
mod places;
pub mod print;
mod profiles;
mod read;
mod remote;
mod routes;
mod rules;
mod selectors;
mod sets;
mod short_hash;
mod slab;
mod strings;
mod tiers;
mod tunnels;
mod wireguard;

pub use bgp::{elect_reflectors, hashed_router_id};
pub use calculator::Calculator;
pub use config::{Overrides, ServiceLoops};
pub use rules::index_as_written;
