//! What an error of SQLite means to the user of the store: named file, named cause.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use rusqlite::ffi::{self, ErrorCode};
use tortie_store::{StoreError, WatchError, WriteError};

/// Why the file could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It may work later.
    Unavailable(String),
    /// It won't work until somebody acts.
    Unusable(String),
}

impl Fault {
    /// What went wrong with this file.
    pub(crate) fn of(path: &Path, error: &rusqlite::Error) -> Fault {
        let shown = path.display();
        let Some(inner) = error.sqlite_error() else {
            return Fault::Unusable(format!("{shown}: {error}"));
        };
        let text = || format!("{shown}: {error}");
        match inner.code {
            ErrorCode::DiskFull => Fault::Unavailable(format!("{shown}: disk full")),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                Fault::Unavailable(format!("{shown}: another process holds it locked"))
            }
            ErrorCode::NotADatabase => Fault::Unusable(format!("{shown} is not a SQLite database")),
            ErrorCode::DatabaseCorrupt => Fault::Unusable(format!("{shown} is damaged: {error}")),
            ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly => {
                access_fault(path).unwrap_or_else(|| Fault::Unusable(text()))
            }
            ErrorCode::SystemIoFailure if no_space(path) || inner.extended_code == ffi::SQLITE_IOERR_SHMSIZE => {
                Fault::Unavailable(format!("{shown}: disk full"))
            }
            _ => Fault::Unavailable(text()),
        }
    }

    /// What went wrong with a file beside it, or with making it.
    pub(crate) fn of_io(path: &Path, doing: &str, error: &io::Error) -> Fault {
        let shown = path.display();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Fault::Unavailable(format!("{shown}: disk full"))
            }
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem => {
                access_fault(path).unwrap_or_else(|| Fault::Unusable(format!("{shown}: can't {doing}: {error}")))
            }
            _ => Fault::Unusable(format!("{shown}: can't {doing}: {error}")),
        }
    }

    fn text(self) -> String {
        match self {
            Fault::Unavailable(text) | Fault::Unusable(text) => text,
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> StoreError {
        match fault {
            Fault::Unavailable(text) => StoreError::Unavailable(text),
            Fault::Unusable(text) => StoreError::Unusable(text),
        }
    }
}

impl From<Fault> for WriteError {
    fn from(fault: Fault) -> WriteError {
        WriteError::Unavailable(fault.text())
    }
}

impl From<Fault> for WatchError {
    fn from(fault: Fault) -> WatchError {
        WatchError::Unavailable(fault.text())
    }
}

/// What keeps this process from the file, seen from the directory down.
fn access_fault(path: &Path) -> Option<Fault> {
    let shown = path.display();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let within = directory.display();
    let unusable = |text: String| Some(Fault::Unusable(text));
    if directory.exists() && !directory.is_dir() {
        return unusable(format!("{shown}: {within} is not a directory"));
    }
    match access(directory, AccessFlags::W_OK | AccessFlags::X_OK) {
        Err(Errno::ENOENT) => return unusable(format!("{shown}: the directory {within} does not exist")),
        Err(Errno::EROFS) => return unusable(format!("{shown}: {within} is on a read-only file system")),
        Err(Errno::EACCES) => {
            return unusable(format!("{shown}: no permission to write in the directory {within}"));
        }
        Err(_) | Ok(()) => {}
    }
    if path.is_dir() {
        return unusable(format!("{shown} is a directory"));
    }
    match access(path, AccessFlags::R_OK | AccessFlags::W_OK) {
        Err(Errno::EACCES) => unusable(format!("{shown}: no permission to read and write it")),
        Err(Errno::EROFS) => unusable(format!("{shown} is on a read-only file system")),
        Err(_) | Ok(()) => None,
    }
}

fn no_space(path: &Path) -> bool {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    statvfs(directory).is_ok_and(|stat| stat.blocks_available() == 0)
}
