//! The node agent under test: started in a host's namespace, followed until it is in sync, its costs read.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tortie_netlink::Netns;
use tortie_store_sqlite::{Options, Sync};

use crate::Setting;
use crate::bed::{Bed, Running};
use crate::process::{self, Memory};

/// Name of the node in every benchmark.
pub const NODE: &str = "node0";

/// How long a node may take until it is in sync.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the node is to be like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Whether the store need not survive a power failure (`TORTIE_SQLITE_SYNC=normal`).
    pub sync_normal: bool,
}

/// A running node agent.
pub struct Agent {
    process: Running,
    /// Its state directory, for CNI plugins.
    pub state: PathBuf,
    /// How long it took from its start until the kernel held everything.
    pub in_sync_after: Duration,
}

/// How to open a node's store.
pub fn store_options(database: &Path, wish: Wish) -> Options {
    let sync = if wish.sync_normal { Sync::Normal } else { Sync::Full };
    Options { sync, ..Options::at(database) }
}

/// Directory with the names that the binary goes by.
pub fn names(bed: &Bed, setting: &Setting) -> Result<PathBuf> {
    let folder = bed.folder("bin")?;
    let binary = std::fs::canonicalize(&setting.binary).with_context(|| setting.binary.display().to_string())?;
    for name in ["calico", "calico-ipam", "calicoctl", "calico-node"] {
        let link = folder.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(&binary, link)?;
        }
    }
    Ok(folder)
}

impl Agent {
    /// Starts the node on a host and waits until it is in sync.
    pub fn start(bed: &Bed, setting: &Setting, host: &Netns, database: &Path, wish: Wish) -> Result<Agent> {
        let mut env = vec![("TORTIE_SQLITE".to_owned(), database.display().to_string())];
        if wish.sync_normal {
            env.push(("TORTIE_SQLITE_SYNC".to_owned(), "normal".to_owned()));
        }
        Agent::start_on(bed, setting, host, env)
    }

    /// The same on the store that the environment names.
    pub fn start_on(bed: &Bed, setting: &Setting, host: &Netns, env: Vec<(String, String)>) -> Result<Agent> {
        let program = names(bed, setting)?.join("calico-node");
        let state = bed.folder("state")?;
        let log = bed.path("node.log");
        let output = std::fs::File::create(&log)?;
        let mut command = Command::new(&program);
        command
            .env_clear()
            .env("TORTIE_STATE_DIR", &state)
            .env("NODENAME", NODE)
            .env("IP", "autodetect")
            .env("CALICO_NODENAME_FILE", state.join("nodename"))
            .env("CALICO_IPV4POOL_CIDR", "10.65.0.0/16")
            .env("CALICO_IPV4POOL_NAT_OUTGOING", "false")
            .env("FELIX_HEALTHENABLED", "false")
            .envs(env)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let begun = Instant::now();
        let child = host.run(|| command.spawn())?.with_context(|| format!("can't start {}", program.display()))?;
        let mut process = Running::of(child);
        loop {
            let text = std::fs::read_to_string(&log)?;
            if text.contains("in sync") {
                break;
            }
            if process.ended() {
                bail!("the node ended:\n{text}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("the node is not in sync after {} s:\n{text}", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let in_sync_after = begun.elapsed();
        Ok(Agent { process, state, in_sync_after })
    }

    /// User and system time of the process so far, seconds; the kernel counts it in hundredths.
    pub fn cpu_seconds(&self) -> Result<f64> {
        process::cpu_seconds(self.process.id())
    }

    /// Its memory.
    pub fn memory(&self) -> Result<Memory> {
        process::memory(self.process.id())
    }
}
