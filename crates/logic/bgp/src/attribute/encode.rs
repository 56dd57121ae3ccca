//! Path attributes to bytes.
//!
//! Invariant: attributes are written in ascending order of their codes, each once, MP_REACH_NLRI apart.

use std::net::IpAddr;

use tortie_net::Family;

use super::{Attributes, EXTENDED, OPTIONAL, Origin, PARTIAL, TRANSITIVE, Unknown, code};
use crate::family::AfiSafi;
use crate::message::open::AS_TRANS;

/// Bytes that MP_REACH_NLRI adds around IPv6 prefixes: header 4, family 3, next hop 1 + 16, reserved 1.
pub(crate) const MP_REACH_OVERHEAD: usize = 25;

/// All attributes but MP_REACH_NLRI; NEXT_HOP only for IPv4, where the classic field is used.
pub(crate) fn encode_attributes(attributes: &Attributes, family: Family, as4: bool) -> Vec<u8> {
    let Attributes {
        next_hop,
        origin,
        as_path,
        med,
        local_pref,
        atomic_aggregate,
        aggregator,
        communities,
        large_communities,
        originator_id,
        cluster_list,
        unknown,
    } = attributes;
    let mut out = Vec::with_capacity(64);
    let mut value = Vec::new();
    let origin = match origin {
        Origin::Igp => 0,
        Origin::Egp => 1,
        Origin::Incomplete => 2,
    };
    put(&mut out, TRANSITIVE, code::ORIGIN, &[origin]);
    as_path.encode(as4, &mut value);
    put(&mut out, TRANSITIVE, code::AS_PATH, &value);
    if let (Family::V4, IpAddr::V4(next_hop)) = (family, next_hop) {
        put(&mut out, TRANSITIVE, code::NEXT_HOP, &next_hop.octets());
    }
    if let Some(med) = med {
        put(&mut out, OPTIONAL, code::MED, &med.to_be_bytes());
    }
    if let Some(local_pref) = local_pref {
        put(&mut out, TRANSITIVE, code::LOCAL_PREF, &local_pref.to_be_bytes());
    }
    if *atomic_aggregate {
        put(&mut out, TRANSITIVE, code::ATOMIC_AGGREGATE, &[]);
    }
    let mut as4_aggregator = None;
    if let Some(aggregator) = aggregator {
        let long = [aggregator.asn.0.to_be_bytes(), aggregator.router.octets()].concat();
        if as4 {
            put(&mut out, OPTIONAL | TRANSITIVE, code::AGGREGATOR, &long);
        } else {
            let short = u16::try_from(aggregator.asn.0);
            let value = [&short.unwrap_or(AS_TRANS).to_be_bytes()[..], &aggregator.router.octets()[..]].concat();
            put(&mut out, OPTIONAL | TRANSITIVE, code::AGGREGATOR, &value);
            as4_aggregator = short.is_err().then_some(long);
        }
    }
    put_numbers(&mut out, OPTIONAL | TRANSITIVE, code::COMMUNITIES, communities);
    if let Some(originator) = originator_id {
        put(&mut out, OPTIONAL, code::ORIGINATOR_ID, &originator.octets());
    }
    put_numbers(&mut out, OPTIONAL, code::CLUSTER_LIST, cluster_list);
    if !as4 && as_path.needs_four_bytes() {
        value.clear();
        as_path.encode(true, &mut value);
        put(&mut out, OPTIONAL | TRANSITIVE, code::AS4_PATH, &value);
    }
    if let Some(long) = as4_aggregator {
        put(&mut out, OPTIONAL | TRANSITIVE, code::AS4_AGGREGATOR, &long);
    }
    put_numbers(&mut out, OPTIONAL | TRANSITIVE, code::LARGE_COMMUNITIES, large_communities.as_flattened());
    for Unknown { code, value } in unknown {
        put(&mut out, OPTIONAL | TRANSITIVE | PARTIAL, *code, value);
    }
    out
}

/// MP_REACH_NLRI (RFC 4760 section 3).
pub(crate) fn mp_reach(family: AfiSafi, next_hop: IpAddr, packed: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(packed.len() + MP_REACH_OVERHEAD);
    value.extend_from_slice(&family.afi.to_be_bytes());
    value.push(family.safi);
    match next_hop {
        IpAddr::V4(addr) => {
            value.push(4);
            value.extend_from_slice(&addr.octets());
        }
        IpAddr::V6(addr) => {
            value.push(16);
            value.extend_from_slice(&addr.octets());
        }
    }
    value.push(0);
    value.extend_from_slice(packed);
    let mut out = Vec::with_capacity(value.len() + 4);
    put(&mut out, OPTIONAL, code::MP_REACH, &value);
    out
}

/// MP_UNREACH_NLRI (RFC 4760 section 4).
pub(crate) fn mp_unreach(family: AfiSafi, packed: &[u8]) -> Vec<u8> {
    let value = [&family.afi.to_be_bytes()[..], &[family.safi], packed].concat();
    let mut out = Vec::with_capacity(value.len() + 4);
    put(&mut out, OPTIONAL, code::MP_UNREACH, &value);
    out
}

fn put_numbers(out: &mut Vec<u8>, flags: u8, code: u8, numbers: &[u32]) {
    if !numbers.is_empty() {
        let value: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        put(out, flags, code, &value);
    }
}

fn put(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => out.extend_from_slice(&[flags, code, length]),
        Err(_) => {
            out.extend_from_slice(&[flags | EXTENDED, code]);
            out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(value);
}
