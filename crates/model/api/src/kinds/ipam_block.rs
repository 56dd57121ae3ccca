//! IPAMBlock: a slice of a pool and who holds which address of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::IpNetText;
use crate::Timestamp;
use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::path::Path;
use crate::resource::resource;

resource! {
    /// A slice of a pool and who holds which address of it.
    IpamBlock { spec: IpamBlockSpec }
}

/// The specification of an IPAMBlock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IpamBlockSpec {
    /// The slice.
    pub cidr: IpNetText,
    /// Its owner, `host:NODE` or `virtual:NAME`; none if nobody owns it.
    #[serde(skip_serializing_if = "empty")]
    pub affinity: Option<String>,
    /// When the owner claimed it.
    #[serde(skip_serializing_if = "empty")]
    pub affinity_claim_time: Option<Timestamp>,
    /// For each address, the index of its holder in `attributes`; none if free.
    pub allocations: Vec<Option<usize>>,
    /// Free addresses by position, in the order in which they will be given out.
    pub unallocated: Vec<usize>,
    /// The holders.
    pub attributes: Vec<AllocationAttribute>,
    /// Goes up with every write.
    pub sequence_number: u64,
    /// The block's sequence number when each address was given out, by position.
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// Whether the block is about to be removed.
    pub deleted: bool,
    /// Without meaning; kept for readers of old objects.
    #[serde(rename = "strictAffinity")]
    pub deprecated_strict_affinity: bool,
}

/// The holder of one or more addresses of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AllocationAttribute {
    /// The handle under which they can be released together.
    #[serde(rename = "handle_id", skip_serializing_if = "empty")]
    pub handle_id: Option<String>,
    /// Who it is: pod, namespace, node and the like.
    #[serde(rename = "secondary", skip_serializing_if = "empty")]
    pub active_owner_attrs: BTreeMap<String, String>,
    /// Who takes over next, during the live migration of a virtual machine.
    #[serde(skip_serializing_if = "empty")]
    pub alternate_owner_attrs: BTreeMap<String, String>,
    /// When the address was released, while it cools down.
    #[serde(skip_serializing_if = "empty")]
    pub released_at: Option<Timestamp>,
}

impl Checked for IpamBlock {
    fn check(&self, out: &mut Findings) {
        let path = Path::root("spec");
        out.net(&path.field("cidr"), &self.spec.cidr);
        if let Some(affinity) = &self.spec.affinity
            && !["host:", "virtual:"]
                .iter()
                .any(|kind| affinity.strip_prefix(kind).is_some_and(|owner| !owner.is_empty()))
        {
            out.wrong(&path.field("affinity"), format!("{affinity:?}"), "host:NODE or virtual:NAME");
        }
    }
}
