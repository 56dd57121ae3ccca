//! UPDATE: routes withdrawn, attributes, routes announced (RFC 4271 section 4.3).
//!
//! Invariant: `split` fails only where RFC 7606 keeps the session reset: when the parts cannot be told apart.

use tortie_net::{Family, IpNet};

use super::notification::Notification;
use super::{HEADER_LEN, Kind, MAX_LEN, write_frame};
use crate::attribute::Attributes;
use crate::attribute::encode::{MP_REACH_OVERHEAD, encode_attributes, mp_reach, mp_unreach};
use crate::family::AfiSafi;
use crate::nlri::{self, Nlri};
use crate::wire::Reader;

/// The three parts of an UPDATE; the attributes are not read yet.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// IPv4 prefixes withdrawn.
    pub withdrawn: Nlri<'a>,
    /// Path attributes, to be read by `attribute::parse`.
    pub attributes: &'a [u8],
    /// IPv4 prefixes announced.
    pub announced: Nlri<'a>,
}

impl<'a> Update<'a> {
    /// Tells the parts apart; the error is what to send before closing.
    pub fn split(body: &'a [u8]) -> Result<Update<'a>, Notification> {
        let mut reader = Reader::new(body);
        let mut part = || {
            let length = reader.u16()?;
            reader.take(usize::from(length))
        };
        let (Some(withdrawn), Some(attributes)) = (part(), part()) else {
            return Err(Notification::MALFORMED_ATTRIBUTE_LIST);
        };
        let prefixes = |bytes| Nlri::new(Family::V4, bytes).ok_or(Notification::INVALID_NETWORK_FIELD);
        Ok(Update { withdrawn: prefixes(withdrawn)?, attributes, announced: prefixes(reader.rest())? })
    }
}

/// The End-of-RIB marker of a family (RFC 4724 section 2).
pub fn end_of_rib(family: Family, out: &mut Vec<u8>) {
    match family {
        Family::V4 => write_frame(Kind::Update, out, |out| out.extend_from_slice(&[0; 4])),
        Family::V6 => write_withdrawal(family, &[], out),
    }
}

/// Appends as many UPDATEs as the withdrawals of one family need.
pub fn encode_withdrawals(family: Family, prefixes: &[IpNet], out: &mut Vec<u8>) {
    const ROOM: usize = MAX_LEN - HEADER_LEN - 4 - 7;
    for_each_packed(prefixes, ROOM, |packed| write_withdrawal(family, packed, out));
}

fn write_withdrawal(family: Family, packed: &[u8], out: &mut Vec<u8>) {
    write_frame(Kind::Update, out, |out| match family {
        Family::V4 => {
            out.extend_from_slice(&(packed.len() as u16).to_be_bytes());
            out.extend_from_slice(packed);
            out.extend_from_slice(&[0, 0]);
        }
        Family::V6 => {
            out.extend_from_slice(&[0, 0]);
            let attribute = mp_unreach(AfiSafi::unicast(family), packed);
            out.extend_from_slice(&(attribute.len() as u16).to_be_bytes());
            out.extend_from_slice(&attribute);
        }
    });
}

/// Appends as many UPDATEs as it takes to announce prefixes of one family that share their attributes.
///
/// Returns false, and appends nothing, if the attributes alone leave no room for a prefix.
/// `as4`: the peer reads four-byte AS numbers.
pub fn encode_announcements(
    family: Family,
    attributes: &Attributes,
    prefixes: &[IpNet],
    as4: bool,
    out: &mut Vec<u8>,
) -> bool {
    let shared = encode_attributes(attributes, family, as4);
    let used = HEADER_LEN + 4 + shared.len() + if family == Family::V6 { MP_REACH_OVERHEAD } else { 0 };
    let Some(room) = MAX_LEN.checked_sub(used).filter(|room| *room >= 17) else { return false };
    for_each_packed(prefixes, room, |packed| {
        write_frame(Kind::Update, out, |out| {
            out.extend_from_slice(&[0, 0]);
            match family {
                Family::V4 => {
                    out.extend_from_slice(&(shared.len() as u16).to_be_bytes());
                    out.extend_from_slice(&shared);
                    out.extend_from_slice(packed);
                }
                Family::V6 => {
                    // First, as RFC 7606 asks, so that the prefixes are found even if a later attribute is broken.
                    let reach = mp_reach(AfiSafi::unicast(family), attributes.next_hop, packed);
                    out.extend_from_slice(&((reach.len() + shared.len()) as u16).to_be_bytes());
                    out.extend_from_slice(&reach);
                    out.extend_from_slice(&shared);
                }
            }
        });
    });
    true
}

/// Packs prefixes into runs of at most `room` bytes.
fn for_each_packed(prefixes: &[IpNet], room: usize, mut emit: impl FnMut(&[u8])) {
    let mut packed = Vec::with_capacity(room);
    for prefix in prefixes {
        if packed.len() + nlri::packed_len(*prefix) > room {
            emit(&packed);
            packed.clear();
        }
        nlri::pack(*prefix, &mut packed);
    }
    if !packed.is_empty() {
        emit(&packed);
    }
}
