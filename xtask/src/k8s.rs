//! A real Kubernetes cluster on this machine, with Tortie installed by its own manifests.
//!
//! The cluster's programs are built once (`lab/k8s/build.sh`) into a folder outside the tree; where they are not, the
//! lab says so and is skipped. `lab/k8s/README.md` says what it is made of.

mod cluster;
mod figures;
mod life;
mod pods;
mod swap;
mod traffic;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{is_root, run, target};
use crate::image;
use crate::suite::{Counts, close};
use cluster::{kubectl, rolled_out, script, step};

/// What the cluster is made of, as `build.sh` builds it.
const PROGRAMS: [&str; 7] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl", "e2e.test"];

/// What a Debian package gives.
const PACKAGED: [(&str, &str); 5] =
    [("etcd", "etcd-server"), ("containerd", "containerd"), ("runc", "runc"), ("openssl", "openssl"), ("curl", "curl")];

/// Spec names of Kubernetes' network policy suite that cover most of its features in a few minutes.
const QUICK: &str = "Netpol NetworkPolicy between server and client should (support a 'default-deny-ingress' policy|\
    enforce policy based on PodSelector and NamespaceSelector|allow ingress access on one named port|\
    support allow-all policy|enforce except clause while egress access to server in CIDR block|\
    enforce updated policy|work with Ingress, Egress specified together)";

/// All of the network policy specs that a kernel without SCTP runs.
const POLICY: &str = "Netpol.*NetworkPolicy";

/// The conformance specs of the network.
const CONFORMANCE: &str = r"\[sig-network\].*\[Conformance\]";

/// How the lab is run.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// What to run: nothing beyond the smoke test, a handful of policy specs, all of them, the network's conformance
    /// specs, or everything.
    #[arg(default_value = "quick")]
    suite: Suite,
    /// Run the specs whose names match this instead.
    #[arg(long)]
    focus: Option<String>,
    /// Pack this binary instead of building a release.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Repeated tests at full length.
    #[arg(long)]
    full: bool,
    /// Between nodes: bgp, or vxlan alone without BGP.
    #[arg(long, default_value = "bgp")]
    between: String,
    /// Nodes, 1 to 3.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// kube-proxy's mode: nftables, iptables or none.
    #[arg(long, default_value = "nftables")]
    kube_proxy: String,
    /// Leave the cluster up; `lab/k8s/cluster.sh down` ends it.
    #[arg(long)]
    keep: bool,
}

/// Which specs are run.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    Smoke,
    Quick,
    Policy,
    Conformance,
    All,
    /// What pods ask for in annotations, and the plugin by hand.
    Pods,
    /// Faults of the cluster, under traffic.
    Faults,
    /// A DaemonSet of upstream's shape, moved to Tortie's image and back.
    Swap,
    /// With the facts in etcd.
    Etcd,
    /// How long pods take to start.
    Figures,
}

/// Runs the lab, or says why not.
pub fn lab(options: &Options) -> Result<ExitCode> {
    if let Some(reason) = missing() {
        println!("skipped: lab-k8s ({reason})");
        return Ok(ExitCode::SUCCESS);
    }
    let lab = folder();
    image::pack_for(options.binary.clone(), "release", &lab.join("images/tortie.tar"), &[image::TAGS[0], swap::OTHER])?;
    let cluster = Cluster { keep: options.keep };
    let started = Instant::now();
    run(script("cluster.sh").arg("up").arg(options.nodes.to_string()).env("KPMODE", &options.kube_proxy))?;
    println!("the cluster is up after {:.1} s", started.elapsed().as_secs_f64());
    let mut counts = Counts::default();
    if options.suite == Suite::Faults {
        cluster.install_without_kinds(&mut counts)?;
    }
    cluster.install(options, &mut counts)?;
    if counts.failed == 0 {
        cluster.smoke(&mut counts)?;
    }
    if counts.failed == 0 {
        match options.suite {
            Suite::Smoke | Suite::Quick | Suite::Policy | Suite::Conformance | Suite::All | Suite::Etcd => {}
            Suite::Pods => pods::run(&mut counts)?,
            Suite::Faults => life::faults(&mut counts, options.full)?,
            Suite::Swap => swap::run(&mut counts)?,
            Suite::Figures => figures::run(100)?,
        }
    }
    let focuses: Vec<&str> = match (&options.focus, options.suite) {
        (Some(focus), _) => vec![focus],
        (None, Suite::Smoke | Suite::Pods | Suite::Faults | Suite::Swap | Suite::Etcd | Suite::Figures) => vec![],
        (None, Suite::Quick) => vec![QUICK],
        (None, Suite::Policy) => vec![POLICY],
        (None, Suite::Conformance) => vec![CONFORMANCE],
        (None, Suite::All) => vec![POLICY, CONFORMANCE],
    };
    if counts.failed == 0 {
        for focus in focuses {
            counts.add(cluster.specs(focus)?);
        }
    }
    drop(cluster);
    Ok(close(counts))
}

/// What keeps the lab from running here, if anything does.
pub fn missing() -> Option<String> {
    if !is_root() {
        return Some("it needs root".to_owned());
    }
    let bin = folder().join("bin");
    if let Some(program) = PROGRAMS.iter().find(|program| !bin.join(program).exists()) {
        return Some(format!("{program} is not in {}; lab/k8s/build.sh builds it", bin.display()));
    }
    let there =
        |program: &str| Command::new("which").arg(program).stdout(Stdio::null()).status().is_ok_and(|s| s.success());
    PACKAGED.iter().find(|(program, _)| !there(program)).map(|(_, package)| format!("{package} is not installed"))
}

/// Where programs, images and state of the lab are: `K8S_LAB`, or a folder of the user's cache.
pub fn folder() -> PathBuf {
    let cache = || {
        std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
    };
    match std::env::var_os("K8S_LAB") {
        Some(folder) => folder.into(),
        None => cache().unwrap_or_else(|| target().to_owned()).join("k8s-lab"),
    }
}

/// The running cluster; dropping it ends it, unless it is to be kept.
struct Cluster {
    keep: bool,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.keep {
            println!("the cluster stays: lab/k8s/cluster.sh kubectl …, lab/k8s/cluster.sh down");
        } else if let Err(error) = run(script("cluster.sh").arg("down")) {
            eprintln!("{error:#}");
        }
    }
}

impl Cluster {
    /// The manifests with what a user of this lab would set.
    fn manifest(&self, name: &str, options: &Options) -> Result<PathBuf> {
        let text = std::fs::read_to_string(format!("manifests/{name}"))?;
        let backend = if options.between == "vxlan" { "vxlan" } else { "bird" };
        let text = text
            .replace("# - name: CALICO_IPV4POOL_CIDR", "- name: CALICO_IPV4POOL_CIDR")
            .replace("#   value: \"192.168.0.0/16\"", "  value: \"10.244.0.0/16\"")
            .replace("calico_backend: \"bird\"", &format!("calico_backend: \"{backend}\""))
            .replace("http://<ETCD_IP>:<ETCD_PORT>", "http://172.30.0.1:2379")
            .replace(
                "\"ipam\": { \"type\": \"calico-ipam\" }",
                "\"feature_control\": { \"ip_addrs_no_ipam\": true, \"floating_ips\": true },\n          \
                 \"ipam\": { \"type\": \"calico-ipam\" }",
            );
        let text = match options.between.as_str() {
            "vxlan" => text.replace("value: \"CrossSubnet\"", "value: \"Always\""),
            _ => text,
        };
        let file = target().join(format!("lab-k8s-{name}"));
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// The agents alone, without the kinds that they need: they wait, and their Nodes say what for.
    fn install_without_kinds(&self, counts: &mut Counts) -> Result<()> {
        let started = Instant::now();
        kubectl(&["apply", "-f", "manifests/node.yaml"])?;
        step(
            counts,
            "without the kinds, the Node says that they are missing",
            started,
            Duration::from_secs(120),
            || {
                let said = life::network_condition("n1")?;
                Ok(said.starts_with("True") && said.contains("custom resource definitions"))
            },
        );
        Ok(())
    }

    /// Applies the manifests as a user would, with the lab's range of pod addresses, and waits.
    fn install(&self, options: &Options, counts: &mut Counts) -> Result<()> {
        let etcd = options.suite == Suite::Etcd;
        let file = self.manifest(if etcd { "tortie-etcd.yaml" } else { "tortie.yaml" }, options)?;
        let started = Instant::now();
        kubectl(&["apply", "-f", &file.to_string_lossy()])?;
        if !etcd {
            kubectl(&["apply", "-f", "lab/k8s/peer.yaml"])?;
        }
        let nodes = format!("{} nodes Ready", options.nodes);
        let limit = Duration::from_secs(120);
        step(counts, &nodes, started, limit, || {
            let text = kubectl(&["get", "nodes", "--no-headers"])?;
            Ok(text.lines().filter(|line| line.split_whitespace().nth(1) == Some("Ready")).count()
                >= usize::from(options.nodes))
        });
        for (what, namespace) in [("daemonset/calico-node", "kube-system"), ("deployment/coredns", "kube-system")] {
            step(counts, &format!("{what} rolled out"), started, limit, || rolled_out(namespace, what));
        }
        for number in 1..=options.nodes {
            step(counts, &format!("the network of n{number} is told to be up"), started, limit, || {
                Ok(life::network_condition(&format!("n{number}"))?.starts_with("False"))
            });
        }
        if counts.failed > 0 {
            println!("{}", kubectl(&["-n", "kube-system", "get", "pods", "-o", "wide"]).unwrap_or_default());
            println!(
                "{}",
                kubectl(&["-n", "kube-system", "logs", "daemonset/calico-node", "--tail=40"]).unwrap_or_default()
            );
        }
        Ok(())
    }

    /// Pods of every node reach each other, a name, a Service and a host port; a policy closes them.
    fn smoke(&self, counts: &mut Counts) -> Result<()> {
        let started = Instant::now();
        let limit = Duration::from_secs(60);
        kubectl(&["apply", "-f", "lab/k8s/smoke.yaml"])?;
        step(counts, "pods of the smoke test run", started, limit, || rolled_out("smoke", "daemonset/web"));
        let pods = kubectl(&[
            "-n",
            "smoke",
            "get",
            "pods",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.status.hostIP}{\"\\n\"}{end}",
        ])?;
        let pods: Vec<Vec<&str>> = pods.lines().map(|line| line.split_whitespace().collect()).collect();
        let Some(from) = pods.first().and_then(|pod| pod.first()) else { bail!("no pods of the smoke test") };
        let short = Duration::from_secs(15);
        for pod in pods.iter().filter(|pod| pod.len() == 3) {
            step(counts, &format!("{from} reaches the pod {}", pod[1]), Instant::now(), short, || {
                Ok(reaches(from, &format!("{}:8080", pod[1])))
            });
            step(counts, &format!("{from} reaches the host port of {}", pod[2]), Instant::now(), short, || {
                Ok(reaches(from, &format!("{}:18080", pod[2])))
            });
        }
        step(counts, "a Service by its name", Instant::now(), short, || {
            Ok(reaches(from, "web.smoke.svc.cluster.local:80"))
        });
        kubectl(&["apply", "-f", "lab/k8s/smoke-policy.yaml"])?;
        for pod in pods.iter().skip(1).filter(|pod| pod.len() == 3) {
            step(counts, &format!("a policy closes {}", pod[1]), Instant::now(), short, || {
                Ok(!reaches(from, &format!("{}:8080", pod[1])))
            });
        }
        kubectl(&["delete", "-f", "lab/k8s/smoke-policy.yaml"])?;
        if let Some(pod) = pods.last().filter(|pod| pod.len() == 3) {
            step(counts, &format!("{} is open again", pod[1]), Instant::now(), short, || {
                Ok(reaches(from, &format!("{}:8080", pod[1])))
            });
        }
        kubectl(&["delete", "namespace", "smoke", "--wait=false"])?;
        Ok(())
    }

    /// Runs specs of Kubernetes' own suite, their output shown.
    fn specs(&self, focus: &str) -> Result<Counts> {
        let mut command = script("cluster.sh");
        command.args(["e2e", focus, "--ginkgo.skip=Feature:SCTPConnectivity", "--ginkgo.v", "--ginkgo.timeout=3h"]);
        let log = target().join("lab-k8s-e2e.log");
        let file = std::fs::File::create(&log)?;
        println!("specs {focus:?}; their output is in {}", log.display());
        let started = Instant::now();
        let status = command.stdout(file.try_clone()?).stderr(file).status().context("e2e.test can't be started")?;
        let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
        for line in text.lines().filter(|line| line.starts_with("• [") || line.trim_start().starts_with("[FAIL]")) {
            println!("{line}");
        }
        let Some(counts) = summary(&text) else {
            bail!("e2e.test ended with {status} and without a summary; see {}", log.display());
        };
        println!("{} passed, {} failed in {:.0} s", counts.passed, counts.failed, started.elapsed().as_secs_f64());
        Ok(counts)
    }
}

/// Reads Ginkgo's last line: `FAIL! -- 46 Passed | 1 Failed | 0 Pending | 6700 Skipped`.
fn summary(text: &str) -> Option<Counts> {
    let line = text.lines().rev().find(|line| line.contains(" Passed | "))?;
    let number = |word: &str| {
        let before = line.split(word).next()?;
        before.split(|c: char| !c.is_ascii_digit()).rfind(|part| !part.is_empty())?.parse().ok()
    };
    Some(Counts { passed: number(" Passed")?, failed: number(" Failed")?, ignored: 0 })
}

fn reaches(from: &str, to: &str) -> bool {
    let url = format!("http://{to}/hostname");
    kubectl(&["-n", "smoke", "exec", from, "--", "curl", "-sf", "-m", "2", &url]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ginkgos_last_line_is_read() {
        let text = "x\nFAIL! -- 46 Passed | 1 Failed | 0 Pending | 6700 Skipped\n--- FAIL: TestE2E\n";
        let counts = summary(text).expect("it is there");
        assert_eq!((counts.passed, counts.failed), (46, 1));
        assert!(summary("nothing").is_none());
    }
}
