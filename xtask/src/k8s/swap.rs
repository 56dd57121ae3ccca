//! A DaemonSet of upstream's shape, whose image is replaced by Tortie's and back, under traffic.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::cluster::{field, found, kubectl, step};
use super::life::updated;
use super::traffic::{self, Traffic};
use crate::image::TAGS;
use crate::suite::Counts;

/// A second name of the image, in place of upstream's, which can't be had here.
pub const OTHER: &str = "docker.io/tortie/swap:other";

const LIMIT: Duration = Duration::from_secs(240);

/// Runs it on a cluster that Tortie is installed on.
pub fn run(counts: &mut Counts) -> Result<()> {
    let before = Instant::now();
    kubectl(&["-n", "kube-system", "delete", "daemonset", "calico-node"])?;
    kubectl(&["apply", "-f", "lab/k8s/upstream-shape.yaml"])?;
    step(counts, "the DaemonSet of upstream's shape is rolled out", before, LIMIT, updated);
    traffic::prepare(counts)?;
    let restarts = restarts()?;
    for (image, word) in [(OTHER, "there"), (TAGS[0], "back")] {
        let traffic = Traffic::start()?;
        let before = Instant::now();
        let images =
            ["upgrade-ipam", "install-cni", "ebpf-bootstrap", "calico-node"].map(|name| format!("{name}={image}"));
        let mut args = vec!["-n", "kube-system", "set", "image", "daemonset/calico-node"];
        args.extend(images.iter().map(String::as_str));
        kubectl(&args)?;
        step(counts, &format!("the image is swapped, {word}"), before, LIMIT, updated);
        traffic.stop(counts, &format!("the swap {word}"))?;
    }
    let after = self::restarts()?;
    found(counts, "no pod was restarted", restarts == after, &after);
    kubectl(&["delete", "namespace", "traffic"]).map(drop)
}

/// Which pods of the traffic there are, and how often their containers were restarted.
fn restarts() -> Result<String> {
    field(
        "traffic",
        "pods",
        "{range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[0].restartCount}; {end}",
    )
}
