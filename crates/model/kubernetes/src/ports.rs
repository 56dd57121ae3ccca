//! Ports of a rule by protocol, joined to as few ranges as possible.

use std::collections::BTreeMap;

use tortie_api::Port;
use tortie_net::{PortRange, Protocol};

/// Which ports of which protocols a rule is about, in the order in which its rules are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortsByProtocol {
    /// By the protocol's name, empty for no protocol; `None`: every port.
    by_name: BTreeMap<String, (Option<Protocol>, Option<Vec<Port>>)>,
}

impl PortsByProtocol {
    /// Every port of every protocol.
    pub(crate) fn any() -> PortsByProtocol {
        PortsByProtocol { by_name: BTreeMap::from([(String::new(), (None, None))]) }
    }

    /// Adds a port, or with `None` every port, of a protocol. Every port stays every port.
    pub(crate) fn add(&mut self, protocol: Option<Protocol>, port: Option<Port>) {
        let name = protocol.map_or_else(String::new, |protocol| protocol.to_string());
        let (_, ports) = self.by_name.entry(name).or_insert_with(|| (protocol, Some(Vec::new())));
        match (ports.as_mut(), port) {
            (_, None) => *ports = None,
            (Some(ports), Some(port)) => ports.push(port),
            (None, Some(_)) => {}
        }
    }

    /// Protocol and ports of each rule to write; an empty list of ports means every port.
    pub(crate) fn rules(self) -> impl Iterator<Item = (Option<Protocol>, Vec<Port>)> {
        self.by_name.into_values().map(|(protocol, ports)| (protocol, simplify(ports.unwrap_or_default())))
    }
}

/// Names first, then ranges that neither touch nor overlap; a list with at most one number stays as it is.
fn simplify(ports: Vec<Port>) -> Vec<Port> {
    let count = |port: &Port| match port {
        Port::Range(range) => usize::from(range.last() - range.first()) + 1,
        Port::Named(_) => 0,
    };
    if ports.len() <= 1 || ports.iter().map(count).sum::<usize>() <= 1 {
        return ports;
    }
    let (mut names, mut ranges) = (Vec::new(), Vec::new());
    for port in ports {
        match port {
            Port::Range(range) => ranges.push((range.first(), range.last())),
            Port::Named(_) => names.push(port),
        }
    }
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    let range = |(first, last)| PortRange::new(first, last).ok().map(Port::Range);
    names.extend(joined.into_iter().filter_map(range));
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simplified(ports: &[&str]) -> Vec<String> {
        let ports = ports.iter().map(|text| Port::parse(text).expect("a port")).collect();
        simplify(ports).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn neighbours_are_joined_and_names_come_first() {
        assert_eq!(simplified(&["82", "81", "foo", "80", "9090", "81"]), ["foo", "80:82", "9090"]);
        assert_eq!(simplified(&["80", "foo"]), ["80", "foo"]);
        assert_eq!(simplified(&["65535", "1:65534"]), ["1:65535"]);
        assert_eq!(simplified(&["10:20", "12:13", "22"]), ["10:20", "22"]);
        assert_eq!(simplified(&[]), Vec::<String>::new());
    }

    #[test]
    fn every_port_of_a_protocol_swallows_single_ones() {
        let mut ports = PortsByProtocol::default();
        ports.add(Some(Protocol::UDP), Port::parse("53"));
        ports.add(Some(Protocol::TCP), Port::parse("80"));
        ports.add(Some(Protocol::TCP), None);
        ports.add(Some(Protocol::TCP), Port::parse("81"));
        let rules: Vec<_> = ports.rules().collect();
        assert_eq!(rules, [(Some(Protocol::TCP), vec![]), (Some(Protocol::UDP), vec![Port::number(53)])]);
    }
}
