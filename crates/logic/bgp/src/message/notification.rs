//! NOTIFICATION: the message that ends a session and says why (RFC 4271 section 4.5).
//!
//! Invariant: unknown codes are kept as numbers; the text never fails.

use std::fmt;

use super::{Kind, write_frame};
use crate::family::AfiSafi;
use crate::wire::Reader;

/// A NOTIFICATION, sent or received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Error code (RFC 4271 section 4.5).
    pub code: u8,
    /// Error subcode; 0 is unspecific.
    pub subcode: u8,
    /// What the code says about it; may be empty.
    pub data: Vec<u8>,
}

impl Notification {
    /// The marker was not all ones.
    pub const CONNECTION_NOT_SYNCHRONIZED: Notification = Notification::bare(1, 1);
    /// The OPEN names another AS than the configured one.
    pub const BAD_PEER_AS: Notification = Notification::bare(2, 2);
    /// The OPEN carries a router id that cannot be.
    pub const BAD_BGP_IDENTIFIER: Notification = Notification::bare(2, 3);
    /// The OPEN carries an optional parameter other than capabilities.
    pub const UNSUPPORTED_OPTIONAL_PARAMETER: Notification = Notification::bare(2, 4);
    /// The OPEN proposes a hold time of one or two seconds.
    pub const UNACCEPTABLE_HOLD_TIME: Notification = Notification::bare(2, 6);
    /// The OPEN shares no family with us.
    pub const UNSUPPORTED_CAPABILITY: Notification = Notification::bare(2, 7);
    /// The OPEN cannot be read.
    pub const MALFORMED_OPEN: Notification = Notification::bare(2, 0);
    /// The lengths inside an UPDATE contradict each other.
    pub const MALFORMED_ATTRIBUTE_LIST: Notification = Notification::bare(3, 1);
    /// An MP_REACH_NLRI or MP_UNREACH_NLRI cannot be read.
    pub const OPTIONAL_ATTRIBUTE_ERROR: Notification = Notification::bare(3, 9);
    /// A prefix cannot be read.
    pub const INVALID_NETWORK_FIELD: Notification = Notification::bare(3, 10);
    /// Nothing came within the hold time.
    pub const HOLD_TIMER_EXPIRED: Notification = Notification::bare(4, 0);
    /// A message came that the state OpenSent does not allow (RFC 6608).
    pub const UNEXPECTED_IN_OPEN_SENT: Notification = Notification::bare(5, 1);
    /// A message came that the state OpenConfirm does not allow.
    pub const UNEXPECTED_IN_OPEN_CONFIRM: Notification = Notification::bare(5, 2);
    /// A message came that the state Established does not allow.
    pub const UNEXPECTED_IN_ESTABLISHED: Notification = Notification::bare(5, 3);
    /// The peer was taken out of our configuration (RFC 4486).
    pub const PEER_DECONFIGURED: Notification = Notification::bare(6, 3);
    /// The peer's configuration changed here and needs a new session.
    pub const CONFIGURATION_CHANGED: Notification = Notification::bare(6, 6);
    /// BFD says that the peer is gone (RFC 9384).
    pub const BFD_DOWN: Notification = Notification::bare(6, 10);
    /// Another connection of the same peer won (RFC 4271 section 6.8).
    pub const COLLISION: Notification = Notification::bare(6, 7);

    const fn bare(code: u8, subcode: u8) -> Notification {
        Notification { code, subcode, data: Vec::new() }
    }

    /// A header whose length cannot be.
    pub fn bad_message_length(length: u16) -> Notification {
        Notification { code: 1, subcode: 2, data: length.to_be_bytes().to_vec() }
    }

    /// A header whose type nobody knows.
    pub fn bad_message_type(code: u8) -> Notification {
        Notification { code: 1, subcode: 3, data: vec![code] }
    }

    /// The peer sent more prefixes than it may (RFC 4486).
    pub fn too_many_prefixes(family: AfiSafi, limit: u32) -> Notification {
        let AfiSafi { afi, safi } = family;
        let data = [&afi.to_be_bytes()[..], &[safi], &limit.to_be_bytes()].concat();
        Notification { code: 6, subcode: 1, data }
    }

    /// An OPEN of another version than 4.
    pub fn unsupported_version() -> Notification {
        Notification { code: 2, subcode: 1, data: vec![0, 4] }
    }

    /// Whether it says that there were too many prefixes.
    pub fn is_prefix_limit(&self) -> bool {
        (self.code, self.subcode) == (6, 1)
    }

    /// Whether it only says that a parallel connection won, so that nothing is known to be wrong with the peer.
    pub fn is_collision(&self) -> bool {
        (self.code, self.subcode) == (6, 7)
    }

    /// Reads the body; `None` if it is shorter than two bytes.
    pub fn parse(body: &[u8]) -> Option<Notification> {
        let mut reader = Reader::new(body);
        Some(Notification { code: reader.u8()?, subcode: reader.u8()?, data: reader.rest().to_vec() })
    }

    /// The whole message.
    pub fn encode(&self) -> Vec<u8> {
        let Notification { code, subcode, data } = self;
        let mut out = Vec::new();
        write_frame(Kind::Notification, &mut out, |out| {
            out.extend_from_slice(&[*code, *subcode]);
            out.extend_from_slice(data);
        });
        out
    }

    fn words(&self) -> Option<&'static str> {
        Some(match (self.code, self.subcode) {
            (1, 0) => "Invalid message header",
            (1, 1) => "Connection not synchronized",
            (1, 2) => "Invalid message length",
            (1, 3) => "Invalid message type",
            (2, 0) => "Invalid OPEN message",
            (2, 1) => "Unsupported version number",
            (2, 2) => "Bad peer AS",
            (2, 3) => "Bad BGP identifier",
            (2, 4) => "Unsupported optional parameter",
            (2, 5) => "Authentication failure",
            (2, 6) => "Unacceptable hold time",
            (2, 7) => "Required capability missing",
            (3, 0) => "Invalid UPDATE message",
            (3, 1) => "Malformed attribute list",
            (3, 2) => "Unrecognized well-known attribute",
            (3, 3) => "Missing mandatory attribute",
            (3, 4) => "Invalid attribute flags",
            (3, 5) => "Invalid attribute length",
            (3, 6) => "Invalid ORIGIN attribute",
            (3, 8) => "Invalid NEXT_HOP attribute",
            (3, 9) => "Optional attribute error",
            (3, 10) => "Invalid network field",
            (3, 11) => "Malformed AS_PATH",
            (4, _) => "Hold timer expired",
            (5, 0) => "Unexpected message",
            (5, 1) => "Unexpected message in OpenSent state",
            (5, 2) => "Unexpected message in OpenConfirm state",
            (5, 3) => "Unexpected message in Established state",
            (6, 0) => "Cease",
            (6, 1) => "Maximum number of prefixes reached",
            (6, 2) => "Administrative shutdown",
            (6, 3) => "Peer de-configured",
            (6, 4) => "Administrative reset",
            (6, 5) => "Connection rejected",
            (6, 6) => "Other configuration change",
            (6, 7) => "Connection collision resolution",
            (6, 8) => "Out of Resources",
            (6, 9) => "Hard reset",
            (6, 10) => "BFD session down",
            _ => return None,
        })
    }
}

impl fmt::Display for Notification {
    /// The words that routers commonly use, or the two numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Some(words) => f.write_str(words),
            None => write!(f, "Unknown error {}.{}", self.code, self.subcode),
        }
    }
}
