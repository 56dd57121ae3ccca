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

/// Runs specs of Kubernetes' own suite, their output shown.
pub fn run(focus: &str) -> Result<Counts> {
    let mut command = script("cluster.sh");
    command.args(["e2e", focus, "--ginkgo.skip=Feature:SCTPConnectivity", "--ginkgo.v", "--ginkgo.timeout=3h"]);
    let log = target().join("lab-k8s-e2e.log");
    let file = std::fs::File::create(&log)?;
    println!("specs {focus:?}; their output is in {}", log.display());
    let started = Instant::now();
    let status = command.stdout(file.try_clone()?).stderr(file).status().context("e2e.test can't be started")?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    for line in text.lines().filter(|line| line.starts_with("• [") || line.trim_start().starts_with("[FAIL]")) {
        println!("{line}");
    }
    let Some(counts) = summary(&text) else {
        bail!("e2e.test ended with {status} and without a summary; see {}", log.display());
    };
    println!("{} passed, {} failed in {:.0} s", counts.passed, counts.failed, started.elapsed().as_secs_f64());
    Ok(counts)
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
}
