//! Benchmarks: release builds of the binary and of the bench programs, run beside their floor or peer.

use std::process::ExitCode;

use anyhow::Result;

use crate::command::{cargo, run, target};

/// Runs one benchmark, or lists them.
pub fn bench(name: Option<&str>, args: &[String]) -> Result<ExitCode> {
    run(&mut cargo(&["build", "--release", "--locked", "--package", "tortie", "--package", "tortie-bench"]))?;
    let mut command = std::process::Command::new(target().join("release/tortie-bench"));
    command.arg(name.unwrap_or("list")).args(args);
    run(&mut command)?;
    Ok(ExitCode::SUCCESS)
}
