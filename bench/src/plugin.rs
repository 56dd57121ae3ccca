//! CNI plugins under test: ours, and Debian's `ptp` with `host-local` as the peer that gives no policy.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::Setting;
use crate::bed::Bed;
use crate::node::{Agent, NODE, names};

/// Where Debian puts the reference plugins.
pub const DEBIAN: &str = "/usr/lib/cni";

/// A plugin with its configuration.
#[derive(Clone, Debug)]
pub struct Plugin {
    program: PathBuf,
    conf: String,
    path: String,
    state: Option<PathBuf>,
    /// Whether a container is a pod of that name.
    pods: bool,
}

impl Plugin {
    /// Ours, against a running node.
    pub fn ours(bed: &Bed, setting: &Setting, agent: &Agent) -> Result<Plugin> {
        let folder = names(bed, setting)?;
        let conf = json!({
            "cniVersion": "0.3.1", "name": "perf", "type": "calico", "datastore_type": "sqlite",
            "nodename": NODE, "nodename_file_optional": true, "log_level": "warning",
            "ipam": { "type": "calico-ipam" },
        });
        Ok(Plugin {
            program: folder.join("calico"),
            conf: conf.to_string(),
            path: format!("{}:{DEBIAN}", folder.display()),
            state: Some(agent.state.clone()),
            pods: false,
        })
    }

    /// Ours as Kubernetes calls it: each container is the pod of that name in the namespace `default`.
    pub fn ours_for_pods(bed: &Bed, setting: &Setting, agent: &Agent) -> Result<Plugin> {
        let mut plugin = Plugin::ours(bed, setting, agent)?;
        let mut conf: Value = serde_json::from_str(&plugin.conf)?;
        conf["policy"] = json!({ "type": "k8s" });
        (plugin.conf, plugin.pods) = (conf.to_string(), true);
        Ok(plugin)
    }

    /// Debian's `ptp` with `host-local`; `None` where they are not installed.
    pub fn ptp(bed: &Bed) -> Option<Plugin> {
        let program = Path::new(DEBIAN).join("ptp");
        let conf = json!({
            "cniVersion": "0.3.1", "name": "perf", "type": "ptp", "ipMasq": false,
            "ipam": {
                "type": "host-local", "ranges": [[{ "subnet": "10.66.0.0/16" }]],
                "dataDir": bed.path("host-local"), "routes": [{ "dst": "0.0.0.0/0" }],
            },
        });
        program.is_file().then(|| Plugin {
            program,
            conf: conf.to_string(),
            path: DEBIAN.to_owned(),
            state: None,
            pods: false,
        })
    }

    /// One call as a container runtime makes it: from the program's start until its end. The caller's thread must be in
    /// the host's namespace.
    pub fn call(&self, command: &str, container: &str, netns: &Path) -> Result<Duration> {
        let mut process = Command::new(&self.program);
        process
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(state) = &self.state {
            process.env("TORTIE_STATE_DIR", state);
        }
        if self.pods {
            let pod = format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={container}");
            process.env("CNI_ARGS", format!("IgnoreUnknown=1;{pod};K8S_POD_INFRA_CONTAINER_ID={container}"));
        }
        let begun = Instant::now();
        let mut child = process.spawn().with_context(|| format!("can't start {}", self.program.display()))?;
        child.stdin.take().context("a piped input")?.write_all(self.conf.as_bytes())?;
        let output = child.wait_with_output()?;
        let took = begun.elapsed();
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("{} {command} of {container}: {}", self.program.display(), String::from_utf8_lossy(&said));
        }
        Ok(took)
    }
}

/// User and system time of this process's ended children so far, seconds.
pub fn children_seconds() -> f64 {
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a rusage of this frame; the call writes nothing else.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage) };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
