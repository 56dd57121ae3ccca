//! Figures: how long pods take to start, beside pods without a network of their own, and what the agent needs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::cluster::{apply_filled, field, kubectl, script};
use super::pods::node;

const LIMIT: Duration = Duration::from_secs(600);

/// Measures on a cluster that Tortie is installed on, and prints.
pub fn run(count: u32) -> Result<()> {
    println!("load average {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    for round in 1..=2 {
        for (name, host) in [("many-host", "true"), ("many-pods", "false")] {
            let taken = start(name, count, host)?;
            println!(
                "round {round}: {count} pods of {name} on one node, create to Ready: {:.1} s",
                taken.as_secs_f64()
            );
        }
    }
    println!("CNI ADD as containerd counts it:\n{}", node(1, &["sh", "-c", HISTOGRAM])?);
    for number in 1..=3 {
        let line = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = calico-node ] && grep -E 'VmRSS|VmHWM' $p/status; done; true";
        println!("agent of n{number}: {}", node(number, &["sh", "-c", line])?.replace('\n', " "));
    }
    Ok(())
}

/// Reads containerd's own count of network set-ups.
const HISTOGRAM: &str = "curl -s http://127.0.0.1:1338/v1/metrics | grep -E 'network_plugin_operations.*(seconds_bucket|seconds_sum|seconds_count).*(setup|SetUp|set_up)'";

fn start(name: &str, count: u32, host: &str) -> Result<Duration> {
    let number = count.to_string();
    let started = Instant::now();
    apply_filled("many.yaml", &[("NAME", name), ("COUNT", &number), ("HOST", host)])?;
    let object = format!("deployment/{name}");
    while field("default", &object, "{.status.readyReplicas}")? != number {
        anyhow::ensure!(started.elapsed() < LIMIT, "{name}: not all pods are ready after {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(200));
    }
    let taken = started.elapsed();
    kubectl(&["delete", &object, "--cascade=foreground"])?;
    let _ = script("cluster.sh")
        .args(["kubectl", "wait", "--for=delete", "pod", "-l", &format!("app={name}"), "--timeout=300s"])
        .output()
        .context("kubectl can't be started")?;
    Ok(taken)
}
