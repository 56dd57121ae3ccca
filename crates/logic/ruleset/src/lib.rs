//! Desired policy to backend-neutral chains, sets and maps.
//!
//! [`Renderer`] turns [`tortie_desired::Tables`] into a [`Ruleset`] and each batch into a [`Delta`] of it. Backends
//! (nf_tables, iptables) write deltas in one transaction. Invariants: the ruleset is a function of the tables, not of
//! their history; packets of unknown workload interfaces are dropped; what nothing allows is denied.

mod base;
mod cause;
mod current;
mod delta;
mod groups;
mod host;
mod lists;
mod literal;
mod model;
mod names;
mod nat;
mod place;
mod policy;
mod record;
mod render;
mod runs;
mod sets;
mod workload;

pub use cause::{Beside, Cause, CauseOwner, EGRESS_GROUP, INGRESS_GROUP};
pub use delta::{ChainEdit, ChoiceEdit, Delta, MapEdit, SetEdit};
pub use model::{
    Base, Chain, ChoiceKey, ChoiceMap, CtState, Direction, DispatchMap, Element, InterfaceAddress, KeyRange, Match,
    Name, Rate, Rule, Ruleset, Set, SetType, Side, Statement, Verdict,
};
pub use names::owner_of;
pub use policy::{ACCEPT_MARK, PASS_MARK, REVOKED_MARK};
pub use record::{RECORD_BURST, RECORD_RATE, drop_chain};
pub use render::Renderer;
pub use runs::SHORTEST_RUN;
