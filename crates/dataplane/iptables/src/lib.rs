//! Rulesets to iptables (legacy and nft flavour) and ipset, through their restore programs.
//!
//! Chains carry upstream's names and rules its kind of comment (`cali:` and a hash over the rules before), by which a
//! node without memory knows them again. Each table changes in one transaction; sets come before the rules that refer
//! to them and go after. Invariant: a refused change leaves rules and sets in force as they were.
//!
//! How a packet's way through base chains, each of which may accept it for itself, is said in iptables: `render`.

mod backend;
mod content;
mod counters;
mod detect;
mod error;
mod probe;
mod programs;
mod render;
mod save;
mod sets;
mod transition;
mod watch;

pub use backend::{Iptables, Options, remove};
pub use content::Flavour;
pub use counters::first_rules;
pub use detect::{detect, is_installed, leftovers};
pub use error::Error;
pub use probe::{Feature, has};
pub use render::{Allow, CHAIN_LEN as MAX_NAME_LEN, DONE_MARK, SCRATCH_MARK};
