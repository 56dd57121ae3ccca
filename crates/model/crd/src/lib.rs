//! The kinds as CustomResourceDefinitions of Kubernetes, in upstream's two groups, made from the types themselves.
//!
//! Invariant: what the files in `manifests` say is what this crate makes from the types; a test compares them.

mod definition;
mod limits;
mod names;
mod structural;

pub use definition::{Group, definitions, manifest};
