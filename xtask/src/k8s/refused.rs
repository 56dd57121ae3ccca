//! What can't come true is refused, with the reason where people look, and nothing that runs is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cluster::{field, found, kubectl, script, step};
use super::life::updated;
use super::pods::node;
use super::traffic::Traffic;
use crate::command::{run, target};
use crate::image::{TAGS, pack_folder};
use crate::suite::Counts;

const LIMIT: Duration = Duration::from_secs(240);

/// An image whose program is for another machine.
const FOREIGN: &str = "docker.io/tortie/foreign:lab";

/// Where the kind of machine stands in an ELF file, and AArch64's number (ELF-64, "File header").
const ELF_MACHINE: usize = 18;
const AARCH64: u16 = 183;

/// A fault of the node n2, which the installer on it finds.
struct OnTheNode {
    what: &'static str,
    make: &'static str,
    undo: &'static str,
    said: &'static str,
}

const ON_THE_NODE: [OnTheNode; 2] = [
    OnTheNode {
        what: "a second CNI configuration that comes first",
        make: "echo '{\"cniVersion\":\"1.0.0\",\"name\":\"other\",\"type\":\"bridge\"}' >/etc/cni/net.d/00-other.conf",
        undo: "rm -f /etc/cni/net.d/00-other.conf",
        said: "00-other.conf comes before",
    },
    OnTheNode {
        what: "a read-only folder of plugins",
        make: "mount --bind /opt/cni/bin /opt/cni/bin && mount -o remount,bind,ro /opt/cni/bin",
        undo: "umount /opt/cni/bin",
        said: "is read-only",
    },
];

/// Runs them under traffic that `traffic::prepare` has made the pods for.
pub fn run_all(counts: &mut Counts) -> Result<()> {
    for fault in &ON_THE_NODE {
        on_the_node(counts, fault)?;
    }
    no_folder(counts)?;
    another_machine(counts)
}

fn on_the_node(counts: &mut Counts, fault: &OnTheNode) -> Result<()> {
    let OnTheNode { what, make, undo, said } = fault;
    let traffic = Traffic::start()?;
    let before = configuration()?;
    node(2, &["sh", "-c", make])?;
    let seen = refused(counts, what, said, &before);
    node(2, &["sh", "-c", undo])?;
    seen?;
    replace_agent()?;
    step(counts, &format!("without {what} the agent runs"), Instant::now(), LIMIT, updated);
    traffic.stop(counts, what)
}

fn refused(counts: &mut Counts, what: &str, said: &str, before: &str) -> Result<()> {
    replace_agent()?;
    step(counts, &format!("{what}: the installer's status says so"), Instant::now(), LIMIT, || {
        Ok(init_statuses("spec.nodeName=n2")?.contains(said))
    });
    let same = configuration()? == before;
    found(counts, &format!("{what}: what is installed is as it was"), same, "by content and time");
    Ok(())
}

/// The installer in a pod that was given no folder of its host.
fn no_folder(counts: &mut Counts) -> Result<()> {
    let (pod, started) = ("pod/no-folder", Instant::now());
    let image = format!("--image={}", TAGS[0]);
    let overrides = "--overrides={\"spec\":{\"hostNetwork\":true,\"nodeName\":\"n2\"}}";
    let installer = "/opt/cni/bin/install";
    kubectl(&[
        "-n",
        "kube-system",
        "run",
        "no-folder",
        &image,
        overrides,
        "--restart=Never",
        "--command",
        "--",
        installer,
    ])?;
    step(counts, "without a CNI folder the installer ends and says which to mount", started, LIMIT, || {
        let said =
            kubectl(&["-n", "kube-system", "get", pod, "-o", "jsonpath={.status.phase} {.status.containerStatuses}"])?;
        Ok(said.starts_with("Failed") && said.contains("does not exist: mount the host's"))
    });
    kubectl(&["-n", "kube-system", "delete", pod, "--now"]).map(drop)
}

/// The DaemonSet gets an image for another kind of machine: the roll-out stops at the first node, and can be undone.
fn another_machine(counts: &mut Counts) -> Result<()> {
    let archive = foreign_image()?;
    for number in 1..=3 {
        node(number, &["ctr", "-n", "k8s.io", "images", "import", &archive])?;
    }
    let traffic = Traffic::start()?;
    let images = [format!("install-cni={FOREIGN}"), format!("calico-node={FOREIGN}")];
    kubectl(&["-n", "kube-system", "set", "image", "daemonset/calico-node", &images[0], &images[1]])?;
    step(counts, "an image for another machine: the pod's status says so", Instant::now(), LIMIT, || {
        Ok(init_statuses("")?.contains("exec format error"))
    });
    let running =
        kubectl(&["-n", "kube-system", "get", "daemonset/calico-node", "-o", "jsonpath={.status.numberReady}"])?;
    found(counts, "an image for another machine stops the roll-out at the first node", running == "2", &running);
    kubectl(&["-n", "kube-system", "rollout", "undo", "daemonset/calico-node"])?;
    step(counts, "the image of before runs again", Instant::now(), LIMIT, updated);
    traffic.stop(counts, "an image for another machine")
}

/// A program of this machine that says it is for another one, as an image; its archive.
fn foreign_image() -> Result<String> {
    let program = fs::read("/bin/busybox").context("busybox-static")?;
    let program = for_another_machine(program)?;
    let (root, archive) = (target().join("lab-k8s-foreign"), target().join("lab-k8s-foreign.tar"));
    for path in ["opt/cni/bin/install", "usr/bin/calico-node"] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(&path, &program)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    pack_folder(&root, &archive, &["/usr/bin/calico-node".to_owned()], &[], "", &[FOREIGN])?;
    Ok(fs::canonicalize(archive)?.to_string_lossy().into_owned())
}

fn for_another_machine(mut program: Vec<u8>) -> Result<Vec<u8>> {
    ensure!(program.starts_with(b"\x7fELF") && program.len() > ELF_MACHINE + 2, "no ELF file");
    program[ELF_MACHINE..ELF_MACHINE + 2].copy_from_slice(&AARCH64.to_le_bytes());
    Ok(program)
}

/// The API server is away while agents start: they wait, what runs goes on, and they go on when it is back.
pub fn no_api_at_start(counts: &mut Counts) -> Result<()> {
    let traffic = Traffic::start()?;
    run(script("control.sh").arg("away"))?;
    let waited = wait_without_api(counts);
    run(script("control.sh").arg("back"))?;
    waited?;
    let started = Instant::now();
    let on_n1 = "--overrides={\"spec\":{\"nodeName\":\"n1\"}}";
    kubectl(&["-n", "traffic", "run", "after-away", "--restart=Never", "--image=registry.k8s.io/pause:3.10.1", on_n1])?;
    step(counts, "with the API server back, a pod starts there", started, LIMIT, || {
        Ok(field("traffic", "pod/after-away", "{.status.phase}")? == "Running")
    });
    step(counts, "and all agents are ready", started, LIMIT, updated);
    traffic.stop(counts, "a start without an API server")
}

fn wait_without_api(counts: &mut Counts) -> Result<()> {
    for number in [1, 3] {
        node(number, &["sh", "-c", KILL_AGENT])?;
        let what = format!("without an API server the agent of n{number} waits and says so");
        step(counts, &what, Instant::now(), LIMIT, || {
            Ok(node(number, &["sh", "-c", NEWEST_LOG])?.contains("waiting for the datastore"))
        });
    }
    Ok(())
}

/// Ends the agent itself; kubelet starts it again.
const KILL_AGENT: &str =
    "for p in /proc/[0-9]*; do [ \"$(cat $p/comm 2>/dev/null)\" = calico-node ] && kill -9 ${p#/proc/}; done; true";

/// The log of the agent's newest container.
const NEWEST_LOG: &str = "cat \"$(ls -t /var/log/pods/kube-system_calico-node-*/calico-node/*.log | head -1)\"";

/// Another pod for the DaemonSet on n2; it starts with the installer.
fn replace_agent() -> Result<()> {
    let on_n2 = "--field-selector=spec.nodeName=n2";
    kubectl(&["-n", "kube-system", "delete", "pod", "-l", "k8s-app=calico-node", on_n2, "--now"]).map(drop)
}

/// What the statuses of the DaemonSet's installers say.
fn init_statuses(selector: &str) -> Result<String> {
    let selector = format!("--field-selector={selector}");
    let path = "jsonpath={.items[*].status.initContainerStatuses}";
    kubectl(&["-n", "kube-system", "get", "pods", "-l", "k8s-app=calico-node", &selector, "-o", path])
}

/// What is installed on n2: configurations that are ours, and plugins.
fn configuration() -> Result<String> {
    node(
        2,
        &[
            "sh",
            "-c",
            "cd /etc/cni/net.d && sha256sum 10-calico.conflist && cd /opt/cni/bin && ls -la calico calico-ipam",
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_made_one_for_another_machine() {
        let own = fs::read("/proc/self/exe").expect("this test");
        let other = for_another_machine(own.clone()).expect("an ELF file");
        assert_eq!(own.len(), other.len());
        assert_eq!(u16::from_le_bytes([other[18], other[19]]), AARCH64);
        assert!(for_another_machine(b"#!/bin/sh\n".to_vec()).is_err());
    }
}
