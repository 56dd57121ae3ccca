//! Faults of a cluster, made under traffic: no packet between pods that stay is lost, no address leaks, no pod is open.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::cluster::{apply_filled, field, found, kubectl, rolled_out, script, step};
use super::pods::node;
use super::refused;
use super::traffic::{self, Traffic};
use crate::command::run;
use crate::suite::Counts;

const LIMIT: Duration = Duration::from_secs(240);

/// Runs them on a cluster of three nodes that Tortie is installed on. `full`: as often as it takes to trust it.
pub fn faults(counts: &mut Counts, full: bool) -> Result<()> {
    traffic::prepare(counts)?;
    rolling(counts, if full { 20 } else { 2 })?;
    control(counts)?;
    refused::no_api_at_start(counts)?;
    a_right_is_missing(counts)?;
    refused::run_all(counts)?;
    a_node_crashes(counts)?;
    first_packets(counts, if full { 500 } else { 50 })?;
    kubectl(&["delete", "namespace", "traffic"])?;
    no_address_leaks(counts)?;
    no_half_pods(counts)
}

/// The agents are replaced again and again.
fn rolling(counts: &mut Counts, times: u32) -> Result<()> {
    let traffic = Traffic::start()?;
    for time in 1..=times {
        let before = Instant::now();
        kubectl(&["-n", "kube-system", "rollout", "restart", "daemonset/calico-node"])?;
        step(counts, &format!("rolling restart {time} of {times}"), before, LIMIT, updated);
    }
    traffic.stop(counts, &format!("{times} rolling restarts"))
}

/// Whether every agent is of the newest form and ready.
pub fn updated() -> Result<bool> {
    let path = "{.metadata.generation} {.status.observedGeneration} {.status.desiredNumberScheduled} \
                {.status.updatedNumberScheduled} {.status.numberReady}";
    let text = field("kube-system", "daemonset/calico-node", path)?;
    let numbers: Vec<&str> = text.split_whitespace().collect();
    Ok(
        matches!(numbers[..], [generation, seen, all, updated, ready] if generation == seen && all == updated && all == ready),
    )
}

/// The API server ends and comes back; etcd stops for a while.
fn control(counts: &mut Counts) -> Result<()> {
    for (what, verb) in [("a restart of the API server", "restart"), ("a pause of etcd", "pause")] {
        let traffic = Traffic::start()?;
        let before = Instant::now();
        run(script("control.sh").arg(verb))?;
        step(counts, &format!("{what} is over"), before, LIMIT, || rolled_out("kube-system", "daemonset/calico-node"));
        let pod = format!("after-{verb}");
        kubectl(&["-n", "traffic", "run", &pod, "--restart=Never", "--image=registry.k8s.io/pause:3.10.1"])?;
        step(counts, &format!("a pod starts after {what}"), before, LIMIT, || {
            Ok(field("traffic", &format!("pod/{pod}"), "{.status.phase}")? == "Running")
        });
        traffic.stop(counts, what)?;
    }
    Ok(())
}

/// An agent that may not read a kind waits and says so on its Node, until it may.
fn a_right_is_missing(counts: &mut Counts) -> Result<()> {
    let role = ["get", "clusterrole", "calico-node", "-o", "json"];
    let whole = kubectl(&role)?;
    let traffic = Traffic::start()?;
    apply(&whole.replace("\"ippools\",", ""))?;
    kubectl(&["-n", "kube-system", "delete", "pod", "-l", "k8s-app=calico-node", "--field-selector=spec.nodeName=n2"])?;
    let started = Instant::now();
    step(counts, "the Node says which right is missing", started, LIMIT, || {
        let said = network_condition("n2")?;
        Ok(said.starts_with("True") && said.contains("ippools") && said.contains("the verb"))
    });
    apply(&whole)?;
    step(counts, "with the right the node goes on", started, LIMIT, || {
        Ok(network_condition("n2")?.starts_with("False"))
    });
    traffic.stop(counts, "a missing right")
}

/// Puts an object in place of whatever it is now.
fn apply(text: &str) -> Result<()> {
    let text: String = text.lines().filter(|line| !line.contains("\"resourceVersion\"")).collect();
    let file = crate::command::target().join("lab-k8s-role.json");
    std::fs::write(&file, text)?;
    kubectl(&["replace", "-f", &file.to_string_lossy()]).map(drop)
}

/// What a Node says of its network.
pub fn network_condition(node: &str) -> Result<String> {
    field(
        "",
        &format!("node/{node}"),
        "{range .status.conditions[?(@.type==\"NetworkUnavailable\")]}{.status} {.message}{end}",
    )
}

/// All processes of a node end at once, and it comes back.
fn a_node_crashes(counts: &mut Counts) -> Result<()> {
    let traffic = Traffic::start()?;
    let before = Instant::now();
    run(script("node.sh").args(["stop", "2"]))?;
    run(script("node.sh").args(["start", "2"]))?;
    step(counts, "the node is Ready again", before, LIMIT, || {
        let ready = "{range .status.conditions[?(@.type==\"Ready\")]}{.status} {.lastHeartbeatTime}{end}";
        Ok(field("", "node/n2", ready)?.starts_with("True") && rolled_out("kube-system", "daemonset/calico-node")?)
    });
    kubectl(&[
        "-n",
        "traffic",
        "run",
        "returned",
        "--restart=Never",
        "--image=registry.k8s.io/pause:3.10.1",
        "--overrides={\"spec\":{\"nodeName\":\"n2\"}}",
    ])?;
    step(counts, "a pod starts on the node that came back", before, LIMIT, || {
        Ok(field("traffic", "pod/returned", "{.status.phase}")? == "Running")
    });
    // A node reaches its own pods whatever policy says, so the tries of others had something to find.
    step(counts, "the closed pod of that node serves again, with its address", before, LIMIT, || {
        let url = format!("http://{}:8080/hostname", traffic::address("closed-too")?);
        Ok(node(2, &["curl", "-sf", "-m", "2", &url])? == "closed-too" && url.contains("//10.244.255.200:"))
    });
    traffic.stop(counts, "the crash of another node")
}

/// Pods whose first instruction is a connection: those that may must all succeed, those that may not must all fail.
fn first_packets(counts: &mut Counts, count: u32) -> Result<()> {
    for (name, target, good) in [("may", "open", count), ("may-not", "closed", 0)] {
        let wanted = if good == 0 { (count / 10).max(5) } else { count };
        let address = format!("{}:8080", traffic::address(target)?);
        let number = wanted.to_string();
        let started = Instant::now();
        apply_filled("connect.yaml", &[("NAME", name), ("COUNT", &number), ("TARGET", &address)])?;
        let ended = || -> Result<(u32, u32)> {
            let text = field("traffic", &format!("job/{name}"), "{.status.succeeded}/{.status.failed}")?;
            let (succeeded, failed) = text.split_once('/').unwrap_or_default();
            Ok((succeeded.parse().unwrap_or(0), failed.parse().unwrap_or(0)))
        };
        let limit = Duration::from_secs(120 + u64::from(count) * 3);
        step(
            counts,
            &format!("{wanted} pods that connect at once to the {target} pod have ended"),
            started,
            limit,
            || {
                let (succeeded, failed) = ended()?;
                Ok(succeeded + failed >= wanted)
            },
        );
        let (succeeded, failed) = ended()?;
        let right = if good == 0 { succeeded == 0 } else { failed == 0 };
        found(
            counts,
            &format!("the first packet to the {target} pod"),
            right,
            &format!("{succeeded} in, {failed} not"),
        );
        kubectl(&["-n", "traffic", "delete", "job", name, "--cascade=foreground"])?;
    }
    Ok(())
}

/// Every address that is in use is a pod's or a tunnel's.
fn no_address_leaks(counts: &mut Counts) -> Result<()> {
    step(counts, "every address that is held is a pod's", Instant::now(), LIMIT, || Ok(leaked()?.is_empty()));
    let leaked = leaked()?;
    if !leaked.is_empty() {
        println!("held by nobody: {leaked:?}");
    }
    Ok(())
}

/// Every interface and route to a pod on a node is of a pod that is there, and each of those has both.
fn no_half_pods(counts: &mut Counts) -> Result<()> {
    for number in 1..=3 {
        let name = format!("n{number} has an interface and a route for each of its pods, and for nothing else");
        step(counts, &name, Instant::now(), LIMIT, || {
            let (pods, wired) = (pods_of(number)?, wired(number)?);
            let interfaces: BTreeSet<&String> = wired.iter().map(|(_, interface)| interface).collect();
            let routed: BTreeSet<String> = wired.iter().map(|(address, _)| address.clone()).collect();
            let links = node(number, &["sh", "-c", "ip -o link | grep -c ': cali'; true"])?;
            Ok(pods == routed && links.trim() == interfaces.len().to_string())
        });
    }
    Ok(())
}

/// The addresses of the pods of a node that have a network of their own.
fn pods_of(number: u8) -> Result<BTreeSet<String>> {
    let on = format!("--field-selector=spec.nodeName=n{number},status.phase=Running");
    let path = "jsonpath={range .items[*]}{.spec.hostNetwork}/{.status.podIP}{\"\\n\"}{end}";
    let text = kubectl(&["get", "pods", "-A", &on, "-o", path])?;
    Ok(text.lines().filter_map(|line| line.strip_prefix('/')).map(str::to_owned).collect())
}

/// The routes of a node to its pods: address and interface.
fn wired(number: u8) -> Result<BTreeSet<(String, String)>> {
    let text = node(number, &["ip", "-4", "-o", "route"])?;
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let routes = words.filter_map(|words| match words[..] {
        [to, "dev", interface, ..] if interface.starts_with("cali") => Some((to.to_owned(), interface.to_owned())),
        _ => None,
    });
    Ok(routes.collect())
}

/// Pods that addresses are held for and that are not there.
fn leaked() -> Result<BTreeSet<String>> {
    let path = "jsonpath={range .items[*].spec.attributes[*]}{.secondary.namespace}/{.secondary.pod}{\"\\n\"}{end}";
    let held = kubectl(&["get", "ipamblocks.crd.projectcalico.org", "-o", path])?;
    let path = "jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}{\"\\n\"}{end}";
    let pods = kubectl(&["get", "pods", "-A", "-o", path])?;
    let pods: BTreeSet<&str> = pods.lines().collect();
    Ok(held.lines().filter(|line| *line != "/" && !pods.contains(line)).map(str::to_owned).collect())
}
