//! What a benchmark stands on: a directory, named network namespaces and processes, gone with it.
//!
//! Everything is known to one registry of the process, so that a signal cleans up as dropping does; names carry the
//! process's id, so that a later run removes what a killed one left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tortie_netlink::{NETNS_DIR, Netns};

/// Names of namespaces and directories begin with this, the process's id and a dash.
const PREFIX: &str = "tortie-bench-";

struct Registry {
    namespaces: BTreeSet<String>,
    directories: BTreeSet<PathBuf>,
    processes: BTreeSet<u32>,
}

static REGISTRY: Mutex<Registry> =
    Mutex::new(Registry { namespaces: BTreeSet::new(), directories: BTreeSet::new(), processes: BTreeSet::new() });

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what a killed run left, and lets signals clean up before they end this process.
pub fn take_over() -> Result<()> {
    let alive = |name: &str| {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse().ok());
        pid.is_none_or(|pid: u32| Path::new(&format!("/proc/{pid}")).exists())
    };
    for name in entries(Path::new(NETNS_DIR)).into_iter().filter(|name| !alive(name)) {
        Netns::delete_named(&name)?;
    }
    let root = std::env::temp_dir();
    for name in entries(&root).into_iter().filter(|name| !alive(name)) {
        std::fs::remove_dir_all(root.join(name))?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("interrupted: cleaning up");
            clean(&mut registry());
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}

fn entries(folder: &Path) -> Vec<String> {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    found.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(PREFIX)).collect()
}

fn clean(registry: &mut Registry) {
    let Registry { namespaces, directories, processes } = registry;
    for pid in std::mem::take(processes) {
        // It may have ended; its id is not given to another process before this one has waited for it.
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
    for name in std::mem::take(namespaces) {
        if let Err(error) = Netns::delete_named(&name) {
            eprintln!("{error}");
        }
    }
    for directory in std::mem::take(directories) {
        if let Err(error) = std::fs::remove_dir_all(&directory) {
            eprintln!("{}: {error}", directory.display());
        }
    }
}

/// A directory and namespaces of one benchmark.
pub struct Bed {
    directory: PathBuf,
    namespaces: BTreeSet<String>,
    stem: String,
}

impl Bed {
    /// An empty one.
    pub fn new() -> Result<Bed> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stem = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&stem);
        std::fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
        registry().directories.insert(directory.clone());
        Ok(Bed { directory, namespaces: BTreeSet::new(), stem })
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A directory in its directory, made if missing.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// A new network namespace with its loopback set up, and its path.
    pub fn namespace(&mut self, name: &str) -> Result<(Netns, PathBuf)> {
        let full = format!("{}-{name}", self.stem);
        registry().namespaces.insert(full.clone());
        self.namespaces.insert(full.clone());
        let netns = Netns::create_named(&full)?;
        tortie_netlink::Handle::open_in(&netns)?.set_loopback_up()?;
        Ok((netns, Path::new(NETNS_DIR).join(full)))
    }

    /// Many namespaces for pods.
    pub fn pods(&mut self, stem: &str, count: usize) -> Result<Vec<PathBuf>> {
        (0..count).map(|n| self.namespace(&format!("{stem}{n}")).map(|(_, path)| path)).collect()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let mut registry = registry();
        registry.namespaces.retain(|name| !self.namespaces.contains(name));
        registry.directories.remove(&self.directory);
        clean(&mut Registry {
            namespaces: std::mem::take(&mut self.namespaces),
            directories: BTreeSet::from([self.directory.clone()]),
            processes: BTreeSet::new(),
        });
    }
}

/// A process that ends with this, without being asked.
pub struct Running(Child);

impl Running {
    /// Takes care of a process.
    pub fn of(child: Child) -> Running {
        registry().processes.insert(child.id());
        Running(child)
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        registry().processes.remove(&self.0.id());
    }
}
