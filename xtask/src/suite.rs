//! Tests: what needs no root, and everything that this machine can run.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{cargo, has, is_root, run};
use crate::{lab, tidy, vm};

/// Counts of a test run, summed over all test binaries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed.
    pub failed: u64,
    /// Tests that were not run.
    pub ignored: u64,
}

impl Counts {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: Counts) {
        let Counts { passed, failed, ignored } = other;
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
    }
}

/// Runs a `cargo test` command, shows its output, and sums its `test result:` lines.
pub fn cargo_test(command: &mut Command) -> Result<Counts> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("can't start cargo")?;
    let output = child.stdout.take().expect("stdout is piped");
    let mut counts = Counts::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some(result) = line.strip_prefix("test result: ") {
            counts.add(parse_result(result));
        }
    }
    let status = child.wait()?;
    if !status.success() && counts.failed == 0 {
        bail!("cargo test ended with {status} before every test ran");
    }
    Ok(counts)
}

/// The counts of a test program's closing line.
pub fn parse_result(line: &str) -> Counts {
    let number = |word: &str| {
        line.split(['.', ';']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok()).unwrap_or_default()
    };
    Counts { passed: number("passed"), failed: number("failed"), ignored: number("ignored") }
}

/// The checks that need no root. Fails at the first that finds something.
pub fn check() -> Result<ExitCode> {
    let counts = checks()?;
    Ok(close(counts))
}

fn checks() -> Result<Counts> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    tidy::tidy()?;
    if has("cargo-deny") {
        run(&mut cargo(&["deny", "check", "licenses", "bans", "sources"]))?;
    } else {
        println!("skipped: cargo deny (cargo-deny is not installed)");
    }
    cargo_test(&mut cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]))
}

/// Everything that can run here, and what can't with the reason.
pub fn all() -> Result<ExitCode> {
    let mut counts = checks()?;
    if is_root() {
        // What the first pass leaves out is what the lab runs.
        counts.ignored = 0;
        counts.add(lab::lab_counts(None, false)?);
    } else {
        println!("skipped: the lab (it needs root)");
    }
    counts.add(vm::counts(None, false)?);
    Ok(close(counts))
}

/// Prints the closing line that test summaries are read from.
pub fn close(counts: Counts) -> ExitCode {
    let Counts { passed, failed, ignored } = counts;
    println!("\n{passed} passed, {failed} failed, {ignored} skipped");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Rewrites expected outputs, then shows what changed.
pub fn bless() -> Result<ExitCode> {
    let counts = cargo_test(cargo(&["test", "--workspace", "--no-fail-fast"]).env("TORTIE_BLESS", "1"))?;
    run(Command::new("git").args(["status", "--short"]))?;
    Ok(close(counts))
}

/// Rewrites the manifests that are made from the types, then shows what changed.
pub fn manifests() -> Result<ExitCode> {
    let counts = cargo_test(cargo(&["test", "--locked", "--package", "tortie-crd"]).env("TORTIE_BLESS", "1"))?;
    run(Command::new("git").args(["status", "--short", "manifests"]))?;
    Ok(close(counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_read() {
        let counts =
            parse_result("FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.1s");
        assert_eq!((counts.passed, counts.failed, counts.ignored), (3, 1, 2));
    }
}
