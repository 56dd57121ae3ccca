//! The apply loop and the ports of a dataplane.
//!
//! Every kind of kernel state is a [`Target`]: observe what is ours, commit edits. One [`Applier`] drives each:
//! only differences are written, failures are kept apart, reported and retried, a second pass writes nothing.
//! [`testing::converges`] is the one test that every target must pass. A packet filter, whose rules only make sense
//! together, is a [`PolicyBackend`] instead.

mod applier;
mod policy;
mod report;
mod target;
pub mod testing;

pub use applier::Applier;
pub use policy::{ForeignChange, PolicyBackend, PolicyReport};
pub use report::{Cause, Failures, Report};
pub use target::Target;
pub use tortie_reconcile::{Backoff, Edit, Walk};
