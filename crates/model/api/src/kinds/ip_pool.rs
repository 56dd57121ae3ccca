//! IPPool: a range of addresses from which workloads, tunnels and services get theirs.

use serde::{Deserialize, Serialize};

use crate::Condition;
use crate::IpNetText;
use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::enums::string_enum;
use crate::path::Path;
use crate::resource::resource;
use ipnet::IpNet;
use tortie_net::Family;

resource! {
    /// A range of addresses for workloads, tunnels or load balancers.
    IpPool { spec: IpPoolSpec, status: Option<IpPoolStatus> }
}

/// The specification of an IPPool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Prefix length of the blocks that nodes claim: 20 to 32 (0 means 26), or 116 to 128 (0 means 122); fixed once
    /// created.
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

impl Checked for IpPool {
    fn apply_defaults(&mut self) {
        let spec = &mut self.spec;
        // One spelling of each range, as keys and comparisons of other programs need it.
        if spec.cidr.has_length()
            && let Some(net) = spec.cidr.plain()
        {
            spec.cidr = net.into();
        }
        if let Some(family) = spec.cidr.family()
            && spec.block_size == 0
        {
            spec.block_size = default_block_size(family);
        }
        if spec.node_selector.is_empty() {
            "all()".clone_into(&mut spec.node_selector);
        }
        if spec.allowed_uses.is_empty() {
            spec.allowed_uses = vec![IpPoolAllowedUse::Workload, IpPoolAllowedUse::Tunnel];
        }
        spec.vxlan_mode.get_or_insert(EncapMode::Never);
        spec.ipip_mode.get_or_insert(EncapMode::Never);
        spec.assignment_mode.get_or_insert(AssignmentMode::Automatic);
    }

    fn check(&self, out: &mut Findings) {
        let IpPoolSpec {
            cidr,
            vxlan_mode,
            ipip_mode,
            nat_outgoing: _,
            disabled,
            disable_bgp_export,
            block_size,
            node_selector,
            namespace_selector,
            allowed_uses,
            assignment_mode: _,
        } = &self.spec;
        let path = Path::root("spec");
        range(cidr, *block_size, *disabled, &path, out);
        let vxlan = vxlan_mode.is_some_and(|m| m != EncapMode::Never);
        let ipip = ipip_mode.is_some_and(|m| m != EncapMode::Never);
        if vxlan && ipip {
            out.wrong(&path.field("vxlanMode"), "both ipipMode and vxlanMode", "at most one of them other than Never");
        }
        if ipip && cidr.family() == Some(Family::V6) {
            out.wrong(&path.field("ipipMode"), "IP-in-IP for an IPv6 pool", "Never, or an IPv4 pool");
        }
        out.selector(&path.field("nodeSelector"), node_selector);
        out.selector(&path.field("namespaceSelector"), namespace_selector);
        let uses = path.field("allowedUses");
        out.unique(&uses, allowed_uses);
        if allowed_uses.contains(&IpPoolAllowedUse::Tunnel) && !namespace_selector.is_empty() {
            out.wrong(
                &path.field("namespaceSelector"),
                format!("{namespace_selector:?}"),
                "none in a pool for tunnels",
            );
        }
        if !allowed_uses.contains(&IpPoolAllowedUse::LoadBalancer) {
            return;
        }
        if allowed_uses.iter().any(|u| *u != IpPoolAllowedUse::LoadBalancer) {
            out.wrong(&uses, "LoadBalancer with other uses", "LoadBalancer alone");
        }
        if vxlan || ipip {
            out.wrong(
                &uses,
                "LoadBalancer with encapsulation",
                "ipipMode and vxlanMode Never in a pool for load balancers",
            );
        }
        if *disable_bgp_export {
            out.wrong(&path.field("disableBGPExport"), true, "false in a pool for load balancers");
        }
        if node_selector != "all()" {
            out.wrong(&path.field("nodeSelector"), format!("{node_selector:?}"), "all() in a pool for load balancers");
        }
    }
}

/// The prefix length of blocks where a pool names none.
pub fn default_block_size(family: Family) -> u8 {
    match family {
        Family::V4 => 26,
        Family::V6 => 122,
    }
}

fn range(cidr: &IpNetText, block_size: u8, disabled: bool, path: &Path<'_>, out: &mut Findings) {
    let at = path.field("cidr");
    let Some(net) = cidr.plain().filter(|_| cidr.has_length()) else {
        out.prefix(&at, cidr);
        return;
    };
    if net != net.trunc() {
        out.wrong(&at, cidr, format!("a prefix without host bits, such as {}", net.trunc()));
    }
    let link_local: IpNet = match net {
        IpNet::V4(_) => "169.254.0.0/16".parse().expect("a good prefix"),
        IpNet::V6(_) => "fe80::/10".parse().expect("a good prefix"),
    };
    if link_local.contains(&net.addr()) || net.contains(&link_local.addr()) {
        out.wrong(&at, cidr, format!("a range apart from link-local {link_local}"));
    }
    let (low, high) = match net {
        IpNet::V4(_) => (20, 32),
        IpNet::V6(_) => (116, 128),
    };
    let size = if block_size == 0 { default_block_size(Family::of_net(net)) } else { block_size };
    if !(low..=high).contains(&size) {
        out.wrong(&path.field("blockSize"), size, format!("{low} to {high} for this family"));
    } else if !disabled && net.prefix_len() > size {
        out.wrong(&at, cidr, format!("a pool not smaller than one block (/{size})"));
    }
}
