//! Files that are there as a whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Writes a file beside its place and moves it there. A runtime that watches the folder never sees a half.
pub(crate) fn write(path: &Path, mode: u32, mut content: impl Read) -> Result<()> {
    let beside = beside(path)?;
    let written = (|| -> io::Result<()> {
        let mut file = File::create(&beside)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        io::copy(&mut content, &mut file)?;
        file.flush()?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    written.inspect_err(|_| drop(fs::remove_file(&beside))).map_err(|error| explain(path, &error))
}

/// A second name for a file, in place of whatever has that name.
pub(crate) fn link(existing: &Path, path: &Path) -> Result<()> {
    let beside = beside(path)?;
    let _ = fs::remove_file(&beside);
    let linked = fs::hard_link(existing, &beside).and_then(|()| fs::rename(&beside, path));
    // Renaming one name of a file onto another of the same file leaves both.
    let _ = fs::remove_file(&beside);
    linked.map_err(|error| explain(path, &error))
}

/// Whether a file can be made in a folder; why not, in words.
pub(crate) fn check_folder(folder: &Path, host: &str) -> Result<()> {
    match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{} does not exist: mount the host's {host} there", folder.display())
        }
        Err(error) => return Err(explain(folder, &error)),
        Ok(meta) if !meta.is_dir() => bail!("{} is no folder: mount the host's {host} there", folder.display()),
        Ok(_) => {}
    }
    let probe = folder.join(".tortie-probe.tmp");
    File::create(&probe).map_err(|error| explain(folder, &error))?;
    fs::remove_file(&probe).with_context(|| probe.display().to_string())
}

fn explain(path: &Path, error: &io::Error) -> anyhow::Error {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            anyhow::anyhow!("{path} is read-only: mount it writable, or bring the files there in another way")
        }
        io::ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{path} can't be written: the container needs securityContext.privileged")
        }
        io::ErrorKind::StorageFull => anyhow::anyhow!("{path} can't be written: the host's file system is full"),
        _ => anyhow::anyhow!("{path} can't be written: {error}"),
    }
}

/// A name that no runtime takes for a configuration or a plugin.
fn beside(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().with_context(|| format!("{} is no file", path.display()))?;
    Ok(path.with_file_name(format!(".{}.tmp", name.to_string_lossy())))
}
