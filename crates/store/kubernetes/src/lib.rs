//! The store on the Kubernetes API: custom resources, and facts derived from Kubernetes' own objects.
//!
//! Objects, names, annotations and the way in which address management deletes are upstream's, for both groups of
//! custom resources: `crd.projectcalico.org/v1` and `projectcalico.org/v3`.
//!
//! - Revisions are those of the API server's one etcd, the same for all types. A listing of several types is taken at
//!   one revision. A watch keeps the order within a type, not between types.
//! - A compare-and-swap is the API's own: an update that names a revision.
//! - Reported statuses ([`tortie_facts::Key::Status`]) have no place in this store: they are accepted and dropped.

mod api;
mod cluster;
mod config;
mod connect;
mod custom;
mod derived;
mod derived_write;
mod fault;
mod interest;
mod lease;
mod limit;
mod meta;
mod names;
mod object;
mod options;
mod read;
mod recent;
mod secret;
mod service_status;
mod store;
mod stream;
mod types;
mod watch;
mod write;

pub use cluster::{Cluster, PodOf};
pub use lease::Lease;
pub use options::Options;
pub use recent::Recent;
pub use secret::{Followed, Secret};
pub use store::KubernetesStore;
pub use types::Group;
