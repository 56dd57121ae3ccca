//! etcd's certificates, from the Secret to the host, for programs there.

use std::fs::{self, File};

use anyhow::{Context, Result};

use crate::{Settings, atomic};

/// The files of the Secret.
pub(crate) const FILES: [&str; 3] = ["etcd-ca", "etcd-cert", "etcd-key"];

/// The folder beside the configuration.
pub(crate) const FOLDER: &str = "calico-tls";

/// Copies what is there; what an earlier installation left and is no more goes.
pub(crate) fn install(settings: &Settings) -> Result<()> {
    let folder = settings.net_dir.join(FOLDER);
    let there: Vec<&str> = FILES.into_iter().filter(|name| settings.secrets_dir.join(name).is_file()).collect();
    for name in FILES.iter().filter(|name| !there.contains(name)) {
        let _ = fs::remove_file(folder.join(name));
    }
    if there.is_empty() {
        let _ = fs::remove_dir(&folder);
        return Ok(());
    }
    fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
    for name in there {
        let from = settings.secrets_dir.join(name);
        let file = File::open(&from).with_context(|| format!("{} can't be read", from.display()))?;
        atomic::write(&folder.join(name), 0o600, file)?;
    }
    Ok(())
}
