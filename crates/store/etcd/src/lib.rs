//! The etcd v3 store: upstream's keys and values, shared with upstream.
//!
//! Calls block; inside, one small runtime of the process does the waiting ([`runtime`]). Nothing connects before the
//! first call. A write is never sent twice unless it is certain that the first was not done: what a caller is told
//! to have failed otherwise than by [`tortie_store::WriteError::Unavailable`] did not happen.
//!
//! The gRPC stubs are made from `proto/etcd.proto`, which holds what is used of etcd's API.

mod client;
mod dial;
mod dns;
mod endpoint;
mod fault;
mod older;
mod options;
mod read;
mod runtime;
mod store;
mod tls;
mod watch;
mod write;

#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "made by `cargo xtask codegen`")]
#[path = "generated/etcdserverpb.rs"]
mod proto;

pub use options::{Options, OptionsError, Setting};
pub use store::EtcdStore;
