//! `calicoctl ipam configure`.

use anyhow::Result;
use tortie_api::VmAddressPersistence;

use crate::cli::Persistence;
use crate::session::Session;
use crate::write;

/// What to change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) strict_affinity: Option<bool>,
    pub(super) max_blocks_per_host: Option<i64>,
    pub(super) persistence: Option<Persistence>,
    pub(super) cooldown_secs: Option<i64>,
}

pub(super) fn configure(session: &mut Session<'_, '_>, change: Change) -> Result<()> {
    let Change { strict_affinity, max_blocks_per_host, persistence, cooldown_secs } = change;
    let persistence = persistence.map(|choice| match choice {
        Persistence::Enabled => VmAddressPersistence::Enabled,
        Persistence::Disabled => VmAddressPersistence::Disabled,
    });
    let store = session.store()?;
    write::configure(&*store, |config| {
        if let Some(strict) = strict_affinity {
            config.strict_affinity = strict;
        }
        if let Some(most) = max_blocks_per_host {
            config.max_blocks_per_host = most;
        }
        if let Some(seconds) = cooldown_secs {
            config.ip_cooldown_seconds = seconds;
        }
        if persistence.is_some() {
            config.kube_virt_vm_address_persistence = persistence;
        }
    })?;
    for (name, value) in [
        ("StrictAffinity", strict_affinity.map(|value| value.to_string())),
        ("MaxBlocksPerHost", max_blocks_per_host.map(|value| value.to_string())),
        ("KubeVirtVMAddressPersistence", persistence.map(|value| value.to_string())),
        ("IPCooldownSeconds", cooldown_secs.map(|value| value.to_string())),
    ] {
        if let Some(value) = value {
            session.say(&format!("Successfully set {name} to: {value}\n"))?;
        }
    }
    Ok(())
}
