//! The conditions of a run: a figure without them says little.

use std::fmt;

use serde::Serialize;

/// The conditions of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Conditions {
    /// The kernel's release.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// How many processors this process may use.
    pub cores: usize,
    /// Load average over the last minute, at the start.
    pub load: String,
    /// When, seconds since 1970.
    pub unix_seconds: u64,
}

impl Conditions {
    /// As they are now. What can't be read is left empty.
    pub fn now() -> Conditions {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        Conditions {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: cpu.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
            unix_seconds: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
        }
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conditions { kernel, cpu, cores, load, unix_seconds } = self;
        write!(f, "Linux {kernel}, {cores} × {cpu}, load {load} at start ({unix_seconds})")
    }
}
