//! Running programs of a node that must end by themselves, and looking at what they left.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tortie_lab::{Lab, Node, wait};

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Both output streams.
    pub text: String,
}

/// Runs one of the binary's names with variables on top of the node's view. A program that does not end within 30 s is
/// killed, and the test fails.
pub fn run(node: &Node, program: &str, args: &[&str], env: &[(&str, &str)]) -> Ended {
    let mut command = node.command(program).unwrap();
    command.args(args).envs(env.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    if wait(Duration::from_secs(30), || child.try_wait().unwrap()).is_none() {
        child.kill().unwrap();
        let Output { stdout, .. } = child.wait_with_output().unwrap();
        panic!("{program} {args:?} with {env:?} went on:\n{}", String::from_utf8_lossy(&stdout));
    }
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    Ended { code: status.code(), text }
}

/// The lab's store file.
pub fn store_file(lab: &Lab) -> PathBuf {
    lab.dir().path().join("store/tortie.db")
}

/// What the store holds, by path, with revisions; states of nodes left out, which change by themselves.
pub fn facts(lab: &Lab) -> BTreeMap<String, (String, i64)> {
    let connection = Connection::open_with_flags(store_file(lab), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let mut select = connection.prepare("SELECT path, value, revision FROM kv").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).unwrap();
    let all: BTreeMap<String, (String, i64)> = rows.map(Result::unwrap).collect();
    all.into_iter().filter(|(path, _)| !path.starts_with("/calico/felix/")).collect()
}

/// A text that must hold all of some parts.
#[track_caller]
pub fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}
