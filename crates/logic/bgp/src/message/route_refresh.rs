//! ROUTE-REFRESH: the wish to get all routes of a family again (RFC 2918).
//!
//! Invariant: a subtype other than 0 (RFC 7313, which we do not announce) is read as no request.

use super::{Kind, write_frame};
use crate::family::AfiSafi;
use crate::wire::Reader;

/// The family asked for; `None` if the body is no plain request.
pub fn parse(body: &[u8]) -> Option<AfiSafi> {
    let mut reader = Reader::new(body);
    let (afi, subtype, safi) = (reader.u16()?, reader.u8()?, reader.u8()?);
    (subtype == 0 && reader.is_empty()).then_some(AfiSafi { afi, safi })
}

/// The whole message that asks for a family.
pub fn encode(family: AfiSafi) -> Vec<u8> {
    let AfiSafi { afi, safi } = family;
    let mut out = Vec::new();
    write_frame(Kind::RouteRefresh, &mut out, |out| {
        out.extend_from_slice(&afi.to_be_bytes());
        out.extend_from_slice(&[0, safi]);
    });
    out
}
