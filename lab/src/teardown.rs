//! Taking a lab down from its directory alone: processes, namespaces, files. Works from any process, also after a crash.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tortie_netlink::{NETNS_DIR, Netns};

use crate::state::{LabDir, NetnsDir, Process, Record, base_dir};

/// How long killed processes may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Name of the namespace of a lab's machine or pod, as `ip netns` shows it.
pub(crate) fn netns_name(id: &str, member: &str) -> String {
    format!("tl-{id}-{member}")
}

/// Held while a lab is made or removed, so that two processes don't do it at once.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock.
    pub(crate) fn take() -> Result<Lock> {
        loop {
            let base = base_dir();
            fs::create_dir_all(&base).with_context(|| format!("create {}", base.display()))?;
            let path = base.join(".lock");
            let file = match File::create(&path) {
                // The last lab's end took the directory away just now.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                other => other.with_context(|| format!("open {}", path.display()))?,
            };
            file.lock().with_context(|| format!("lock {}", path.display()))?;
            let same = fs::metadata(&path).is_ok_and(|now| file.metadata().is_ok_and(|held| held.ino() == now.ino()));
            if same {
                return Ok(Lock { _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let base = base_dir();
        let only_lock = fs::read_dir(&base).is_ok_and(|entries| entries.count() == 1);
        if only_lock {
            // Whoever waits for the file sees that it is another one now.
            let _ = fs::remove_file(base.join(".lock"));
            let _ = fs::remove_dir(&base);
        }
    }
}

/// How `/run/netns` looks now.
pub(crate) fn netns_dir() -> Result<NetnsDir> {
    let dir = Path::new(NETNS_DIR);
    if !dir.exists() {
        return Ok(NetnsDir::Absent);
    }
    Ok(if is_mount_point(dir)? { NetnsDir::Mounted } else { NetnsDir::Plain })
}

fn is_mount_point(dir: &Path) -> Result<bool> {
    let dir = dir.canonicalize()?;
    let table = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(table.lines().any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point) == dir)))
}

/// Takes a lab down. What is gone already is no error; everything is tried before the first error is returned.
pub fn teardown(dir: &LabDir) -> Result<()> {
    let _lock = Lock::take()?;
    teardown_locked(dir)
}

pub(crate) fn teardown_locked(dir: &LabDir) -> Result<()> {
    if !dir.path().exists() {
        return Ok(());
    }
    let record = dir.record().ok();
    let names = record.as_ref().map(|record| namespaces(dir, record)).transpose()?.unwrap_or_default();
    let ended = end_processes(dir, &names);
    let mut failed = Vec::new();
    for name in &names {
        match Netns::delete_named(name) {
            Err(e) if !e.is_not_found() => failed.push(e.to_string()),
            Ok(()) | Err(_) => {}
        }
    }
    if failed.is_empty() {
        remove_dir(dir.path())?;
    }
    if let Some(record) = record {
        restore_netns_dir(record.netns_dir);
    }
    ended?;
    if !failed.is_empty() {
        bail!("lab at {} is not all gone: {}", dir.path().display(), failed.join("; "));
    }
    Ok(())
}

/// Names of all namespaces that the lab has or was about to make.
fn namespaces(dir: &LabDir, record: &Record) -> Result<Vec<String>> {
    let machines = record.topology.machines().map(|m| m.name.clone());
    let mut names: Vec<_> = machines.map(|name| netns_name(&record.id, &name)).collect();
    names.extend(dir.pods()?.into_iter().map(|pod| pod.netns));
    names.push(netns_name(&record.id, "fabric"));
    Ok(names)
}

/// Kills what was started, and whatever else runs inside the lab's namespaces, and waits for its end.
fn end_processes(dir: &LabDir, names: &[String]) -> Result<()> {
    let deadline = Instant::now() + END_TIMEOUT;
    let inodes: BTreeSet<u64> =
        names.iter().filter_map(|name| Some(fs::metadata(Path::new(NETNS_DIR).join(name)).ok()?.ino())).collect();
    loop {
        let mut left: Vec<Process> = dir.processes()?.into_iter().map(|(process, _)| process).collect();
        left.extend(inside(&inodes));
        left.retain(|process| process.alive() && process.pid != std::process::id());
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("processes {:?} did not end within {} s of SIGKILL", left, END_TIMEOUT.as_secs());
        }
        for process in left {
            signal(process, Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Processes whose network namespace is one of these.
fn inside(inodes: &BTreeSet<u64>) -> Vec<Process> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|meta| inodes.contains(&meta.ino())))
        .filter_map(Process::of)
        .collect()
}

/// Sends a signal to a process if it still is that process.
pub(crate) fn signal(process: Process, signal: Signal) {
    if process.alive() {
        // It may end at any moment, which is what a signal to it is for.
        let _ = kill(Pid::from_raw(process.pid as i32), signal);
    }
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| format!("remove {}", path.display())),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Puts `/run/netns` back into the state it was found in, if no namespace of others is there by now.
fn restore_netns_dir(found: NetnsDir) {
    let empty = || fs::read_dir(NETNS_DIR).is_ok_and(|mut entries| entries.next().is_none());
    if found == NetnsDir::Mounted || !empty() {
        return;
    }
    let _ = umount2(NETNS_DIR, MntFlags::MNT_DETACH);
    if found == NetnsDir::Absent {
        // Refused when it is not empty, as it should be.
        let _ = fs::remove_dir(NETNS_DIR);
    }
}
