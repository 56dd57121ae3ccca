//! Finding the node's own address: upstream's methods, each choice with its reason.
//!
//! Pure: interfaces and the route towards a destination come in as values.

use std::fmt;
use std::net::IpAddr;

use regex::Regex;
use serde::Serialize;
use tortie_net::{Family, IpNet};

/// Interfaces that hold no address of the host as a host: bridges of container engines, our own devices, tunnels.
const EXCLUDED: &[&str] = &[
    "^docker.*",
    "^cbr.*",
    "^dummy.*",
    "^podman.*",
    "^virbr.*",
    "^lxcbr.*",
    "^veth.*",
    "^lo",
    "^br-.*",
    "^cali.*",
    "^tunl.*",
    "^flannel.*",
    "^kube-ipvs.*",
    "^cni.*",
    "^vxlan\\.calico.*",
    "^vxlan-v6\\.calico.*",
    "^wireguard\\.cali.*",
    "^wg-v6\\.cali.*",
    "^nodelocaldns.*",
];

/// Peers whose routes are looked up: enough for a majority to show.
const MOST_PEERS: usize = 256;

/// An interface with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// A bridge to containers or virtual machines alone: none of its ports leads out of the host.
    pub virtual_bridge: bool,
}

/// What else an address may follow from.
pub struct Surroundings<'a> {
    /// The source address that the kernel would use towards a host or address, in a family.
    pub source_for: &'a dyn Fn(&str, Family) -> Option<IpAddr>,
    /// Addresses of the other nodes, and of this node's BGP peers.
    pub peers: Vec<IpAddr>,
    /// The addresses that this node had when it ran last.
    pub before: Vec<IpAddr>,
    /// The addresses that Kubernetes knows this node by.
    pub internal: Vec<IpAddr>,
}

/// A method, as upstream's `IP_AUTODETECTION_METHOD` names it.
#[derive(Clone, Debug)]
pub enum Method {
    /// None is told: of those that `FirstFound` would take, the one that packets to most peers leave from, then that of
    /// the last run, then that of the default route, then the first.
    Default,
    /// The first good address of the first good interface.
    FirstFound,
    /// Only interfaces whose name matches one of these.
    Interface(Vec<Regex>),
    /// No interface whose name matches one of these.
    SkipInterface(Vec<Regex>),
    /// The source address of the route to this destination.
    CanReach(String),
    /// An address inside one of these prefixes.
    Cidr(Vec<IpNet>),
    /// The address that Kubernetes knows the node by.
    KubernetesInternalIp,
}

/// An address that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The interface that holds it.
    pub interface: String,
    /// The address with its prefix length.
    pub address: IpNet,
    /// Whether it is the node's.
    pub taken: bool,
    /// Why it is, or is not.
    pub reason: String,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Candidate { interface, address, taken: _, reason } = self;
        write!(f, "{interface} {address}: {reason}")
    }
}

/// Why no address was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// The method's text.
    pub method: String,
    /// The family that was looked for.
    pub family: Family,
    /// Every address that was looked at, with the reason that it was not taken.
    pub rejected: Vec<Candidate>,
}

impl std::error::Error for NotFound {}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotFound { method, family, rejected } = self;
        write!(f, "no {family} address was found by the method {method:?}")?;
        if rejected.is_empty() {
            return write!(f, ": no interface that is up has one");
        }
        rejected.iter().try_for_each(|candidate| write!(f, "; {candidate}"))
    }
}

impl Method {
    /// Reads a method. The error says what was expected.
    pub fn parse(text: &str) -> Result<Method, String> {
        let (word, rest) = text.split_once('=').unwrap_or((text, ""));
        let parts = || rest.split(',').map(str::trim).filter(|part| !part.is_empty());
        let need = |method: Method| if rest.is_empty() { Err(format!("{word}= needs a value")) } else { Ok(method) };
        let regexes =
            || parts().map(|part| Regex::new(part).map_err(|error| error.to_string())).collect::<Result<Vec<_>, _>>();
        match word {
            "" => Ok(Method::Default),
            "first-found" => Ok(Method::FirstFound),
            "kubernetes-internal-ip" => Ok(Method::KubernetesInternalIp),
            "interface" => need(Method::Interface(regexes()?)),
            "skip-interface" => need(Method::SkipInterface(regexes()?)),
            "can-reach" => need(Method::CanReach(rest.to_owned())),
            "cidr" => {
                let nets: Result<Vec<IpNet>, _> = parts().map(str::parse).collect();
                need(Method::Cidr(nets.map_err(|_| format!("{rest:?} is no list of prefixes"))?))
            }
            other => {
                let words =
                    ["first-found", "interface=", "skip-interface=", "can-reach=", "cidr=", "kubernetes-internal-ip"];
                let nearest = words
                    .iter()
                    .min_by_key(|word| strsim::damerau_levenshtein(other, word.trim_end_matches('=')))
                    .expect("there are methods");
                Err(format!("expected one of {}: did you mean {nearest:?}?", words.join(", ")))
            }
        }
    }

    /// Looks at every address of a family; one at most is taken.
    ///
    /// Interfaces come from the last to the first, as upstream's startup has them (`GetInterfaces`), so that a node that
    /// changes over keeps its address.
    pub fn weigh(&self, family: Family, interfaces: &[Interface], around: &Surroundings<'_>) -> Vec<Candidate> {
        let wanted = match self {
            Method::CanReach(destination) => (around.source_for)(destination, family),
            Method::Default
            | Method::FirstFound
            | Method::Interface(_)
            | Method::SkipInterface(_)
            | Method::Cidr(_)
            | Method::KubernetesInternalIp => None,
        };
        let mut all = Vec::new();
        let mut fit = Vec::new();
        for interface in interfaces.iter().rev() {
            for address in interface.addresses.iter().filter(|a| Family::of_net(**a) == family) {
                let reason = self.reject(interface, *address, wanted, around);
                if reason.is_none() {
                    fit.push(all.len());
                }
                let reason = reason.unwrap_or_else(|| "another was found before it".to_owned());
                all.push(Candidate { interface: interface.name.clone(), address: *address, taken: false, reason });
            }
        }
        let addresses: Vec<IpAddr> = fit.iter().map(|at| all[*at].address.addr()).collect();
        if let Some((best, reason)) = self.choose(family, &addresses, around) {
            for at in &fit {
                all[*at].reason = format!("{} is preferred: {reason}", addresses[best]);
            }
            let taken = &mut all[fit[best]];
            (taken.taken, taken.reason) = (true, reason);
        }
        all
    }

    /// Whether other nodes have a say.
    pub fn asks_for_peers(&self) -> bool {
        matches!(self, Method::Default)
    }

    /// An address of the node that the host has still, with the prefix length of now, if that is enough for it to stay.
    /// Where a method is told, only what it finds counts.
    pub fn still(&self, address: IpNet, interfaces: &[Interface]) -> Option<IpNet> {
        if !matches!(self, Method::Default) {
            return None;
        }
        let own = interfaces.iter().filter(|interface| unfit(interface).is_none());
        let held = own.flat_map(|interface| &interface.addresses).filter(|held| held.addr() == address.addr());
        held.copied().max_by_key(|held| *held == address)
    }

    /// Which of the addresses that fit, and why.
    fn choose(&self, family: Family, fit: &[IpAddr], around: &Surroundings<'_>) -> Option<(usize, String)> {
        fit.first()?;
        match self {
            Method::Default => Some(preferred(family, fit, around)),
            Method::FirstFound => Some((0, "the first that was found".to_owned())),
            Method::Interface(_) => Some((0, "the first on an interface of that name".to_owned())),
            Method::SkipInterface(_) => Some((0, "the first on an interface that is not skipped".to_owned())),
            Method::CanReach(destination) => Some((0, format!("the source towards {destination}"))),
            Method::Cidr(_) => Some((0, "the first inside the given prefixes".to_owned())),
            Method::KubernetesInternalIp => Some((0, "Kubernetes knows the node by it".to_owned())),
        }
    }

    /// The reason not to take an address, if there is one.
    fn reject(
        &self,
        interface: &Interface,
        address: IpNet,
        wanted: Option<IpAddr>,
        around: &Surroundings<'_>,
    ) -> Option<String> {
        let name = &*interface.name;
        if !is_global(address.addr()) {
            return Some("not a global unicast address".to_owned());
        }
        let excluded = || unfit(interface);
        match self {
            Method::Default | Method::FirstFound => excluded(),
            Method::Interface(regexes) => {
                (!regexes.iter().any(|r| r.is_match(name))).then(|| "the name does not match".to_owned())
            }
            Method::SkipInterface(regexes) => match regexes.iter().find(|r| r.is_match(name)) {
                Some(regex) => Some(format!("the name matches {regex}, which is to be skipped")),
                None => excluded(),
            },
            Method::CanReach(destination) => match wanted {
                None => Some(format!("there is no route to {destination}")),
                Some(wanted) if wanted == address.addr() => None,
                Some(wanted) => Some(format!("the route to {destination} has the source {wanted}")),
            },
            Method::Cidr(nets) => {
                if !nets.iter().any(|net| net.contains(&address.addr())) {
                    return Some("outside the given prefixes".to_owned());
                }
                excluded()
            }
            Method::KubernetesInternalIp if around.internal.is_empty() => {
                Some("the datastore knows no InternalIP of this node: only that of Kubernetes does".to_owned())
            }
            Method::KubernetesInternalIp if around.internal.contains(&address.addr()) => None,
            Method::KubernetesInternalIp => {
                let known: Vec<String> = around.internal.iter().map(IpAddr::to_string).collect();
                Some(format!("Kubernetes knows the node by {}", known.join(", ")))
            }
        }
    }
}

/// Why an interface is none of the host's own, if it is not.
fn unfit(interface: &Interface) -> Option<String> {
    let hit = EXCLUDED.iter().find(|p| Regex::new(p).is_ok_and(|r| r.is_match(&interface.name)));
    let hit = hit.map(|pattern| format!("interfaces like {pattern} are no interfaces of the host itself"));
    let bridge = "a bridge to containers or virtual machines alone; interface= takes it nonetheless";
    hit.or_else(|| interface.virtual_bridge.then(|| bridge.to_owned()))
}

/// An address that stands for all that only the default route leads to (TEST-NET-3; its counterpart of IPv6).
fn far(family: Family) -> &'static str {
    match family {
        Family::V4 => "203.0.113.1",
        Family::V6 => "2001:db8::1",
    }
}

/// See [`Method::Default`]; `fit` is not empty.
fn preferred(family: Family, fit: &[IpAddr], around: &Surroundings<'_>) -> (usize, String) {
    let peers = around.peers.iter().filter(|peer| Family::of(**peer) == family);
    let sources: Vec<IpAddr> =
        peers.take(MOST_PEERS).filter_map(|peer| (around.source_for)(&peer.to_string(), family)).collect();
    let votes = |addr: &IpAddr| sources.iter().filter(|source| *source == addr).count();
    // Of equals the one of before wins, else the first.
    let worth = |at: &usize| (votes(&fit[*at]), around.before.contains(&fit[*at]));
    let most = (0..fit.len()).rev().max_by_key(worth).unwrap_or_default();
    let count = votes(&fit[most]);
    if count > 0 {
        return (most, format!("packets to {count} of {} reachable peers leave from it", sources.len()));
    }
    if let Some(at) = fit.iter().position(|addr| around.before.contains(addr)) {
        return (at, "the node had it before".to_owned());
    }
    let default = (around.source_for)(far(family), family);
    match fit.iter().position(|addr| Some(*addr) == default) {
        Some(at) => (at, "the source of the default route".to_owned()),
        None => (0, "the first that was found".to_owned()),
    }
}

/// Whether an address could be a node's at all.
pub fn is_global(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => {
            !(addr.is_loopback()
                || addr.is_link_local()
                || addr.is_multicast()
                || addr.is_unspecified()
                || addr.is_broadcast())
        }
        IpAddr::V6(addr) => {
            !(addr.is_loopback()
                || addr.is_multicast()
                || addr.is_unspecified()
                || (addr.segments()[0] & 0xffc0) == 0xfe80)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces() -> Vec<Interface> {
        let interface = |name: &str, addresses: &[&str]| Interface {
            name: name.into(),
            addresses: addresses.iter().map(|a| a.parse().expect("a literal")).collect(),
            virtual_bridge: name == "vms",
        };
        vec![
            interface("lo", &["127.0.0.1/8", "::1/128"]),
            interface("enp0s8", &["172.17.8.101/24"]),
            interface("eth0", &["169.254.7.7/16", "10.0.2.15/24", "fe80::1/64", "fd00::15/64"]),
            interface("docker0", &["172.17.0.1/16"]),
            interface("vms", &["10.9.0.1/24"]),
        ]
    }

    /// Towards 172.17.8.0/24 by enp0s8, by eth0 elsewhere.
    fn source(to: &str, family: Family) -> Option<IpAddr> {
        let text = match family {
            Family::V6 => "fd00::15",
            Family::V4 if to.starts_with("172.17.8.") => "172.17.8.101",
            Family::V4 => "10.0.2.15",
        };
        Some(text.parse().expect("a literal"))
    }

    fn around(peers: &[&str], before: &[&str], internal: &[&str]) -> Surroundings<'static> {
        let read = |list: &[&str]| list.iter().map(|text| text.parse().expect("a literal")).collect();
        Surroundings { source_for: &source, peers: read(peers), before: read(before), internal: read(internal) }
    }

    fn pick(method: &str, family: Family, around: &Surroundings<'_>) -> Result<String, NotFound> {
        let all = Method::parse(method).expect("a good method").weigh(family, &interfaces(), around);
        match all.iter().find(|candidate| candidate.taken) {
            Some(found) => Ok(format!("{} {}", found.interface, found.address)),
            None => Err(NotFound { method: method.to_owned(), family, rejected: all }),
        }
    }

    #[test]
    fn every_method_finds_what_it_says() {
        let around = around(&[], &[], &["172.17.8.101"]);
        for (method, expected) in [
            ("first-found", "eth0 10.0.2.15/24"),
            ("interface=enp.*", "enp0s8 172.17.8.101/24"),
            ("interface=nope,docker0", "docker0 172.17.0.1/16"),
            ("interface=vms", "vms 10.9.0.1/24"),
            ("skip-interface=eth.*", "enp0s8 172.17.8.101/24"),
            ("can-reach=172.17.8.102", "enp0s8 172.17.8.101/24"),
            ("cidr=172.17.8.0/24,10.9.0.0/16", "enp0s8 172.17.8.101/24"),
            ("kubernetes-internal-ip", "enp0s8 172.17.8.101/24"),
        ] {
            assert_eq!(pick(method, Family::V4, &around).as_deref(), Ok(expected), "{method}");
        }
        assert_eq!(pick("first-found", Family::V6, &around).as_deref(), Ok("eth0 fd00::15/64"));
    }

    #[test]
    fn without_a_method_the_way_to_the_peers_decides() {
        let cases: [(&[&str], &[&str], &str); 7] = [
            (&["172.17.8.102", "192.0.2.1"], &["172.17.8.101"], "enp0s8 172.17.8.101/24"),
            (&["172.17.8.102", "192.0.2.1"], &["10.0.2.15"], "eth0 10.0.2.15/24"),
            (&["172.17.8.102", "172.17.8.103", "192.0.2.1"], &["10.0.2.15"], "enp0s8 172.17.8.101/24"),
            (&["192.0.2.1", "fd00::7"], &["172.17.8.101"], "eth0 10.0.2.15/24"),
            (&[], &["172.17.8.101"], "enp0s8 172.17.8.101/24"),
            (&[], &["198.51.100.1"], "eth0 10.0.2.15/24"),
            (&[], &[], "eth0 10.0.2.15/24"),
        ];
        for (peers, before, expected) in cases {
            let around = around(peers, before, &[]);
            assert_eq!(pick("", Family::V4, &around).as_deref(), Ok(expected), "{peers:?} {before:?}");
        }
        let all = Method::Default.weigh(Family::V4, &interfaces(), &around(&["172.17.8.102"], &[], &[]));
        let reason = |name: &str| &all.iter().find(|c| c.interface == name).expect("it is looked at").reason;
        assert_eq!(reason("enp0s8"), "packets to 1 of 1 reachable peers leave from it");
        assert!(reason("docker0").contains("^docker.*"), "{}", reason("docker0"));
        assert!(reason("vms").contains("a bridge to containers"), "{}", reason("vms"));
        assert_eq!(all.iter().filter(|candidate| candidate.taken).count(), 1);
        assert_eq!(all.len(), 6, "every address is told of: {all:?}");
    }

    #[test]
    fn what_is_not_found_lists_every_candidate_with_the_reason() {
        let around = around(&[], &[], &[]);
        let error = pick("cidr=192.0.2.0/24", Family::V4, &around).expect_err("no such address");
        assert_eq!(error.rejected.len(), 6);
        let text = error.to_string();
        assert!(text.contains("enp0s8 172.17.8.101/24: outside the given prefixes"), "{text}");
        let text = pick("kubernetes-internal-ip", Family::V4, &around).expect_err("no Kubernetes").to_string();
        assert!(text.contains("knows no InternalIP"), "{text}");
    }

    #[test]
    fn a_misspelt_method_is_named_with_its_nearest() {
        let error = Method::parse("interfce=eth0").expect_err("no method");
        assert!(error.contains("interface="), "{error}");
        assert!(Method::parse("interface=").is_err());
        assert!(Method::parse("cidr=x").is_err());
    }
}
