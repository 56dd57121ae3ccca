//! Sets and elements as the kernel keeps them.
//!
//! A range is two entries there: its first key, and the key behind its last one, marked as an end. Sets of single
//! keys are hash tables, sets of ranges are trees.

use ipnet::IpNet;
use tortie_net::Family;
use tortie_ruleset::{ChoiceKey, Element, KeyRange, Name, SetType};

use crate::expression::{interface_key, octets, put_verdict};
use crate::uapi::{data, elements, set};
use tortie_nfnetlink::{Attributes, Writer};

/// What defines a set; it can't be changed while the set is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) flags: u32,
    /// The kernel passes this on to tools that print sets: nft's number of the type, 6 bits for each joined part.
    pub(crate) key_type: u32,
    pub(crate) key_len: u32,
}

const IPV4: u32 = 7;
const IPV6: u32 = 8;
const PROTOCOL: u32 = 12;
const SERVICE: u32 = 13;
/// nft's number of interface names.
pub(crate) const INTERFACE: u32 = 41;

/// The form of a set of this type.
pub(crate) fn form(set_type: SetType) -> Form {
    let address = |family| if family == Family::V4 { (IPV4, 4) } else { (IPV6, 16) };
    match set_type {
        SetType::Addresses(family) => Form { flags: 0, key_type: address(family).0, key_len: address(family).1 },
        SetType::Nets(family) => {
            Form { flags: set::FLAG_INTERVAL, key_type: address(family).0, key_len: address(family).1 }
        }
        SetType::AddressPorts(family) => {
            let (kind, len) = address(family);
            Form { flags: 0, key_type: kind << 12 | PROTOCOL << 6 | SERVICE, key_len: len + 8 }
        }
        SetType::Ports => Form { flags: set::FLAG_INTERVAL, key_type: SERVICE, key_len: 2 },
        SetType::Interfaces => Form { flags: 0, key_type: INTERFACE, key_len: 16 },
        SetType::InterfaceAddresses(family) => {
            let (kind, len) = address(family);
            Form { flags: 0, key_type: INTERFACE << 6 | kind, key_len: 16 + len }
        }
    }
}

/// The form of a dispatch map.
pub(crate) const MAP: Form = Form { flags: set::FLAG_MAP, key_type: INTERFACE, key_len: 16 };

/// The form of a map that rules choose by.
pub(crate) fn choice_form(key: ChoiceKey) -> Form {
    let (key_type, key_len) = match key {
        ChoiceKey::Port => (SERVICE, 2),
        ChoiceKey::Address { side: _, family: Family::V4 } => (IPV4, 4),
        ChoiceKey::Address { side: _, family: Family::V6 } => (IPV6, 16),
    };
    Form { flags: set::FLAG_MAP | set::FLAG_INTERVAL, key_type, key_len }
}

/// One entry of a set or map. Ordered so that the end of a range goes before the start of the next one at the same
/// key: the kernel refuses the start of a range inside another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    key: Vec<u8>,
    start: bool,
    /// The verdict of a map's entry.
    verdict: Option<(i32, Option<String>)>,
}

impl Entry {
    fn start(key: Vec<u8>) -> Entry {
        Entry { key, start: true, verdict: None }
    }

    /// An entry of a dispatch map: the interface's packets go to a chain.
    pub(crate) fn dispatch(interface: &str, chain: &Name) -> Entry {
        let verdict = Some((data::GOTO, Some(chain.to_string())));
        Entry { key: interface_key(interface).to_vec(), start: true, verdict }
    }

    /// The entries of a range of a map that rules choose by: packets go to a chain, and come back.
    pub(crate) fn choice(key: ChoiceKey, keys: &KeyRange, chain: &Name) -> impl Iterator<Item = Entry> + use<> {
        let KeyRange { first, last } = keys;
        let bytes = |number: &u128| number.to_be_bytes()[16 - usize::from(key.bits() / 8)..].to_vec();
        let (first, end) = range(bytes(first), bytes(last));
        let verdict = Some((data::JUMP, Some(chain.to_string())));
        let end = end.map(|key| Entry { key, start: false, verdict: None });
        std::iter::once(Entry { key: first, start: true, verdict }).chain(end)
    }

    /// Whether the entry is just the end of a range.
    pub(crate) fn is_end(&self) -> bool {
        !self.start
    }

    pub(crate) fn put(&self, writer: &mut Writer) {
        let Entry { key, start, verdict } = self;
        writer.nest(elements::KEY, |w| w.put(data::VALUE, key));
        if let Some((code, chain)) = verdict {
            writer.nest(elements::DATA, |w| put_verdict(w, *code, chain.as_deref()));
        }
        if !start {
            writer.put_be32(elements::FLAGS, elements::FLAG_INTERVAL_END);
        }
    }

    /// Reads an entry as dumped; `None` if it is none that we could have written.
    pub(crate) fn parse(attributes: Attributes<'_>) -> Option<Entry> {
        let key = attributes.nested(elements::KEY).get(data::VALUE)?.to_vec();
        let start = attributes.be32(elements::FLAGS).unwrap_or(0) & elements::FLAG_INTERVAL_END == 0;
        let verdict = attributes.nested(elements::DATA).nested(data::VERDICT);
        let verdict = verdict
            .be32(data::VERDICT_CODE)
            .map(|code| (code.cast_signed(), verdict.text(data::VERDICT_CHAIN).map(str::to_owned)));
        Some(Entry { key, start, verdict })
    }
}

/// The entries of an element.
pub(crate) fn entries(element: &Element) -> impl Iterator<Item = Entry> + use<> {
    let (first, end) = match element {
        Element::Address(addr) => (octets(*addr), None),
        Element::Net(net) => range(octets(net.network()), octets(last(*net))),
        Element::AddressPort { addr, protocol, port } => {
            let mut key = octets(*addr);
            key.extend_from_slice(&[protocol.0, 0, 0, 0]);
            key.extend_from_slice(&port.to_be_bytes());
            key.extend_from_slice(&[0, 0]);
            (key, None)
        }
        Element::Ports(ports) => range(ports.first().to_be_bytes().to_vec(), ports.last().to_be_bytes().to_vec()),
        Element::Interface(name) => (interface_key(name).to_vec(), None),
        Element::InterfaceAddress(behind) => {
            ([interface_key(&behind.interface).to_vec(), octets(behind.addr)].concat(), None)
        }
    };
    std::iter::once(Entry::start(first)).chain(end.map(|key| Entry { key, start: false, verdict: None }))
}

fn last(net: IpNet) -> std::net::IpAddr {
    net.broadcast()
}

/// The keys of a range; the last possible range has no end.
fn range(first: Vec<u8>, last: Vec<u8>) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut after = last;
    let wrapped = after.iter_mut().rev().all(|byte| {
        *byte = byte.wrapping_add(1);
        *byte == 0
    });
    (first, (!wrapped).then_some(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(net: &str) -> Vec<(Vec<u8>, bool)> {
        entries(&Element::Net(net.parse().expect("literal"))).map(|e| (e.key, !e.start)).collect()
    }

    #[test]
    fn ranges_end_behind_their_last_key_and_the_last_range_is_open() {
        assert_eq!(keys("10.0.255.0/24"), [(vec![10, 0, 255, 0], false), (vec![10, 1, 0, 0], true)]);
        assert_eq!(keys("255.255.255.255/32"), [(vec![255; 4], false)]);
        assert_eq!(keys("0.0.0.0/0"), [(vec![0; 4], false)]);
    }

    #[test]
    fn joined_keys_fill_whole_registers() {
        let element = Element::AddressPort {
            addr: std::net::IpAddr::from([10, 0, 0, 1]),
            protocol: tortie_net::Protocol::TCP,
            port: 80,
        };
        let entry = entries(&element).next().expect("one entry");
        assert_eq!(entry.key, [10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(form(SetType::AddressPorts(Family::V4)).key_len, 12);
    }
}
