//! What are my settings?
//!
//! From the strongest: what the process was started with, the FelixConfiguration of this node by name, the oldest of
//! those whose selector matches the node's labels, the one named `default`, and upstream's defaults.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tortie_api::{FelixConfiguration, FelixConfigurationSpec, Timestamp};
use tortie_desired::{HostAction, Settings};
use tortie_selector::Selector;

/// Settings that win over every stored one; `None` leaves a setting to the store. From files and the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// See [`Settings::interface_prefixes`].
    pub interface_prefixes: Option<Vec<Arc<str>>>,
    /// See [`Settings::endpoint_to_host`].
    pub endpoint_to_host: Option<HostAction>,
    /// See [`Settings::reject_denied`].
    pub reject_denied: Option<bool>,
    /// See [`Settings::log_prefix`].
    pub log_prefix: Option<Arc<str>>,
    /// See [`Settings::accept_invalid`].
    pub accept_invalid: Option<bool>,
    /// See [`Settings::ipv6`].
    pub ipv6: Option<bool>,
    /// Whether there is VXLAN at all; by default when a pool wants it.
    pub vxlan_enabled: Option<bool>,
    /// VXLAN's network identifier.
    pub vxlan_vni: Option<u32>,
    /// VXLAN's UDP port.
    pub vxlan_port: Option<u16>,
    /// MTU of the IPv4 VXLAN device, bytes.
    pub vxlan_mtu: Option<u32>,
    /// MTU of the IPv6 VXLAN device, bytes.
    pub vxlan_mtu_v6: Option<u32>,
    /// The BGP identifier, in place of the node's IPv4 address.
    pub router_id: Option<Ipv4Addr>,
}

/// Settings of VXLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct VxlanSettings {
    pub(crate) enabled: Option<bool>,
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) mtu4: Option<u32>,
    pub(crate) mtu6: Option<u32>,
}

impl Overrides {
    /// What a FelixConfiguration sets, with a line for each value that is not understood.
    pub fn of_spec(spec: &FelixConfigurationSpec, problems: &mut Vec<String>) -> Overrides {
        let text = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
        let prefixes = |text: &str| text.split(',').map(str::trim).filter(|p| !p.is_empty()).map(Arc::from).collect();
        let mut word = |field: &str, found: &str, choices: &[&str]| {
            let at = choices.iter().position(|choice| choice.eq_ignore_ascii_case(found));
            if at.is_none() && !found.is_empty() {
                problems.push(format!("spec.{field}: {found:?} is none of {}", choices.join(", ")));
            }
            at
        };
        let host =
            word("defaultEndpointToHostAction", &spec.default_endpoint_to_host_action, &["Drop", "Accept", "Return"]);
        let deny = word("iptablesFilterDenyAction", &spec.iptables_filter_deny_action, &["Drop", "Reject"]);
        // 0 leaves the choice to us, as the default does.
        let number = |value: Option<i64>, end: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| (1..end).contains(value))
        };
        Overrides {
            interface_prefixes: Some(prefixes(&spec.interface_prefix)).filter(|list: &Vec<_>| !list.is_empty()),
            endpoint_to_host: host.map(|at| [HostAction::Drop, HostAction::Accept, HostAction::Return][at]),
            reject_denied: deny.map(|at| at == 1),
            log_prefix: text(&spec.log_prefix),
            accept_invalid: spec.disable_conntrack_invalid_check,
            ipv6: spec.ipv6_support,
            vxlan_enabled: spec.vxlan_enabled,
            vxlan_vni: number(spec.vxlan_vni, 1 << 24),
            vxlan_port: number(spec.vxlan_port, 1 << 16).and_then(|port| u16::try_from(port).ok()),
            vxlan_mtu: number(spec.vxlan_mtu, 1 << 16),
            vxlan_mtu_v6: number(spec.vxlan_mtu_v6, 1 << 16),
            router_id: None,
        }
    }

    fn apply(&self, settings: &mut Settings) {
        let Overrides {
            interface_prefixes,
            endpoint_to_host,
            reject_denied,
            log_prefix,
            accept_invalid,
            ipv6,
            vxlan_enabled: _,
            vxlan_vni: _,
            vxlan_port: _,
            vxlan_mtu: _,
            vxlan_mtu_v6: _,
            router_id: _,
        } = self;
        set(&mut settings.interface_prefixes, interface_prefixes);
        set(&mut settings.endpoint_to_host, endpoint_to_host);
        set(&mut settings.reject_denied, reject_denied);
        set(&mut settings.log_prefix, log_prefix);
        set(&mut settings.accept_invalid, accept_invalid);
        set(&mut settings.ipv6, ipv6);
    }
}

fn set<T: Clone>(field: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        *field = value.clone();
    }
}

/// A FelixConfiguration for the nodes that a selector matches.
#[derive(Debug)]
struct Scoped {
    /// `None` if it can't be read: it matches no node.
    selector: Option<Selector>,
    settings: Overrides,
}

/// The sources of settings.
#[derive(Debug, Default)]
pub(crate) struct Config {
    pub(crate) started_with: Overrides,
    node: Overrides,
    /// By age and name.
    scoped: BTreeMap<(Option<Timestamp>, Box<str>), Scoped>,
    cluster: Overrides,
}

impl Config {
    pub(crate) fn new(started_with: Overrides) -> Config {
        Config { started_with, ..Config::default() }
    }

    /// A FelixConfiguration came, changed or went.
    pub(crate) fn set(
        &mut self,
        me: &str,
        name: &str,
        config: Option<&FelixConfiguration>,
        problems: &mut Vec<String>,
    ) {
        let settings = config.map(|config| Overrides::of_spec(&config.spec, problems));
        if name == "default" {
            self.cluster = settings.unwrap_or_default();
            return;
        }
        if let Some(node) = name.strip_prefix("node.") {
            if node == me {
                self.node = settings.unwrap_or_default();
            }
            return;
        }
        self.scoped.retain(|(_, other), _| **other != *name);
        let Some((config, settings)) = config.zip(settings) else { return };
        let Some(text) = &config.spec.node_selector else { return };
        let selector = Selector::parse(text);
        problems.extend(selector.as_ref().err().map(|error| format!("spec.nodeSelector: {error}")));
        let age = config.metadata.creation_timestamp;
        self.scoped.insert((age, name.into()), Scoped { selector: selector.ok(), settings });
    }

    /// The settings of a node with these labels; a node that is not there matches no selector.
    pub(crate) fn settings(&self, labels: Option<&BTreeMap<String, String>>) -> Settings {
        let mut settings = Settings::default();
        self.sources(labels).for_each(|source| source.apply(&mut settings));
        settings
    }

    /// The settings of VXLAN of a node with these labels.
    pub(crate) fn vxlan(&self, labels: Option<&BTreeMap<String, String>>) -> VxlanSettings {
        let mut vxlan = VxlanSettings { enabled: None, vni: 4096, port: 4789, mtu4: None, mtu6: None };
        for source in self.sources(labels) {
            vxlan.enabled = source.vxlan_enabled.or(vxlan.enabled);
            vxlan.vni = source.vxlan_vni.unwrap_or(vxlan.vni);
            vxlan.port = source.vxlan_port.unwrap_or(vxlan.port);
            vxlan.mtu4 = source.vxlan_mtu.or(vxlan.mtu4);
            vxlan.mtu6 = source.vxlan_mtu_v6.or(vxlan.mtu6);
        }
        vxlan
    }

    /// What sets anything for a node with these labels, the weakest first.
    fn sources(&self, labels: Option<&BTreeMap<String, String>>) -> impl Iterator<Item = &Overrides> {
        let Config { started_with, node, scoped, cluster } = self;
        let matches = |scoped: &&Scoped| {
            scoped.selector.as_ref().zip(labels).is_some_and(|(selector, labels)| selector.matches(labels))
        };
        let scoped = scoped.values().find(matches).map(|scoped| &scoped.settings);
        [Some(cluster), scoped, Some(node), Some(started_with)].into_iter().flatten()
    }
}
