//! The oracle: what happens to one packet under the desired tables of a node, and which rule decided.
//!
//! Invariant: slow and obvious. There is no index and no cache here; every table is searched from its start. Backends
//! are tested against this crate, packet by packet, so it shares no code with them.

mod condition;
mod explain;
mod host;
mod lists;
mod matching;
mod packet;
mod staged;
mod step;
mod walk;

pub use condition::{Condition, Demand, Side, conditions};
pub use explain::{Explanation, ListTrial, RuleTrial, TierTrial, explain, explain_host};
pub use matching::rule_matches;
pub use packet::{Packet, Source, Target, Way};
pub use staged::with_staged;
pub use step::{Direction, Place, Stage, Step, TunnelKind, Verdict};
pub use walk::{evaluate, evaluate_endpoint, evaluate_way};
