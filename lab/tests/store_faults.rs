//! Faults of the store file under traffic: unreadable, of a newer version, on a full disk, gone.
//!
//! Each is a clear error, leaves nothing half-written, and lets the packets of existing pods go on.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/facts.rs"]
mod facts;
#[path = "support/run.rs"]
mod run;
#[path = "support/streams.rs"]
mod streams;

use std::fs;
use std::path::PathBuf;

use facts::{facts, holds, store_file};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use run::run;
use rusqlite::Connection;
use streams::{START, Streams};
use tortie_lab::cni::CniFailure;
use tortie_lab::{Lab, Node, Store, wait};

/// The rules that the node's kernel holds, as `nft` prints them.
fn rules(node: &Node) -> String {
    let output = node.command("nft").unwrap().args(["-s", "list", "table", "inet", "tortie"]).output();
    let text = output.map(|output| String::from_utf8(output.stdout).unwrap()).unwrap_or_default();
    // Whether a process owns the table is no rule.
    text.lines().filter(|line| !line.contains("flags") && !line.starts_with("table")).collect::<Vec<_>>().join("\n")
}

/// Restarts the only node over a store file that was made unusable, and over the good one after that.
fn with_bad_store(spoil: impl Fn(&PathBuf), parts: &[&str]) {
    let streams = Streams::start(Lab::builder().nodes(1).store(Store::Sqlite).up().unwrap());
    let node = streams.lab.node(1);
    let (before, routes) = (rules(node), node.ip_route(false).unwrap());
    node.kill9().unwrap();
    // Everything into the file itself, so that it can be kept aside alone.
    Connection::open(store_file(&streams.lab))
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let known = facts(&streams.lab);
    let file = store_file(&streams.lab);
    let aside = file.with_extension("aside");
    fs::copy(&file, &aside).unwrap();
    spoil(&file);
    let spoilt = fs::read(&file).ok();
    for (program, args) in [("tortie", vec!["node"]), ("tortie", vec!["felix"]), ("calicoctl", vec!["get", "node"])] {
        let ended = run(node, program, &args, &[]);
        assert_eq!(ended.code, Some(1), "{program} {args:?}: {}", ended.text);
        holds(&ended.text, &["tortie.db"]);
        holds(&ended.text, parts);
    }
    let apply = streams.lab.calicoctl(&["delete", "globalnetworkpolicy", "ingress"], "").unwrap();
    assert_eq!(apply.status.code(), Some(1));
    assert_eq!(fs::read(&file).ok(), spoilt, "a file that can't be used is left as it is");
    assert_eq!((rules(node), node.ip_route(false).unwrap()), (before, routes), "the kernel is left as it is");
    streams.run(200);
    for extension in ["db", "db-wal", "db-shm"] {
        let path = file.with_extension(extension);
        let gone = if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
        gone.or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }).unwrap();
    }
    fs::rename(&aside, &file).unwrap();
    node.start().unwrap();
    node.wait_in_sync(START).unwrap();
    let now = facts(&streams.lab);
    assert!(known.keys().all(|path| now.contains_key(path)), "{known:#?}\n{now:#?}");
    node.add_pod("default", "after", &[]).unwrap().delete().unwrap();
    streams.end();
}

#[test]
#[ignore = "needs root"]
fn a_store_file_that_is_no_database_stops_the_node_and_no_packet() {
    with_bad_store(
        |file| fs::write(file, "not a database at all\n".repeat(500)).unwrap(),
        &["is not a SQLite database"],
    );
}

#[test]
#[ignore = "needs root"]
fn a_store_file_that_is_a_folder_stops_the_node_and_no_packet() {
    let spoil = |file: &PathBuf| {
        fs::remove_file(file).unwrap();
        fs::create_dir(file).unwrap();
    };
    with_bad_store(spoil, &["is a directory"]);
}

#[test]
#[ignore = "needs root"]
fn a_store_file_of_another_program_stops_the_node_and_no_packet() {
    let spoil = |file: &PathBuf| {
        fs::remove_file(file).unwrap();
        Connection::open(file).unwrap().execute_batch("CREATE TABLE theirs (a TEXT)").unwrap();
    };
    with_bad_store(spoil, &["database of another program"]);
}

#[test]
#[ignore = "needs root"]
fn a_store_file_of_a_newer_version_stops_the_node_and_no_packet() {
    let spoil = |file: &PathBuf| {
        let connection = Connection::open(file).unwrap();
        connection.execute_batch("PRAGMA user_version = 99").unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    };
    with_bad_store(spoil, &["newer Tortie", "version 99", "up to version 1"]);
}

#[test]
#[ignore = "needs root"]
fn a_store_file_that_goes_away_takes_no_rule_and_no_packet_with_it() {
    let streams = Streams::start(Lab::builder().nodes(1).store(Store::Sqlite).up().unwrap());
    let node = streams.lab.node(1);
    let before = rules(node);
    let store = streams.lab.dir().path().join("store");
    let aside = streams.lab.dir().path().join("aside");
    let files: Vec<_> = fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let carry = |from: &PathBuf, to: &PathBuf| {
        files.iter().for_each(|name| fs::rename(from.join(name), to.join(name)).unwrap());
    };
    fs::create_dir(&aside).unwrap();
    carry(&store, &aside);
    streams.run(200);
    let failure = node.add_pod("default", "late", &[]).unwrap_err();
    let failure = failure.downcast_ref::<CniFailure>().unwrap_or_else(|| panic!("{failure:?}"));
    assert_eq!(failure.code, 11, "{failure}");
    holds(&failure.msg, &["tortie.db", "removed or replaced"]);
    streams.run(200);
    assert_eq!(rules(node), before);
    node.kill9().unwrap();
    fs::create_dir(store_file(&streams.lab)).unwrap();
    let ended = run(node, "tortie", &["node"], &[]);
    assert_eq!(ended.code, Some(1));
    holds(&ended.text, &["tortie.db", "is a directory"]);
    assert_eq!(rules(node), before, "a start without facts takes nothing out of the kernel");
    streams.run(100);
    for entry in fs::read_dir(&store).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() { fs::remove_dir(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    carry(&aside, &store);
    node.start().unwrap();
    node.wait_in_sync(START).unwrap();
    node.add_pod("default", "later", &[]).unwrap();
    streams.end();
}

/// A small file system that a lab's store lies on, gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Outside the lab's folder, since what is mounted there is not seen on its nodes.
    fn below(lab: &Lab, kib: u32) -> SmallDisk {
        let (store, size) = (lab.dir().path().join("store"), format!("size={kib}k"));
        let folder = std::env::temp_dir().join(format!("tl-disk-{}", lab.id()));
        fs::create_dir(&folder).unwrap();
        fs::remove_dir(&store).unwrap();
        std::os::unix::fs::symlink(&folder, &store).unwrap();
        mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
        SmallDisk(folder)
    }

    /// Writes until not one byte more fits.
    fn fill(&self) {
        use std::io::Write;
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while file.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
        fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_refuses_add_and_works_again_with_room() {
    let lab = Lab::builder().nodes(1).store(Store::Sqlite).up().unwrap();
    let disk = SmallDisk::below(&lab, 4096);
    let streams = Streams::start(lab);
    let lab = &streams.lab;
    let node = lab.node(1);
    node.add_pod("default", "first", &[]).unwrap().delete().unwrap();
    let before = facts(lab);
    disk.fill();
    // What the log has room for already may still be written.
    let failure = wait(START, || {
        let name = format!("p{}", lab.pods().unwrap().len());
        node.add_pod("default", &name, &[]).err()
    });
    let failure = failure.expect("there is no room for ever more pods");
    let failure = failure.downcast_ref::<CniFailure>().unwrap();
    assert_eq!(failure.code, 11, "{failure}");
    holds(&failure.msg, &["tortie.db", "disk full"]);
    let pods = lab.pods().unwrap();
    let output = lab.calicoctl(&["delete", "globalnetworkpolicy", "ingress"], "").unwrap();
    assert_eq!(output.status.code(), Some(1));
    holds(&String::from_utf8(output.stderr).unwrap(), &["disk full"]);
    streams.run(200);
    disk.make_room();
    node.add_pod("default", "later", &[]).unwrap().delete().unwrap();
    for pod in pods.into_iter().filter(|pod| pod.name().starts_with('p')) {
        pod.delete().unwrap();
    }
    let now = facts(lab);
    assert_eq!(now.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>(), "nothing half-written stayed");
    let lab = streams.end();
    lab.node(1).kill9().unwrap();
    drop(disk);
}
