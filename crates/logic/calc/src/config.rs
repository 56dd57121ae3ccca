//! What are my settings?
//!
//! From the strongest: what the process was started with, the FelixConfiguration of this node by name, the oldest of
//! those whose selector matches the node's labels, the one named `default`, and upstream's defaults.

mod read;

use read::marks;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use tortie_api::{FelixConfiguration, LabelMap, Timestamp};
use tortie_desired::{Failsafe, HostAction, LogLimit, Settings};
use tortie_net::{IpNet, PortRange};
use tortie_selector::Selector;

use crate::wireguard::WireguardSettings;

/// Settings that win over every stored one; `None` leaves a setting to the store. From files and the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// See [`Settings::interface_prefixes`].
    pub interface_prefixes: Option<Vec<Arc<str>>>,
    /// See [`Settings::endpoint_to_host`].
    pub endpoint_to_host: Option<HostAction>,
    /// See [`Settings::reject_denied`]: where policy goes into nftables, and where it goes into iptables.
    pub reject_denied: [Option<bool>; 2],
    /// Whether policy goes into iptables, and not into nftables. Counts only in what a calculator is started with.
    pub iptables: Option<bool>,
    /// See [`Settings::log_prefix`].
    pub log_prefix: Option<Arc<str>>,
    /// See [`Settings::log_limit`].
    pub log_limit: Option<LogLimit>,
    /// See [`Settings::accept_invalid`].
    pub accept_invalid: Option<bool>,
    /// See [`Settings::ipv6`].
    pub ipv6: Option<bool>,
    /// See [`Settings::failsafe_inbound`].
    pub failsafe_inbound: Option<Vec<Failsafe>>,
    /// See [`Settings::failsafe_outbound`].
    pub failsafe_outbound: Option<Vec<Failsafe>>,
    /// See [`Settings::vxlan_from_workloads`].
    pub vxlan_from_workloads: Option<bool>,
    /// See [`Settings::ipip_from_workloads`].
    pub ipip_from_workloads: Option<bool>,
    /// See [`tortie_desired::NatSettings::ports`].
    pub nat_ports: Option<PortRange>,
    /// See [`tortie_desired::NatSettings::address`].
    pub nat_address: Option<Ipv4Addr>,
    /// See [`tortie_desired::NatSettings::exclude_hosts`].
    pub nat_exclude_hosts: Option<bool>,
    /// What happens to packets of service prefixes that nobody translated.
    pub service_loops: Option<ServiceLoops>,
    /// Whether workloads have floating addresses (`floatingIPs`).
    pub floating: Option<bool>,
    /// Whether workloads may be allowed more sources than their own addresses (`workloadSourceSpoofing`).
    pub source_spoofing: Option<bool>,
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
    /// Whether there is IPIP at all; by default when a pool wants it.
    pub ipip_enabled: Option<bool>,
    /// MTU of the IPIP device, bytes.
    pub ipip_mtu: Option<u32>,
    /// The routes to other nodes' pods that are worked out from blocks; BGP's are the others.
    pub cluster_routes: Option<ClusterRoutes>,
    /// See [`Settings::external_nodes`].
    pub external_nodes: Option<BTreeSet<IpNet>>,
    /// See [`Settings::record_drops`]; off unless said otherwise.
    pub record_drops: Option<bool>,
    /// See [`Settings::revoke_flows`]; off unless said otherwise.
    pub revoke_flows: Option<bool>,
    /// See [`Settings::tunnel_sources`]; on unless said otherwise.
    pub tunnel_sources: Option<bool>,
    /// Settings of WireGuard, where given.
    pub wireguard: WireguardOverrides,
    /// Routes lead to the addresses of other nodes' workloads, each by itself, and not to blocks (`routeSource`). Counts
    /// only in what a calculator is started with.
    pub workload_routes: Option<bool>,
    /// The BGP identifier, in place of the node's IPv4 address.
    pub router_id: Option<Ipv4Addr>,
    /// The node's name in Kubernetes, if it is another than here.
    pub kubernetes_node: Option<Arc<str>>,
}

/// Settings of WireGuard as they are written; families IPv4 first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireguardOverrides {
    /// Whether there is such a device.
    pub enabled: [Option<bool>; 2],
    /// UDP ports.
    pub ports: [Option<u16>; 2],
    /// Names of the interfaces.
    pub names: [Option<Arc<str>>; 2],
    /// MTU of the devices, bytes.
    pub mtu: [Option<u32>; 2],
    /// Whether nodes' own packets to each other are encrypted too.
    pub host_encryption: Option<bool>,
    /// The place of the routing rule.
    pub priority: Option<u32>,
    /// Seconds between packets that keep translations open; 0: none.
    pub keepalive_secs: Option<u16>,
    /// Whether the kernel handles packets in threads.
    pub threaded: Option<bool>,
}

impl WireguardOverrides {
    fn apply(&self, settings: &mut WireguardSettings) {
        let WireguardOverrides { enabled, ports, names, mtu, host_encryption, priority, keepalive_secs, threaded } =
            self;
        for (at, family) in settings.families.iter_mut().enumerate() {
            set(&mut family.enabled, &enabled[at]);
            set(&mut family.port, &ports[at]);
            set(&mut family.name, &names[at]);
            family.mtu = mtu[at].or(family.mtu);
        }
        set(&mut settings.host_encryption, host_encryption);
        set(&mut settings.priority, priority);
        set(&mut settings.keepalive_secs, keepalive_secs);
        set(&mut settings.threaded, threaded);
    }
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

/// Settings of IPIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IpipSettings {
    pub(crate) enabled: Option<bool>,
    pub(crate) mtu: Option<u32>,
}

/// Whose routes to other nodes' pods one of two sources gives (`programClusterRoutes`, of which there are two: of
/// FelixConfiguration for what is worked out from blocks, of BGPConfiguration for what peers tell).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterRoutes {
    /// Those of pools with IPIP.
    pub ipip: bool,
    /// Those of pools without encapsulation.
    pub plain: bool,
}

impl ClusterRoutes {
    /// From upstream's words for it; `None` for another word.
    pub(crate) fn of(word: &str) -> Option<ClusterRoutes> {
        let (ipip, plain) = match word {
            "Enabled" => (true, true),
            "Disabled" => (false, false),
            "EnabledIPIPOnly" => (true, false),
            "EnabledNoEncapOnly" => (false, true),
            _ => return None,
        };
        Some(ClusterRoutes { ipip, plain })
    }

    /// Upstream's default for what is worked out from blocks.
    pub(crate) const BLOCKS: ClusterRoutes = ClusterRoutes { ipip: true, plain: false };
    /// Upstream's default for BGP.
    pub(crate) const BGP: ClusterRoutes = ClusterRoutes { ipip: false, plain: true };
}

/// What happens to packets of service prefixes that nobody translated (`serviceLoopPrevention`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceLoops {
    /// Dropped.
    Drop,
    /// Rejected.
    Reject,
    /// Let through.
    Allow,
}

/// What is asked of workloads' own wishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkloadSettings {
    pub(crate) floating: bool,
    pub(crate) source_spoofing: bool,
}

impl Overrides {
    fn apply(&self, settings: &mut Settings, iptables: bool) {
        let Overrides {
            interface_prefixes,
            endpoint_to_host,
            reject_denied,
            iptables: _,
            log_prefix,
            log_limit,
            accept_invalid,
            ipv6,
            failsafe_inbound,
            failsafe_outbound,
            vxlan_from_workloads,
            ipip_from_workloads,
            nat_ports,
            nat_address,
            nat_exclude_hosts,
            service_loops,
            floating: _,
            source_spoofing: _,
            vxlan_enabled: _,
            vxlan_vni: _,
            vxlan_port,
            vxlan_mtu: _,
            vxlan_mtu_v6: _,
            ipip_enabled: _,
            ipip_mtu: _,
            cluster_routes: _,
            external_nodes,
            record_drops,
            revoke_flows,
            tunnel_sources,
            wireguard: _,
            workload_routes: _,
            router_id: _,
            kubernetes_node: _,
        } = self;
        set(&mut settings.interface_prefixes, interface_prefixes);
        set(&mut settings.endpoint_to_host, endpoint_to_host);
        set(&mut settings.reject_denied, &reject_denied[usize::from(iptables)]);
        set(&mut settings.log_prefix, log_prefix);
        settings.log_limit = log_limit.or(settings.log_limit);
        set(&mut settings.accept_invalid, accept_invalid);
        set(&mut settings.ipv6, ipv6);
        set(&mut settings.failsafe_inbound, failsafe_inbound);
        set(&mut settings.failsafe_outbound, failsafe_outbound);
        set(&mut settings.vxlan_port, vxlan_port);
        set(&mut settings.vxlan_from_workloads, vxlan_from_workloads);
        set(&mut settings.ipip_from_workloads, ipip_from_workloads);
        set(&mut settings.external_nodes, external_nodes);
        set(&mut settings.record_drops, record_drops);
        set(&mut settings.revoke_flows, revoke_flows);
        set(&mut settings.tunnel_sources, tunnel_sources);
        settings.nat.ports = nat_ports.or(settings.nat.ports);
        settings.nat.address = nat_address.or(settings.nat.address);
        set(&mut settings.nat.exclude_hosts, nat_exclude_hosts);
        match service_loops {
            None => {}
            Some(ServiceLoops::Drop | ServiceLoops::Allow) => settings.reject_service_loops = false,
            Some(ServiceLoops::Reject) => settings.reject_service_loops = true,
        }
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
        let iptables = self.iptables();
        problems.extend(config.and_then(|config| marks(&config.spec, iptables)));
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

    /// The settings of a node with these labels; a node that is not there matches no selector. `services` are the
    /// prefixes of services.
    pub(crate) fn settings(&self, labels: Option<&LabelMap>, services: &BTreeSet<IpNet>) -> Settings {
        let loops = self.sources(labels).filter_map(|source| source.service_loops).last();
        let service_loops = if loops == Some(ServiceLoops::Allow) { BTreeSet::new() } else { services.clone() };
        let mut settings = Settings { service_loops, ..Settings::default() };
        let iptables = self.iptables();
        self.sources(labels).for_each(|source| source.apply(&mut settings, iptables));
        settings
    }

    fn iptables(&self) -> bool {
        self.started_with.iptables.unwrap_or(false)
    }

    /// What workloads of a node with these labels may have.
    pub(crate) fn workloads(&self, labels: Option<&LabelMap>) -> WorkloadSettings {
        let mut out = WorkloadSettings::default();
        for source in self.sources(labels) {
            set(&mut out.floating, &source.floating);
            set(&mut out.source_spoofing, &source.source_spoofing);
        }
        out
    }

    /// The settings of VXLAN of a node with these labels.
    pub(crate) fn vxlan(&self, labels: Option<&LabelMap>) -> VxlanSettings {
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

    /// The settings of IPIP of a node with these labels.
    pub(crate) fn ipip(&self, labels: Option<&LabelMap>) -> IpipSettings {
        let mut ipip = IpipSettings::default();
        for source in self.sources(labels) {
            ipip.enabled = source.ipip_enabled.or(ipip.enabled);
            ipip.mtu = source.ipip_mtu.or(ipip.mtu);
        }
        ipip
    }

    /// The settings of WireGuard of a node with these labels.
    pub(crate) fn wireguard(&self, labels: Option<&LabelMap>) -> WireguardSettings {
        let mut settings = WireguardSettings::default();
        self.sources(labels).for_each(|source| source.wireguard.apply(&mut settings));
        settings
    }

    /// Which routes of a node with these labels are worked out from blocks.
    pub(crate) fn cluster_routes(&self, labels: Option<&LabelMap>) -> ClusterRoutes {
        self.sources(labels).filter_map(|source| source.cluster_routes).last().unwrap_or(ClusterRoutes::BLOCKS)
    }

    /// What sets anything for a node with these labels, the weakest first.
    fn sources(&self, labels: Option<&LabelMap>) -> impl Iterator<Item = &Overrides> {
        let Config { started_with, node, scoped, cluster } = self;
        let matches = |scoped: &&Scoped| {
            scoped.selector.as_ref().zip(labels).is_some_and(|(selector, labels)| selector.matches(labels))
        };
        let scoped = scoped.values().find(matches).map(|scoped| &scoped.settings);
        [Some(cluster), scoped, Some(node), Some(started_with)].into_iter().flatten()
    }
}
