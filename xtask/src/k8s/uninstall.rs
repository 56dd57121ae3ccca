//! Uninstalling by the commands of the docs: each node is as it was before Tortie came.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::cluster::{field, found, kubectl, rolled_out, step};
use super::pods::node;
use crate::suite::Counts;

const LIMIT: Duration = Duration::from_secs(120);

/// What a node has that Tortie could leave: interfaces, routes, rules, tables of the packet filter, and files.
const LOOK: &str = "ls /sys/class/net | sed 's/^/link /'; \
    ip route show table all | sed 's/ *$//;s/^/route /' | grep -v 'table local'; ip rule; ip -6 rule; \
    nft list tables | grep -vE 'kube-proxy|cni_'; iptables-save 2>/dev/null | grep -i cali; ls /sys/fs/bpf; \
    find /opt/cni/bin /etc/cni/net.d /var/lib/calico /run/calico /var/log/calico -type f -o -type s 2>/dev/null; true";

/// Whether kubelet has made its own chains in all tables of iptables, which it does some time after its start.
const KUBELET_IS_DONE: &str = "for family in ip ip6; do for table in mangle nat filter; do \
    nft list chain $family $table KUBE-KUBELET-CANARY >/dev/null 2>&1 || exit 0; done; done; echo done";

/// What every node holds before the installation.
pub fn before(nodes: u8) -> Result<Vec<String>> {
    let started = Instant::now();
    for number in 1..=nodes {
        while node(number, &["sh", "-c", KUBELET_IS_DONE])?.trim() != "done" && started.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    look(nodes)
}

/// What every node holds now.
fn look(nodes: u8) -> Result<Vec<String>> {
    (1..=nodes).map(|number| node(number, &["sh", "-c", LOOK]).map(sorted)).collect()
}

fn sorted(text: String) -> String {
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    lines.dedup();
    lines.join("\n")
}

/// Takes Tortie away from a cluster that it is installed on, with these manifests.
pub fn run(counts: &mut Counts, manifest: &str, before: &[String]) -> Result<()> {
    let started = Instant::now();
    kubectl(&["-n", "kube-system", "scale", "deployment/coredns", "--replicas=0"])?;
    step(counts, "no pod is left on the network", started, LIMIT, || {
        let path = "{range .items[?(@.spec.hostNetwork!=true)]}{.metadata.name} {end}";
        let left = kubectl(&["get", "pods", "-A", "-o", &format!("jsonpath={path}")])?;
        Ok(left.split_whitespace().all(|pod| pod.starts_with("calico-kube-controllers")))
    });
    kubectl(&["-n", "kube-system", "delete", "deployment/calico-kube-controllers", "--cascade=foreground"])?;
    kubectl(&["-n", "kube-system", "delete", "daemonset/calico-node", "--cascade=foreground"])?;
    kubectl(&["apply", "-f", "manifests/uninstall.yaml"])?;
    step(counts, "every node is cleaned", started, LIMIT, || rolled_out("kube-system", "daemonset/tortie-uninstall"));
    kubectl(&["delete", "-f", "manifests/uninstall.yaml"])?;
    kubectl(&["delete", "-f", manifest, "--ignore-not-found"])?;
    let kinds = field("", "customresourcedefinitions", "{.items[*].metadata.name}")?;
    found(counts, "no kind is left", !kinds.contains("projectcalico"), &kinds);
    let nodes = u8::try_from(before.len())?;
    for (number, (before, after)) in (1..).zip(before.iter().zip(look(nodes)?)) {
        let more: Vec<&str> = after.lines().filter(|line| !before.lines().any(|had| had == *line)).collect();
        let fewer: Vec<&str> = before.lines().filter(|line| !after.lines().any(|has| has == *line)).collect();
        let same = more.is_empty() && fewer.is_empty();
        found(counts, &format!("n{number} is as before"), same, &format!("more: {more:?}; fewer: {fewer:?}"));
    }
    Ok(())
}
