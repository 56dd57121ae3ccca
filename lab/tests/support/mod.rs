//! What lab tests share: the machine's state as it must be again when a lab is gone.
//!
//! Only what labs of this test program make is looked at, so that other work on the machine disturbs no test.

use std::collections::BTreeSet;
use std::fs;

use tortie_netlink::Handle;

/// Ids that tests of this program give their labs, beside those that come from its process id.
const IDS: [&str; 4] = ["left-behind", "to-sweep", "interrupted", "demo"];

/// What a lab could leave behind on the machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Traces {
    names: BTreeSet<String>,
    netns_dir_mounted: bool,
    links: BTreeSet<String>,
    mounts: BTreeSet<String>,
    labs: BTreeSet<String>,
    processes: BTreeSet<String>,
}

impl Traces {
    /// As the machine is now.
    pub fn now() -> Traces {
        let mounts: BTreeSet<String> = lines("/proc/self/mountinfo").filter_map(|l| nth(&l, 4)).collect();
        let links = Handle::open().and_then(|mut handle| handle.links()).expect("list links");
        Traces {
            names: entries("/run/netns").into_iter().filter(|name| ours(name, "tl-")).collect(),
            netns_dir_mounted: mounts.contains("/run/netns"),
            links: links.into_iter().map(|link| link.name).collect(),
            mounts: mounts.into_iter().filter(|at| ours(at, "/tl-") || ours(at, "/tortie-lab/")).collect(),
            labs: entries("/run/tortie-lab").into_iter().filter(|id| ours(id, "")).collect(),
            processes: processes(),
        }
    }
}

/// Whether a text names one of our labs after a prefix.
fn ours(text: &str, prefix: &str) -> bool {
    let own = format!("t{}-", std::process::id());
    IDS.iter().copied().chain([own.as_str()]).any(|id| text.contains(&format!("{prefix}{id}")))
}

/// Processes that run with the environment of one of our labs.
fn processes() -> BTreeSet<String> {
    let pids = entries("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok());
    let environment = |pid: &String| fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    pids.filter(|pid| ours(&String::from_utf8_lossy(&environment(pid)), "/tortie-lab/")).collect()
}

fn entries(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn lines(file: &str) -> impl Iterator<Item = String> {
    fs::read_to_string(file).expect("read").lines().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

fn nth(line: &str, at: usize) -> Option<String> {
    line.split(' ').nth(at).map(str::to_owned)
}
