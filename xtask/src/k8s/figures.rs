//! Figures: how long pods take to start, beside pods without a network of their own and beside pods on the `ptp` plugin,
//! and what the agent needs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cluster::{apply_filled, field, kubectl, script};
use super::pods::node;
use super::times::Times;

const LIMIT: Duration = Duration::from_secs(600);

/// Where pods get their network from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Host,
    Ours,
    /// CNI's own `ptp`, `host-local` and `portmap`: as many plugins as ours has, without routes to others and policy.
    Ptp,
}

/// Before ours by name, so that the runtime takes it.
const PTP_FILE: &str = "/etc/cni/net.d/00-floor.conflist";
const PTP: &str = r#"{"cniVersion": "1.0.0", "name": "floor", "plugins": [
    {"type": "ptp", "ipam": {"type": "host-local", "subnet": "10.250.0.0/23"}},
    {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

/// Measures on a cluster that Tortie is installed on, and prints.
pub fn run(count: u32, nodes: u8) -> Result<()> {
    for (name, network) in [("row-ptp", Network::Ptp), ("row-pods", Network::Ours)] {
        measure("one after the other", network, &Pods { file: "row.yaml", kind: "statefulset", name, count })?;
    }
    for round in ["all at once, first round", "all at once, second round"] {
        let mut means = Vec::new();
        for (name, network) in [("many-host", Network::Host), ("many-ptp", Network::Ptp), ("many-pods", Network::Ours)]
        {
            means.push(measure(round, network, &Pods { file: "many.yaml", kind: "deployment", name, count })?);
        }
        if let [_, Some(ptp), Some(ours)] = means[..] {
            println!("{round}: network time of a pod, ours to ptp: {:.2}", ours / ptp);
        }
    }
    agents(nodes)
}

/// Pods to start.
struct Pods {
    file: &'static str,
    kind: &'static str,
    name: &'static str,
    count: u32,
}

/// Starts pods and prints what that took; the network time of one on average, in seconds.
fn measure(how: &str, network: Network, pods: &Pods) -> Result<Option<f64>> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let before = Operations::of_n1()?;
    let parts = (Times::of_agent()?, Times::of_writes()?);
    let (taken, seen, now) = on(network, || {
        let taken = start(pods, network)?;
        let seen = (taken, Operations::of_n1()?.since(&before), (Times::of_agent()?, Times::of_writes()?));
        remove(pods)?;
        Ok(seen)
    })?;
    println!(
        "{how}: {} pods of {} on one node, create to Ready: {:.1} s; network: {}; load before {}",
        pods.count,
        pods.name,
        taken.as_secs_f64(),
        seen.told(),
        load.trim()
    );
    if network == Network::Ours {
        println!("{how}: in the agent, on average: {}", now.0.told_since(&parts.0));
    }
    println!("{how}: in the API server, on average: {}", now.1.told_since(&parts.1));
    Ok(seen.mean())
}

/// Prints what the agents of the nodes take of memory, now and at their peak.
pub fn agents(nodes: u8) -> Result<()> {
    for number in 1..=nodes {
        let line = "for p in /proc/[0-9]*; do [ \"$(cat $p/comm)\" = calico-node ] && grep -E 'VmRSS|VmHWM' $p/status; done; true";
        println!(
            "agent of n{number}: {}",
            node(number, &["sh", "-c", line])?.split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    Ok(())
}

/// Does something while n1 has this network for new pods.
fn on<T>(network: Network, what: impl FnOnce() -> Result<T>) -> Result<T> {
    match network {
        Network::Host | Network::Ours => what(),
        Network::Ptp => {
            node(1, &["sh", "-c", &format!("echo '{PTP}' >{PTP_FILE}")])?;
            // The runtime watches the folder; whether it took the file is seen by the pods' addresses.
            std::thread::sleep(Duration::from_secs(2));
            let done = what();
            node(1, &["rm", "-f", PTP_FILE])?;
            std::thread::sleep(Duration::from_secs(2));
            done
        }
    }
}

/// Starts pods; how long it took until all were ready.
fn start(pods: &Pods, network: Network) -> Result<Duration> {
    let Pods { file, kind, name, count } = pods;
    let number = count.to_string();
    let host = if network == Network::Host { "true" } else { "false" };
    let started = Instant::now();
    apply_filled(file, &[("NAME", name), ("COUNT", &number), ("HOST", host)])?;
    let object = format!("{kind}/{name}");
    while field("default", &object, "{.status.readyReplicas}")? != number {
        ensure!(started.elapsed() < LIMIT, "{name}: not all pods are ready after {} s", LIMIT.as_secs());
        std::thread::sleep(Duration::from_millis(200));
    }
    let taken = started.elapsed();
    let selector = format!("app={name}");
    let path = "jsonpath={.items[*].status.podIP}";
    let addresses = kubectl(&["get", "pods", "-l", &selector, "-o", path])?;
    let begin = match network {
        Network::Host => "172.30.",
        Network::Ours => "10.244.",
        Network::Ptp => "10.250.",
    };
    ensure!(addresses.split_whitespace().all(|ip| ip.starts_with(begin)), "{name}: not all have {begin}: {addresses}");
    Ok(taken)
}

/// Takes pods away, and waits until they are gone.
fn remove(pods: &Pods) -> Result<()> {
    let Pods { file: _, kind, name, count: _ } = pods;
    kubectl(&["delete", &format!("{kind}/{name}"), "--cascade=foreground"])?;
    let _ = script("cluster.sh")
        .args(["kubectl", "wait", "--for=delete", "pod", "-l", &format!("app={name}"), "--timeout=300s"])
        .output()
        .context("kubectl can't be started")?;
    Ok(())
}

/// What containerd counts of the networks that it had made: how many took at most so many seconds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Operations {
    at_most: Vec<(String, u64)>,
    sum: f64,
    count: u64,
}

impl Operations {
    fn of_n1() -> Result<Operations> {
        Operations::read(&node(1, &["curl", "-sf", "http://127.0.0.1:1338/v1/metrics"])?)
    }

    fn read(metrics: &str) -> Result<Operations> {
        let mut seen = Operations::default();
        let lines = metrics.lines().filter(|line| line.contains("network_plugin_operations_duration"));
        for line in lines.filter(|line| line.contains("\"set_up_pod\"")) {
            let (name, value) = line.rsplit_once(' ').context("a metric has a value")?;
            if let Some((_, bound)) = name.split_once("le=\"") {
                seen.at_most.push((bound.trim_end_matches(['"', '}']).to_owned(), value.parse()?));
            } else if name.contains("_sum{") {
                seen.sum = value.parse()?;
            } else if name.contains("_count{") {
                seen.count = value.parse()?;
            }
        }
        Ok(seen)
    }

    fn since(&self, before: &Operations) -> Operations {
        let earlier = |bound: &str| before.at_most.iter().find(|(other, _)| other == bound).map_or(0, |(_, n)| *n);
        Operations {
            at_most: self.at_most.iter().map(|(bound, n)| (bound.clone(), n - earlier(bound))).collect(),
            sum: self.sum - before.sum,
            count: self.count - before.count,
        }
    }

    /// Seconds; none if there were none.
    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    /// The bound that so many of a hundred stayed within.
    fn within(&self, percent: u64) -> &str {
        let enough = |(_, n): &&(String, u64)| n * 100 >= self.count * percent;
        self.at_most.iter().find(enough).map_or("-", |(bound, _)| bound)
    }

    fn told(&self) -> String {
        match self.mean() {
            Some(mean) => format!(
                "{} times, {:.0} ms on average, half within {} s, 99 of 100 within {} s",
                self.count,
                mean * 1000.0,
                self.within(50),
                self.within(99)
            ),
            None => "none".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(low: u64, all: u64, sum: f64) -> Operations {
        let name = "containerd_cri_network_plugin_operations_duration_seconds_seconds";
        let of = |what: &str| format!("{name}_{what}{{operation_type=\"set_up_pod\"");
        let text = format!(
            "{bucket},le=\"0.05\"}} {low}\n{bucket},le=\"+Inf\"}} {all}\n{}}} {sum}\n{}}} {all}\n\
             {name}_count{{operation_type=\"tear_down_pod\"}} 7\n",
            of("sum"),
            of("count"),
            bucket = of("bucket"),
        );
        Operations::read(&text).expect("containerd's form")
    }

    #[test]
    fn what_was_seen_between_two_looks_is_counted() {
        let seen = metrics(60, 110, 30.0).since(&metrics(10, 10, 5.0));
        assert_eq!((seen.count, seen.mean()), (100, Some(0.25)));
        assert_eq!((seen.within(50), seen.within(99)), ("0.05", "+Inf"));
        assert_eq!(metrics(1, 1, 1.0).since(&Operations::default()).count, 1);
        assert_eq!(Operations::default().told(), "none");
    }
}
