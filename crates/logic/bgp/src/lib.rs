//! BGP-4 without a clock and without a socket: codec, session machine, RIB, best path, export, graceful restart.
//!
//! `Speaker` is the whole: feed it with `handle_*` and `set_*`, then drain `poll_action` and `poll_route_change`,
//! and call `handle_timeout` at `poll_timeout`. Invariant: the same inputs give the same outputs, byte for byte.

pub mod attribute;
pub mod bfd;
mod config;
mod export;
mod family;
pub mod message;
pub mod nlri;
pub mod policy;
mod rib;
mod session;
mod speaker;
mod wire;

pub use bfd::{BfdConfig, BfdPacket, BfdSession, BfdState};
pub use config::{LocalRoute, NextHopMode, Password, PeerConfig, PeerId, SpeakerConfig};
pub use family::{AfiSafi, Families};
pub use session::ConnId;
pub use session::negotiate::Negotiated;
pub use speaker::Speaker;
pub use speaker::event::{Action, ConnectError, Learned, RouteChange, SessionEnd};
pub use speaker::status::{PeerState, PeerStatus, Seen, Told};
