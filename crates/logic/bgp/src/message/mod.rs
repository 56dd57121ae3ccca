//! Messages of BGP-4 and the frame that carries them (RFC 4271 section 4).
//!
//! Invariant: every error found here is the NOTIFICATION that the protocol asks us to send.

pub mod capability;
pub mod notification;
pub mod open;
pub mod route_refresh;
pub mod update;

use notification::Notification;

use crate::wire::Reader;

/// Bytes of the header: marker, length, type.
pub const HEADER_LEN: usize = 19;
/// The longest message allowed (RFC 4271 section 4.1).
pub const MAX_LEN: usize = 4096;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opens a session: type 1.
    Open,
    /// Announces and withdraws routes: type 2.
    Update,
    /// Ends a session and says why: type 3.
    Notification,
    /// Says that the sender is alive: type 4.
    Keepalive,
    /// Asks for all routes again (RFC 2918): type 5.
    RouteRefresh,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Open => 1,
            Kind::Update => 2,
            Kind::Notification => 3,
            Kind::Keepalive => 4,
            Kind::RouteRefresh => 5,
        }
    }

    fn from_code(code: u8) -> Option<Kind> {
        [Kind::Open, Kind::Update, Kind::Notification, Kind::Keepalive, Kind::RouteRefresh]
            .into_iter()
            .find(|kind| kind.code() == code)
    }

    /// The lengths that a whole message of this kind may have.
    fn lengths(self) -> std::ops::RangeInclusive<usize> {
        match self {
            Kind::Open => 29..=MAX_LEN,
            Kind::Update => 23..=MAX_LEN,
            Kind::Notification => 21..=MAX_LEN,
            Kind::Keepalive => HEADER_LEN..=HEADER_LEN,
            Kind::RouteRefresh => 23..=MAX_LEN,
        }
    }
}

/// One whole message, its header taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// All after the header.
    pub body: &'a [u8],
}

/// Takes the first message off a stream: the message and the bytes it used, or `None` if more must arrive.
pub fn split_frame(stream: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Notification> {
    let mut reader = Reader::new(stream);
    let (Some(marker), Some(length), Some(code)) = (reader.take(16), reader.u16(), reader.u8()) else {
        return Ok(None);
    };
    if marker.iter().any(|byte| *byte != 0xff) {
        return Err(Notification::CONNECTION_NOT_SYNCHRONIZED);
    }
    let bad_length = || Err(Notification::bad_message_length(length));
    let size = usize::from(length);
    if !(HEADER_LEN..=MAX_LEN).contains(&size) {
        return bad_length();
    }
    let Some(kind) = Kind::from_code(code) else { return Err(Notification::bad_message_type(code)) };
    if !kind.lengths().contains(&size) {
        return bad_length();
    }
    Ok(stream.get(HEADER_LEN..size).map(|body| (Frame { kind, body }, size)))
}

/// Appends a message whose body `write` appends. The body must keep the whole within `MAX_LEN`.
pub(crate) fn write_frame(kind: Kind, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind.code()]);
    write(out);
    let length = out.len() - start;
    debug_assert!(length <= MAX_LEN, "a message of {length} bytes");
    out[start + 16..start + 18].copy_from_slice(&(length as u16).to_be_bytes());
}

/// A KEEPALIVE message.
pub fn keepalive() -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN);
    write_frame(Kind::Keepalive, &mut out, |_| {});
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_waits_for_its_last_byte() {
        let bytes = keepalive();
        for cut in 0..bytes.len() {
            assert_eq!(split_frame(&bytes[..cut]), Ok(None));
        }
        assert_eq!(split_frame(&bytes), Ok(Some((Frame { kind: Kind::Keepalive, body: &[] }, 19))));
    }

    #[test]
    fn wrong_headers_name_their_fault() {
        let with = |at: usize, byte: u8| {
            let mut bytes = keepalive();
            bytes[at] = byte;
            split_frame(&bytes).map(|_| ()).expect_err("a wrong header")
        };
        assert_eq!(with(3, 0), Notification::CONNECTION_NOT_SYNCHRONIZED);
        assert_eq!(with(17, 18), Notification::bad_message_length(18));
        assert_eq!(with(17, 20), Notification::bad_message_length(20));
        assert_eq!(with(18, 9), Notification::bad_message_type(9));
    }
}
