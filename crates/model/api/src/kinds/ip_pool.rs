//! IPPool: a range of addresses from which workloads, tunnels and services get theirs.

use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::IpNetText;
use crate::empty::empty;
use crate::enums::string_enum;
use crate::resource::resource;

resource! {
    /// A range of addresses for workloads, tunnels or load balancers.
    IpPool { spec: IpPoolSpec, status: Option<IpPoolStatus> }
}

/// The specification of an IPPool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IpPoolSpec {
    /// The range; fixed once created.
    pub cidr: IpNetText,
    /// When packets to other nodes' pods of this pool go in VXLAN; none means never.
    #[serde(skip_serializing_if = "empty")]
    pub vxlan_mode: Option<EncapMode>,
    /// When they go in IP-in-IP (IPv4 only); none means never.
    #[serde(skip_serializing_if = "empty")]
    pub ipip_mode: Option<EncapMode>,
    /// Whether traffic that leaves the pools takes on the node's address.
    #[serde(skip_serializing_if = "empty")]
    pub nat_outgoing: bool,
    /// Whether new addresses are refused.
    #[serde(skip_serializing_if = "empty")]
    pub disabled: bool,
    /// Whether BGP keeps quiet about the pool.
    #[serde(rename = "disableBGPExport", skip_serializing_if = "empty")]
    pub disable_bgp_export: bool,
    /// Prefix length of the blocks that nodes claim: 20 to 32 (0 means 26), or 116 to 128 (0 means 122); fixed once created.
    #[serde(skip_serializing_if = "empty")]
    pub block_size: u8,
    /// Nodes that may use the pool.
    #[serde(skip_serializing_if = "empty")]
    pub node_selector: String,
    /// Namespaces whose pods may use the pool; empty means all.
    #[serde(skip_serializing_if = "empty")]
    pub namespace_selector: String,
    /// What the addresses may be for.
    #[serde(skip_serializing_if = "empty")]
    pub allowed_uses: Vec<IpPoolAllowedUse>,
    /// Whether addresses are given out without being asked for by pool; none means `Automatic`.
    #[serde(skip_serializing_if = "empty")]
    pub assignment_mode: Option<AssignmentMode>,
}

/// What a controller observed of an IPPool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IpPoolStatus {
    /// Conditions by type, such as `Allocatable`.
    #[serde(skip_serializing_if = "empty")]
    pub conditions: Vec<Condition>,
}

string_enum! {
    /// When packets between nodes are encapsulated.
    EncapMode {
        /// Never.
        #[default]
        Never = "Never",
        /// Always.
        Always = "Always",
        /// Between nodes in different subnets only.
        CrossSubnet = "CrossSubnet",
    }
}

string_enum! {
    /// What the addresses of a pool may be for.
    IpPoolAllowedUse {
        /// Pods and other workloads.
        #[default]
        Workload = "Workload",
        /// Tunnel devices of nodes.
        Tunnel = "Tunnel",
        /// Services; excludes the other two.
        LoadBalancer = "LoadBalancer",
    }
}

string_enum! {
    /// Whether a pool is used without being asked for.
    AssignmentMode {
        /// For any workload that the selectors allow.
        #[default]
        Automatic = "Automatic",
        /// Only where a workload asks for it by name.
        Manual = "Manual",
    }
}
