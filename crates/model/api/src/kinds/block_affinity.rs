//! BlockAffinity: a node's claim on a block.

use serde::{Deserialize, Serialize};

use crate::IpNetText;
use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::enums::string_enum;
use crate::path::Path;
use crate::resource::resource;

resource! {
    /// A node's claim on a block.
    BlockAffinity { spec: BlockAffinitySpec }
}

/// The specification of a BlockAffinity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BlockAffinitySpec {
    /// How far the claim has come.
    pub state: BlockAffinityState,
    /// The owner.
    pub node: String,
    /// What the owner is: `host` (also when empty) or `virtual`.
    #[serde(rename = "type", skip_serializing_if = "empty")]
    pub affinity_type: String,
    /// The block.
    pub cidr: IpNetText,
    /// Whether the claim is about to be removed.
    pub deleted: bool,
}

string_enum! {
    /// How far a claim has come.
    BlockAffinityState {
        /// The block is the owner's.
        #[default]
        Confirmed = "confirmed",
        /// The owner wants it; counts as no claim.
        Pending = "pending",
        /// The owner is giving it up.
        PendingDeletion = "pendingDeletion",
        /// Not said; means confirmed.
        Unset = "",
    }
}

impl Checked for BlockAffinity {
    fn check(&self, out: &mut Findings) {
        let BlockAffinitySpec { state: _, node, affinity_type, cidr, deleted } = &self.spec;
        let path = Path::root("spec");
        if node.is_empty() {
            out.wrong(&path.field("node"), "", "the name of the owner");
        }
        out.word(&path.field("type"), affinity_type, &["host", "virtual"]);
        out.net(&path.field("cidr"), cidr);
        if *deleted {
            out.wrong(&path.field("deleted"), true, "false; the flag is for address management itself");
        }
    }
}
