//! Running programs of a node that must end by themselves.

use std::process::{Output, Stdio};
use std::time::Duration;

use tortie_lab::{Node, wait};

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
