//! What the cluster's controllers do: decided from a picture of the facts and a clock that are given to them.
//!
//! Nothing here knows a store, a socket or a thread. A decision is a value that says what to write, or a [`Round`] that
//! asks and is answered.

mod copies;
mod election;
pub mod finalizers;
mod host_endpoints;
mod labels;
mod leaks;
mod ledger;
mod load_balancer;
mod nodes;
mod numbers;
mod round;
mod settings;
mod users;

pub use copies::{Change, Copied, copied_filter, copies, is_copy, source_of};
pub use election::{DEADLINE, Election, LEASE, RENEW, Record, Step};
pub use host_endpoints::{HostEndpointChanges, changes as host_endpoint_changes, is_made};
pub use labels::{kubernetes_name, with_labels};
pub use leaks::{Abandoned, Course, Empty, Leaks, Moment, NODE_GRACE, Suspects, node_grace};
pub use ledger::{Allocation, Ledger};
pub use nodes::StaleNodes;
pub use numbers::{Reclaimed, metrics};
pub use round::{Got, Round, Summary, Want};
pub use settings::{Running, VARIABLES, WrongVariable, default_configuration};
/// Load-balancer addresses of services.
pub mod services {
    pub use crate::load_balancer::{Given, ServiceName, Task, handle, is_ours, next, without};
}
pub use users::{Holder, Users, node_of};
