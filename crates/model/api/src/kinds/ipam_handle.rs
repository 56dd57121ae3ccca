//! IPAMHandle: which blocks hold addresses of one handle.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::{Checked, Findings};
use crate::path::Path;
use crate::resource::resource;

resource! {
    /// Which blocks hold addresses of one handle.
    IpamHandle { spec: IpamHandleSpec }
}

/// The specification of an IPAMHandle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IpamHandleSpec {
    /// The handle.
    #[serde(rename = "handleID")]
    pub handle_id: String,
    /// Addresses held in each block, by the block's prefix.
    pub block: BTreeMap<String, u32>,
    /// Whether the handle is about to be removed.
    pub deleted: bool,
}

impl Checked for IpamHandle {
    fn check(&self, out: &mut Findings) {
        let IpamHandleSpec { handle_id, block, deleted: _ } = &self.spec;
        let path = Path::root("spec");
        if handle_id.is_empty() {
            out.wrong(&path.field("handleID"), "", "a handle");
        }
        for cidr in block.keys() {
            out.net(&path.field("block"), &crate::IpNetText(cidr.clone()));
        }
    }
}
