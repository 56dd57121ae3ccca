//! What runs while faults are made: packets between pods that must all arrive, and connections that must all fail.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::cluster::{field, found, kubectl, rolled_out, script, step};
use crate::suite::Counts;

/// Pings a second.
const RATE: u32 = 20;

/// The pods of `traffic.yaml` that a policy closes.
pub const CLOSED: [&str; 2] = ["closed", "closed-too"];

/// Traffic that is under way.
pub struct Traffic {
    pings: Child,
    tries: Vec<Child>,
    started: Instant,
}

/// Makes the pods of `traffic.yaml` and waits until their policy holds.
pub fn prepare(counts: &mut Counts) -> Result<()> {
    let (started, limit) = (Instant::now(), Duration::from_secs(90));
    kubectl(&["apply", "-f", "lab/k8s/traffic.yaml"])?;
    for pod in ["client", "open"].iter().chain(&CLOSED) {
        step(counts, &format!("the pod {pod} runs"), started, limit, || {
            Ok(field("traffic", &format!("pod/{pod}"), "{.status.phase}")? == "Running" && !address(pod)?.is_empty())
        });
    }
    let reach = |pod: &str| -> Result<bool> {
        let target = format!("{}:8080", address(pod)?);
        Ok(super::cluster::inside("traffic", "client", &["/agnhost", "connect", &target, "--timeout=1s"]).is_ok())
    };
    step(counts, "the open pod is open", started, limit, || reach("open"));
    for pod in CLOSED {
        step(counts, &format!("the pod {pod} is closed"), started, limit, || Ok(!reach(pod)?));
    }
    step(counts, "nothing of Tortie is restarting", started, limit, || {
        rolled_out("kube-system", "daemonset/calico-node")
    });
    Ok(())
}

/// The address of a pod of `traffic.yaml`.
pub fn address(pod: &str) -> Result<String> {
    field("traffic", &format!("pod/{pod}"), "{.status.podIP}")
}

/// In the pod itself, so that a fault of the API server does not end it.
fn in_client(line: &str) -> Command {
    let mut command = script("node.sh");
    // The client's process on its node, by the name of its pod. Containers of an earlier one may still be listed.
    let find = "for id in $(ctr -n k8s.io containers ls -q \
                'labels.\"io.kubernetes.pod.name\"==client,labels.\"io.kubernetes.container.name\"==c'); do \
                pid=$(ctr -n k8s.io tasks ls | awk -v id=$id '$1==id && $3==\"RUNNING\" {print $2}'); \
                [ -z \"$pid\" ] || break; done";
    command.args(["exec", "1", "sh", "-c", &format!("{find}; exec nsenter -t $pid -n sh -c \"{line}\"")]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

impl Traffic {
    /// Starts it.
    pub fn start() -> Result<Traffic> {
        let open = address("open")?;
        let interval = 1.0 / f64::from(RATE);
        let pings = in_client(&format!("exec ping -n -q -i {interval} {open}")).spawn().context("ping")?;
        let mut tries = Vec::new();
        for pod in CLOSED {
            let to = address(pod)?;
            let line = format!(
                "while :; do timeout 1 busybox nc -w 1 {to} 8080 </dev/null >/dev/null 2>&1 && echo OPEN || sleep 0.1; done"
            );
            tries.push(in_client(&line).spawn().context("nc")?);
        }
        std::thread::sleep(Duration::from_secs(1));
        let mut traffic = Traffic { pings, tries, started: Instant::now() };
        for child in traffic.tries.iter_mut().chain([&mut traffic.pings]) {
            if let Some(status) = child.try_wait()? {
                bail!("the traffic from the client's pod ended at once ({status})");
            }
        }
        Ok(traffic)
    }

    /// Ends it and counts what was seen: nothing lost, nothing open.
    pub fn stop(mut self, counts: &mut Counts, during: &str) -> Result<()> {
        std::thread::sleep(Duration::from_secs(1));
        let tries = self.tries.iter_mut().map(|tries| end(tries, "TERM")).collect::<Result<String>>()?;
        let pings = end(&mut self.pings, "INT")?;
        let seconds = self.started.elapsed().as_secs_f64();
        let line = pings.lines().find(|line| line.contains("packets transmitted")).unwrap_or(&pings).to_owned();
        let (sent, received) = numbers(&line).unwrap_or_default();
        // One may be under way at the end.
        let whole = sent > RATE && sent - received <= 1;
        found(counts, &format!("no packet is lost during {during}"), whole, &format!("{line}; {seconds:.0} s"));
        let opened = tries.lines().filter(|line| *line == "OPEN").count();
        found(counts, &format!("nothing is open during {during}"), opened == 0, &format!("{opened} connections"));
        Ok(())
    }
}

/// Ends the processes below a child that this program started, and reads what it printed.
fn end(child: &mut Child, signal: &str) -> Result<String> {
    for pid in below(child.id()) {
        Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).stderr(Stdio::null()).status()?;
    }
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        std::io::Read::read_to_string(&mut out, &mut text)?;
    }
    child.wait()?;
    Ok(text)
}

/// A process and its descendants.
fn below(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|word| word.parse().ok());
    children.flat_map(below).chain([pid]).collect()
}

/// Reads ping's last lines: packets transmitted and received.
fn numbers(line: &str) -> Option<(u32, u32)> {
    let mut parts = line.split(", ").map(|part| part.split(' ').next().and_then(|word| word.parse().ok()));
    Some((parts.next()??, parts.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_last_line_is_read() {
        let line = "200 packets transmitted, 199 received, 0.5% packet loss, time 9999ms";
        assert_eq!(numbers(line), Some((200, 199)));
        assert_eq!(numbers("ping: unknown host"), None);
    }

    #[test]
    fn descendants_are_found() {
        let mut child = Command::new("sh").args(["-c", "sleep 30; true"]).spawn().expect("a shell");
        let until = Instant::now() + Duration::from_secs(10);
        while below(child.id()).len() < 2 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let all = below(child.id());
        for pid in &all {
            Command::new("kill").arg(pid.to_string()).status().expect("it is there");
        }
        child.wait().expect("it ended");
        assert_eq!(all.len(), 2);
    }
}
