//! Records of packets that a node ended: who sent what to whom, and which rule or check it was.
//!
//! Pure: time and packets are arguments. [`Directory`] follows the desired tables by their batches and gives packets
//! names; [`Ring`] keeps the last records. Invariant: memory is bounded whatever arrives, and what is not kept or not
//! told is counted.

mod connection;
mod directory;
mod record;
mod ring;
mod seen;

pub use connection::{Connection, Ends, Judge, Standing, Surroundings};
pub use directory::Directory;
pub use record::Record;
pub use ring::{Counts, Ring};
pub use seen::{Flow, Hook, Seen};
