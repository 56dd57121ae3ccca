//! Pods that ask for something: annotations of their own and of their namespace, and ranges of the node.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::cluster::{field, found, inside, kubectl, script, step, told};
use crate::suite::Counts;

const LIMIT: Duration = Duration::from_secs(90);

/// Runs them on a cluster that Tortie is installed on.
pub fn run(counts: &mut Counts) -> Result<()> {
    // As upstream's, the settings of a node are made with every default filled in, and go before the cluster's.
    let floating = r#"{"spec":{"floatingIPs":"Enabled"}}"#;
    kubectl(&["patch", "felixconfigurations.crd.projectcalico.org", "node.n1", "--type=merge", "-p", floating])?;
    let started = Instant::now();
    kubectl(&["apply", "-f", "lab/k8s/pods.yaml"])?;
    for (namespace, pod, begin) in [
        ("asked", "plain", "10.244."),
        ("asked", "pool", "10.245.0."),
        ("asked-all", "inherits", "10.245.0."),
        ("asked-all", "prefers", "10.244."),
        ("asked", "fixed", "10.245.0.77"),
        ("asked", "bare", "10.99.0.5"),
        ("asked", "mac", "10.244."),
        ("asked", "floating", "10.244."),
    ] {
        step(counts, &format!("the pod {pod} has an address that begins with {begin}"), started, LIMIT, || {
            let ready = field(namespace, &format!("pod/{pod}"), "{.status.containerStatuses[0].ready}")?;
            Ok(ready == "true" && field(namespace, &format!("pod/{pod}"), "{.status.podIP}")?.starts_with(begin))
        });
    }
    let mac = inside("asked", "mac", &["cat", "/sys/class/net/eth0/address"]);
    found(counts, "the Ethernet address is the one asked for", mac_is(&mac), &told(&mac));
    for target in ["10.245.0.77", "10.99.0.5", "10.244.255.9"] {
        step(counts, &format!("a pod reaches {target}"), Instant::now(), LIMIT, || {
            Ok(inside("asked", "plain", &["/agnhost", "connect", &format!("{target}:8080"), "--timeout=2s"]).is_ok())
        });
    }
    step(counts, "a pod that asks for what can't be is told so in an event", started, LIMIT, || {
        let events = kubectl(&["-n", "asked", "get", "events", "-o", "jsonpath={.items[*].message}"])?;
        Ok(events.contains("cni.projectcalico.org/hwAddr") && events.contains("one station"))
    });
    by_hand(counts)?;
    kubectl(&["delete", "-f", "lab/k8s/pods.yaml", "--ignore-not-found"]).map(drop)
}

fn mac_is(answer: &Result<String>) -> bool {
    answer.as_ref().is_ok_and(|text| text.trim() == "02:11:22:33:44:55")
}

/// The plugin on a node, called as a runtime would: ranges of the node for `host-local`, and addresses alone.
fn by_hand(counts: &mut Counts) -> Result<()> {
    let local = r#"{"name":"by-hand","cniVersion":"1.0.0","type":"calico","readiness_gates":["http://127.0.0.1:9099/readiness"],
        "require_mtu_file":true,"policy":{"type":"k8s"},
        "ipam":{"type":"host-local","subnet":"usePodCidr","dataDir":"/run/by-hand","routes":[{"dst":"10.0.0.0/8"}]}}"#;
    let alone = r#"{"name":"by-hand-too","cniVersion":"1.0.0","type":"calico","ipam":{"type":"calico-ipam"}}"#;
    let call = |plugin: &str, command: &str, conf: &str| {
        let line = format!(
            "echo '{conf}' | CNI_COMMAND={command} CNI_CONTAINERID=byhand CNI_NETNS=/run/netns/by-hand CNI_IFNAME=eth0 \
             CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=asked;K8S_POD_NAME=by-hand' \
             CNI_PATH=/opt/cni/bin:/usr/lib/cni /opt/cni/bin/{plugin}"
        );
        node(1, &["sh", "-c", &line])
    };
    node(1, &["ip", "netns", "add", "by-hand"])?;
    let added = call("calico", "ADD", local);
    found(counts, "usePodCidr is the node's range", holds(&added, "10.244.1."), &told(&added));
    let routes = node(1, &["ip", "-n", "by-hand", "route"]);
    let its_own =
        routes.as_ref().is_ok_and(|text| text.contains("10.0.0.0/8 via 169.254.1.1") && !text.contains("default"));
    found(counts, "the pod has host-local's routes", its_own, &told(&routes));
    let gone = call("calico", "DEL", local);
    found(counts, "DEL gives the address back", gone.is_ok(), &told(&gone));
    let given = call("calico-ipam", "ADD", alone);
    found(counts, "calico-ipam alone gives an address", holds(&given, "10.244."), &told(&given));
    let back = call("calico-ipam", "DEL", alone);
    found(counts, "calico-ipam alone takes it back", back.is_ok(), &told(&back));
    node(1, &["ip", "netns", "del", "by-hand"]).map(drop)
}

fn holds(answer: &Result<String>, part: &str) -> bool {
    answer.as_ref().is_ok_and(|text| text.contains(part))
}

/// Runs a command on a node.
pub fn node(number: u8, command: &[&str]) -> Result<String> {
    let output = script("node.sh").arg("exec").arg(number.to_string()).args(command).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if !output.status.success() {
        anyhow::bail!("{}: {} {}", command.join(" "), text(&output.stdout), text(&output.stderr));
    }
    Ok(text(&output.stdout))
}
