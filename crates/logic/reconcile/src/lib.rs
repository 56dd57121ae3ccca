//! Desired against observed: the smallest edits in a safe order, with retry and back-off.
//!
//! Pure: time is an argument. A [`Tracker`] costs memory by keys, never by events, and finds what to do in time that
//! grows with what differs, not with what is there.

mod backoff;
mod tracker;
mod walk;

pub use backoff::Backoff;
pub use tracker::{Edit, Tracker};
pub use walk::Walk;
