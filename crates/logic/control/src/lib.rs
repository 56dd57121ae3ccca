//! What the cluster's controllers do: decided from a picture of the facts and a clock that are given to them.
//!
//! Nothing here knows a store, a socket or a thread. A decision is a value that says what to write, or a [`Round`] that
//! asks and is answered.

mod leaks;
mod ledger;
mod round;
mod users;

pub use leaks::{Abandoned, Course, Empty, Leaks, Moment, NODE_GRACE, Suspects};
pub use ledger::{Allocation, Ledger};
pub use round::{Got, Round, Summary, Want};
pub use users::{Holder, Users, node_of};
