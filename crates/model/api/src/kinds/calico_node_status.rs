//! CalicoNodeStatus: what a node reports of its agent, BGP sessions and routes.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::enums::string_enum;
use crate::path::Path;
use crate::resource::resource;

resource! {
    /// What a node reports of its agent, BGP sessions and routes.
    CalicoNodeStatus { spec: CalicoNodeStatusSpec, status: CalicoNodeStatusStatus }
}

/// What to report, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CalicoNodeStatusSpec {
    /// The node.
    #[serde(skip_serializing_if = "empty")]
    pub node: String,
    /// What to report.
    #[serde(skip_serializing_if = "empty")]
    pub classes: Vec<NodeStatusClassType>,
    /// Seconds between reports, at most 86400; 0 stops them; none means 10.
    #[serde(skip_serializing_if = "empty")]
    pub update_period_seconds: Option<u32>,
}

/// The report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CalicoNodeStatusStatus {
    /// When it was written.
    pub last_updated: Option<Timestamp>,
    /// The BGP daemons.
    pub agent: CalicoNodeAgentStatus,
    /// The BGP sessions.
    pub bgp: CalicoNodeBgpStatus,
    /// The routes.
    pub routes: CalicoNodeBgpRouteStatus,
}

/// The state of the BGP daemons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CalicoNodeAgentStatus {
    /// For IPv4.
    pub bird_v4: BgpDaemonStatus,
    /// For IPv6.
    pub bird_v6: BgpDaemonStatus,
}

/// The state of the BGP sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CalicoNodeBgpStatus {
    /// Established IPv4 sessions.
    pub number_established_v4: i64,
    /// Other IPv4 sessions.
    pub number_not_established_v4: i64,
    /// Established IPv6 sessions.
    pub number_established_v6: i64,
    /// Other IPv6 sessions.
    pub number_not_established_v6: i64,
    /// The IPv4 sessions.
    #[serde(skip_serializing_if = "empty")]
    pub peers_v4: Vec<CalicoNodePeer>,
    /// The IPv6 sessions.
    #[serde(skip_serializing_if = "empty")]
    pub peers_v6: Vec<CalicoNodePeer>,
}

/// The routes of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CalicoNodeBgpRouteStatus {
    /// IPv4 routes.
    #[serde(skip_serializing_if = "empty")]
    pub routes_v4: Vec<CalicoNodeRoute>,
    /// IPv6 routes.
    #[serde(skip_serializing_if = "empty")]
    pub routes_v6: Vec<CalicoNodeRoute>,
}

/// The state of one BGP daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpDaemonStatus {
    /// Whether it is ready.
    #[serde(skip_serializing_if = "empty")]
    pub state: Option<BgpDaemonState>,
    /// Its version.
    #[serde(skip_serializing_if = "empty")]
    pub version: String,
    /// Its router id.
    #[serde(rename = "routerID", skip_serializing_if = "empty")]
    pub router_id: String,
    /// When it started.
    #[serde(skip_serializing_if = "empty")]
    pub last_boot_time: String,
    /// When its configuration last changed.
    #[serde(skip_serializing_if = "empty")]
    pub last_reconfiguration_time: String,
}

/// One BGP session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CalicoNodePeer {
    /// The neighbour's address.
    #[serde(rename = "peerIP", skip_serializing_if = "empty")]
    pub peer_ip: String,
    /// Why there is a session.
    #[serde(rename = "type", skip_serializing_if = "empty")]
    pub peer_type: Option<BgpPeerType>,
    /// The session's state.
    #[serde(skip_serializing_if = "empty")]
    pub state: Option<BgpSessionState>,
    /// Since when.
    #[serde(skip_serializing_if = "empty")]
    pub since: String,
}

/// One route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CalicoNodeRoute {
    /// Which table it is in.
    #[serde(rename = "type", skip_serializing_if = "empty")]
    pub route_type: Option<CalicoNodeRouteType>,
    /// The destination prefix.
    #[serde(skip_serializing_if = "empty")]
    pub destination: String,
    /// The next hop.
    #[serde(skip_serializing_if = "empty")]
    pub gateway: String,
    /// The interface.
    #[serde(skip_serializing_if = "empty")]
    pub interface: String,
    /// Where it comes from.
    pub learned_from: CalicoNodeRouteLearnedFrom,
}

/// Where a route comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct CalicoNodeRouteLearnedFrom {
    /// The kind of source.
    #[serde(skip_serializing_if = "empty")]
    pub source_type: Option<CalicoNodeRouteSourceType>,
    /// The neighbour that announced it.
    #[serde(rename = "peerIP", skip_serializing_if = "empty")]
    pub peer_ip: String,
}

string_enum! {
    /// Which table a route is in.
    CalicoNodeRouteType {
        /// The kernel's.
        #[default]
        Fib = "FIB",
        /// The BGP daemon's only.
        Rib = "RIB",
    }
}

string_enum! {
    /// Where a route comes from.
    CalicoNodeRouteSourceType {
        /// The kernel.
        #[default]
        Kernel = "Kernel",
        /// Configuration.
        Static = "Static",
        /// An interface of the node.
        Direct = "Direct",
        /// Another node of the mesh.
        NodeMesh = "NodeMesh",
        /// A neighbour that a BGPPeer names.
        BgpPeer = "BGPPeer",
    }
}

string_enum! {
    /// What a node reports.
    NodeStatusClassType {
        /// The BGP daemons.
        #[default]
        Agent = "Agent",
        /// The BGP sessions.
        Bgp = "BGP",
        /// The routes.
        Routes = "Routes",
    }
}

string_enum! {
    /// Why there is a session.
    BgpPeerType {
        /// The mesh of nodes.
        #[default]
        NodeMesh = "NodeMesh",
        /// A BGPPeer for this node.
        NodePeer = "NodePeer",
        /// A BGPPeer for all nodes.
        GlobalPeer = "GlobalPeer",
    }
}

string_enum! {
    /// Whether a BGP daemon is ready.
    BgpDaemonState {
        /// It is.
        #[default]
        Ready = "Ready",
        /// It is not.
        NotReady = "NotReady",
    }
}

string_enum! {
    /// The state of a BGP session (RFC 4271, section 8.2.2).
    BgpSessionState {
        /// Idle.
        #[default]
        Idle = "Idle",
        /// Connect.
        Connect = "Connect",
        /// Active.
        Active = "Active",
        /// OpenSent.
        OpenSent = "OpenSent",
        /// OpenConfirm.
        OpenConfirm = "OpenConfirm",
        /// Established.
        Established = "Established",
        /// Closing.
        Close = "Close",
    }
}

impl Checked for CalicoNodeStatus {
    fn check(&self, out: &mut Findings) {
        let CalicoNodeStatusSpec { node, classes, update_period_seconds } = &self.spec;
        let path = Path::root("spec");
        if node.is_empty() {
            out.wrong(&path.field("node"), "", "the name of a node");
        }
        out.name(&path.field("node"), node);
        if classes.is_empty() {
            out.wrong(&path.field("classes"), "none", "at least one of Agent, BGP, Routes");
        }
        if update_period_seconds.is_none() {
            out.wrong(&path.field("updatePeriodSeconds"), "none", "a number from 0 to 86400; 0 for one report alone");
        }
        out.unique(&path.field("classes"), classes);
        out.range(&path.field("updatePeriodSeconds"), update_period_seconds.map(i64::from), 0, 86_400);
    }
}
