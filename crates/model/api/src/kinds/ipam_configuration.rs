//! IPAMConfiguration: settings of address assignment; the one object is named `default`.

use serde::{Deserialize, Serialize};

use crate::empty::empty;
use crate::enums::string_enum;
use crate::resource::resource;

resource! {
    /// Settings of address assignment; the one object is named `default`.
    IpamConfiguration { spec: IpamConfigurationSpec }
}

/// The specification of an IPAMConfiguration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct IpamConfigurationSpec {
    /// Whether a node may use addresses of its own blocks only.
    pub strict_affinity: bool,
    /// Most blocks that a node may own; 0 means 20.
    #[serde(skip_serializing_if = "empty")]
    pub max_blocks_per_host: i32,
    /// Whether nodes may claim blocks.
    pub auto_allocate_blocks: bool,
    /// Whether a virtual machine keeps its address over restarts; none means `Enabled`.
    #[serde(rename = "kubeVirtVMAddressPersistence", skip_serializing_if = "empty")]
    pub kube_virt_vm_address_persistence: Option<VmAddressPersistence>,
    /// Seconds for which a released address is not given out again, at most 1200.
    #[serde(skip_serializing_if = "empty")]
    pub ip_cooldown_seconds: i32,
}

string_enum! {
    /// Whether a virtual machine keeps its address.
    VmAddressPersistence {
        /// It does.
        #[default]
        Enabled = "Enabled",
        /// It does not.
        Disabled = "Disabled",
    }
}
