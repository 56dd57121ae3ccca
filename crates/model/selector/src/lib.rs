//! The label selector language: parse, canonical text and id, match.
//!
//! Invariant: the canonical text and the id are byte for byte upstream's, because both are
//! stored in kernel set names and datastores that other programs read.

mod canonical;
mod labels;
mod lex;
mod node;
mod parse;
mod restrict;
mod rewrite;
mod selector;

pub use labels::{Inherited, Labels};
pub use parse::{MAX_DEPTH, SelectorError};
pub use restrict::Restriction;
pub use selector::Selector;

/// Longest label key that the language accepts, in bytes.
pub const MAX_LABEL_LENGTH: usize = 512;
