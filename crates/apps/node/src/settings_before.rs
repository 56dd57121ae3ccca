//! The host's own network settings as they were before the node changed them, so that `clean` can put them back.
//!
//! Invariant: what was kept first stays: a second start finds the node's own values, not the host's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tortie_netlink::{sysctl_path, sysctl_read, sysctl_write_if_different};

/// Settings that change others when they are written, so these are put back first.
const MASTERS: [&str; 2] = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];

/// Settings that change by themselves, and what they become: WireGuard's, the second one by the kernel's own device.
const SINGLE: [(&str, &str); 2] = [("ipv4/conf/all/src_valid_mark", "1"), ("ipv4/conf/all/send_redirects", "0")];

/// Where they are kept: beside the node's name.
pub fn file(node_name_file: &Path) -> PathBuf {
    node_name_file.with_file_name("settings-before.json")
}

type Settings = BTreeMap<String, String>;

/// Keeps what the node will change, most of it by turning forwarding on. Call before it is turned on.
pub fn keep(file: &Path) -> Result<()> {
    let off = |master: &&&str| read(master).is_some_and(|value| value == "0");
    let mut all = kept(file)?;
    let before = all.clone();
    for master in MASTERS.iter().filter(off) {
        let family = master.split('/').next().unwrap_or_default();
        for name in touched(family, master) {
            if let Some(value) = read(&name) {
                all.entry(name).or_insert(value);
            }
        }
    }
    for (name, becomes) in SINGLE {
        if let Some(value) = read(name).filter(|value| value != becomes) {
            all.entry(name.to_owned()).or_insert(value);
        }
    }
    if all == before {
        return Ok(());
    }
    file.parent().map_or(Ok(()), fs::create_dir_all)?;
    let text = serde_json::to_string_pretty(&all)?;
    fs::write(file, text).with_context(|| format!("can't keep this host's settings in {}", file.display()))
}

/// What is kept; empty if nothing is.
pub fn kept(file: &Path) -> Result<Settings> {
    match fs::read_to_string(file) {
        Ok(text) => {
            let what = || format!("{}: expected settings and their values as JSON", file.display());
            serde_json::from_str(&text).with_context(what)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Settings::new()),
        Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
    }
}

/// Puts a setting back, those of [`MASTERS`] first; an interface that is gone needs none. What was changed.
pub fn put_back(settings: &Settings) -> Result<Vec<String>> {
    let masters = settings.iter().filter(|(name, _)| MASTERS.contains(&&***name));
    let others = settings.iter().filter(|(name, _)| !MASTERS.contains(&&***name));
    let mut changed = Vec::new();
    for (name, value) in masters.chain(others) {
        let parts: Vec<&str> = name.split('/').collect();
        match sysctl_write_if_different(&parts, value) {
            Ok(true) => changed.push(format!("{name}={value}")),
            Ok(false) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error).with_context(|| format!("can't put {name} back to {value}")),
        }
    }
    Ok(changed)
}

fn read(name: &str) -> Option<String> {
    sysctl_read(&name.split('/').collect::<Vec<_>>()).ok()
}

/// The settings that change with a master: forwarding of each interface, and whether redirects are believed.
fn touched(family: &str, master: &str) -> Vec<String> {
    let mut names = vec![master.to_owned(), format!("{family}/conf/all/accept_redirects")];
    let interfaces = fs::read_dir(sysctl_path(&[family, "conf"])).into_iter().flatten().flatten();
    let interfaces = interfaces.filter_map(|entry| entry.file_name().into_string().ok());
    names.extend(interfaces.map(|interface| format!("{family}/conf/{interface}/forwarding")));
    names
}
