//! ROUTE-REFRESH: the wish to get all routes of a family again (RFC 2918), and where the answer begins and ends
//! (RFC 7313).
//!
//! Invariant: a subtype that nobody knows is read as no message at all.

use super::{Kind, write_frame};
use crate::family::AfiSafi;
use crate::wire::Reader;

/// What a ROUTE-REFRESH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Tell me all routes again.
    Request,
    /// From here on all routes are told again.
    Begin,
    /// All routes were told again: what was not among them is gone.
    End,
}

/// The family and what is said of it; `None` if the body is nothing that we know.
pub fn parse(body: &[u8]) -> Option<(AfiSafi, Refresh)> {
    let mut reader = Reader::new(body);
    let (afi, subtype, safi) = (reader.u16()?, reader.u8()?, reader.u8()?);
    let refresh = match subtype {
        0 => Refresh::Request,
        1 => Refresh::Begin,
        2 => Refresh::End,
        _ => return None,
    };
    reader.is_empty().then_some((AfiSafi { afi, safi }, refresh))
}

/// Appends the whole message.
pub fn write(family: AfiSafi, refresh: Refresh, out: &mut Vec<u8>) {
    let AfiSafi { afi, safi } = family;
    let subtype = match refresh {
        Refresh::Request => 0,
        Refresh::Begin => 1,
        Refresh::End => 2,
    };
    write_frame(Kind::RouteRefresh, out, |out| {
        out.extend_from_slice(&afi.to_be_bytes());
        out.extend_from_slice(&[subtype, safi]);
    });
}

/// The whole message that asks for a family.
pub fn encode(family: AfiSafi) -> Vec<u8> {
    let mut out = Vec::new();
    write(family, Refresh::Request, &mut out);
    out
}
