//! What the lab tests share: a fresh network namespace per thread, and the tools of the host.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sched::{CloneFlags, unshare};

static LAB: Mutex<()> = Mutex::new(());

/// A fresh network namespace for the test in this thread, and no other lab test meanwhile: a program that another
/// test starts would for a moment hold this test's sockets open.
pub fn lab() -> MutexGuard<'static, ()> {
    let alone = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    fresh_netns();
    alone
}

/// Moves the calling thread into a network namespace of its own; it goes with the thread.
pub fn fresh_netns() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
    run("ip", &["link", "set", "lo", "up"]);
}

/// Runs a program in the thread's namespace; panics with its output if it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {errors}{text}");
    text
}

/// Runs a program that may fail.
pub fn try_run(program: &str, args: &[&str]) {
    Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
}
