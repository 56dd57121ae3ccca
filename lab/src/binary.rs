//! Which `tortie` binary the lab runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Names of the binary that programs of the lab find in their `PATH`.
pub(crate) const NAMES: [&str; 6] = ["tortie", "calicoctl", "calico", "calico-ipam", "calico-node", "calico-felix"];

/// `TORTIE_BIN`, or this program if it is the binary itself, or `tortie` beside this program or in the folder above,
/// which is where it is for a test.
pub fn find() -> Result<PathBuf> {
    if let Some(set) = std::env::var_os("TORTIE_BIN").filter(|set| !set.is_empty()) {
        let path = PathBuf::from(set);
        return path.canonicalize().with_context(|| format!("TORTIE_BIN={}", path.display()));
    }
    let me = std::env::current_exe().context("find this program")?;
    let named = |path: &Path| path.file_name().is_some_and(|name| NAMES.iter().any(|known| name == *known));
    if named(&me) {
        return Ok(me);
    }
    let beside = me.ancestors().skip(1).take(2).map(|folder| folder.join("tortie"));
    match beside.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!(
            "no `tortie` binary beside {}: build it with `cargo build --package tortie`, or set TORTIE_BIN",
            me.display()
        ),
    }
}
