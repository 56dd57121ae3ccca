//! Asking the cluster, and trying until it is so.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::suite::Counts;

/// A script of the lab.
pub fn script(name: &str) -> Command {
    Command::new(Path::new("lab/k8s").join(name))
}

/// Tries until it is so or the time is over; counts and tells.
pub fn step(counts: &mut Counts, what: &str, since: Instant, limit: Duration, so: impl Fn() -> Result<bool>) {
    let until = Instant::now() + limit;
    loop {
        match so() {
            Ok(true) => {
                println!("ok: {what} ({:.1} s)", since.elapsed().as_secs_f64());
                counts.passed += 1;
                return;
            }
            _ if Instant::now() < until => std::thread::sleep(Duration::from_millis(200)),
            Ok(false) => {
                println!("FAILED: {what}: not within {} s", limit.as_secs());
                counts.failed += 1;
                return;
            }
            Err(error) => {
                println!("FAILED: {what}: {error:#}");
                counts.failed += 1;
                return;
            }
        }
    }
}

/// Counts and tells what was found once.
pub fn found(counts: &mut Counts, what: &str, so: bool, seen: &str) {
    if so {
        println!("ok: {what} ({seen})");
        counts.passed += 1;
    } else {
        println!("FAILED: {what}: {seen}");
        counts.failed += 1;
    }
}

/// What a command answered, on one line.
pub fn told(answer: &Result<String>) -> String {
    match answer {
        Ok(text) => text.trim().replace('\n', "; "),
        Err(error) => format!("{error:#}").replace('\n', "; "),
    }
}

/// Whether a workload has all its pods, ready.
pub fn rolled_out(namespace: &str, what: &str) -> Result<bool> {
    let path = "jsonpath={.status.desiredNumberScheduled}{.spec.replicas} {.status.numberReady}{.status.readyReplicas}";
    let text = kubectl(&["-n", namespace, "get", what, "-o", path])?;
    let numbers: Vec<&str> = text.split_whitespace().collect();
    Ok(matches!(numbers[..], [wanted, ready] if wanted == ready && wanted != "0"))
}

/// A field of an object.
pub fn field(namespace: &str, object: &str, path: &str) -> Result<String> {
    kubectl(&["-n", namespace, "get", object, "-o", &format!("jsonpath={path}")])
}

/// Runs a command in a pod; what it printed.
pub fn inside(namespace: &str, pod: &str, command: &[&str]) -> Result<String> {
    let mut args = vec!["-n", namespace, "exec", pod, "--"];
    args.extend(command);
    kubectl(&args)
}

/// Applies a file of the lab with words filled in.
pub fn apply_filled(file: &str, words: &[(&str, &str)]) -> Result<()> {
    let mut text = std::fs::read_to_string(Path::new("lab/k8s").join(file))?;
    for (word, value) in words {
        text = text.replace(word, value);
    }
    let filled = crate::command::target().join(format!("lab-k8s-{file}"));
    std::fs::write(&filled, text)?;
    kubectl(&["apply", "-f", &filled.to_string_lossy()]).map(drop)
}

/// Runs kubectl with the lab's administrator; what it printed.
pub fn kubectl(args: &[&str]) -> Result<String> {
    let output = script("cluster.sh").arg("kubectl").args(args).output().context("kubectl can't be started")?;
    if !output.status.success() {
        bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
