//! OPEN: who the sender is and what it can do (RFC 4271 section 4.2, RFC 9072 for long parameters).
//!
//! Invariant: what parses holds a legal version, hold time and router id; whether it fits the peer is the session's question.

use std::net::Ipv4Addr;

use tortie_net::AsNumber;

use super::capability::{Capability, GracefulRestart};
use super::notification::Notification;
use super::{Kind, write_frame};
use crate::family::Families;
use crate::wire::Reader;

/// The two-byte AS number that stands for one that needs four (RFC 6793).
pub const AS_TRANS: u16 = 23456;

/// An OPEN message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS: from the four-byte capability if there is one.
    pub asn: AsNumber,
    /// Proposed hold time: 0 (none) or at least 3 seconds.
    pub hold_time_secs: u16,
    /// Router id, never zero.
    pub router_id: Ipv4Addr,
    /// Capabilities in the order sent.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// Reads the body; the error is what to send back.
    pub fn parse(body: &[u8]) -> Result<Open, Notification> {
        let mut reader = Reader::new(body);
        let short = Notification::MALFORMED_OPEN;
        let version = reader.u8().ok_or(short.clone())?;
        if version != 4 {
            return Err(Notification::unsupported_version());
        }
        let asn = reader.u16().ok_or(short.clone())?;
        let hold_time_secs = reader.u16().ok_or(short.clone())?;
        let router_id = Ipv4Addr::from(reader.u32().ok_or(short.clone())?);
        let capabilities = parse_parameters(reader)?;
        if matches!(hold_time_secs, 1 | 2) {
            return Err(Notification::UNACCEPTABLE_HOLD_TIME);
        }
        if router_id.is_unspecified() {
            return Err(Notification::BAD_BGP_IDENTIFIER);
        }
        let mut open = Open { asn: AsNumber(u32::from(asn)), hold_time_secs, router_id, capabilities };
        if let Some(asn) = open.four_byte_as() {
            open.asn = asn;
        }
        Ok(open)
    }

    /// The whole message.
    pub fn encode(&self) -> Vec<u8> {
        let Open { asn, hold_time_secs, router_id, capabilities } = self;
        let mut values = Vec::new();
        capabilities.iter().for_each(|capability| capability.encode(&mut values));
        let length = u8::try_from(values.len()).expect("capabilities that we build fit one parameter");
        let short_as = u16::try_from(asn.0).unwrap_or(AS_TRANS);
        let mut out = Vec::new();
        write_frame(Kind::Open, &mut out, |out| {
            out.push(4);
            out.extend_from_slice(&short_as.to_be_bytes());
            out.extend_from_slice(&hold_time_secs.to_be_bytes());
            out.extend_from_slice(&router_id.octets());
            if values.is_empty() {
                out.push(0);
            } else {
                out.extend_from_slice(&[length + 2, 2, length]);
                out.extend_from_slice(&values);
            }
        });
        out
    }

    /// The AS number of the four-byte capability.
    pub fn four_byte_as(&self) -> Option<AsNumber> {
        self.capabilities.iter().find_map(|capability| match capability {
            Capability::FourByteAs(asn) => Some(*asn),
            _ => None,
        })
    }

    /// The families offered; IPv4 alone if the sender announces none at all (RFC 4760 section 8).
    pub fn families(&self) -> Families {
        let mut set = Families::NONE;
        let mut any = false;
        for capability in &self.capabilities {
            if let Capability::Multiprotocol(afi_safi) = capability {
                any = true;
                if let Some(family) = afi_safi.family() {
                    set.set(family, true);
                }
            }
        }
        if any { set } else { Families { v4: true, v6: false } }
    }

    /// Whether ROUTE-REFRESH is understood.
    pub fn route_refresh(&self) -> bool {
        self.capabilities.contains(&Capability::RouteRefresh)
    }

    /// Whether answers to ROUTE-REFRESH have a beginning and an end.
    pub fn enhanced_refresh(&self) -> bool {
        self.capabilities.contains(&Capability::EnhancedRefresh)
    }

    /// Seconds to keep a family's routes after the restart timer; 0 if the sender knows nothing of it.
    pub fn long_lived(&self, family: tortie_net::Family) -> u32 {
        let lists = self.capabilities.iter().rev().find_map(|capability| match capability {
            Capability::LongLived(families) => Some(families),
            _ => None,
        });
        let of_family = |(afi_safi, _): &&(crate::AfiSafi, u32)| afi_safi.family() == Some(family);
        lists.and_then(|families| families.iter().find(of_family)).map_or(0, |(_, secs)| *secs)
    }

    /// The graceful restart capability; the last one if there are several (RFC 4724 section 3).
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.capabilities.iter().rev().find_map(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart),
            _ => None,
        })
    }
}

/// Reads optional parameters, short or long form.
fn parse_parameters(mut reader: Reader<'_>) -> Result<Vec<Capability>, Notification> {
    let short = || Notification::MALFORMED_OPEN;
    let total = reader.u8().ok_or_else(short)?;
    let long = total == 255 && reader.rest().first() == Some(&255);
    if long {
        reader.u8().ok_or_else(short)?;
        let total = reader.u16().ok_or_else(short)?;
        if usize::from(total) != reader.rest().len() {
            return Err(short());
        }
    } else if usize::from(total) != reader.rest().len() {
        return Err(short());
    }
    let mut capabilities = Vec::new();
    while !reader.is_empty() {
        let kind = reader.u8().ok_or_else(short)?;
        let length = if long { reader.u16() } else { reader.u8().map(u16::from) }.ok_or_else(short)?;
        let value = reader.take(usize::from(length)).ok_or_else(short)?;
        if kind != 2 {
            return Err(Notification::UNSUPPORTED_OPTIONAL_PARAMETER);
        }
        Capability::parse_all(value, &mut capabilities).ok_or_else(short)?;
    }
    Ok(capabilities)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::AfiSafi;
    use crate::message::{HEADER_LEN, split_frame};
    use tortie_net::Family;

    fn sample() -> Open {
        Open {
            asn: AsNumber(4_200_000_000),
            hold_time_secs: 90,
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            capabilities: vec![
                Capability::Multiprotocol(AfiSafi::unicast(Family::V4)),
                Capability::Multiprotocol(AfiSafi::unicast(Family::V6)),
                Capability::RouteRefresh,
                Capability::GracefulRestart(GracefulRestart {
                    restarted: true,
                    restart_time_secs: 120,
                    families: vec![(AfiSafi::unicast(Family::V4), true), (AfiSafi::unicast(Family::V6), false)],
                }),
                Capability::FourByteAs(AsNumber(4_200_000_000)),
                Capability::Other { code: 199, value: vec![] },
            ],
        }
    }

    #[test]
    fn an_open_round_trips() {
        let bytes = sample().encode();
        let (frame, used) = split_frame(&bytes).expect("valid").expect("whole");
        assert_eq!(used, bytes.len());
        let open = Open::parse(frame.body).expect("valid");
        assert_eq!(open, sample());
        assert_eq!(open.families(), Families::ALL);
        assert_eq!(open.graceful_restart().map(GracefulRestart::preserved), Some(Families::only(Family::V4)));
        assert_eq!(bytes[HEADER_LEN + 1..HEADER_LEN + 3], AS_TRANS.to_be_bytes());
    }

    #[test]
    fn illegal_fields_get_their_own_answer() {
        let body = sample().encode().split_off(HEADER_LEN);
        let with = |at: usize, bytes: &[u8]| {
            let mut body = body.clone();
            body[at..at + bytes.len()].copy_from_slice(bytes);
            Open::parse(&body).expect_err("illegal")
        };
        assert_eq!(with(0, &[3]), Notification::unsupported_version());
        assert_eq!(with(3, &[0, 2]), Notification::UNACCEPTABLE_HOLD_TIME);
        assert_eq!(with(5, &[0; 4]), Notification::BAD_BGP_IDENTIFIER);
        assert_eq!(with(9, &[3]), Notification::MALFORMED_OPEN);
        assert_eq!(with(10, &[1]), Notification::UNSUPPORTED_OPTIONAL_PARAMETER);
    }

    #[test]
    fn long_parameters_are_read() {
        let mut body = vec![4, 0xfc, 0, 0, 90, 10, 0, 0, 1, 255, 255, 0, 5, 2, 0, 2];
        body.extend_from_slice(&[2, 0]);
        assert_eq!(Open::parse(&body).expect("valid").capabilities, vec![Capability::RouteRefresh]);
    }
}
