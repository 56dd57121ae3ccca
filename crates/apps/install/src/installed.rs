//! What an installation put on the host, so that it can be taken away again.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::binaries::OWN;
use crate::{Settings, secrets};

/// A word that every version of this program holds, and no other program.
const MARK: &[u8] = b"TORTIE_STATE_DIR";

/// Files and folders of an installation that are there, the configuration first, so that no runtime calls plugins that
/// are gone. Nothing where the plugins are another program's.
pub fn installed(settings: &Settings) -> Vec<PathBuf> {
    let Settings {
        bin_dirs,
        net_dir,
        conf_name,
        old_conf_name,
        host_net_dir: _,
        secrets_dir: _,
        extra_plugins: _,
        program: _,
        service_account: _,
        template: _,
        skip: _,
        update: _,
        sleep: _,
        vars: _,
    } = settings;
    let plugins: Vec<PathBuf> = bin_dirs.iter().flat_map(|folder| OWN.map(|name| folder.join(name))).collect();
    let there: Vec<PathBuf> = plugins.into_iter().filter(|path| path.is_file()).collect();
    if there.iter().any(|path| !is_ours(path)) {
        return Vec::new();
    }
    let mut names = vec![conf_name];
    if old_conf_name != conf_name {
        names.push(old_conf_name);
    }
    let configurations = names.into_iter().map(|name| net_dir.join(name)).filter(|path| names_us(path));
    let credentials = ["calico-kubeconfig", secrets::FOLDER].map(|name| net_dir.join(name));
    configurations.chain(credentials.into_iter().filter(|path| path.exists())).chain(there).collect()
}

/// Whether a program is this one, of whatever version.
fn is_ours(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.windows(MARK.len()).any(|part| part == MARK))
}

/// Whether a network configuration calls our plugin.
fn names_us(path: &Path) -> bool {
    let value: Value = fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let whole = [value.clone()];
    let plugins = value.get("plugins").and_then(Value::as_array).map_or(&whole[..], Vec::as_slice);
    plugins.iter().any(|plugin| plugin.get("type").and_then(Value::as_str) == Some(OWN[0]))
}
