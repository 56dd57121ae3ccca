//! What is collected for whoever helps: it is complete, and one part that fails stops none of the others.

mod common;

use std::process::Command;

use common::addresses::assign;
use common::{Cluster, manifest};

/// The path that a program said at the end of a line that starts so.
fn said<'a>(text: &'a str, start: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(start));
    line.unwrap_or_else(|| panic!("{start}: {text}"))
}

/// A file of an archive.
fn unpacked(archive: &str, name: &str) -> String {
    let output = Command::new("tar").args(["-xzOf", archive, "--wildcards", name]).output().expect("tar runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_clusters_state_comes_in_one_file() {
    let cluster = Cluster::new();
    let node = manifest("Node", "n1", "bgp:\n  ipv4Address: 10.9.0.1/24");
    cluster.good("create -f -", &(node + &manifest("IPPool", "a", "cidr: 10.0.0.0/24")));
    assign(&cluster, "n1", "h1", 2);
    let out = cluster.good("cluster diags", "");
    let archive = said(&out, "Diagnostics bundle: ");
    assert!(unpacked(archive, "*/cluster/nodes.yaml").contains("ipv4Address: 10.9.0.1/24"));
    assert!(unpacked(archive, "*/cluster/ipam_check.txt").contains("Found 2 IPs that are allocated"));
    assert!(unpacked(archive, "*/cluster/ipam_show_blocks.txt").contains("| Block "));
    assert!(!std::path::Path::new(said(&out, "Created temporary directory: ")).exists());
    std::fs::remove_file(archive).expect("removed");
    assert!(cluster.bad("cluster diags --since yesterday", "").contains("--since"));
}

#[test]
fn commands_that_look_at_the_host_ask_for_root_or_work() {
    use std::os::unix::fs::MetadataExt as _;
    let cluster = Cluster::new();
    let config = cluster.file("config", "CONFIG_NF_TABLES=y\n");
    if std::fs::metadata("/proc/self").expect("it is there").uid() != 0 {
        for line in ["node diags", "node checksystem"] {
            assert_eq!(cluster.bad(line, ""), "This command must be run as root.\n");
        }
        return;
    }
    let ran = cluster.run(&format!("node checksystem -f {config}"), "");
    assert!(ran.out.contains("Checking kernel modules...\n\t\tnf_tables           \t\t\t\t\tOK\n"), "{ran:?}");
    assert!(cluster.bad("node checksystem -f /nowhere", "").contains("/nowhere"));
    let logs = cluster.file("logs/felix.log", "a line of the log\n");
    let folder = logs.strip_suffix("/felix.log").expect("it lies there");
    let out = cluster.good(&format!("node diags --log-dir {folder}"), "");
    let archive = said(&out, "Diags saved to ");
    assert_eq!(unpacked(archive, "diagnostics/logs/felix.log"), "a line of the log\n");
    assert!(!unpacked(archive, "diagnostics/date").is_empty());
    assert!(out.contains("Failed to ask the node: ") && out.contains("Collecting diagnostics\n"), "{out}");
    let place = said(&out, "Using temp dir: ");
    std::fs::remove_dir_all(place).expect("removed");
}
