//! The lab's directory: what exists is written here before it is made, so that another process can take it down.
//!
//! Layout: `lab.json`, `pods/*.json`, `processes/<pid>`, `bin/` (the binary's names), `store/`, and one folder per node.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, process};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::topology::Topology;

/// Where labs are kept unless `TORTIE_LAB_DIR` names another directory.
pub const DEFAULT_BASE: &str = "/run/tortie-lab";

/// The directory below which every lab has its own.
pub fn base_dir() -> PathBuf {
    let set = std::env::var_os("TORTIE_LAB_DIR").filter(|dir| !dir.is_empty());
    set.map_or_else(|| PathBuf::from(DEFAULT_BASE), PathBuf::from)
}

/// A process, with its start time so that a reused number is not mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Start time, clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// The process of that id, if it lives.
    pub fn of(pid: u32) -> Option<Process> {
        let (state, started) = read_stat(pid)?;
        (!matches!(state, 'Z' | 'X')).then_some(Process { pid, started })
    }

    /// This process.
    pub fn current() -> Process {
        Process::of(process::id()).unwrap_or(Process { pid: process::id(), started: 0 })
    }

    /// Whether it lives; one that has ended but was not waited for does not.
    pub fn alive(self) -> bool {
        Process::of(self.pid) == Some(self)
    }
}

/// State letter and start time from `/proc/<pid>/stat` (proc(5), fields 3 and 22).
fn read_stat(pid: u32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, so fields count from its end.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// What `lab.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The lab's id, unique on the machine.
    pub id: String,
    /// The process that takes the lab down when it ends; `None` for a lab that is meant to stay.
    pub owner: Option<Process>,
    /// The binary that nodes run.
    pub binary: PathBuf,
    /// What it consists of.
    pub topology: Topology,
    /// Whether `/run/netns` was there before the lab, and was a mount point.
    pub netns_dir: NetnsDir,
}

/// How `/run/netns` was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetnsDir {
    /// Not there.
    Absent,
    /// A directory.
    Plain,
    /// A mount point, as iproute2 makes it.
    Mounted,
}

/// A pod of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The node that it is on.
    pub node: String,
    /// CNI's container id.
    pub container_id: String,
    /// Name of its network namespace.
    pub netns: String,
    /// Labels given at ADD.
    pub labels: BTreeMap<String, String>,
    /// Addresses, once ADD has answered.
    pub ips: Vec<IpAddr>,
    /// Name of its interface on the host, once ADD has answered.
    pub host_interface: Option<String>,
    /// Whether the lab wired it by itself, without CNI.
    pub bare: bool,
}

impl PodRecord {
    /// `namespace/name`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A lab's directory.
#[derive(Clone, Debug)]
pub struct LabDir(PathBuf);

impl LabDir {
    /// The directory of a lab of that id; it need not exist.
    pub fn of(id: &str) -> Result<LabDir> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if id.is_empty() || id.len() > 32 || !id.chars().all(good) {
            bail!("lab id {id:?}: expected 1 to 32 of a-z, 0-9 and '-', such as \"lab\"");
        }
        Ok(LabDir(base_dir().join(id)))
    }

    /// All labs of this machine, by id.
    pub fn all() -> Result<Vec<(String, LabDir)>> {
        let mut found = Vec::new();
        for entry in list(&base_dir())? {
            if entry.join("lab.json").exists() {
                let id = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.push((id, LabDir(entry)));
            }
        }
        Ok(found)
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path below it.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.join(path)
    }

    /// Makes the directory and writes the record; an error when there is a lab of that id.
    pub(crate) fn create(&self, record: &Record) -> Result<()> {
        fs::create_dir_all(self.0.parent().unwrap_or(Path::new("/")))?;
        match fs::create_dir(&self.0) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let id = &record.id;
                bail!(
                    "there is a lab {id:?} already: take it down with `tortie lab down --id {id}` or choose another id"
                )
            }
            other => other.with_context(|| format!("create {}", self.0.display()))?,
        }
        for folder in ["pods", "processes", "bin", "store"] {
            fs::create_dir(self.join(folder))?;
        }
        write(&self.join("lab.json"), record)
    }

    /// The record.
    pub fn record(&self) -> Result<Record> {
        read(&self.join("lab.json"))
    }

    /// Replaces the record.
    pub(crate) fn save(&self, record: &Record) -> Result<()> {
        write(&self.join("lab.json"), record)
    }

    /// All pods, by namespace and name.
    pub fn pods(&self) -> Result<Vec<PodRecord>> {
        list(&self.join("pods"))?.iter().map(|path| read(path)).collect()
    }

    pub(crate) fn save_pod(&self, pod: &PodRecord) -> Result<()> {
        write(&self.pod_path(pod), pod)
    }

    pub(crate) fn forget_pod(&self, pod: &PodRecord) {
        let _ = fs::remove_file(self.pod_path(pod));
    }

    fn pod_path(&self, pod: &PodRecord) -> PathBuf {
        self.join(format!("pods/{}.{}.json", pod.namespace, pod.name))
    }

    pub(crate) fn save_process(&self, process: Process, what: &str) -> Result<()> {
        write(&self.join(format!("processes/{}", process.pid)), &(process, what))
    }

    pub(crate) fn forget_process(&self, pid: u32) {
        let _ = fs::remove_file(self.join(format!("processes/{pid}")));
    }

    /// Processes that were started, with what each is; some may have ended.
    pub fn processes(&self) -> Result<Vec<(Process, String)>> {
        list(&self.join("processes"))?.iter().map(|path| read(path)).collect()
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("read {}", folder.display()))?,
    };
    let mut paths: Vec<_> = entries.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_none_or(|e| e != "new"));
    paths.sort();
    Ok(paths)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what a lab writes", path.display()))
}

/// Writes beside and renames, so that no reader sees half a file.
fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let beside = PathBuf::from(format!("{}.new", path.display()));
    fs::write(&beside, serde_json::to_string_pretty(value)?).with_context(|| format!("write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let me = Process::current();
        assert!(me.alive() && me.started > 0);
        assert!(!Process { started: me.started + 1, ..me }.alive());
    }

    #[test]
    fn an_id_that_leaves_the_directory_is_refused() {
        for wrong in ["", "..", "a/b", "A", &"x".repeat(33)] {
            assert!(LabDir::of(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(LabDir::of("lab-1").unwrap().path().file_name().unwrap(), "lab-1");
    }
}
