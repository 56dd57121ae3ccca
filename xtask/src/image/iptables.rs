//! iptables and ipset of this machine in the image: with them the agent can filter by iptables (`NFTablesMode: Disabled`),
//! and takes away what another agent left in iptables.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Layer, libraries};

/// Programs and the names that they are called by.
const PROGRAMS: [(&str, &[&str]); 3] =
    [("usr/sbin/ipset", &[]), ("usr/sbin/xtables-legacy-multi", &LEGACY), ("usr/sbin/xtables-nft-multi", &NFT)];
const LEGACY: [&str; 6] = [
    "iptables-legacy",
    "iptables-legacy-save",
    "iptables-legacy-restore",
    "ip6tables-legacy",
    "ip6tables-legacy-save",
    "ip6tables-legacy-restore",
];
const NFT: [&str; 6] = [
    "iptables-nft",
    "iptables-nft-save",
    "iptables-nft-restore",
    "ip6tables-nft",
    "ip6tables-nft-save",
    "ip6tables-nft-restore",
];

/// Matches and targets of the two families.
const EXTENSIONS: [&str; 3] = ["libxt_", "libipt_", "libip6t_"];

/// Adds them; those for which this machine has everything, or none: `false`.
pub(super) fn add(layer: &mut Layer) -> Result<bool> {
    let root = Path::new("/");
    if PROGRAMS.iter().any(|(path, _)| !root.join(path).is_file()) {
        return Ok(false);
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for (path, names) in PROGRAMS {
        let program = root.join(path);
        files.extend(libraries(&program)?);
        layer.new_file(Path::new(path), &program)?;
        let target = Path::new(path).file_name().context("a program has a name")?.to_string_lossy();
        for name in names {
            layer.link(&format!("usr/sbin/{name}"), &target)?;
        }
    }
    let libxtables = files.iter().find(|file| file.to_string_lossy().contains("/libxtables.so"));
    let folder =
        libxtables.and_then(|file| file.parent()).context("xtables-nft-multi has no libxtables")?.join("xtables");
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if EXTENSIONS.iter().any(|start| name.starts_with(start)) {
            files.push(path);
        }
    }
    files.sort();
    files.dedup();
    for file in files {
        layer.library(&file)?;
    }
    Ok(true)
}
