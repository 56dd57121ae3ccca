//! IPReservation: addresses that are never given out.

use serde::{Deserialize, Serialize};

use crate::IpNetText;
use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::path::Path;
use crate::resource::resource;

resource! {
    /// Addresses that are never given out on their own.
    IpReservation { spec: IpReservationSpec }
}

/// The specification of an IPReservation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IpReservationSpec {
    /// The prefixes; one address is a /32 or /128.
    #[serde(rename = "reservedCIDRs", skip_serializing_if = "empty")]
    pub reserved_cidrs: Vec<IpNetText>,
}

impl Checked for IpReservation {
    fn check(&self, out: &mut Findings) {
        let IpReservationSpec { reserved_cidrs } = &self.spec;
        let path = Path::root("spec");
        for (i, net) in reserved_cidrs.iter().enumerate() {
            out.prefix(&path.field("reservedCIDRs").index(i), net);
        }
    }
}
