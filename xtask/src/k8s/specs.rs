//! Specs of Kubernetes' own suite.

use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::cluster::script;
use crate::command::target;
use crate::suite::Counts;

/// Spec names of Kubernetes' network policy suite that cover most of its features in a few minutes.
pub const QUICK: &str = "Netpol NetworkPolicy between server and client should (support a 'default-deny-ingress' policy|\
    enforce policy based on PodSelector and NamespaceSelector|allow ingress access on one named port|\
    support allow-all policy|enforce except clause while egress access to server in CIDR block|\
    enforce updated policy|work with Ingress, Egress specified together)";

/// All of the network policy specs that a kernel without SCTP runs.
pub const POLICY: &str = "Netpol.*NetworkPolicy";

/// The conformance specs of the network.
pub const CONFORMANCE: &str = r"\[sig-network\].*\[Conformance\]";

/// Runs specs of Kubernetes' own suite, so many at a time. Side by side they share the machine's processors, and their
/// own deadlines are not made for that: one that fails then is tried once more, alone, and that is told.
pub fn run(focus: &str, at_once: u8) -> Result<Counts> {
    if at_once > 1 && !super::folder().join("bin/ginkgo").exists() {
        bail!("specs side by side need ginkgo in {}/bin; lab/k8s/build.sh builds it", super::folder().display());
    }
    let started = Instant::now();
    let (mut counts, failed) = run_once(focus, at_once, "lab-k8s-e2e.log")?;
    let again: &[String] = if at_once > 1 { &failed } else { &[] };
    let mut mended = 0;
    for (number, name) in again.iter().enumerate() {
        println!("once more, alone: {name}");
        let (seen, _) = run_once(&exactly(name), 1, &format!("lab-k8s-e2e-again-{number}.log"))?;
        mended += u64::from(seen.failed == 0 && seen.passed > 0);
    }
    counts.passed += mended;
    counts.failed = counts.failed.saturating_sub(mended);
    let (passed, failed, seconds) = (counts.passed, counts.failed, started.elapsed().as_secs_f64());
    println!("{passed} passed, {mended} of them at the second try, {failed} failed in {seconds:.0} s");
    Ok(counts)
}

/// Runs them; what the closing line counts, and the names of those that failed.
fn run_once(focus: &str, at_once: u8, log: &str) -> Result<(Counts, Vec<String>)> {
    let mut command = script("cluster.sh");
    command.env("PROCS", at_once.to_string());
    command.args(["e2e", focus, "--ginkgo.skip=Feature:SCTPConnectivity", "--ginkgo.v", "--ginkgo.timeout=3h"]);
    let log = target().join(log);
    let file = std::fs::File::create(&log)?;
    println!("specs {focus:?}, {at_once} at once; their output is in {}", log.display());
    let status = command.stdout(file.try_clone()?).stderr(file).status().context("e2e.test can't be started")?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    for line in text.lines().filter(|line| line.starts_with("• [") || line.trim_start().starts_with("[FAIL]")) {
        println!("{line}");
    }
    let Some(counts) = summary(&text) else {
        bail!("e2e.test ended with {status} and without a summary; see {}", log.display());
    };
    Ok((counts, failures(&text)))
}

/// The names in Ginkgo's closing list: `[FAIL] [sig-network] Netpol … [It] should … [Feature:NetworkPolicy]`.
fn failures(text: &str) -> Vec<String> {
    let closing = text.rsplit_once("Summarizing ").map_or("", |(_, closing)| closing);
    let of = |line: &str| {
        let (_, name) = line.trim().strip_prefix("[FAIL] ")?.split_once("[It] ")?;
        Some(name.split(" [").next().unwrap_or(name).trim().to_owned())
    };
    let mut names: Vec<String> = closing.lines().filter_map(of).collect();
    names.sort();
    names.dedup();
    names
}

/// A pattern that matches a name as it is.
fn exactly(name: &str) -> String {
    name.chars().flat_map(|c| (!c.is_alphanumeric() && c != ' ').then_some('\\').into_iter().chain([c])).collect()
}

/// Reads Ginkgo's last line: `FAIL! -- 46 Passed | 1 Failed | 0 Pending | 6700 Skipped`.
fn summary(text: &str) -> Option<Counts> {
    let line = text.lines().rev().find(|line| line.contains(" Passed | "))?;
    let number = |word: &str| {
        let before = line.split(word).next()?;
        before.split(|c: char| !c.is_ascii_digit()).rfind(|part| !part.is_empty())?.parse().ok()
    };
    Some(Counts { passed: number(" Passed")?, failed: number(" Failed")?, ignored: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ginkgos_last_line_is_read() {
        let text = "x\nFAIL! -- 46 Passed | 1 Failed | 0 Pending | 6700 Skipped\n--- FAIL: TestE2E\n";
        let counts = summary(text).expect("it is there");
        assert_eq!((counts.passed, counts.failed), (46, 1));
        assert!(summary("nothing").is_none());
    }

    #[test]
    fn what_failed_is_found_by_its_name() {
        let text = "  [FAIL] x [It] in the middle\nSummarizing 2 Failures:\n  [FAIL] [sig-network] Netpol between server and \
                    client [It] should support a 'default-deny-all' policy [Feature:NetworkPolicy]\n  netpol.go:1\n\n  \
                    [FAIL] [sig-network] DNS [It] should resolve (TTL) [Conformance]\n";
        assert_eq!(failures(text), ["should resolve (TTL)", "should support a 'default-deny-all' policy"]);
        assert_eq!(exactly("should resolve (TTL)"), r"should resolve \(TTL\)");
    }
}
