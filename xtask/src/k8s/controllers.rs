//! The controllers in the cluster: one of two leads, another takes over, and an address that nobody has comes back.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::cluster::{field, found, kubectl, rolled_out, step, told};
use super::pods::node;
use crate::suite::Counts;

const LIMIT: Duration = Duration::from_secs(120);

/// The Deployment.
const DEPLOYMENT: &str = "deployment/calico-kube-controllers";

/// Runs it on a cluster that Tortie is installed on.
pub fn run(counts: &mut Counts) -> Result<()> {
    let started = Instant::now();
    kubectl(&["-n", "kube-system", "scale", DEPLOYMENT, "--replicas=2"])?;
    step(counts, "two replicas of the controllers are ready", started, LIMIT, || {
        Ok(field("kube-system", DEPLOYMENT, "{.status.readyReplicas}")? == "2")
    });
    let leader = || field("kube-system", "lease/calico-kube-controllers", "{.spec.holderIdentity}");
    step(counts, "one of them leads", started, LIMIT, || Ok(!leader()?.is_empty()));
    let first = leader()?;
    let pods = field("kube-system", "pods", "{.items[*].metadata.name}")?;
    let pod = pods.split(' ').find(|pod| pod.starts_with("calico-kube-controllers") && first.contains(pod));
    found(counts, "the Lease names its pod", pod.is_some(), &first);
    if let Some(pod) = pod {
        let before = Instant::now();
        kubectl(&["-n", "kube-system", "delete", "pod", pod])?;
        step(counts, "when it goes, another leads", before, LIMIT, || {
            let now = leader()?;
            Ok(!now.is_empty() && now != first)
        });
    }
    leak(counts)?;
    kubectl(&["-n", "kube-system", "scale", DEPLOYMENT, "--replicas=1"])?;
    step(counts, "one replica is ready", Instant::now(), LIMIT, || rolled_out("kube-system", DEPLOYMENT));
    Ok(())
}

/// An address is given to a pod that is not there, as if its end had been missed.
fn leak(counts: &mut Counts) -> Result<()> {
    let grace = |period: &str| {
        let patch = format!(r#"{{"spec":{{"controllers":{{"node":{{"leakGracePeriod":"{period}"}}}}}}}}"#);
        let object = "kubecontrollersconfigurations.crd.projectcalico.org";
        kubectl(&["patch", object, "default", "--type=merge", "-p", &patch])
    };
    grace("20s")?;
    let conf = r#"{"name":"leak","cniVersion":"1.0.0","type":"calico","ipam":{"type":"calico-ipam"}}"#;
    let line = format!(
        "echo '{conf}' | CNI_COMMAND=ADD CNI_CONTAINERID=leak CNI_NETNS=/run/netns/leak CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin \
         CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=nobody' /opt/cni/bin/calico-ipam"
    );
    let given = node(2, &["sh", "-c", &line]);
    found(counts, "an address is given to a pod that is not there", given.is_ok(), &told(&given));
    let held = || {
        let path = "{.items[*].spec.attributes[*].secondary.pod}";
        Ok(field("", "ipamblocks.crd.projectcalico.org", path)?.split(' ').any(|pod| pod == "nobody"))
    };
    step(counts, "it is held", Instant::now(), LIMIT, held);
    step(counts, "the controllers take it back", Instant::now(), LIMIT * 2, || held().map(|held| !held));
    grace("15m").map(drop)
}
