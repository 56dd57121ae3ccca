//! Values of variables, each read in one way with one kind of message.

use std::collections::BTreeMap;
use std::net::{AddrParseError, IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use tortie_api::GoDuration;
use tortie_net::{Family, IpNet};

use super::{SettingError, parse_address};
use crate::autodetect::Method;

/// `CALICO_NETWORKING_BACKEND`: who carries routes between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// BGP, by the speaker of this process.
    Bird,
    /// VXLAN, without BGP.
    Vxlan,
    /// Nobody: policy and local routes alone.
    None,
}

impl Backend {
    pub(super) const CHOICES: &'static [(&'static str, Backend)] =
        &[("bird", Backend::Bird), ("vxlan", Backend::Vxlan), ("none", Backend::None)];
}

/// `TORTIE_WIREGUARD_DEVICE`: where WireGuard's devices are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireguardDevice {
    /// In the kernel, and where it has none, in user space.
    Auto,
    /// In the kernel alone.
    Kernel,
    /// In user space, whatever the kernel has.
    User,
}

impl WireguardDevice {
    pub(super) const CHOICES: &'static [(&'static str, WireguardDevice)] =
        &[("auto", WireguardDevice::Auto), ("kernel", WireguardDevice::Kernel), ("user", WireguardDevice::User)];
}

/// `IP` or `IP6`: which address the node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressChoice {
    /// Nothing is said: the stored address stays; where none is stored, an IPv4 address is looked for, as upstream does.
    Unset,
    /// Find one by the autodetection method; the stored address stays if there is none.
    Autodetect,
    /// Look for none: what is stored stays.
    None,
    /// This one; the prefix length is that of the interface that has it, if not given.
    Fixed(IpAddr, Option<u8>),
}

/// `CALICO_ROUTER_ID`: the BGP identifier, in place of the node's IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouterId {
    /// This one.
    Given(Ipv4Addr),
    /// Made of the node's name.
    Hash,
}

impl RouterId {
    /// That of a node.
    pub fn of(self, node: &str) -> Ipv4Addr {
        match self {
            RouterId::Given(id) => id,
            RouterId::Hash => tortie_calc::hashed_router_id(node),
        }
    }
}

impl FromStr for RouterId {
    type Err = AddrParseError;

    fn from_str(text: &str) -> Result<RouterId, AddrParseError> {
        if text == "hash" { Ok(RouterId::Hash) } else { text.parse().map(RouterId::Given) }
    }
}

/// Mode of an encapsulation, in the spelling of pools and variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// Not at all.
    Never,
    /// Always.
    Always,
    /// Between nodes of different subnets.
    CrossSubnet,
}

const ENCAPSULATIONS: &[(&str, Encapsulation)] = &[
    ("Never", Encapsulation::Never),
    ("Always", Encapsulation::Always),
    ("CrossSubnet", Encapsulation::CrossSubnet),
    ("Off", Encapsulation::Never),
];

/// `CALICO_IPV4POOL_*` or `CALICO_IPV6POOL_*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// The pool; `None`: the default one.
    pub cidr: Option<IpNet>,
    /// Bits of a block.
    pub block_size: u8,
    /// IPIP mode, if set.
    pub ipip: Option<Encapsulation>,
    /// VXLAN mode, if set.
    pub vxlan: Option<Encapsulation>,
    /// Whether to hide the pool's addresses outside the cluster, if set.
    pub nat_outgoing: Option<bool>,
    /// Which nodes use it, if set.
    pub node_selector: Option<String>,
    /// Whether BGP leaves it out.
    pub disable_bgp_export: bool,
    /// `CIDR` was set to `none`.
    pub disabled: bool,
}

pub(super) struct Reader<'a> {
    pub(super) vars: &'a BTreeMap<String, String>,
    pub(super) faults: &'a mut Vec<SettingError>,
}

impl Reader<'_> {
    /// A variable that is set and not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.vars.get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    fn fault(&mut self, name: &str, value: &str, problem: String) {
        let origin = "the environment variable".to_owned();
        self.faults.push(SettingError { origin, name: name.to_owned(), value: value.to_owned(), problem });
    }

    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        let text = self.text(name)?;
        let value = text.parse().ok();
        if value.is_none() {
            self.fault(name, &text, format!("expected {expected}"));
        }
        value
    }

    /// How often something is done.
    pub(super) fn interval(&mut self, name: &str, default: Duration) -> Duration {
        const EXPECTED: &str = "a duration of more than none, such as 60s";
        let Some(every) = self.parsed::<GoDuration>(name, EXPECTED).map(GoDuration::as_std) else { return default };
        if every.is_zero() {
            self.fault(name, &self.text(name).unwrap_or_default(), format!("expected {EXPECTED}"));
        }
        every
    }

    pub(super) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)], default: T) -> T {
        let Some(text) = self.text(name) else { return default };
        if let Some((_, value)) = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text)) {
            return *value;
        }
        let lower = text.to_ascii_lowercase();
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let nearest = words
            .iter()
            .min_by_key(|word| strsim::damerau_levenshtein(&lower, &word.to_ascii_lowercase()))
            .expect("there is a choice");
        self.fault(name, &text, format!("expected one of {}: did you mean {nearest:?}?", words.join(", ")));
        default
    }

    /// A method of autodetection, checked here so that a misspelt one is refused before anything is done; empty if none
    /// is told.
    pub(super) fn method(&mut self, name: &str) -> String {
        let Some(text) = self.text(name) else { return String::new() };
        if let Err(problem) = Method::parse(&text) {
            self.fault(name, &text, problem);
        }
        text
    }

    /// A filter such as `debug` or `info,tortie_node=debug`. A misspelt level would silently be taken for a target.
    pub(super) fn log_filter(&mut self, name: &str) -> Option<String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let text = self.text(name)?;
        for directive in text.split(',').filter(|directive| !directive.contains('[')) {
            let directive = directive.trim();
            let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
            let is_target = !directive.contains('=') && (level.starts_with("tortie") || level.contains("::"));
            if is_target || LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
                continue;
            }
            let nearest = LEVELS
                .iter()
                .min_by_key(|known| strsim::damerau_levenshtein(&level.to_ascii_lowercase(), known))
                .expect("there are levels");
            let expected = LEVELS.join(", ");
            self.fault(name, &text, format!("{level:?} is no level ({expected}): did you mean {nearest:?}?"));
        }
        Some(text)
    }

    pub(super) fn flag(&mut self, name: &str, default: bool) -> bool {
        let choices = [("true", true), ("false", false), ("yes", true), ("no", false), ("1", true), ("0", false)];
        self.choice(name, &choices, default)
    }

    pub(super) fn address(&mut self, name: &str) -> AddressChoice {
        let Some(text) = self.text(name) else { return AddressChoice::Unset };
        match text.to_ascii_lowercase().as_str() {
            "autodetect" => return AddressChoice::Autodetect,
            "none" => return AddressChoice::None,
            _ => {}
        }
        let wanted = if name == "IP6" { Family::V6 } else { Family::V4 };
        match parse_address(&text).filter(|(addr, _)| Family::of(*addr) == wanted) {
            Some((addr, length)) => AddressChoice::Fixed(addr, length),
            None => {
                self.fault(
                    name,
                    &text,
                    format!("expected \"autodetect\", \"none\" or an {wanted} address, such as 10.0.0.1/24"),
                );
                AddressChoice::Unset
            }
        }
    }

    pub(super) fn pool(&mut self, prefix: &str, block_size: u8, sizes: RangeInclusive<u8>) -> PoolSettings {
        let name = |part: &str| format!("{prefix}_{part}");
        let family = if *sizes.end() == 32 { Family::V4 } else { Family::V6 };
        let (mut cidr, mut disabled) = (None, false);
        match self.text(&name("CIDR")) {
            Some(text) if text.eq_ignore_ascii_case("none") => disabled = true,
            Some(text) => match text.parse::<IpNet>() {
                Ok(net) if Family::of_net(net) == family && net.trunc() == net => cidr = Some(net),
                Ok(net) if Family::of_net(net) == family => {
                    self.fault(&name("CIDR"), &text, format!("it has host bits: did you mean {}?", net.trunc()));
                }
                _ => self.fault(&name("CIDR"), &text, format!("expected an {family} prefix, such as 192.168.0.0/16")),
            },
            None => {}
        }
        let mut size = block_size;
        if let Some(asked) = self.parsed::<u8>(&name("BLOCK_SIZE"), "a number") {
            if sizes.contains(&asked) {
                size = asked;
            } else {
                let problem = format!("expected {} to {}", sizes.start(), sizes.end());
                self.fault(&name("BLOCK_SIZE"), &asked.to_string(), problem);
            }
        }
        let mut mode = |part: &str| {
            let set = self.text(&name(part)).is_some();
            let mode = self.choice(&name(part), ENCAPSULATIONS, Encapsulation::Never);
            set.then_some(mode)
        };
        // Upstream has no IPIP for IPv6, so the variable is not looked at there.
        let ipip = if family == Family::V4 { mode("IPIP") } else { None };
        let vxlan = mode("VXLAN");
        let nat_set = self.text(&name("NAT_OUTGOING")).is_some();
        let nat = self.flag(&name("NAT_OUTGOING"), family == Family::V4);
        PoolSettings {
            cidr,
            block_size: size,
            ipip,
            vxlan,
            nat_outgoing: nat_set.then_some(nat),
            node_selector: self.text(&name("NODE_SELECTOR")),
            disable_bgp_export: self.flag(&name("DISABLE_BGP_EXPORT"), false),
            disabled,
        }
    }
}
