//! What passes between the speaker and its surroundings.
//!
//! Invariant: an event carries all that is needed to act on it; nobody has to ask back.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tortie_net::IpNet;

use crate::attribute::Attributes;
use crate::config::PeerId;
use crate::message::notification::Notification;
use crate::session::ConnId;

/// What the I/O layer must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial, then call `handle_connected` or `handle_connect_failed` with `conn`.
    Connect {
        /// The peer dialled.
        peer: PeerId,
        /// The name of the connection from now on.
        conn: ConnId,
        /// TCP port.
        port: u16,
        /// Address to bind to first, if any.
        local: Option<IpAddr>,
    },
    /// Write these bytes; report progress by `handle_sent`.
    Send {
        /// The connection.
        conn: ConnId,
        /// Whole messages.
        bytes: Vec<u8>,
    },
    /// Write what is still unwritten if that can be done without waiting long, then close. Also ends a dial.
    /// The speaker has forgotten the connection: later reports about it are ignored.
    Close {
        /// The connection.
        conn: ConnId,
    },
}

/// Why a dial failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The host answered that nobody listens (ECONNREFUSED).
    Refused,
    /// The kernel knows no way there (EHOSTUNREACH, ENETUNREACH).
    NoRoute,
    /// Nothing came back.
    TimedOut,
    /// Anything else, in the words of the system.
    Other(String),
}

impl fmt::Display for ConnectError {
    /// The words of the C library.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConnectError::Refused => "Connection refused",
            ConnectError::NoRoute => "No route to host",
            ConnectError::TimedOut => "Connection timed out",
            ConnectError::Other(text) => text,
        })
    }
}

/// Why a session, or the attempt at one, ended last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The dial failed.
    NotConnected(ConnectError),
    /// TCP was closed or reset without a NOTIFICATION.
    Lost,
    /// The peer opened a new connection and confirmed it: the old one was dead.
    Replaced,
    /// The peer sent a NOTIFICATION.
    Received(Notification),
    /// We sent a NOTIFICATION.
    Sent(Notification),
    /// Our configuration changed, and peers shall keep our routes meanwhile.
    Reconfigured,
}

impl SessionEnd {
    /// Whether graceful restart applies: all that is known is that TCP went away (RFC 4724 section 4.2).
    pub(crate) fn keeps_routes(&self) -> bool {
        match self {
            SessionEnd::Lost | SessionEnd::Replaced | SessionEnd::Reconfigured => true,
            SessionEnd::Received(notification) | SessionEnd::Sent(notification) => notification.is_collision(),
            SessionEnd::NotConnected(_) => false,
        }
    }

    /// Whether only a parallel connection won, so that this was no loss of the peer.
    pub(crate) fn is_takeover(&self) -> bool {
        self.keeps_routes() && !matches!(self, SessionEnd::Lost | SessionEnd::Reconfigured)
    }
}

impl fmt::Display for SessionEnd {
    /// As BIRD words it, because upstream's status table shows that.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionEnd::NotConnected(error) => write!(f, "Socket: {error}"),
            SessionEnd::Lost => f.write_str("Socket: Connection closed"),
            SessionEnd::Replaced => f.write_str("Socket: Connection replaced by a new one"),
            SessionEnd::Received(notification) => write!(f, "Received: {notification}"),
            SessionEnd::Sent(notification) => write!(f, "BGP Error: {notification}"),
            SessionEnd::Reconfigured => f.write_str("Configuration changed here"),
        }
    }
}

/// The best path of a prefix changed. May repeat what was said before; the last word counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// The prefix.
    pub prefix: IpNet,
    /// Where it leads now; `None`: to nowhere, or it is ours.
    pub best: Option<Learned>,
}

/// A learned best path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The peer that sent it.
    pub from: PeerId,
    /// The next hop of the best path.
    pub next_hop: IpAddr,
    /// All next hops that are equally good (RFC 4271 up to the tie-breakers), ascending, each once, `next_hop` included.
    pub next_hops: Vec<IpAddr>,
    /// All attributes of the best path.
    pub attributes: Arc<Attributes>,
}
