//! Finding the node's own address: upstream's methods, each choice with its reason.
//!
//! Pure: interfaces and the route towards a destination come in as values.

use std::fmt;
use std::net::IpAddr;

use regex::Regex;
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

/// An interface with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<IpNet>,
}

/// A method, as upstream's `IP_AUTODETECTION_METHOD` names it.
#[derive(Clone, Debug)]
pub enum Method {
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

/// Why no address was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// The method's text.
    pub method: String,
    /// The family that was looked for.
    pub family: Family,
    /// Every address that was looked at, with the reason that it was not taken.
    pub rejected: Vec<(String, IpNet, String)>,
}

impl std::error::Error for NotFound {}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotFound { method, family, rejected } = self;
        write!(f, "no {family} address was found by the method {method:?}")?;
        if rejected.is_empty() {
            return write!(f, ": no interface has one");
        }
        for (name, address, reason) in rejected {
            write!(f, "; {name} {address}: {reason}")?;
        }
        Ok(())
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
            "first-found" | "" => Ok(Method::FirstFound),
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

    /// Picks an address. `source_for` tells the source address that the kernel would use towards a destination.
    pub fn pick(
        &self,
        text: &str,
        family: Family,
        interfaces: &[Interface],
        source_for: &dyn Fn(&str) -> Option<IpAddr>,
    ) -> Result<(String, IpNet), NotFound> {
        let mut rejected = Vec::new();
        let wanted = match self {
            Method::CanReach(destination) => source_for(destination),
            _ => None,
        };
        for interface in interfaces {
            for address in interface.addresses.iter().filter(|a| Family::of_net(**a) == family) {
                match self.reject(&interface.name, *address, wanted) {
                    None => return Ok((interface.name.clone(), *address)),
                    Some(reason) => rejected.push((interface.name.clone(), *address, reason)),
                }
            }
        }
        Err(NotFound { method: text.to_owned(), family, rejected })
    }

    /// The reason not to take an address, if there is one.
    fn reject(&self, name: &str, address: IpNet, wanted: Option<IpAddr>) -> Option<String> {
        if !is_global(address.addr()) {
            return Some("not a global unicast address".to_owned());
        }
        let excluded = || {
            let hit = EXCLUDED.iter().find(|p| Regex::new(p).is_ok_and(|r| r.is_match(name)));
            hit.map(|pattern| format!("interfaces like {pattern} are no interfaces of the host itself"))
        };
        match self {
            Method::FirstFound => excluded(),
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
            Method::KubernetesInternalIp => Some("this node knows of no Kubernetes".to_owned()),
        }
    }
}

fn is_global(addr: IpAddr) -> bool {
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
        };
        vec![
            interface("lo", &["127.0.0.1/8", "::1/128"]),
            interface("docker0", &["172.17.0.1/16"]),
            interface("eth0", &["169.254.7.7/16", "10.0.2.15/24", "fe80::1/64", "fd00::15/64"]),
            interface("enp0s8", &["172.17.8.101/24"]),
        ]
    }

    fn pick(method: &str, family: Family) -> Result<String, NotFound> {
        let source = |to: &str| (to == "172.17.8.102").then(|| "172.17.8.101".parse().expect("a literal"));
        let parsed = Method::parse(method).expect("a good method");
        parsed.pick(method, family, &interfaces(), &source).map(|(name, address)| format!("{name} {address}"))
    }

    #[test]
    fn every_method_finds_what_it_says() {
        for (method, expected) in [
            ("first-found", "eth0 10.0.2.15/24"),
            ("interface=enp.*", "enp0s8 172.17.8.101/24"),
            ("interface=nope,docker0", "docker0 172.17.0.1/16"),
            ("skip-interface=eth.*", "enp0s8 172.17.8.101/24"),
            ("can-reach=172.17.8.102", "enp0s8 172.17.8.101/24"),
            ("cidr=172.17.8.0/24,10.9.0.0/16", "enp0s8 172.17.8.101/24"),
        ] {
            assert_eq!(pick(method, Family::V4).as_deref(), Ok(expected), "{method}");
        }
        assert_eq!(pick("first-found", Family::V6).as_deref(), Ok("eth0 fd00::15/64"));
    }

    #[test]
    fn what_is_not_found_lists_every_candidate_with_the_reason() {
        let error = pick("cidr=192.0.2.0/24", Family::V4).expect_err("no such address");
        assert_eq!(error.rejected.len(), 5);
        let text = error.to_string();
        assert!(text.contains("enp0s8 172.17.8.101/24: outside the given prefixes"), "{text}");
    }

    #[test]
    fn a_misspelt_method_is_named_with_its_nearest() {
        let error = Method::parse("interfce=eth0").expect_err("no method");
        assert!(error.contains("interface="), "{error}");
        assert!(Method::parse("interface=").is_err());
        assert!(Method::parse("cidr=x").is_err());
    }
}
