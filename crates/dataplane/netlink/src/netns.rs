//! Network namespaces: open, make, name, enter.
//!
//! Invariant: no thread but one made for the purpose ever changes its namespace.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Result};

/// Where namespaces get names, as iproute2 does it.
pub const NETNS_DIR: &str = "/run/netns";

const THREAD_NS: &str = "/proc/thread-self/ns/net";

/// An open network namespace; it lives at least as long as this.
#[derive(Debug)]
pub struct Netns(OwnedFd);

impl Netns {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Netns> {
        Netns::open(THREAD_NS)
    }

    /// The namespace at a path, such as `/proc/42/ns/net` or what the container runtime passed in `CNI_NETNS`.
    pub fn open(path: impl AsRef<Path>) -> Result<Netns> {
        let path = path.as_ref();
        let doing = || format!("open network namespace {}", path.display());
        File::open(path).map(|file| Netns(file.into())).map_err(|e| Error::from_io(e, doing()))
    }

    /// The namespace of that name under [`NETNS_DIR`].
    pub fn named(name: &str) -> Result<Netns> {
        Netns::open(named_path(name)?)
    }

    /// The namespace of a process.
    pub fn of_process(pid: u32) -> Result<Netns> {
        Netns::open(format!("/proc/{pid}/ns/net"))
    }

    /// A new namespace without a name; it goes when the last descriptor and process of it are gone.
    pub fn unnamed() -> Result<Netns> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::from_errno(e as i32, "make a network namespace", ""))?;
            Netns::current()
        })
    }

    /// A new namespace, bound to a name under [`NETNS_DIR`] until [`Netns::delete_named`].
    pub fn create_named(name: &str) -> Result<Netns> {
        let path = named_path(name)?;
        let doing = format!("create network namespace {name}");
        prepare_dir(&doing)?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(|e| Error::from_io(e, doing.clone()))?;
        let made = on_own_thread(|| {
            let fail = |e: Errno| Error::from_errno(e as i32, doing.clone(), "");
            unshare(CloneFlags::CLONE_NEWNET).map_err(fail)?;
            mount(Some(THREAD_NS), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(fail)?;
            Netns::current()
        });
        if made.is_err() {
            let _ = fs::remove_file(&path);
        }
        made
    }

    /// Takes the name away; the namespace itself goes once nobody uses it any more.
    pub fn delete_named(name: &str) -> Result<()> {
        let path = named_path(name)?;
        let doing = || format!("delete network namespace {name}");
        match umount2(&path, MntFlags::MNT_DETACH) {
            // EINVAL: the name is there but nothing is mounted on it, as after a crash half-way.
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(e) => return Err(Error::from_errno(e as i32, doing(), "")),
        }
        fs::remove_file(&path).map_err(|e| Error::from_io(e, doing()))
    }

    /// Runs a closure on a thread of its own inside the namespace. A panic goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_own_thread(|| {
            setns(&self.0, CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::from_errno(e as i32, "enter a network namespace", ""))?;
            Ok(work())
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Netns {
    /// A descriptor of a network namespace, as received from another process.
    fn from(fd: OwnedFd) -> Netns {
        Netns(fd)
    }
}

/// Runs a closure on a thread of its own inside the namespace at a path.
pub fn in_netns<T: Send>(path: impl AsRef<Path>, work: impl FnOnce() -> T + Send) -> Result<T> {
    Netns::open(path)?.run(work)
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let spawned = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work);
        let handle = spawned.map_err(|e| Error::from_io(e, "start a thread for a network namespace"))?;
        handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn named_path(name: &str) -> Result<PathBuf> {
    if name.is_empty() || name == "." || name == ".." || name.len() > 255 || name.contains(['/', '\0']) {
        let detail = "expected 1 to 255 bytes without '/', such as \"node1\"";
        return Err(Error::invalid(format!("network namespace name {name:?}"), detail));
    }
    Ok(Path::new(NETNS_DIR).join(name))
}

/// Makes [`NETNS_DIR`] a mount point whose mounts reach other mount namespaces, as iproute2 does.
fn prepare_dir(doing: &str) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o755).create(NETNS_DIR);
    match made {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(Error::from_io(e, doing)),
        Ok(()) | Err(_) => {}
    }
    let share = || mount(None::<&str>, NETNS_DIR, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    share()
        .or_else(|_| mount(Some(NETNS_DIR), NETNS_DIR, None::<&str>, bind, None::<&str>).and_then(|()| share()))
        .map_err(|e| Error::from_errno(e as i32, doing, "while sharing the mounts of /run/netns"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leaves_the_directory_is_refused() {
        for wrong in ["", ".", "..", "a/b", "a\0b", &"n".repeat(256)] {
            assert!(matches!(named_path(wrong), Err(Error::Invalid { .. })), "{wrong:?}");
        }
        assert_eq!(named_path("node1").unwrap(), Path::new("/run/netns/node1"));
    }
}
