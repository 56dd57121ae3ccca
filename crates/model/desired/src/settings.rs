//! Settings that shape the rules of the whole node.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_net::{PortRange, Protocol};

/// What happens to packets from a workload to the node itself, after the workload's own policy allowed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAction {
    /// Drop them (upstream's default).
    Drop,
    /// Accept them.
    Accept,
    /// Leave them to the host's other rules.
    Return,
}

/// A port of the node that the policy of host endpoints never closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failsafe {
    /// The protocol; one with ports.
    pub protocol: Protocol,
    /// The port: the node's own for inbound, the other side's for outbound.
    pub port: u16,
    /// Only if the other side's address lies in here.
    pub net: Option<IpNet>,
}

/// How packets leave pools with outgoing NAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatSettings {
    /// Source ports to translate TCP and UDP to; `None` leaves the choice to the kernel.
    pub ports: Option<PortRange>,
    /// The source address for IPv4; `None`: that of the interface that a packet leaves by.
    pub address: Option<Ipv4Addr>,
    /// Whether packets to nodes of the cluster keep their source too ([`crate::SetId::ALL_HOSTS`]).
    pub exclude_hosts: bool,
}

/// A unit of time for rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Period {
    /// One second.
    Second,
    /// 60 seconds.
    Minute,
    /// 3600 seconds.
    Hour,
    /// 86400 seconds.
    Day,
}

/// How often each `Log` rule may write to the kernel's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogLimit {
    /// Lines in a period, at least 1.
    pub rate: u32,
    /// The period.
    pub period: Period,
    /// Lines at once before the rate counts.
    pub burst: u32,
}

/// Node-wide settings of the dataplane; from FelixConfiguration, `FELIX_*` and their defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Prefixes of workload interface names; an interface that matches and belongs to no endpoint is cut off.
    pub interface_prefixes: Vec<Arc<str>>,
    /// `defaultEndpointToHostAction`.
    pub endpoint_to_host: HostAction,
    /// Whether denied packets are rejected instead of dropped (`nftablesFilterDenyAction`, or
    /// `iptablesFilterDenyAction` where policy goes into iptables).
    pub reject_denied: bool,
    /// Prefix of kernel log lines of `Log` rules; `%t`, `%k`, `%n` and `%p` stand for tier, kind, name and
    /// namespace/name of the policy (`logPrefix`).
    pub log_prefix: Arc<str>,
    /// The limit on such lines; `None`: no limit (`logActionRateLimit`).
    pub log_limit: Option<LogLimit>,
    /// Whether packets of invalid conntrack state pass (`disableConntrackInvalidCheck`).
    pub accept_invalid: bool,
    /// Whether IPv6 is managed; if not, workloads get no IPv6 at all.
    pub ipv6: bool,
    /// Ports that no policy of a host endpoint closes for what comes in (`failsafeInboundHostPorts`).
    pub failsafe_inbound: Vec<Failsafe>,
    /// The same for what goes out (`failsafeOutboundHostPorts`).
    pub failsafe_outbound: Vec<Failsafe>,
    /// VXLAN's UDP port.
    pub vxlan_port: u16,
    /// Whether workloads may send VXLAN themselves, if policy allows it (`allowVXLANPacketsFromWorkloads`).
    pub vxlan_from_workloads: bool,
    /// Whether workloads may send IPIP themselves, if policy allows it (`allowIPIPPacketsFromWorkloads`).
    pub ipip_from_workloads: bool,
    /// Nodes outside of the cluster, with which tunnels may be exchanged too (`externalNodesList`); IPv4.
    pub external_nodes: BTreeSet<IpNet>,
    /// Outgoing NAT.
    pub nat: NatSettings,
    /// Service prefixes whose packets are not forwarded, as nobody translated them: they would loop
    /// (`serviceLoopPrevention`, and the prefixes of the BGPConfiguration). Empty if that is off.
    pub service_loops: BTreeSet<IpNet>,
    /// Whether such packets are rejected instead of dropped.
    pub reject_service_loops: bool,
    /// Whether packets that end are told of by NFLOG, at a limited rate for each cause.
    pub record_drops: bool,
    /// Whether rules end established flows that are marked as denied by now.
    pub revoke_flows: bool,
    /// Whether the kernel does not check the IPv4 sources of workloads strictly, so that rules check those of established
    /// flows too.
    pub loose_sources: bool,
    /// Whether what the host sends into a tunnel from another of its addresses gets the tunnel's. Rules must be able to ask
    /// whose an address is.
    pub tunnel_sources: bool,
}

const fn failsafe(protocol: Protocol, port: u16) -> Failsafe {
    Failsafe { protocol, port, net: None }
}

/// Upstream's defaults: SSH, DHCP, BGP, etcd, Typha and the Kubernetes API.
const INBOUND: [Failsafe; 9] = [
    failsafe(Protocol::TCP, 22),
    failsafe(Protocol::UDP, 68),
    failsafe(Protocol::TCP, 179),
    failsafe(Protocol::TCP, 2379),
    failsafe(Protocol::TCP, 2380),
    failsafe(Protocol::TCP, 5473),
    failsafe(Protocol::TCP, 6443),
    failsafe(Protocol::TCP, 6666),
    failsafe(Protocol::TCP, 6667),
];
const OUTBOUND: [Failsafe; 9] = [
    failsafe(Protocol::UDP, 53),
    failsafe(Protocol::UDP, 67),
    failsafe(Protocol::TCP, 179),
    failsafe(Protocol::TCP, 2379),
    failsafe(Protocol::TCP, 2380),
    failsafe(Protocol::TCP, 5473),
    failsafe(Protocol::TCP, 6443),
    failsafe(Protocol::TCP, 6666),
    failsafe(Protocol::TCP, 6667),
];

impl Default for Settings {
    fn default() -> Self {
        Settings {
            interface_prefixes: vec![Arc::from("cali")],
            endpoint_to_host: HostAction::Drop,
            reject_denied: false,
            log_prefix: Arc::from("calico-packet"),
            log_limit: None,
            accept_invalid: false,
            ipv6: true,
            failsafe_inbound: INBOUND.to_vec(),
            failsafe_outbound: OUTBOUND.to_vec(),
            vxlan_port: 4789,
            vxlan_from_workloads: false,
            ipip_from_workloads: false,
            external_nodes: BTreeSet::new(),
            nat: NatSettings::default(),
            service_loops: BTreeSet::new(),
            reject_service_loops: false,
            record_drops: false,
            revoke_flows: false,
            loose_sources: false,
            tunnel_sources: true,
        }
    }
}
