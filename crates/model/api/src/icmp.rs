//! The ICMP match of a rule.

use serde::{Deserialize, Serialize};

use crate::empty::empty;

/// An ICMP type and, within it, a code.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IcmpFields {
    /// 0 to 254; 8 is an IPv4 echo request.
    #[serde(rename = "type", skip_serializing_if = "empty")]
    pub icmp_type: Option<u8>,
    /// 0 to 255; only together with a type.
    #[serde(skip_serializing_if = "empty")]
    pub code: Option<u8>,
}
