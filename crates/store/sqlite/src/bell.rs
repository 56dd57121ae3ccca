//! The doorbell: a byte written to `FILE.notify` after each commit wakes whoever watches that file by inotify.
//!
//! A ring may be missed (the file was replaced, the limit of inotify reached); who listens also looks now and then.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use inotify::{Inotify, WatchMask};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::fault::Fault;

/// How often a watch looks for changes if it can't hear the bell.
const WITHOUT_INOTIFY: Duration = Duration::from_millis(5);

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

/// Ends the wait of an [`Ear`] from within the process.
pub(crate) struct Waker {
    socket: UnixStream,
}

impl Waker {
    /// Ends the wait that is under way, or the next one.
    pub(crate) fn wake(&self) {
        // A full socket wakes as well.
        let _ = (&self.socket).write(b"!");
    }
}

/// The watches' side.
pub(crate) struct Ear {
    inotify: Option<Inotify>,
    woken: UnixStream,
}

impl Ear {
    /// Listens to the bell at this path. Rings after this call are heard, also while nobody waits.
    pub(crate) fn new(path: &Path) -> Result<(Ear, Waker), Fault> {
        let wrong = |error: io::Error| Fault::Unavailable(format!("no socket to watch by: {error}"));
        let (woken, socket) = UnixStream::pair().map_err(wrong)?;
        woken.set_nonblocking(true).and_then(|()| socket.set_nonblocking(true)).map_err(wrong)?;
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
        Ok((Ear { inotify, woken }, Waker { socket }))
    }

    /// Waits for a ring or the waker, at most as long as given (up to the next millisecond).
    pub(crate) fn wait(&mut self, timeout: Duration) {
        let Ear { inotify, woken } = self;
        let limit = if inotify.is_some() { Duration::MAX } else { WITHOUT_INOTIFY };
        let millis = timeout.min(limit).as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let mut ready = vec![PollFd::new(woken.as_fd(), PollFlags::POLLIN)];
        ready.extend(inotify.as_ref().map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)));
        // A failure or a signal is as good as a ring: the caller looks.
        let _ = poll(&mut ready, timeout);
        let mut buffer = [0; 4096];
        // Empties both; what comes meanwhile is seen by the look that follows.
        let _ = woken.read(&mut buffer);
        if let Some(inotify) = inotify {
            let _ = inotify.read_events(&mut buffer).map(Iterator::count);
        }
    }
}
