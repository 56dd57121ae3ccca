//! Starting programs in a namespace of the lab, with a mount namespace and a host name of their own.
//!
//! The mount view is built anew for every program from folders of the lab, so all programs of a node see the same
//! files without a mount namespace having to be kept. Nothing that a program mounts or writes below `/run` and
//! `/var/lib` reaches the machine.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{sethostname, setsid};
use tortie_netlink::NETNS_DIR;

use crate::state::{LabDir, Record, base_dir};
use crate::topology::Store;
use crate::{etcd, kubernetes};

/// Folders of the machine that a node sees its own of, if the machine has them at all.
const HIDDEN: [(&str, &str); 2] = [("/etc/calico", "etc-calico"), ("/etc/cni", "etc-cni")];

/// How a program of the lab sees the system.
#[derive(Clone, Debug)]
pub struct View {
    lab: LabDir,
    record: Record,
    /// The node whose files it sees.
    node: String,
    /// Name of the network namespace.
    netns: String,
    host_name: String,
}

impl View {
    pub(crate) fn new(lab: &LabDir, record: &Record, node: &str, netns: String, host_name: &str) -> View {
        // The kernel takes at most 64 bytes; names here are ASCII.
        let host_name = host_name.chars().take(63).collect();
        View { lab: lab.clone(), record: record.clone(), node: node.to_owned(), netns, host_name }
    }

    /// A node's folder for its private files.
    fn folder(&self) -> PathBuf {
        self.lab.join(&self.node)
    }

    /// The environment that the lab's programs run with: where the store and the node's socket are, the lab's names of
    /// the binary first in `PATH`, and nothing else of the caller's but terminal and log settings.
    pub fn env(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        let mut env = vec![
            ("PATH".to_owned(), format!("{}:{path}", text(self.lab.join("bin")))),
            ("TORTIE_STATE_DIR".to_owned(), text(self.folder().join("run/tortie"))),
            ("CALICO_NODENAME_FILE".to_owned(), text(self.folder().join("nodename"))),
            ("NODENAME".to_owned(), self.node.clone()),
        ];
        env.extend(match self.record.topology.store {
            Store::Sqlite => vec![
                ("DATASTORE_TYPE".to_owned(), "sqlite".to_owned()),
                ("TORTIE_SQLITE".to_owned(), text(self.lab.join("store/tortie.db"))),
            ],
            Store::Etcd => etcd::env(&self.lab, &self.record.topology, &self.node),
            Store::Kubernetes => kubernetes::env(&self.lab, &self.record.topology, &self.node),
        });
        for name in ["HOME", "TERM", "LANG", "LC_ALL", "RUST_BACKTRACE", "TORTIE_LOG", "TORTIE_LOG_FORMAT"] {
            env.extend(std::env::var(name).ok().map(|value| (name.to_owned(), value)));
        }
        env
    }

    /// A command that runs in this view; `daemon` puts it into a session of its own.
    pub fn command(&self, program: impl AsRef<OsStr>, daemon: bool) -> Result<Command> {
        let netns = Path::new(NETNS_DIR).join(&self.netns);
        let netns: OwnedFd = File::open(&netns).with_context(|| format!("open {}", netns.display()))?.into();
        let mounts = self.mounts()?;
        let host_name = self.host_name.clone();
        let mut command = Command::new(program);
        command.env_clear().envs(self.env());
        let enter = move || {
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
            for step in &mounts {
                step.make()?;
            }
            sethostname(&host_name)?;
            if daemon {
                setsid()?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec the closure makes system calls with arguments that were prepared before; it
        // takes no lock and allocates nothing.
        unsafe { command.pre_exec(enter) };
        Ok(command)
    }

    /// The mounts of the view, in order.
    fn mounts(&self) -> Result<Vec<Mount>> {
        let folder = self.folder();
        let (run, var) = (folder.join("run"), folder.join("var-lib"));
        for path in [run.join("tortie"), run.join("calico"), run.join("lock"), run.join("netns"), var.join("tortie")] {
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        let base = base_dir();
        let mut steps = vec![Mount::slave_root()?, Mount::sysfs()?];
        if Path::new(NETNS_DIR).exists() {
            steps.push(Mount::bind(Path::new(NETNS_DIR), &run.join("netns"))?);
        }
        if let Ok(below) = base.strip_prefix("/run") {
            fs::create_dir_all(run.join(below))?;
            steps.push(Mount::bind_alone(&base, &run.join(below))?);
        }
        steps.push(Mount::bind_alone(&self.lab.join("store"), &var.join("tortie"))?);
        if !self.record.binary.starts_with("/run") {
            steps.push(Mount::bind(&run, Path::new("/run"))?);
        }
        if ![&base, &self.record.binary].iter().any(|path| path.starts_with("/var/lib")) {
            steps.push(Mount::bind(&var, Path::new("/var/lib"))?);
        }
        for (hidden, own) in HIDDEN {
            fs::create_dir_all(folder.join(own))?;
            if Path::new(hidden).is_dir() {
                steps.push(Mount::bind(&folder.join(own), Path::new(hidden))?);
            }
        }
        Ok(steps)
    }
}

/// One call of mount(2), with everything allocated beforehand.
struct Mount {
    source: Option<CString>,
    target: CString,
    kind: Option<CString>,
    flags: MsFlags,
}

impl Mount {
    /// Mounts of the machine come in, none go out.
    fn slave_root() -> Result<Mount> {
        let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        Ok(Mount { source: None, target: text(Path::new("/"))?, kind: None, flags })
    }

    /// `/sys` of the new network namespace.
    fn sysfs() -> Result<Mount> {
        let name = || text(Path::new("sysfs"));
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        Ok(Mount { source: Some(name()?), target: text(Path::new("/sys"))?, kind: Some(name()?), flags })
    }

    fn bind(from: &Path, to: &Path) -> Result<Mount> {
        Ok(Mount { flags: MsFlags::MS_BIND | MsFlags::MS_REC, ..Mount::bind_alone(from, to)? })
    }

    fn bind_alone(from: &Path, to: &Path) -> Result<Mount> {
        Ok(Mount { source: Some(text(from)?), target: text(to)?, kind: None, flags: MsFlags::MS_BIND })
    }

    fn make(&self) -> io::Result<()> {
        let Mount { source, target, kind, flags } = self;
        mount(source.as_deref(), target.as_c_str(), kind.as_deref(), *flags, None::<&OsStr>)?;
        Ok(())
    }
}

fn text(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("path {path:?} holds a zero byte"))
}
