//! BGPFilter: which routes pass to and from a neighbour.

use serde::{Deserialize, Serialize};
use tortie_net::AsNumber;

use crate::IpNetText;
use crate::asn;
use crate::check::{Checked, Findings};
use crate::community;
use crate::empty::empty;
use crate::enums::string_enum;
use crate::path::Path;
use crate::resource::resource;
use tortie_net::Family;

resource! {
    /// Which routes pass to and from a neighbour.
    BgpFilter { spec: BgpFilterSpec }
}

/// The specification of a BGPFilter; in each list the first rule that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    #[cfg_attr(feature = "schema", schemars(with = "Vec<u32>"))]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpFilterCommunityMatch {
    /// Exactly one community.
    pub values: Vec<String>,
}

/// One change to a route; exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpFilterAddCommunity {
    /// The community.
    pub value: Option<String>,
}

/// Lengthens the AS path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpFilterPrependAsPath {
    /// AS numbers to put in front, 1 to 10.
    #[serde(default, deserialize_with = "asn::list")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<u32>"))]
    pub prefix: Vec<AsNumber>,
}

/// Sets the metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BgpFilterSetPriority {
    /// 1 to 2147483646.
    pub value: Option<i64>,
}

impl Checked for BgpFilter {
    fn check(&self, out: &mut Findings) {
        let BgpFilterSpec { export_v4, import_v4, export_v6, import_v6 } = &self.spec;
        let path = Path::root("spec");
        let lists = [
            ("exportV4", export_v4, Family::V4),
            ("importV4", import_v4, Family::V4),
            ("exportV6", export_v6, Family::V6),
            ("importV6", import_v6, Family::V6),
        ];
        for (name, rules, family) in lists {
            let path = path.field(name);
            for (i, rule) in rules.iter().enumerate() {
                check_rule(rule, family, &path.index(i), out);
            }
        }
    }
}

fn check_rule(rule: &BgpFilterRule, family: Family, path: &Path<'_>, out: &mut Findings) {
    let BgpFilterRule {
        cidr,
        prefix_length,
        source: _,
        interface,
        match_operator,
        peer_type: _,
        communities,
        as_path_prefix: _,
        priority,
        action,
        operations,
    } = rule;
    if !cidr.is_empty() {
        out.masked(&path.field("cidr"), cidr, Some(family));
    }
    if cidr.is_empty() != match_operator.is_none() {
        out.wrong(&path.field("matchOperator"), "", "cidr and matchOperator together, or neither");
    }
    if let Some(BgpFilterPrefixLength { min, max }) = prefix_length {
        let at = path.field("prefixLength");
        if cidr.is_empty() {
            out.wrong(&at, "", "cidr together with prefixLength");
        }
        let bits = i64::from(family.bits());
        out.range(&at.field("min"), min.map(i64::from), 0, bits);
        out.range(&at.field("max"), max.map(i64::from), 0, bits);
    }
    out.interface(&path.field("interface"), interface, "*");
    if let Some(BgpFilterCommunityMatch { values }) = communities {
        let at = path.field("communities");
        if values.len() != 1 {
            out.wrong(&at.field("values"), format!("{} values", values.len()), "exactly one community");
        }
        for (i, value) in values.iter().enumerate() {
            check_community(value, &at.field("values").index(i), out);
        }
    }
    out.range(&path.field("priority"), *priority, 1, 2_147_483_646);
    let at = path.field("operations");
    out.at_most(&at, operations, 10);
    if !operations.is_empty() && *action != BgpFilterAction::Accept {
        out.wrong(&at, format!("operations with action {action}"), "action Accept together with operations");
    }
    for (i, operation) in operations.iter().enumerate() {
        check_operation(operation, &at.index(i), out);
    }
}

fn check_operation(operation: &BgpFilterOperation, path: &Path<'_>, out: &mut Findings) {
    let BgpFilterOperation { add_community, prepend_as_path, set_priority } = operation;
    let given = [add_community.is_some(), prepend_as_path.is_some(), set_priority.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        out.wrong(path, "", "exactly one of addCommunity, prependASPath and setPriority");
    }
    if let Some(BgpFilterAddCommunity { value }) = add_community {
        check_community(value.as_deref().unwrap_or(""), &path.field("addCommunity").field("value"), out);
    }
    if let Some(BgpFilterPrependAsPath { prefix }) = prepend_as_path
        && !(1..=10).contains(&prefix.len())
    {
        out.wrong(
            &path.field("prependASPath").field("prefix"),
            format!("{} numbers", prefix.len()),
            "1 to 10 AS numbers",
        );
    }
    if let Some(BgpFilterSetPriority { value }) = set_priority {
        out.range(&path.field("setPriority").field("value"), Some(value.unwrap_or(0)), 1, 2_147_483_646);
    }
}

fn check_community(value: &str, path: &Path<'_>, out: &mut Findings) {
    if !community::is_value(value) {
        out.wrong(path, format!("{value:?}"), community::EXPECTED);
    }
}
