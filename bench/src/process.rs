//! What a process costs, as the kernel counts it.

use anyhow::{Context, Result};

/// Memory of a process, MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Now.
    pub resident: f64,
    /// At most so far.
    pub peak: f64,
}

/// User and system time of a process so far, seconds; the kernel counts it in hundredths.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("a stat line")?.1.split_whitespace().collect();
    // Fields 14 and 15 of proc(5); the two before the parenthesis are cut off.
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).context("a number of ticks");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// The same of a process whose threads all live on, to the nanosecond.
pub fn fine_cpu_seconds(pid: u32) -> Result<f64> {
    let mut nanos = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += text.split_whitespace().next().context("a time on the processor")?.parse::<f64>()?;
    }
    Ok(nanos / 1e9)
}

/// Its memory.
pub fn memory(pid: u32) -> Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let read = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a line of the status")?;
        let kib = line.split_whitespace().nth(1).context("a number of KiB")?;
        Ok::<f64, anyhow::Error>(kib.parse::<f64>()? / 1024.0)
    };
    Ok(Memory { resident: read("VmRSS")?, peak: read("VmHWM")? })
}
