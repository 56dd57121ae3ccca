//! Conditions as iptables' matches.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tortie_desired::Period;
use tortie_net::{Family, IpNet, PortRange, Protocol};
use tortie_ruleset::{CtState, Element, Match, Name, REVOKED_MARK, Rate, Ruleset, Side};

use super::plan::unsupported;
use super::tree::interface;
use crate::error::Error;

/// Ports that one list of the multiport match takes; a range counts twice.
const PORTS: usize = 15;
/// The highest rate of the hashlimit match, packets a second.
const FASTEST: u64 = 1_000_000;

/// The conditions of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    /// Matches that stand in one rule, each after a blank.
    pub(crate) text: String,
    /// Interfaces of a set; they are found by a tree of chains.
    pub(crate) interfaces: Option<(Side, Name)>,
    /// Protocols that it must not be, if they are several: a rule takes but one.
    pub(crate) not_protocols: Vec<Protocol>,
    /// Sets that the matches refer to.
    pub(crate) sets: Vec<Name>,
}

/// Collects conditions of one rule.
struct Writer<'a> {
    chain: &'a str,
    family: Family,
    ruleset: &'a Ruleset,
    kernel_name: &'a dyn Fn(&Name) -> String,
    out: Conditions,
    /// The source and destination options can stand but once.
    has: [bool; 2],
}

/// `None`: no packet of the family can match.
pub(crate) fn conditions(
    chain: &str,
    matches: &[Match],
    family: Family,
    ruleset: &Ruleset,
    kernel_name: &dyn Fn(&Name) -> String,
) -> Result<Option<Conditions>, Error> {
    let mut writer = Writer { chain, family, ruleset, kernel_name, out: Conditions::default(), has: [false; 2] };
    if !writer.protocol(matches)? {
        return Ok(None);
    }
    for condition in matches {
        if !writer.condition(condition)? {
            return Ok(None);
        }
    }
    Ok(Some(writer.out))
}

fn icmp(family: Family) -> Protocol {
    if family == Family::V4 { Protocol::ICMP } else { Protocol::ICMPV6 }
}

fn direction(side: Side) -> &'static str {
    match side {
        Side::Source => "src",
        Side::Destination => "dst",
    }
}

fn not(negate: bool) -> &'static str {
    if negate { "! " } else { "" }
}

impl Writer<'_> {
    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.text.push(' ');
        self.out.text.write_fmt(text).expect("writing to a string");
    }

    /// One option for all that is said of the protocol; `false` if it contradicts itself.
    fn protocol(&mut self, matches: &[Match]) -> Result<bool, Error> {
        let named = |negated: bool| -> BTreeSet<Protocol> {
            let one = |m: &Match| match m {
                Match::Protocol { protocol, negate } if *negate == negated => Some(*protocol),
                _ => None,
            };
            matches.iter().filter_map(one).collect()
        };
        let (mut is, differs) = (named(false), named(true));
        if matches.iter().any(|m| matches!(m, Match::Icmp { .. })) {
            is.insert(icmp(self.family));
            if is.len() > 1 {
                return Err(unsupported(self.chain, "has a rule with an ICMP type of another protocol"));
            }
        }
        let differs: Vec<Protocol> = differs.into_iter().collect();
        match (is.pop_first(), differs.as_slice()) {
            (Some(one), others) => {
                self.put(format_args!("-p {}", one.0));
                return Ok(is.is_empty() && !others.contains(&one));
            }
            (None, []) => {}
            (None, [one]) => self.put(format_args!("! -p {}", one.0)),
            (None, several) => self.out.not_protocols = several.to_vec(),
        }
        Ok(true)
    }

    /// Adds one condition; `false` if no packet can meet it.
    fn condition(&mut self, condition: &Match) -> Result<bool, Error> {
        match condition {
            // Said by the table, and by the option for the protocol.
            Match::Family(family) => return Ok(*family == self.family),
            Match::Protocol { protocol: _, negate: _ } => {}
            Match::Conntrack(CtState::EstablishedOrRelated) => {
                self.put(format_args!("-m conntrack --ctstate RELATED,ESTABLISHED"));
            }
            Match::Conntrack(CtState::Invalid) => self.put(format_args!("-m conntrack --ctstate INVALID")),
            Match::Translated => self.put(format_args!("-m conntrack --ctstate DNAT")),
            Match::Revoked { negate } => {
                let not = if *negate { "! " } else { "" };
                self.put(format_args!("-m connmark {not}--mark {REVOKED_MARK:#x}/{REVOKED_MARK:#x}"));
            }
            Match::InterfacePrefix { side, prefix } => self.prefix(*side, prefix)?,
            Match::InterfaceIn { side, set } => {
                if self.out.interfaces.replace((*side, set.clone())).is_some() {
                    return Err(unsupported(self.chain, "has a rule with two sets of interfaces"));
                }
            }
            Match::InterfaceAddressIn { family: _, set, negate } => self.set(set, "src,src", *negate),
            Match::Address { side, net, negate } => return Ok(self.address(*side, *net, *negate)),
            Match::AddressIn { side, family: _, set, negate } => self.set(set, direction(*side), *negate),
            Match::AddressPortIn { side, family: _, set, negate } => {
                let flags = if *side == Side::Source { "src,src" } else { "dst,dst" };
                self.set(set, flags, *negate);
            }
            Match::Port { side, range, negate } => self.ports(*side, &[*range], *negate),
            Match::PortIn { side, set, negate } => self.ports_in(*side, set, *negate)?,
            Match::Icmp { icmp_type, code, negate } => self.icmp(*icmp_type, *code, *negate)?,
            Match::BorrowedSource { interface } => self.put(format_args!(
                "-o {interface} -m addrtype --src-type LOCAL -m addrtype ! --src-type LOCAL --limit-iface-out"
            )),
            Match::Mark(bits) => self.put(format_args!("-m mark ! --mark 0x0/{bits:#x}")),
            Match::Rate { rate, over } => self.rate(*rate, *over),
            Match::ConnectionsOver(limit) => {
                self.put(format_args!("-m connlimit --connlimit-above {limit} --connlimit-mask 0"));
            }
        }
        Ok(true)
    }

    fn prefix(&mut self, side: Side, prefix: &str) -> Result<(), Error> {
        let option = interface_option(side);
        // The kernel's names have 15 bytes; a prefix as long as that is a name.
        let cut = &prefix[..prefix.floor_char_boundary(15)];
        let name = interface(cut)?;
        let any = if name.len() < 15 { "+" } else { "" };
        self.put(format_args!("{option} {name}{any}"));
        Ok(())
    }

    fn set(&mut self, set: &Name, flags: &str, negate: bool) {
        let name = (self.kernel_name)(set);
        self.put(format_args!("-m set {}--match-set {name} {flags}", not(negate)));
        self.out.sets.push(set.clone());
    }

    fn address(&mut self, side: Side, net: IpNet, negate: bool) -> bool {
        if net.prefix_len() == 0 {
            return !negate;
        }
        let (option, ranges, at) = match side {
            Side::Source => ("-s", "--src-range", 0),
            Side::Destination => ("-d", "--dst-range", 1),
        };
        if std::mem::replace(&mut self.has[at], true) {
            let (first, last) = (net.network(), net.broadcast());
            self.put(format_args!("-m iprange {}{ranges} {first}-{last}", not(negate)));
        } else {
            self.put(format_args!("{}{option} {}", not(negate), net.trunc()));
        }
        true
    }

    fn ports(&mut self, side: Side, ranges: &[PortRange], negate: bool) {
        let option = if side == Side::Source { "--sports" } else { "--dports" };
        let text = |range: &PortRange| match (range.first(), range.last()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}:{last}"),
        };
        let list = ranges.iter().map(text).collect::<Vec<_>>().join(",");
        self.put(format_args!("-m multiport {}{option} {list}", not(negate)));
    }

    /// A short list stands in the rule; a long one is a set.
    fn ports_in(&mut self, side: Side, name: &Name, negate: bool) -> Result<(), Error> {
        let set = self.ruleset.sets.get(name).ok_or_else(|| unsupported(self.chain, "asks a set that is not there"))?;
        let ranges: Vec<PortRange> = set.elements.iter().filter_map(range_of).collect();
        let slots: usize = ranges.iter().map(|range| if range.first() == range.last() { 1 } else { 2 }).sum();
        if slots <= PORTS && slots > 0 {
            self.ports(side, &ranges, negate);
        } else {
            self.set(name, direction(side), negate);
        }
        Ok(())
    }

    fn icmp(&mut self, icmp_type: u8, code: Option<u8>, negate: bool) -> Result<(), Error> {
        let (module, option) = match self.family {
            // There, 255 stands for every type.
            Family::V4 if icmp_type == 255 => {
                return Err(unsupported(self.chain, "matches the reserved ICMP type 255"));
            }
            Family::V4 => ("icmp", "--icmp-type"),
            Family::V6 => ("icmp6", "--icmpv6-type"),
        };
        let code = code.map(|code| format!("/{code}")).unwrap_or_default();
        self.put(format_args!("-m {module} {}{option} {icmp_type}{code}", not(negate)));
        Ok(())
    }

    fn rate(&mut self, rate: Rate, over: bool) {
        let Rate { packets, period, burst } = rate;
        let (word, seconds) = match period {
            Period::Second => ("second", 1),
            Period::Minute => ("minute", 60),
            Period::Hour => ("hour", 3600),
            Period::Day => ("day", 86_400_u64),
        };
        let packets = u64::from(packets.max(1)).min(FASTEST * seconds);
        let burst = u64::from(burst.max(1)).min(FASTEST);
        // A bucket that nobody asks is forgotten, and is full when it comes again: not before it would be full anyway.
        let full = (burst * seconds * 1000).div_ceil(packets).clamp(10_000, u64::from(u32::MAX));
        let option = if over { "--hashlimit-above" } else { "--hashlimit-upto" };
        // The kernel keeps a bucket of that name with the limits that it was made with.
        let digest = Sha256::digest(format!("{} {} {option} {packets} {word} {burst}", self.chain, self.out.text));
        let name = &URL_SAFE_NO_PAD.encode(digest)[..9];
        self.put(format_args!(
            "-m hashlimit {option} {packets}/{word} --hashlimit-burst {burst} --hashlimit-htable-expire {full} \
             --hashlimit-name cali_{name}"
        ));
    }
}

pub(crate) fn interface_option(side: Side) -> &'static str {
    match side {
        Side::Source => "-i",
        Side::Destination => "-o",
    }
}

fn range_of(element: &Element) -> Option<PortRange> {
    match element {
        Element::Ports(range) => Some(*range),
        Element::Address(_)
        | Element::Net(_)
        | Element::AddressPort { addr: _, protocol: _, port: _ }
        | Element::Interface(_)
        | Element::InterfaceAddress(_) => None,
    }
}
