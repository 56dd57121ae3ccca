//! Sets of addresses and ports in ipset.
//!
//! What iptables has no set for is none here: interfaces alone are told apart by chains.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use tortie_net::{Family, IpNet, PortRange, Protocol};
use tortie_ruleset::{Element, Name, Set, SetType};

use crate::error::Error;
use crate::programs::{failed_line, run};

const PROGRAM: &str = "ipset";
/// The number of elements is limited by memory alone.
const LARGEST: u32 = u32::MAX;
/// After which time a set that is still in use is tried again. The kernel lets go of a set some time after the last
/// rule that referred to it.
const PAUSE: Duration = Duration::from_millis(20);

/// What ipset calls a type of set: its words, as `create` takes them and `save` prints them.
fn type_words(set_type: SetType) -> &'static str {
    match set_type {
        SetType::Addresses(Family::V4) => "hash:ip family inet",
        SetType::Addresses(Family::V6) => "hash:ip family inet6",
        SetType::Nets(Family::V4) => "hash:net family inet",
        SetType::Nets(Family::V6) => "hash:net family inet6",
        SetType::AddressPorts(Family::V4) => "hash:ip,port family inet",
        SetType::AddressPorts(Family::V6) => "hash:ip,port family inet6",
        SetType::InterfaceAddresses(Family::V4) => "hash:net,iface family inet",
        SetType::InterfaceAddresses(Family::V6) => "hash:net,iface family inet6",
        SetType::Ports => "bitmap:port range 0-65535",
        // Never made; a number for each interface would not be its name.
        SetType::Interfaces => "hash:mac",
    }
}

/// The members that stand for an element.
fn members(element: &Element) -> Vec<String> {
    match element {
        // ipset refuses it, and nothing that is forwarded has it.
        Element::Address(addr) if addr.is_unspecified() => vec![],
        Element::Address(addr) => vec![addr.to_string()],
        // ipset has no prefix of all addresses.
        Element::Net(net) if net.prefix_len() == 0 => halves(*net).map(|half| half.to_string()).to_vec(),
        Element::Net(net) => vec![net.to_string()],
        // No packet of such a protocol has a port.
        Element::AddressPort { addr: _, protocol, port: _ } if !protocol.has_ports() => vec![],
        Element::AddressPort { addr, protocol, port } => vec![format!("{addr},{}:{port}", protocol.0)],
        Element::Ports(range) => vec![format!("{}-{}", range.first(), range.last())],
        Element::Interface(name) => vec![name.to_string()],
        Element::InterfaceAddress(behind) => vec![format!("{},{}", behind.addr, behind.interface)],
    }
}

fn halves(net: IpNet) -> [IpNet; 2] {
    let text = match Family::of_net(net) {
        Family::V4 => ["0.0.0.0/1", "128.0.0.0/1"],
        Family::V6 => ["::/1", "8000::/1"],
    };
    text.map(|half| half.parse().expect("a literal"))
}

/// What ipset prints where it finds /etc/protocols. It is told numbers, which it takes everywhere.
const PROTOCOLS: [(&str, Protocol); 4] =
    [("tcp", Protocol::TCP), ("udp", Protocol::UDP), ("sctp", Protocol::SCTP), ("udplite", Protocol::UDPLITE)];

/// The elements as ipset keeps them: halves of all addresses, single ports.
fn kept(elements: &BTreeSet<Element>) -> BTreeSet<Element> {
    let each = |element: &Element| -> Vec<Element> {
        match element {
            Element::Net(net) if net.prefix_len() == 0 => halves(*net).map(Element::Net).to_vec(),
            Element::Ports(range) => {
                (range.first()..=range.last()).map(|port| Element::Ports(PortRange::single(port))).collect()
            }
            Element::AddressPort { addr: _, protocol, port: _ } if !protocol.has_ports() => vec![],
            Element::Address(addr) if addr.is_unspecified() => vec![],
            Element::Address(_)
            | Element::Net(_)
            | Element::AddressPort { addr: _, protocol: _, port: _ }
            | Element::Interface(_)
            | Element::InterfaceAddress(_) => vec![element.clone()],
        }
    };
    elements.iter().flat_map(each).collect()
}

fn parse_member(words: &str, text: &str) -> Option<Element> {
    let net =
        |text: &str| -> Option<IpNet> { text.parse().ok().or_else(|| text.parse().ok().map(tortie_net::host_net)) };
    if words.starts_with("hash:ip,port") {
        let (addr, rest) = text.split_once(',')?;
        let (protocol, port) = rest.split_once(':')?;
        let known = PROTOCOLS.iter().find(|(word, _)| *word == protocol).map(|(_, known)| *known);
        let protocol = known.or_else(|| protocol.parse().ok().map(Protocol))?;
        Some(Element::AddressPort { addr: addr.parse().ok()?, protocol, port: port.parse().ok()? })
    } else if words.starts_with("hash:net,iface") {
        let (addr, interface) = text.split_once(',')?;
        Some(Element::interface_address(interface, addr.parse().ok()?))
    } else if words.starts_with("hash:net") {
        net(text).map(Element::Net)
    } else if words.starts_with("hash:ip") {
        text.parse().ok().map(Element::Address)
    } else {
        text.parse().ok().map(|port| Element::Ports(PortRange::single(port)))
    }
}

/// A set as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SeenSet {
    words: String,
    elements: BTreeSet<Element>,
    /// Members that are none of what we write.
    odd: bool,
}

impl SeenSet {
    pub(crate) fn is_of(&self, set_type: SetType) -> bool {
        self.words == type_words(set_type)
    }
}

/// Whether a set is ours, or one of upstream's.
fn is_ours(name: &str) -> bool {
    ["cali4", "cali6", "cali0l_", "cali-wl-"].iter().any(|prefix| name.starts_with(prefix))
}

/// All sets that are ours.
pub(crate) fn observe() -> Result<BTreeMap<String, SeenSet>, Error> {
    parse(&run(PROGRAM, &["save"], "")?)
}

fn parse(text: &str) -> Result<BTreeMap<String, SeenSet>, Error> {
    let mut sets: BTreeMap<String, SeenSet> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("create"), Some(name)) if is_ours(name) => {
                let words: Vec<&str> = words.take(3).collect();
                sets.insert(name.to_owned(), SeenSet { words: words.join(" "), ..SeenSet::default() });
            }
            (Some("add"), Some(name)) if is_ours(name) => {
                let odd = || Error::Odd { program: PROGRAM.to_owned(), line: line.to_owned() };
                let set = sets.get_mut(name).ok_or_else(odd)?;
                match words.next().and_then(|member| parse_member(&set.words, member)) {
                    Some(element) if words.next().is_none() => drop(set.elements.insert(element)),
                    _ => set.odd = true,
                }
            }
            _ => {}
        }
    }
    Ok(sets)
}

/// Lines for `ipset restore`, and those that lead back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    text: String,
    back: Vec<String>,
    created: BTreeSet<String>,
}

impl Script {
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// A new set with its elements.
    pub(crate) fn create(&mut self, name: &str, set: &Set) {
        let words = type_words(set.set_type);
        let limit = if set.set_type == SetType::Ports { String::new() } else { format!(" maxelem {LARGEST}") };
        self.line(format_args!("create {name} {words}{limit}"));
        self.created.insert(name.to_owned());
        for member in set.elements.iter().flat_map(members) {
            self.line(format_args!("add {name} {member}"));
        }
    }

    /// Other elements. What comes goes first: until all is done, the set holds what it did and what it will.
    pub(crate) fn change(&mut self, name: &str, added: &BTreeSet<Element>, removed: &BTreeSet<Element>) {
        for member in added.iter().flat_map(members) {
            self.line(format_args!("add {name} {member} -exist"));
            self.back.push(format!("del {name} {member} -exist"));
        }
        for member in removed.iter().flat_map(members) {
            self.line(format_args!("del {name} {member} -exist"));
            self.back.push(format!("add {name} {member} -exist"));
        }
    }

    /// What makes a set that was read hold these elements; whether that takes anything.
    pub(crate) fn repair(&mut self, name: &str, seen: &SeenSet, wanted: &Set) -> bool {
        let SeenSet { words: _, elements, odd } = seen;
        let wanted = kept(&wanted.elements);
        if *odd {
            // Nothing tells what such a member does.
            self.line(format_args!("flush {name}"));
            self.change(name, &wanted, &BTreeSet::new());
            return true;
        }
        let added: BTreeSet<Element> = wanted.difference(elements).cloned().collect();
        let removed: BTreeSet<Element> = elements.difference(&wanted).cloned().collect();
        self.change(name, &added, &removed);
        !(added.is_empty() && removed.is_empty())
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.text.write_fmt(line).expect("writing to a string");
        self.text.push('\n');
    }

    /// Makes the changes. If one is refused, those before it are taken back.
    pub(crate) fn make(&self) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        run(PROGRAM, &["restore"], &self.text).map(drop).inspect_err(|_| self.take_back())
    }

    /// Undoes the changes, as far as they were made.
    pub(crate) fn take_back(&self) {
        let mut text = String::new();
        for line in self.back.iter().rev() {
            text.push_str(line);
            text.push('\n');
        }
        if !text.is_empty()
            && let Err(error) = run(PROGRAM, &["restore"], &text)
        {
            tracing::error!(%error, "a change of sets can't be taken back");
        }
        let left = destroy(self.created.clone(), Duration::ZERO);
        if !left.is_empty() {
            tracing::warn!(sets = ?left, "new sets of a refused change can't be removed");
        }
    }
}

/// Removes sets that no rule refers to any more; those that are still in use after `patience` stay, and are returned.
pub(crate) fn destroy(names: BTreeSet<String>, patience: Duration) -> BTreeSet<String> {
    let until = Instant::now() + patience;
    let mut left: Vec<String> = names.into_iter().collect();
    loop {
        left = destroy_once(left);
        if left.is_empty() || Instant::now() >= until {
            return left.into_iter().collect();
        }
        thread::sleep(PAUSE);
    }
}

/// Tries each set once; those that stay.
fn destroy_once(mut names: Vec<String>) -> Vec<String> {
    let mut busy = Vec::new();
    while !names.is_empty() {
        let text: String = names.iter().map(|name| format!("destroy {name}\n")).collect();
        let Err(error) = run(PROGRAM, &["restore"], &text) else { break };
        // It stops at the first that it can't remove.
        let reason = error.to_string();
        let Some(at) = failed_line(&reason).filter(|at| *at <= names.len()) else {
            busy.append(&mut names);
            break;
        };
        let rest = names.split_off(at);
        if !reason.contains("does not exist") {
            busy.extend(names.pop());
        }
        names = rest;
    }
    busy
}

/// The set that a name of the ruleset stands for in the kernel: of two names, the one that is in use.
pub(crate) fn kernel_name(name: &Name, other: bool) -> String {
    if other { format!("{name}~") } else { name.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_again() {
        let v4 = |text: &str| text.parse().expect("literal");
        let port = |port| Element::Ports(PortRange::single(port));
        let all = [
            (SetType::Addresses(Family::V6), Element::Address(v4("fd00::1"))),
            (SetType::Addresses(Family::V6), Element::Address(v4("::102:304"))),
            (SetType::Nets(Family::V4), Element::Net("10.0.0.0/8".parse().expect("literal"))),
            (SetType::Nets(Family::V4), Element::Net("10.0.0.1/32".parse().expect("literal"))),
            (
                SetType::AddressPorts(Family::V4),
                Element::AddressPort { addr: v4("10.0.0.1"), protocol: Protocol::SCTP, port: 80 },
            ),
            (SetType::InterfaceAddresses(Family::V4), Element::interface_address("cali1", v4("10.0.0.1"))),
            (SetType::Ports, port(80)),
        ];
        for (set_type, element) in all {
            let member = members(&element).pop().expect("one member");
            let member = if set_type == SetType::Ports { "80".to_owned() } else { member };
            assert_eq!(parse_member(type_words(set_type), &member), Some(element), "{member}");
        }
        let saved = "create cali40s-x hash:net family inet hashsize 1024 maxelem 5 bucketsize 12 initval 0x1\n\
                     add cali40s-x 0.0.0.0/1\nadd cali40s-x 128.0.0.0/1\ncreate other hash:ip family inet\nadd other 1.1.1.1\n";
        let seen = parse(saved).expect("legal");
        let wanted = Set {
            set_type: SetType::Nets(Family::V4),
            elements: [Element::Net("0.0.0.0/0".parse().expect("literal"))].into(),
        };
        assert!(seen["cali40s-x"].is_of(wanted.set_type) && seen.len() == 1);
        assert!(!Script::default().repair("cali40s-x", &seen["cali40s-x"], &wanted));
    }

    #[test]
    fn protocols_are_written_as_numbers_and_read_as_either() {
        let addr = "10.0.0.1".parse().expect("literal");
        let element = Element::AddressPort { addr, protocol: Protocol::TCP, port: 81 };
        assert_eq!(members(&element), ["10.0.0.1,6:81"]);
        for text in ["10.0.0.1,6:81", "10.0.0.1,tcp:81"] {
            assert_eq!(
                parse_member(type_words(SetType::AddressPorts(Family::V4)), text),
                Some(element.clone()),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_ends_it(text in "(create|add|x) cali4[a-z0-9]{0,3} [a-z:,0-9./ ]{0,30}\n", more in ".*") {
            drop(parse(&text));
            drop(parse(&more));
        }
    }
}
