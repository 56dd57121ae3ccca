//! Services beside kube-proxy: ports of nodes, external addresses, ports of the host, and a pod's way to itself; with
//! policy, which sees the client where the Service keeps its address.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::cluster::{apply_filled, field, found, inside, kubectl, step, told};
use crate::suite::Counts;

const LIMIT: Duration = Duration::from_secs(60);

/// The address of a client outside the nodes.
const OUTSIDE: &str = "172.30.0.1";

/// The external address of `services.yaml`, which is led to a node without the pod.
const EXTERNAL: &str = "172.30.9.9";

/// Runs them on a cluster that Tortie is installed on.
pub fn run(counts: &mut Counts) -> Result<()> {
    let started = Instant::now();
    kubectl(&["apply", "-f", "lab/k8s/services.yaml"])?;
    for pod in ["server", "client"] {
        step(counts, &format!("the pod {pod} is ready"), started, LIMIT, || {
            Ok(field("services", &format!("pod/{pod}"), "{.status.containerStatuses[0].ready}")? == "true")
        });
    }
    let address =
        |node: &str| field("", &format!("node/{node}"), "{.status.addresses[?(@.type==\"InternalIP\")].address}");
    let nodes = Nodes { other: address("n1")?, server: address("n3")? };
    outside(&["ip", "route", "replace", EXTERNAL, "via", &nodes.other])?;
    nodes.every_way(counts, "without a policy");
    itself(counts, "without a policy");
    nodes.policies(counts)?;
    outside(&["ip", "route", "del", EXTERNAL])?;
    kubectl(&["delete", "namespace", "services"]).map(drop)
}

/// What nodes are reached at: one without the pod, and the pod's.
struct Nodes {
    other: String,
    server: String,
}

impl Nodes {
    /// Ways from outside that do not tell the pod who asks: kube-proxy puts the node's address in place of the client's.
    fn every_way(&self, counts: &mut Counts, when: &str) {
        for (what, to) in [
            ("the port of a node without the pod", format!("{}:30080", self.other)),
            ("the port of the pod's node", format!("{}:30080", self.server)),
            ("the external address", format!("{EXTERNAL}:80")),
        ] {
            step(counts, &format!("{what} is open, {when}"), Instant::now(), LIMIT, || Ok(client_seen(&to).is_ok()));
        }
        self.local_ways(counts, when, true);
    }

    /// Ways that keep the client's address: the pod sees it, and policy may name it.
    fn local_ways(&self, counts: &mut Counts, when: &str, open: bool) {
        for (what, port) in [("the local port of the pod's node", 30081), ("the port of the host", 18081)] {
            let to = format!("{}:{port}", self.server);
            step(counts, &format!("{what} is {}, {when}", word(open)), Instant::now(), LIMIT, || {
                Ok(client_seen(&to).is_ok_and(|seen| seen.starts_with(OUTSIDE)) == open)
            });
        }
        let other = client_seen(&format!("{}:30081", self.other));
        found(counts, &format!("the local port of another node is closed, {when}"), other.is_err(), &told(&other));
    }

    fn policies(&self, counts: &mut Counts) -> Result<()> {
        let policy = |allowed: &str| apply_filled("services-policy.yaml", &[("ALLOWED", allowed)]);
        // A Service that puts the node's address in place of the client's makes the pod's own node the client, which
        // always gets in; so the ways through another node and those that keep the address are asked.
        policy("{podSelector: {matchLabels: {app: nobody}}}")?;
        self.local_ways(counts, "when nobody may", false);
        let other = format!("{}:30080", self.other);
        step(counts, "the port of a node without the pod is closed, when nobody may", Instant::now(), LIMIT, || {
            Ok(client_seen(&other).is_err())
        });
        step(counts, "the Service is closed to the client, when nobody may", Instant::now(), LIMIT, || {
            Ok(!from("client"))
        });
        policy(&format!("{{ipBlock: {{cidr: {OUTSIDE}/32}}}}"))?;
        self.local_ways(counts, "when the client's address may", true);
        step(counts, "the Service stays closed to the client pod", Instant::now(), LIMIT, || Ok(!from("client")));
        policy("{podSelector: {}}")?;
        step(counts, "the Service is open to the client, when pods may", Instant::now(), LIMIT, || Ok(from("client")));
        self.local_ways(counts, "when pods may", false);
        itself(counts, "when pods may");
        Ok(())
    }
}

/// The server asks itself through its Service.
fn itself(counts: &mut Counts, when: &str) {
    step(counts, &format!("the server reaches itself through its Service, {when}"), Instant::now(), LIMIT, || {
        Ok(from("server"))
    });
}

fn word(open: bool) -> &'static str {
    if open { "open" } else { "closed" }
}

/// Whether a pod gets an answer from the Service.
fn from(pod: &str) -> bool {
    let url = "http://inside.services.svc.cluster.local/hostname";
    inside("services", pod, &["curl", "-sf", "-m", "2", url]).is_ok()
}

/// Asks from outside; the client's address and port as the server saw them.
fn client_seen(to: &str) -> Result<String> {
    outside(&["curl", "-sf", "-m", "2", "--interface", OUTSIDE, &format!("http://{to}/clientip")])
}

/// Runs a command in the control plane's namespace, which is no node.
fn outside(command: &[&str]) -> Result<String> {
    let output = Command::new("nsenter").arg("--net=/run/netns/kl-cp").args(command).output()?;
    if !output.status.success() {
        bail!("{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
