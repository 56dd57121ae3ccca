//! Pods on a real Kubernetes API whose sandboxes come and go while the pod's object stays, as kubelet does it.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tortie_lab::cni::{Call, CniFailure};
use tortie_lab::{Lab, Pod, Store, kubernetes};
use tortie_netlink::Netns;

const START: Duration = Duration::from_secs(60);

/// A lab of one node; `None` without what it needs.
fn lab() -> Option<Lab> {
    if let Some(missing) = kubernetes::missing() {
        eprintln!("skipped: {missing} is not there");
        return None;
    }
    let lab = Lab::builder().nodes(1).store(Store::Kubernetes).up().unwrap();
    lab.start(START).unwrap();
    Some(lab)
}

/// A call for a sandbox of the pod.
fn call(lab: &Lab, pod: &Pod, command: &str, container_id: &str, args: &str) -> Result<Value, CniFailure> {
    let (netns, args) = (pod.netns_path(), format!("{};{args}", pod.cni_args()));
    let call = Call { command, container_id, netns: Some(&netns), ifname: "eth0", args: &args };
    lab.node(1).cni_chain(&call, pod.labels(), None).unwrap()
}

fn address(result: &Value) -> IpAddr {
    result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap().parse().unwrap()
}

fn endpoint(lab: &Lab, pod: &Pod) -> String {
    lab.ctl(&["get", "workloadendpoint", &pod.endpoint_name(), "-o", "yaml"], "").unwrap()
}

/// kubelet leaves the addresses of a sandbox that died in the status until the next one is ready, which waits for ADD.
#[test]
#[ignore = "needs root"]
fn a_pod_whose_sandbox_died_gets_another() {
    let Some(lab) = lab() else { return };
    let pod = lab.node(1).prepare_pod("default", "p", &[]).unwrap();
    let first = address(&call(&lab, &pod, "ADD", "first", "").unwrap());
    let status = json!({"status": {"phase": "Running", "podIP": first, "podIPs": [{"ip": first}]}}).to_string();
    lab.kubectl(&["patch", "pod", "p", "--subresource=status", "-p", &status], "").unwrap();
    assert!(endpoint(&lab, &pod).contains(&format!("{first}/32")));

    call(&lab, &pod, "DEL", "first", "").unwrap();
    let left = endpoint(&lab, &pod);
    assert!(!left.contains(&first.to_string()), "the address is free for others:\n{left}");
    // The address of the next sandbox must be another.
    let other = lab.node(1).add_pod("default", "other", &[]).unwrap();
    Netns::delete_named(&pod.record().netns).unwrap();
    Netns::create_named(&pod.record().netns).unwrap();
    let second = address(&call(&lab, &pod, "ADD", "second", "").unwrap());
    assert_ne!(second, first);
    let now = endpoint(&lab, &pod);
    assert!(now.contains(&format!("{second}/32")) && !now.contains(&first.to_string()), "{now}");

    call(&lab, &pod, "DEL", "second", "").unwrap();
    pod.remove_netns().unwrap();
    other.delete().unwrap();
    lab.down().unwrap();
}

/// Runtimes tell of a static pod the hash of kubelet's file; the pod of the API that mirrors it has another uid.
#[test]
#[ignore = "needs root"]
fn a_static_pod_gets_its_network() {
    let Some(lab) = lab() else { return };
    let pod = lab.node(1).prepare_pod("default", "proxy-node1", &[]).unwrap();
    let hash = "0123456789abcdef0123456789abcdef";
    let annotations = json!({
        "kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash, "kubernetes.io/config.source": "file",
    });
    let mirror = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod.name(), "namespace": "default", "annotations": annotations},
        "spec": {"nodeName": lab.node(1).name(), "containers": [{"name": "main", "image": "none"}]},
    });
    let pods = "/api/v1/namespaces/default/pods";
    lab.kubectl(&["delete", "--raw", &format!("{pods}/{}?gracePeriodSeconds=0", pod.name())], "").unwrap();
    lab.kubectl(&["create", "--raw", pods, "-f", "-"], &mirror.to_string()).unwrap();
    let refused = call(&lab, &pod, "ADD", "c", "K8S_POD_UID=fedcba9876543210fedcba9876543210").unwrap_err();
    assert!(refused.msg.contains("not there any more"), "{refused}");
    let told = format!("K8S_POD_UID={hash}");
    let given = address(&call(&lab, &pod, "ADD", "c", &told).unwrap());
    assert!(endpoint(&lab, &pod).contains(&format!("{given}/32")));
    call(&lab, &pod, "DEL", "c", &told).unwrap();
    pod.remove_netns().unwrap();
    lab.down().unwrap();
}
