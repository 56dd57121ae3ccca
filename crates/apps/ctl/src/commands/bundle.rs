//! A folder of what was collected, which becomes one `.tar.gz`.
//!
//! Every program that is asked has a deadline, and one that fails or is missing never stops the others.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Files of a log folder that are larger are cut to their end, bytes.
const LARGEST: u64 = 64 << 20;

/// A folder of its own, readable by its owner alone.
pub(super) struct Bundle {
    /// Where the archive is made.
    outside: PathBuf,
    /// What goes into it.
    inside: PathBuf,
}

/// Such commands look at parts of the host that only root sees.
pub(super) fn must_be_root() -> Result<()> {
    // The owner of a process is the owner of its entry.
    match fs::metadata("/proc/self").map(|entry| entry.uid()) {
        Ok(0) => Ok(()),
        Ok(_) | Err(_) => bail!("This command must be run as root."),
    }
}

impl Bundle {
    /// An empty bundle whose folder has this name in the archive.
    pub(super) fn new(name: &str) -> Result<Bundle> {
        let unique = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let outside = std::env::temp_dir().join(format!("calico{}-{unique}", std::process::id()));
        let inside = outside.join(name);
        let make = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        make(&outside)
            .and_then(|()| make(&inside))
            .with_context(|| format!("error creating temp directory to dump logs: {}", outside.display()))?;
        Ok(Bundle { outside, inside })
    }

    /// Where the archive is made.
    pub(super) fn place(&self) -> &Path {
        &self.outside
    }

    /// Keeps a text.
    pub(super) fn keep(&self, name: &str, text: &str) -> Result<()> {
        let path = self.inside.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
    }

    /// Keeps what a program prints; an error says why there is nothing of it.
    pub(super) fn ask(&self, name: &str, line: &str) -> Result<(), String> {
        let path = self.inside.join(name);
        let mut words = line.split(' ');
        let program = words.next().unwrap_or_default();
        let output = File::create(&path).map_err(|error| error.to_string())?;
        let errors = output.try_clone().map_err(|error| error.to_string())?;
        let child = Command::new(program).args(words).stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        finish(child.map_err(|error| error.to_string())?)
            .map_err(|reason| format!("{reason}: {}", fs::read_to_string(&path).unwrap_or_default().trim()))
    }

    /// Keeps the files of a folder, one level deep.
    pub(super) fn copy(&self, folder: &Path, name: &str) -> Result<()> {
        let into = self.inside.join(name);
        fs::create_dir_all(&into)?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                copy_end(&entry.path(), &into.join(entry.file_name()))?;
            }
        }
        Ok(())
    }

    /// Packs everything; where it is.
    pub(super) fn pack(&self, name: &str) -> Result<PathBuf> {
        let archive = self.outside.join(name);
        let folder = self.inside.file_name().unwrap_or_default();
        let tar = Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&self.outside).arg(folder).spawn();
        finish(tar.context("error compressing the diagnostics: can't start tar")?)
            .map_err(|reason| anyhow::anyhow!("error compressing the diagnostics: tar: {reason}"))?;
        Ok(archive)
    }

    /// Takes away what was packed.
    pub(super) fn forget(self) {
        // What stays is in a folder for temporary files.
        let _ = fs::remove_dir_all(&self.inside);
    }
}

fn copy_end(from: &Path, to: &Path) -> Result<()> {
    use std::io::{Seek as _, SeekFrom};
    let mut source = File::open(from).with_context(|| from.display().to_string())?;
    let length = source.metadata()?.len();
    source.seek(SeekFrom::Start(length.saturating_sub(LARGEST)))?;
    std::io::copy(&mut source, &mut File::create(to)?)?;
    Ok(())
}

fn finish(mut child: Child) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(status.to_string()),
            Ok(None) if Instant::now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not end within {} s", PATIENCE.as_secs()));
            }
            Ok(None) => sleep(Duration::from_millis(5)),
            Err(error) => return Err(error.to_string()),
        }
    }
}
