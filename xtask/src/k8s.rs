//! A real Kubernetes cluster on this machine, with Tortie installed by its own manifests.
//!
//! The cluster's programs are built once (`lab/k8s/build.sh`) into a folder outside the tree; where they are not, the
//! lab says so and is skipped. `lab/k8s/README.md` says what it is made of.

mod cluster;
mod controllers;
mod figures;
mod life;
mod pods;
mod refused;
mod services;
mod specs;
mod swap;
mod times;
mod traffic;
mod uninstall;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::command::{is_root, run, target};
use crate::image;
use crate::suite::{Counts, close};
use cluster::{found, kubectl, rolled_out, script, step};

/// What the cluster is made of, as `build.sh` builds it.
const PROGRAMS: [&str; 7] =
    ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl", "e2e.test"];

/// What a Debian package gives.
const PACKAGED: [(&str, &str); 5] =
    [("etcd", "etcd-server"), ("containerd", "containerd"), ("runc", "runc"), ("openssl", "openssl"), ("curl", "curl")];

/// How the lab is run.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// What to run, one after the other on the same cluster: nothing beyond the smoke test, a handful of policy specs,
    /// all of them, the network's conformance specs, …
    #[arg(default_value = "quick")]
    suites: Vec<Suite>,
    /// Run the specs whose names match this instead.
    #[arg(long)]
    focus: Option<String>,
    /// Cargo's profile of the binary that is built.
    #[arg(long, default_value = "release")]
    profile: String,
    /// Pack this binary instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Repeated tests at full length.
    #[arg(long)]
    full: bool,
    /// Between nodes: BGP in one subnet; VXLAN alone, without BGP; or BGP, and VXLAN to the node of another subnet.
    #[arg(long, default_value = "bgp")]
    between: Between,
    /// Who filters packets on the nodes.
    #[arg(long, default_value = "nftables")]
    filter: Filter,
    /// Nodes, 1 to 3.
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// kube-proxy's mode: nftables, iptables or none.
    #[arg(long, default_value = "nftables")]
    kube_proxy: String,
    /// On the cluster that an earlier run left, with what is installed there.
    #[arg(long)]
    again: bool,
    /// Specs of Kubernetes side by side.
    #[arg(long, default_value_t = 1)]
    at_once: u8,
    /// Leave the cluster up; `lab/k8s/cluster.sh down` ends it.
    #[arg(long)]
    keep: bool,
}

/// What carries packets between nodes.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Bgp,
    Vxlan,
    CrossSubnet,
}

/// Who filters packets.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    Nftables,
    Iptables,
}

impl Options {
    fn has(&self, suite: Suite) -> bool {
        self.suites.contains(&suite)
    }

    fn manifest(&self) -> &'static str {
        if self.has(Suite::Etcd) { "tortie-etcd.yaml" } else { "tortie.yaml" }
    }
}

/// What is run.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    Smoke,
    Quick,
    Policy,
    Conformance,
    /// Every spec that the kernel can run: policy and conformance.
    All,
    /// What pods ask for in annotations, and the plugin by hand.
    Pods,
    /// Node ports, external addresses and a pod's way to itself, with policy.
    Services,
    /// The controllers: one leads, and a leaked address comes back.
    Controllers,
    /// Faults of the cluster, under traffic.
    Faults,
    /// A DaemonSet of upstream's shape, moved to Tortie's image and back.
    Swap,
    /// With the facts in etcd; alone.
    Etcd,
    /// How long pods take to start.
    Figures,
    /// Tortie is taken away again, by the commands of the docs; last.
    Uninstall,
}

impl Suite {
    fn run(self, counts: &mut Counts, options: &Options) -> Result<()> {
        match self {
            Suite::Smoke | Suite::Etcd => Ok(()),
            Suite::Quick => specs::run(specs::QUICK, options.at_once).map(|seen| counts.add(seen)),
            Suite::Policy => specs::run(specs::POLICY, options.at_once).map(|seen| counts.add(seen)),
            Suite::Conformance => specs::run(specs::CONFORMANCE, options.at_once).map(|seen| counts.add(seen)),
            Suite::All => {
                Suite::Policy.run(counts, options)?;
                Suite::Conformance.run(counts, options)?;
                figures::agents(options.nodes)
            }
            Suite::Pods => pods::run(counts),
            Suite::Services => services::run(counts),
            Suite::Controllers => controllers::run(counts),
            Suite::Faults => life::faults(counts, options.full),
            Suite::Swap => swap::run(counts),
            Suite::Figures => figures::run(100, options.nodes),
            // It needs the cluster as it was.
            Suite::Uninstall => Ok(()),
        }
    }
}

/// Runs the lab, or says why not.
pub fn lab(options: &Options) -> Result<ExitCode> {
    if let Some(reason) = missing() {
        println!("skipped: lab-k8s ({reason})");
        return Ok(ExitCode::SUCCESS);
    }
    if options.has(Suite::Etcd)
        && let Some(other) = options.suites.iter().find(|suite| !matches!(suite, Suite::Etcd | Suite::Smoke))
    {
        bail!("the suite etcd runs alone: {other:?} needs the kinds that a cluster with its facts in etcd has not");
    }
    let cluster = Cluster { keep: options.keep };
    let mut counts = Counts::default();
    let before = if options.again { Vec::new() } else { cluster.set_up(options, &mut counts)? };
    if counts.failed == 0 {
        match &options.focus {
            Some(focus) => counts.add(specs::run(focus, options.at_once)?),
            None => {
                for suite in &options.suites {
                    suite.run(&mut counts, options)?;
                }
                if options.has(Suite::Uninstall) {
                    let manifest = cluster.manifest(options.manifest(), options)?;
                    uninstall::run(&mut counts, &manifest.to_string_lossy(), &before)?;
                }
            }
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
    /// Starts it, installs Tortie and tries it; what the nodes held before, if that is asked for later.
    fn set_up(&self, options: &Options, counts: &mut Counts) -> Result<Vec<String>> {
        let archive = folder().join("images/tortie.tar");
        image::pack_for(options.binary.clone(), &options.profile, &archive, &[image::TAGS[0], swap::OTHER])?;
        let started = Instant::now();
        run(script("cluster.sh")
            .arg("up")
            .arg(options.nodes.to_string())
            .env("KPMODE", &options.kube_proxy)
            .env("SUBNETS", if options.between == Between::CrossSubnet { "2" } else { "1" }))?;
        println!("the cluster is up after {:.1} s", started.elapsed().as_secs_f64());
        let before = if options.has(Suite::Uninstall) { uninstall::before(options.nodes)? } else { Vec::new() };
        if options.has(Suite::Faults) {
            self.install_without_kinds(options, counts)?;
            self.install_with_wrong_pools(options, counts)?;
        }
        self.install(options, counts)?;
        if counts.failed == 0 {
            self.smoke(counts)?;
        }
        if options.between == Between::Vxlan {
            run(script("control.sh").arg("routes"))?;
        }
        Ok(before)
    }

    /// The manifests with what a user of this lab would set.
    fn manifest(&self, name: &str, options: &Options) -> Result<PathBuf> {
        let text = std::fs::read_to_string(format!("manifests/{name}"))?;
        let (backend, tunnel) = match options.between {
            Between::Bgp | Between::CrossSubnet => ("bird", "CrossSubnet"),
            Between::Vxlan => ("vxlan", "Always"),
        };
        let mode = match options.filter {
            Filter::Nftables => "Auto",
            Filter::Iptables => "Disabled",
        };
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
        let text = text.replace("value: \"CrossSubnet\"", &format!("value: \"{tunnel}\"")).replace(
            "            - name: FELIX_HEALTHENABLED",
            &format!(
                "            - {{name: FELIX_NFTABLESMODE, value: {mode}}}\n            - {{name: \
                 FELIX_PROMETHEUSMETRICSENABLED, value: \"true\"}}\n            - name: FELIX_HEALTHENABLED"
            ),
        );
        let file = target().join(format!("lab-k8s-{name}"));
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// The agents alone, without the kinds that they need: they wait, and their Nodes say what for.
    fn install_without_kinds(&self, options: &Options, counts: &mut Counts) -> Result<()> {
        let started = Instant::now();
        let file = self.manifest("node.yaml", options)?;
        kubectl(&["apply", "-f", &file.to_string_lossy()])?;
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

    /// A default pool that takes what others use is refused, and none is made.
    fn install_with_wrong_pools(&self, options: &Options, counts: &mut Counts) -> Result<()> {
        // Those that wait for the kinds would make the right one before they are replaced.
        kubectl(&["-n", "kube-system", "delete", "daemonset/calico-node", "--cascade=foreground"])?;
        for (pool, said) in
            [("10.96.0.0/16", "the address of the Kubernetes API"), ("172.30.0.0/16", "the network of this host")]
        {
            let file = self.manifest(options.manifest(), options)?;
            let text = std::fs::read_to_string(&file)?;
            std::fs::write(&file, text.replace("\"10.244.0.0/16\"", &format!("{pool:?}")))?;
            let started = Instant::now();
            kubectl(&["apply", "-f", &file.to_string_lossy()])?;
            step(
                counts,
                &format!("the pool {pool} is refused, with the reason in the pods' status"),
                started,
                Duration::from_secs(120),
                || {
                    let path = "jsonpath={.items[*].status.containerStatuses}";
                    let statuses =
                        kubectl(&["-n", "kube-system", "get", "pods", "-l", "k8s-app=calico-node", "-o", path])?;
                    Ok(statuses.contains(&format!("CALICO_IPV4POOL_CIDR={pool}")) && statuses.contains(said))
                },
            );
        }
        let pools = kubectl(&["get", "ippools.crd.projectcalico.org", "-o", "name"])?;
        found(counts, "a refused pool is not made", pools.trim().is_empty(), pools.trim());
        Ok(())
    }

    /// Applies the manifests as a user would, with the lab's range of pod addresses, and waits.
    fn install(&self, options: &Options, counts: &mut Counts) -> Result<()> {
        let etcd = options.has(Suite::Etcd);
        let file = self.manifest(options.manifest(), options)?;
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
}

fn reaches(from: &str, to: &str) -> bool {
    let url = format!("http://{to}/hostname");
    kubectl(&["-n", "smoke", "exec", from, "--", "curl", "-sf", "-m", "2", &url]).is_ok()
}
