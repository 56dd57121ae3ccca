//! BGPFilter: which routes pass to and from a neighbour.

use serde::{Deserialize, Serialize};
use tortie_net::AsNumber;

use crate::IpNetText;
use crate::asn;
use crate::empty::empty;
use crate::enums::string_enum;
use crate::resource::resource;

resource! {
    /// Which routes pass to and from a neighbour.
    BgpFilter { spec: BgpFilterSpec }
}

/// The specification of a BGPFilter; in each list the first rule that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpFilterSpec {
    /// Rules for IPv4 routes that are announced.
    #[serde(skip_serializing_if = "empty")]
    pub export_v4: Vec<BgpFilterRule>,
    /// Rules for IPv4 routes that are received.
    #[serde(skip_serializing_if = "empty")]
    pub import_v4: Vec<BgpFilterRule>,
    /// Rules for IPv6 routes that are announced.
    #[serde(skip_serializing_if = "empty")]
    pub export_v6: Vec<BgpFilterRule>,
    /// Rules for IPv6 routes that are received.
    #[serde(skip_serializing_if = "empty")]
    pub import_v6: Vec<BgpFilterRule>,
}

/// A rule for routes; every match that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpFilterRule {
    /// Compared with the route's prefix by `matchOperator`.
    #[serde(default, skip_serializing_if = "empty")]
    pub cidr: IpNetText,
    /// The route's prefix length; needs `cidr`.
    #[serde(default, skip_serializing_if = "empty")]
    pub prefix_length: Option<BgpFilterPrefixLength>,
    /// Where the route comes from.
    #[serde(default, skip_serializing_if = "empty")]
    pub source: Option<BgpFilterMatchSource>,
    /// The route's interface; `*` is a wildcard.
    #[serde(default, skip_serializing_if = "empty")]
    pub interface: String,
    /// How `cidr` is compared; both or neither.
    #[serde(default, skip_serializing_if = "empty")]
    pub match_operator: Option<BgpFilterMatchOperator>,
    /// The kind of neighbour.
    #[serde(default, skip_serializing_if = "empty")]
    pub peer_type: Option<BgpFilterPeerType>,
    /// The route carries this community.
    #[serde(default, skip_serializing_if = "empty")]
    pub communities: Option<BgpFilterCommunityMatch>,
    /// How the route's AS path begins.
    #[serde(default, skip_serializing_if = "empty", deserialize_with = "asn::list")]
    pub as_path_prefix: Vec<AsNumber>,
    /// The route's metric.
    #[serde(default, skip_serializing_if = "empty")]
    pub priority: Option<i64>,
    /// Whether the route passes.
    pub action: BgpFilterAction,
    /// Changes to a route that passes.
    #[serde(default, skip_serializing_if = "empty")]
    pub operations: Vec<BgpFilterOperation>,
}

/// A range of prefix lengths.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpFilterPrefixLength {
    /// The shortest.
    #[serde(skip_serializing_if = "empty")]
    pub min: Option<i32>,
    /// The longest.
    #[serde(skip_serializing_if = "empty")]
    pub max: Option<i32>,
}

string_enum! {
    /// Where a route comes from.
    BgpFilterMatchSource {
        /// From a BGP neighbour.
        #[default]
        RemotePeers = "RemotePeers",
    }
}

string_enum! {
    /// How prefixes are compared.
    BgpFilterMatchOperator {
        /// The same prefix.
        #[default]
        Equal = "Equal",
        /// Another prefix.
        NotEqual = "NotEqual",
        /// The same prefix or one within it.
        In = "In",
        /// Any other prefix.
        NotIn = "NotIn",
    }
}

string_enum! {
    /// Whether a route passes.
    BgpFilterAction {
        /// It does not.
        #[default]
        Reject = "Reject",
        /// It does.
        Accept = "Accept",
    }
}

string_enum! {
    /// The kind of neighbour.
    BgpFilterPeerType {
        /// Of another AS.
        #[default]
        Ebgp = "eBGP",
        /// Of the own AS.
        Ibgp = "iBGP",
    }
}

/// A match of communities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpFilterCommunityMatch {
    /// Exactly one community.
    pub values: Vec<String>,
}

/// One change to a route; exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpFilterOperation {
    /// Attach a community.
    #[serde(skip_serializing_if = "empty")]
    pub add_community: Option<BgpFilterAddCommunity>,
    /// Lengthen the AS path.
    #[serde(rename = "prependASPath", skip_serializing_if = "empty")]
    pub prepend_as_path: Option<BgpFilterPrependAsPath>,
    /// Set the metric.
    #[serde(skip_serializing_if = "empty")]
    pub set_priority: Option<BgpFilterSetPriority>,
}

/// Attaches a community.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpFilterAddCommunity {
    /// The community.
    pub value: Option<String>,
}

/// Lengthens the AS path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpFilterPrependAsPath {
    /// AS numbers to put in front, 1 to 10.
    #[serde(default, deserialize_with = "asn::list")]
    pub prefix: Vec<AsNumber>,
}

/// Sets the metric.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpFilterSetPriority {
    /// 1 to 2147483646.
    pub value: Option<i64>,
}
