//! IPAMConfiguration: settings of address assignment; the one object is named `default`.

use serde::{Deserialize, Serialize};

use crate::check::{Checked, Findings};
use crate::empty::empty;
use crate::enums::string_enum;
use crate::error::FieldError;
use crate::ipam::{IpamConfig, Newer};
use crate::path::Path;
use crate::resource::resource;

resource! {
    /// Settings of address assignment; the one object is named `default`.
    IpamConfiguration { spec: IpamConfigurationSpec }
}

/// The specification of an IPAMConfiguration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

impl From<&IpamConfigurationSpec> for IpamConfig {
    fn from(spec: &IpamConfigurationSpec) -> IpamConfig {
        let IpamConfigurationSpec {
            strict_affinity,
            max_blocks_per_host,
            auto_allocate_blocks,
            kube_virt_vm_address_persistence,
            ip_cooldown_seconds,
        } = spec;
        IpamConfig {
            strict_affinity: *strict_affinity,
            auto_allocate_blocks: *auto_allocate_blocks,
            max_blocks_per_host: i64::from(*max_blocks_per_host),
            kube_virt_vm_address_persistence: *kube_virt_vm_address_persistence,
            ip_cooldown_seconds: i64::from(*ip_cooldown_seconds),
            newer: Newer::new(),
        }
    }
}

impl TryFrom<&IpamConfig> for IpamConfigurationSpec {
    type Error = FieldError;

    /// The resource's numbers are smaller; one that does not fit is named.
    fn try_from(config: &IpamConfig) -> Result<IpamConfigurationSpec, FieldError> {
        let IpamConfig {
            strict_affinity,
            auto_allocate_blocks,
            max_blocks_per_host,
            kube_virt_vm_address_persistence,
            ip_cooldown_seconds,
            // The resource keeps its own.
            newer: _,
        } = config;
        let small = |path: &str, number: i64| {
            i32::try_from(number).map_err(|_| FieldError {
                path: path.to_owned(),
                value: number.to_string(),
                expected: "a smaller number".to_owned(),
                nearest: None,
            })
        };
        Ok(IpamConfigurationSpec {
            strict_affinity: *strict_affinity,
            max_blocks_per_host: small("maxBlocksPerHost", *max_blocks_per_host)?,
            auto_allocate_blocks: *auto_allocate_blocks,
            kube_virt_vm_address_persistence: *kube_virt_vm_address_persistence,
            ip_cooldown_seconds: small("ipCooldownSeconds", *ip_cooldown_seconds)?,
        })
    }
}

impl Checked for IpamConfiguration {
    fn check(&self, out: &mut Findings) {
        let IpamConfigurationSpec {
            strict_affinity,
            max_blocks_per_host,
            auto_allocate_blocks,
            kube_virt_vm_address_persistence: _,
            ip_cooldown_seconds,
        } = &self.spec;
        let path = Path::root("spec");
        out.range(&path.field("maxBlocksPerHost"), Some(i64::from(*max_blocks_per_host)), 0, 1_000_000);
        out.range(&path.field("ipCooldownSeconds"), Some(i64::from(*ip_cooldown_seconds)), 0, 1200);
        if !strict_affinity && !auto_allocate_blocks {
            out.wrong(&path.field("autoAllocateBlocks"), false, "true, or strictAffinity true");
        }
        if *max_blocks_per_host > 0 && !strict_affinity {
            out.wrong(&path.field("maxBlocksPerHost"), max_blocks_per_host, "0, or strictAffinity true");
        }
    }
}

impl Default for IpamConfigurationSpec {
    /// Blocks are claimed unless the specification says otherwise.
    fn default() -> Self {
        IpamConfigurationSpec {
            strict_affinity: false,
            max_blocks_per_host: 0,
            auto_allocate_blocks: true,
            kube_virt_vm_address_persistence: None,
            ip_cooldown_seconds: 0,
        }
    }
}
