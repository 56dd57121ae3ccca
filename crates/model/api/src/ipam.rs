//! Address blocks, claims and handles as the etcd-shaped stores keep them, in upstream's exact JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::empty::empty;
use crate::kinds::VmAddressPersistence;
use crate::{IpNetText, Timestamp};

/// Members of a stored object that this version does not know, by name.
pub type Newer = BTreeMap<String, serde_json::Value>;

/// A slice of a pool and who holds which address of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The slice.
    pub cidr: IpNetText,
    /// Its owner, `host:NODE` or `virtual:NAME`.
    #[serde(default)]
    pub affinity: Option<String>,
    /// When the owner claimed it.
    #[serde(default, skip_serializing_if = "empty")]
    pub affinity_claim_time: Option<Timestamp>,
    /// For each address, the index of its holder in `attributes`; none if it is free.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub allocations: Vec<Option<usize>>,
    /// Free addresses by position, in the order in which they will be given out.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub unallocated: Vec<usize>,
    /// The holders.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub attributes: Vec<Attribute>,
    /// Goes up with every write.
    #[serde(default, rename = "sequenceNumber")]
    pub sequence_number: u64,
    /// The block's sequence number when each address was given out, by position.
    #[serde(default, rename = "sequenceNumberForAllocation", deserialize_with = "null_is_empty")]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// Whether the block is about to be removed.
    #[serde(default)]
    pub deleted: bool,
    /// The owner as very old versions wrote it: a node's name.
    #[serde(default, rename = "hostAffinity", skip_serializing_if = "empty")]
    pub host_affinity: Option<String>,
    /// What only newer versions know: it stays when this one writes the value back.
    #[serde(flatten)]
    pub newer: Newer,
}

/// The holder of one or more addresses of a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// The handle under which they can be released together.
    #[serde(default, skip_serializing_if = "empty")]
    pub handle_id: Option<String>,
    /// Who it is: pod, namespace, node and the like.
    #[serde(default, skip_serializing_if = "empty", deserialize_with = "null_is_empty")]
    pub secondary: BTreeMap<String, String>,
    /// Who takes over next, during the live migration of a virtual machine.
    #[serde(
        default,
        rename = "alternateOwnerAttrs",
        skip_serializing_if = "empty",
        deserialize_with = "null_is_empty"
    )]
    pub alternate_owner_attrs: BTreeMap<String, String>,
    /// When the address was released, while it cools down.
    #[serde(default, rename = "releasedAt", skip_serializing_if = "empty")]
    pub released_at: Option<Timestamp>,
    /// What only newer versions know: it stays when this one writes the value back.
    #[serde(flatten)]
    pub newer: Newer,
}

/// A node's claim on a block. Stores of old versions hold an empty value, which [`Affinity::from_json`] reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affinity {
    /// How far the claim has come.
    #[serde(default)]
    pub state: AffinityState,
    /// Whether the claim is about to be removed.
    #[serde(default)]
    pub deleted: bool,
    /// What only newer versions know: it stays when this one writes the value back.
    #[serde(flatten)]
    pub newer: Newer,
}

impl Affinity {
    /// Reads a stored value; an empty one is a confirmed claim of an old version.
    pub fn from_json(text: &str) -> Result<Affinity, serde_json::Error> {
        if text.is_empty() { Ok(Affinity::default()) } else { serde_json::from_str(text) }
    }
}

/// How far a claim has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AffinityState {
    /// The block is the owner's; also what no state at all means.
    #[default]
    #[serde(rename = "confirmed", alias = "")]
    Confirmed,
    /// The owner wants it; counts as no claim.
    #[serde(rename = "pending")]
    Pending,
    /// The owner is giving it up.
    #[serde(rename = "pendingDeletion")]
    PendingDeletion,
}

/// Which blocks hold addresses of one handle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Addresses held in each block, by the block's prefix.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub block: BTreeMap<String, u32>,
    /// Whether the handle is about to be removed.
    #[serde(default)]
    pub deleted: bool,
    /// What only newer versions know: it stays when this one writes the value back.
    #[serde(flatten)]
    pub newer: Newer,
}

/// Settings of address assignment, as the etcd-shaped stores keep them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamConfig {
    /// Whether a node may use addresses of its own blocks only.
    #[serde(default, skip_serializing_if = "empty")]
    pub strict_affinity: bool,
    /// Whether nodes may claim blocks.
    #[serde(default, skip_serializing_if = "empty")]
    pub auto_allocate_blocks: bool,
    /// Most blocks that a node may own; 0 means 20.
    #[serde(default, rename = "maxBlocksPerHost", skip_serializing_if = "empty")]
    pub max_blocks_per_host: i64,
    /// Whether a virtual machine keeps its address; none means it does.
    #[serde(default, rename = "kubeVirtVMAddressPersistence", skip_serializing_if = "empty")]
    pub kube_virt_vm_address_persistence: Option<VmAddressPersistence>,
    /// Seconds for which a released address is not given out again.
    #[serde(default, rename = "ipCooldownSeconds", skip_serializing_if = "empty")]
    pub ip_cooldown_seconds: i64,
    /// What only newer versions know: it stays when this one writes the value back.
    #[serde(flatten)]
    pub newer: Newer,
}

/// Go writes a nil list or map as null.
fn null_is_empty<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go_json;

    #[test]
    fn blocks_are_written_as_upstream_writes_them() {
        let text = r#"{"cidr":"10.0.0.0/30","affinity":"host:node-1","affinity_claim_time":"2026-01-02T03:04:05Z","allocations":[0,null,1,null],"unallocated":[3,1],"attributes":[{"handle_id":"k8s-pod-network.abc","secondary":{"namespace":"default","node":"node-1","pod":"web"}},{"handle_id":"h","alternateOwnerAttrs":{"a":"b"},"releasedAt":"2026-01-02T03:04:06Z"}],"sequenceNumber":1700000000000000003,"sequenceNumberForAllocation":{"0":1700000000000000001,"2":1700000000000000002},"deleted":false}"#;
        let block: Block = serde_json::from_str(text).expect("good");
        assert_eq!(block.attributes[1].alternate_owner_attrs["a"], "b");
        assert_eq!(go_json(&block), text);
    }

    #[test]
    fn what_old_versions_left_out_is_taken() {
        let text = r#"{"cidr":"10.0.0.0/31","affinity":null,"allocations":null,"unallocated":[0,1],"attributes":null,"hostAffinity":"n","strictAffinity":false}"#;
        let block: Block = serde_json::from_str(text).expect("good");
        assert_eq!((block.affinity, block.allocations.len(), block.host_affinity.as_deref()), (None, 0, Some("n")));
        for text in ["", "{}", r#"{"state":""}"#, r#"{"state":"confirmed","deleted":false}"#] {
            assert_eq!(Affinity::from_json(text).expect(text), Affinity::default(), "{text}");
        }
        assert_eq!(
            go_json(&Affinity { state: AffinityState::PendingDeletion, deleted: true, newer: Newer::new() }),
            r#"{"state":"pendingDeletion","deleted":true}"#
        );
        assert!(Affinity::from_json(r#"{"state":"maybe"}"#).is_err());
    }

    #[test]
    fn what_newer_versions_wrote_stays() {
        fn stays<T: Serialize + serde::de::DeserializeOwned>(text: &str) {
            assert_eq!(go_json(&serde_json::from_str::<T>(text).expect("good")), text);
        }
        stays::<Block>(
            r#"{"cidr":"10.0.0.0/31","affinity":null,"allocations":[0,null],"unallocated":[1],"attributes":[{"handle_id":"h","new":[1.5]}],"sequenceNumber":18446744073709551615,"sequenceNumberForAllocation":{},"deleted":false,"new":{"a":null}}"#,
        );
        stays::<Affinity>(r#"{"state":"pending","deleted":false,"new":"x"}"#);
        stays::<Handle>(r#"{"block":{"10.0.0.0/26":2},"deleted":false,"new":true}"#);
        stays::<IpamConfig>(r#"{"strict_affinity":true,"new":1}"#);
    }

    #[test]
    fn handles_and_settings_are_written_as_upstream_writes_them() {
        let handle = r#"{"block":{"10.0.0.0/26":2},"deleted":false}"#;
        assert_eq!(go_json(&serde_json::from_str::<Handle>(handle).expect("good")), handle);
        assert_eq!(go_json(&IpamConfig::default()), "{}");
        let config = r#"{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":4,"kubeVirtVMAddressPersistence":"Disabled","ipCooldownSeconds":30}"#;
        assert_eq!(go_json(&serde_json::from_str::<IpamConfig>(config).expect("good")), config);
    }
}
