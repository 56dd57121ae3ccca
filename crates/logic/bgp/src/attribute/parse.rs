//! Path attributes from bytes, with the revised error handling of RFC 7606.
//!
//! Invariant: a fault in an attribute never ends a session. It costs the attribute (discard) or the UPDATE's routes
//! (treat-as-withdraw). Only prefixes that cannot be found or read (MP_REACH, MP_UNREACH) do end it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tortie_net::{AsNumber, Family};

use super::{Aggregator, AsPath, Attributes, EXTENDED, OPTIONAL, Origin, TRANSITIVE, Unknown, code};
use crate::family::AfiSafi;
use crate::message::notification::Notification;
use crate::nlri::Nlri;
use crate::wire::Reader;

/// What the session knows and the attributes' meaning depends on.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// AS numbers have four bytes on this session.
    pub as4: bool,
    /// The peer is in another AS.
    pub external: bool,
}

/// Routes announced by MP_REACH_NLRI.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// Their next hop; of two IPv6 addresses, the global one unless it is `::`.
    pub next_hop: IpAddr,
    /// The prefixes.
    pub prefixes: Nlri<'a>,
}

/// Why the routes of an UPDATE are treated as withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attribute {code} {problem}: routes treated as withdrawn (RFC 7606)")]
pub struct Fault {
    /// The attribute's code; 0 for the list as a whole.
    pub code: u8,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// The attributes of one UPDATE.
#[derive(Clone, Debug, Default)]
pub struct Parsed<'a> {
    /// All attributes but the next hop, which depends on where the prefixes were.
    pub attributes: Attributes,
    /// NEXT_HOP, for the prefixes of the classic field.
    pub next_hop: Option<Ipv4Addr>,
    /// Routes of MP_REACH_NLRI, if of a family that we know.
    pub reach: Option<Reach<'a>>,
    /// Routes of MP_UNREACH_NLRI, if of a family that we know.
    pub unreach: Option<Nlri<'a>>,
    /// Set: every route that this UPDATE announces counts as withdrawn.
    pub fault: Option<Fault>,
    has_origin: bool,
    has_as_path: bool,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    count: usize,
}

impl Parsed<'_> {
    /// How many attributes there were.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The fault that counts for announced routes: one found, or a mandatory attribute that is missing.
    pub fn announce_fault(&self, classic: bool) -> Option<Fault> {
        let missing = |code| Some(Fault { code, problem: "is mandatory and missing" });
        match self {
            Parsed { fault: Some(fault), .. } => Some(*fault),
            Parsed { has_origin: false, .. } => missing(code::ORIGIN),
            Parsed { has_as_path: false, .. } => missing(code::AS_PATH),
            Parsed { next_hop: None, .. } if classic => missing(code::NEXT_HOP),
            _ => None,
        }
    }

    fn faulty(&mut self, code: u8, problem: &'static str) {
        self.fault.get_or_insert(Fault { code, problem });
    }
}

/// Reads a whole attribute list.
pub fn parse(bytes: &[u8], context: Context) -> Result<Parsed<'_>, Notification> {
    let mut parsed = Parsed::default();
    let mut seen = [false; 256];
    let mut unknown = Vec::new();
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let Some((flags, code, value)) = next(&mut reader) else {
            parsed.faulty(0, "list ends inside an attribute");
            break;
        };
        parsed.count += 1;
        if std::mem::replace(&mut seen[usize::from(code)], true) {
            if matches!(code, code::MP_REACH | code::MP_UNREACH) {
                return Err(Notification::MALFORMED_ATTRIBUTE_LIST);
            }
            continue;
        }
        match expected_flags(code) {
            Some(expected) if flags & (OPTIONAL | TRANSITIVE) != expected => {
                parsed.faulty(code, "has flags that conflict with its kind");
                // Only it says which routes count as withdrawn (RFC 7606 section 3 (c), (j)).
                if matches!(code, code::MP_REACH | code::MP_UNREACH) {
                    read(&mut parsed, code, value, context)?;
                }
            }
            Some(_) => read(&mut parsed, code, value, context)?,
            None if flags & OPTIONAL == 0 => parsed.faulty(code, "is well-known to others, not to us"),
            None if flags & TRANSITIVE != 0 => unknown.push(Unknown { code, value: value.into() }),
            None => {}
        }
    }
    unknown.sort_unstable_by_key(|attribute| attribute.code);
    parsed.attributes.unknown = unknown.into();
    if !context.as4 {
        merge_four_byte(&mut parsed);
    }
    Ok(parsed)
}

fn next<'a>(reader: &mut Reader<'a>) -> Option<(u8, u8, &'a [u8])> {
    let (flags, code) = (reader.u8()?, reader.u8()?);
    let length = if flags & EXTENDED != 0 { reader.u16()? } else { u16::from(reader.u8()?) };
    Some((flags, code, reader.take(usize::from(length))?))
}

/// The optional and transitive bits that a known attribute must have.
fn expected_flags(code: u8) -> Option<u8> {
    match code {
        code::ORIGIN | code::AS_PATH | code::NEXT_HOP | code::LOCAL_PREF | code::ATOMIC_AGGREGATE => Some(TRANSITIVE),
        code::MED | code::ORIGINATOR_ID | code::CLUSTER_LIST | code::MP_REACH | code::MP_UNREACH => Some(OPTIONAL),
        code::AGGREGATOR | code::COMMUNITIES | code::AS4_PATH | code::AS4_AGGREGATOR | code::LARGE_COMMUNITIES => {
            Some(OPTIONAL | TRANSITIVE)
        }
        _ => None,
    }
}

const LENGTH: &str = "has a wrong length";

fn read<'a>(parsed: &mut Parsed<'a>, code: u8, value: &'a [u8], context: Context) -> Result<(), Notification> {
    let attributes = &mut parsed.attributes;
    let fault = match code {
        code::ORIGIN => {
            parsed.has_origin = true;
            match value {
                [0] => set(&mut attributes.origin, Some(Origin::Igp), LENGTH),
                [1] => set(&mut attributes.origin, Some(Origin::Egp), LENGTH),
                [2] => set(&mut attributes.origin, Some(Origin::Incomplete), LENGTH),
                _ => Some("is no origin"),
            }
        }
        code::AS_PATH => {
            parsed.has_as_path = true;
            set(&mut attributes.as_path, AsPath::parse(value, context.as4), "is malformed")
        }
        code::NEXT_HOP => {
            let addr = <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from).filter(|addr| is_unicast(*addr));
            set(&mut parsed.next_hop, addr.map(Some), "is no address of a host")
        }
        code::MED => set(&mut attributes.med, number(value).map(Some), LENGTH),
        // From another AS these mean nothing and are discarded (RFC 7606 sections 7.5, 7.9, 7.10).
        code::LOCAL_PREF | code::ORIGINATOR_ID | code::CLUSTER_LIST if context.external => None,
        code::LOCAL_PREF => set(&mut attributes.local_pref, number(value).map(Some), LENGTH),
        code::ORIGINATOR_ID => {
            set(&mut attributes.originator_id, number(value).map(|id| Some(Ipv4Addr::from(id))), LENGTH)
        }
        code::CLUSTER_LIST => set(&mut attributes.cluster_list, numbers(value), LENGTH),
        code::COMMUNITIES => set(&mut attributes.communities, numbers(value), LENGTH),
        code::LARGE_COMMUNITIES => set(&mut attributes.large_communities, triples(value), LENGTH),
        code::ATOMIC_AGGREGATE => {
            attributes.atomic_aggregate = value.is_empty();
            None
        }
        // A malformed one of these is discarded (RFC 7606 section 7.7, RFC 6793 section 6).
        code::AGGREGATOR => {
            attributes.aggregator = aggregator(value, context.as4);
            None
        }
        code::AS4_PATH => {
            parsed.as4_path = AsPath::parse(value, true);
            None
        }
        code::AS4_AGGREGATOR => {
            parsed.as4_aggregator = aggregator(value, true);
            None
        }
        code::MP_REACH => {
            parsed.reach = reach(value)?;
            None
        }
        code::MP_UNREACH => {
            parsed.unreach = unreach(value)?;
            None
        }
        _ => None,
    };
    if let Some(problem) = fault {
        parsed.faulty(code, problem);
    }
    Ok(())
}

fn set<T>(field: &mut T, value: Option<T>, problem: &'static str) -> Option<&'static str> {
    match value {
        Some(value) => {
            *field = value;
            None
        }
        None => Some(problem),
    }
}

fn is_unicast(addr: Ipv4Addr) -> bool {
    !(addr.octets()[0] == 0 || addr.is_multicast() || addr.is_broadcast())
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Numbers of four bytes; an empty list is malformed.
fn numbers(value: &[u8]) -> Option<Box<[u32]>> {
    let (chunks, rest) = value.as_chunks::<4>();
    (rest.is_empty() && !chunks.is_empty()).then(|| chunks.iter().copied().map(u32::from_be_bytes).collect())
}

fn triples(value: &[u8]) -> Option<Box<[[u32; 3]]>> {
    let flat = numbers(value)?;
    let (triples, rest) = flat.as_chunks::<3>();
    rest.is_empty().then(|| triples.into())
}

fn aggregator(value: &[u8], as4: bool) -> Option<Aggregator> {
    let mut reader = Reader::new(value);
    let asn = if as4 { reader.u32()? } else { u32::from(reader.u16()?) };
    let router = Ipv4Addr::from(reader.u32()?);
    reader.is_empty().then_some(Aggregator { asn: AsNumber(asn), router })
}

/// RFC 6793 section 4.2.3: a two-byte speaker's numbers, completed by what travelled beside them.
fn merge_four_byte(parsed: &mut Parsed<'_>) {
    let trans = AsNumber(u32::from(crate::message::open::AS_TRANS));
    if let (Some(long), Some(short)) = (parsed.as4_aggregator, parsed.attributes.aggregator) {
        if short.asn != trans {
            // The aggregator was rewritten after the long forms were made: both are out of date.
            return;
        }
        parsed.attributes.aggregator = Some(long);
    }
    if let Some(long) = &parsed.as4_path {
        parsed.attributes.as_path = parsed.attributes.as_path.merged(long);
    }
}

fn reach(value: &[u8]) -> Result<Option<Reach<'_>>, Notification> {
    let broken = Notification::OPTIONAL_ATTRIBUTE_ERROR;
    let mut reader = Reader::new(value);
    let head = || -> Option<_> {
        let afi_safi = AfiSafi { afi: reader.u16()?, safi: reader.u8()? };
        let length = reader.u8()?;
        let next_hop = reader.take(usize::from(length))?;
        reader.u8()?;
        Some((afi_safi, next_hop, reader.rest()))
    };
    let (afi_safi, next_hop, prefixes) = { head }().ok_or(broken.clone())?;
    let Some(family) = afi_safi.family() else { return Ok(None) };
    let next_hop = match (family, next_hop.len()) {
        (Family::V4, 4) => <[u8; 4]>::try_from(next_hop).ok().map(IpAddr::from),
        (Family::V6, 16 | 32) => {
            let (addresses, _) = next_hop.as_chunks::<16>();
            let mut addresses = addresses.iter().map(|octets| Ipv6Addr::from(*octets));
            addresses.find(|addr| !addr.is_unspecified()).map(IpAddr::V6)
        }
        _ => None,
    };
    let next_hop = next_hop.ok_or(broken.clone())?;
    let prefixes = Nlri::new(family, prefixes).ok_or(broken)?;
    Ok(Some(Reach { next_hop, prefixes }))
}

fn unreach(value: &[u8]) -> Result<Option<Nlri<'_>>, Notification> {
    let broken = Notification::OPTIONAL_ATTRIBUTE_ERROR;
    let mut reader = Reader::new(value);
    let (Some(afi), Some(safi)) = (reader.u16(), reader.u8()) else { return Err(broken) };
    let Some(family) = (AfiSafi { afi, safi }).family() else { return Ok(None) };
    Nlri::new(family, reader.rest()).map(Some).ok_or(broken)
}
