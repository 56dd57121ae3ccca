//! The doorbell: a byte written to `FILE.notify` after each commit wakes whoever watches that file by inotify.
//!
//! A ring may be missed (the file was replaced, the limit of inotify reached); who listens also looks now and then.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use inotify::{Inotify, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::fault::Fault;

/// Opens a file beside the store's, making it for this user alone.
pub(crate) fn side_file(path: &Path) -> Result<File, Fault> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| Fault::of_io(path, "open it", &error))
}

/// The writers' side.
pub(crate) struct Bell {
    path: PathBuf,
    file: OnceLock<Option<File>>,
}

impl Bell {
    /// A bell at this path, made at the first ring.
    pub(crate) fn new(path: PathBuf) -> Bell {
        Bell { path, file: OnceLock::new() }
    }

    /// Tells the watches of all processes that something was committed.
    pub(crate) fn ring(&self) {
        let file = self.file.get_or_init(|| match side_file(&self.path) {
            Ok(file) => Some(file),
            Err(fault) => {
                tracing::warn!(?fault, "other processes learn of changes late");
                None
            }
        });
        // Always the same byte: the file does not grow. On a full disk a ring may fail; the poll remains.
        if let Some(Err(error)) = file.as_ref().map(|file| file.write_at(b"!", 0)) {
            tracing::debug!(%error, path = %self.path.display(), "the doorbell does not ring");
        }
    }
}

/// The watches' side.
pub(crate) struct Ear {
    inotify: Option<Inotify>,
}

impl Ear {
    /// Listens to the bell at this path. Rings after this call are heard.
    pub(crate) fn new(path: &Path) -> Ear {
        let listen = || -> io::Result<Inotify> {
            let inotify = Inotify::init()?;
            inotify.watches().add(path, WatchMask::MODIFY)?;
            Ok(inotify)
        };
        let inotify = match side_file(path).map(|_| listen()) {
            Ok(Ok(inotify)) => Some(inotify),
            Ok(Err(error)) => {
                tracing::warn!(%error, path = %path.display(), "no inotify: changes are looked for every 5 ms");
                None
            }
            Err(fault) => {
                tracing::warn!(?fault, "no doorbell: changes are looked for every 5 ms");
                None
            }
        };
        Ear { inotify }
    }

    /// Waits for a ring, at most as long as given.
    pub(crate) fn wait(&mut self, timeout: Duration) {
        let Some(inotify) = &mut self.inotify else {
            std::thread::sleep(timeout.min(Duration::from_millis(5)));
            return;
        };
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        // A failure or a signal is as good as a ring: the caller looks.
        let _ = poll(&mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], timeout);
        let mut buffer = [0; 4096];
        // Empties the queue; what rings meanwhile is seen by the look that follows.
        let _ = inotify.read_events(&mut buffer).map(Iterator::count);
    }
}
