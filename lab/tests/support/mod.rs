//! What lab tests share: the machine's state as it must be again when a lab is gone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use tortie_netlink::Handle;

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
            names: entries("/run/netns"),
            netns_dir_mounted: mounts.contains("/run/netns"),
            links: links.into_iter().map(|link| link.name).collect(),
            mounts,
            labs: entries("/run/tortie-lab"),
            processes: foreign_processes(),
        }
    }
}

/// Processes that live in another network namespace than this one.
fn foreign_processes() -> BTreeSet<String> {
    let ours = fs::read_link("/proc/self/ns/net").expect("read our namespace");
    let pids = entries("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok());
    let theirs = |pid: &String| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|other| other != ours);
    pids.filter(theirs).collect()
}

fn entries(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(Path::new(folder)).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn lines(file: &str) -> impl Iterator<Item = String> {
    fs::read_to_string(file).expect("read").lines().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

fn nth(line: &str, at: usize) -> Option<String> {
    line.split(' ').nth(at).map(str::to_owned)
}
