//! Values of FelixConfiguration settings.

use serde::{Deserialize, Serialize};

use crate::GoDuration;
use crate::IpNetText;
use crate::empty::empty;
use crate::enums::string_enum;

string_enum! {
    /// Which iptables variant is used.
    IptablesBackend {
        /// The one the host uses.
        #[default]
        Auto = "Auto",
        /// The legacy one.
        Legacy = "Legacy",
        /// The nf_tables one.
        Nft = "NFT",
    }
}

string_enum! {
    /// Whether nftables carries the policy.
    NftablesMode {
        /// As kube-proxy does.
        #[default]
        Auto = "Auto",
        /// Yes.
        Enabled = "Enabled",
        /// No.
        Disabled = "Disabled",
    }
}

string_enum! {
    /// Which flows take the kernel's fast path.
    NftablesFlowTableOffload {
        /// None.
        #[default]
        Disabled = "Disabled",
        /// All that can.
        All = "All",
    }
}

string_enum! {
    /// What to do about EC2's source and destination check.
    AwsSrcDstCheckOption {
        /// Leave it.
        #[default]
        DoNothing = "DoNothing",
        /// Switch it on.
        Enable = "Enable",
        /// Switch it off.
        Disable = "Disable",
    }
}

string_enum! {
    /// How BPF programs are attached.
    BpfAttachOption {
        /// By netkit where there is such a device, else by TCX.
        #[default]
        Netkit = "Netkit",
        /// By TCX.
        Tcx = "TCX",
        /// By tc.
        Tc = "TC",
    }
}

string_enum! {
    /// For which addresses within the host's own subnet the node answers ARP and NDP.
    LocalSubnetL2ReachabilityMode {
        /// None.
        #[default]
        Disabled = "Disabled",
        /// Those of pods and load balancers.
        PodsAndLoadBalancers = "PodsAndLoadBalancers",
    }
}

string_enum! {
    /// Which sockets are balanced when they connect.
    BpfConnectTimeLb {
        /// TCP.
        #[default]
        Tcp = "TCP",
        /// All.
        Enabled = "Enabled",
        /// None.
        Disabled = "Disabled",
    }
}

string_enum! {
    /// From which address a host's own traffic into the overlay comes.
    BpfOverlayHostSourceIp {
        /// That of the tunnel device.
        #[default]
        TunnelAddress = "TunnelAddress",
        /// That of the host.
        HostAddress = "HostAddress",
    }
}

string_enum! {
    /// Who cleans up connection tracking.
    BpfConntrackMode {
        /// A BPF program where the kernel can.
        #[default]
        Auto = "Auto",
        /// The node agent.
        Userspace = "Userspace",
        /// A BPF program.
        BpfProgram = "BPFProgram",
    }
}

string_enum! {
    /// What to do about hardening of the BPF compiler.
    BpfJitHardening {
        /// Lower it where it costs much.
        #[default]
        Auto = "Auto",
        /// Leave it.
        Strict = "Strict",
    }
}

string_enum! {
    /// When policy is evaluated again for flow logs.
    FlowLogsPolicyEvaluationMode {
        /// Whenever it changes.
        #[default]
        Continuous = "Continuous",
        /// Never after the connection began.
        None = "None",
    }
}

string_enum! {
    /// Where traffic keeps its source address.
    NatOutgoingExclusions {
        /// Towards addresses of pools.
        #[default]
        IpPoolsOnly = "IPPoolsOnly",
        /// Towards addresses of pools and of nodes.
        IpPoolsAndHostIps = "IPPoolsAndHostIPs",
    }
}

string_enum! {
    /// What is asked of clients of the metrics port.
    PrometheusMetricsClientAuth {
        /// A certificate that verifies.
        #[default]
        RequireAndVerifyClientCert = "RequireAndVerifyClientCert",
        /// Any certificate.
        RequireAnyClientCert = "RequireAnyClientCert",
        /// A certificate, if there is one, that verifies.
        VerifyClientCertIfGiven = "VerifyClientCertIfGiven",
        /// Nothing.
        NoClientCert = "NoClientCert",
    }
}

/// How long one part of the agent may stay silent before it counts as dead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HealthTimeoutOverride {
    /// The part.
    pub name: String,
    /// How long.
    pub timeout: GoDuration,
}

/// Route tables that the agent may use; replaced by RouteTableIdRange.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RouteTableRange {
    /// The first.
    pub min: i64,
    /// The last.
    pub max: i64,
}

/// Route tables that the agent may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RouteTableIdRange {
    /// The first.
    pub min: i64,
    /// The last.
    pub max: i64,
}

/// A port that policy never closes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProtoPort {
    /// The protocol, `TCP`, `UDP` or `SCTP` in any case; empty means TCP.
    #[serde(skip_serializing_if = "empty")]
    pub protocol: String,
    /// The port.
    pub port: u16,
    /// Only from or to this prefix; empty means anywhere.
    #[serde(skip_serializing_if = "empty")]
    pub net: IpNetText,
}

/// When connection tracking forgets; each is a duration or `Auto`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BpfConntrackTimeouts {
    /// How long any new entry stays.
    #[serde(skip_serializing_if = "empty")]
    pub creation_grace_period: Option<String>,
    /// After a SYN without an answer.
    #[serde(skip_serializing_if = "empty")]
    pub tcp_syn_sent: Option<String>,
    /// After an idle connection's last packet.
    #[serde(skip_serializing_if = "empty")]
    pub tcp_established: Option<String>,
    /// After an orderly end.
    #[serde(skip_serializing_if = "empty")]
    pub tcp_fins_seen: Option<String>,
    /// After a reset.
    #[serde(skip_serializing_if = "empty")]
    pub tcp_reset_seen: Option<String>,
    /// After the last UDP packet.
    #[serde(skip_serializing_if = "empty")]
    pub udp_timeout: Option<String>,
    /// After the last packet of another protocol.
    #[serde(skip_serializing_if = "empty")]
    pub generic_timeout: Option<String>,
    /// After the last ICMP packet.
    #[serde(skip_serializing_if = "empty")]
    pub icmp_timeout: Option<String>,
}

/// How much the BPF programs log: `Off`, `Info` or `Debug`. Written even when empty, as upstream does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct BpfLogLevel(pub String);

impl crate::empty::Empty for BpfLogLevel {
    fn is_empty_value(&self) -> bool {
        false
    }
}
