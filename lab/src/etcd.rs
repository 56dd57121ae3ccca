//! A real etcd as the lab's datastore, on a machine of its own on every subnet, with TLS and client certificates.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use tortie_etcd_server::{Pair, Pki};

use crate::daemon::Daemon;
use crate::lab::Lab;
use crate::node::wait;
use crate::state::LabDir;
use crate::topology::{Machine, Topology};

/// Name of the machine.
pub(crate) const MACHINE: &str = "datastore";
const PORT: u16 = 2379;
/// How long it may take to start.
const START: Duration = Duration::from_secs(30);

fn certificates(lab: &LabDir) -> PathBuf {
    lab.join("certificates")
}

/// The environment of a program on a node or router that uses the datastore. The datastore itself would take the same
/// variables for its own flags.
pub(crate) fn env(lab: &LabDir, topology: &Topology, machine: &str) -> Vec<(String, String)> {
    if machine == MACHINE {
        return Vec::new();
    }
    let files = certificates(lab);
    let file = |name: &str| files.join(name).to_string_lossy().into_owned();
    vec![
        ("DATASTORE_TYPE".to_owned(), "etcdv3".to_owned()),
        ("ETCD_ENDPOINTS".to_owned(), endpoint(topology, machine).unwrap_or_default()),
        ("ETCD_CA_CERT_FILE".to_owned(), file("ca.pem")),
        ("ETCD_CERT_FILE".to_owned(), file("client.pem")),
        ("ETCD_KEY_FILE".to_owned(), file("client.key")),
    ]
}

/// The datastore's address on the first subnet that the machine is on.
fn endpoint(topology: &Topology, machine: &str) -> Option<String> {
    let subnet = topology.machine(machine).ok()?.interfaces.first()?.subnet;
    let service: &Machine = topology.services.iter().find(|service| service.name == MACHINE)?;
    let ip = service.interfaces.iter().find(|there| there.subnet == subnet)?.addresses.first()?.addr();
    Some(format!("https://{}", std::net::SocketAddr::from((ip, PORT))))
}

/// Starts it and waits until it answers.
pub(crate) fn start(lab: &Lab) -> Result<Daemon> {
    let ips: Vec<IpAddr> = lab.topology().machine(MACHINE)?.ips();
    let pki = Pki::make(&certificates(lab.dir()), &ips);
    let Pair { certificate, key } = pki.server();
    let data = lab.folder(MACHINE)?.join("data");
    fs::create_dir_all(&data)?;
    let listen = format!("https://0.0.0.0:{PORT}");
    let own = endpoint(lab.topology(), MACHINE).context("the datastore has no address")?;
    let (data, ca) = (data.to_string_lossy(), pki.ca());
    let (certificate, key, ca) = (certificate.to_string_lossy(), key.to_string_lossy(), ca.to_string_lossy());
    let mut args = vec!["--data-dir", &data, "--listen-client-urls", &listen, "--advertise-client-urls", &own];
    args.extend(["--cert-file", &certificate, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"]);
    args.extend(["--heartbeat-interval", "10", "--election-timeout", "100", "--log-level", "error"]);
    let daemon = lab.spawn(MACHINE, "etcd", &args).context("TORTIE_LAB_STORE=etcd needs Debian's etcd-server")?;
    let answers = || {
        let mut command = lab.view(MACHINE).ok()?.command("etcdctl", false).ok()?;
        command.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", &own).env("ETCDCTL_CACERT", &*ca);
        command.env("ETCDCTL_CERT", &*certificate).env("ETCDCTL_KEY", &*key);
        command.args(["get", "/ready"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().ok()?.success().then_some(())
    };
    wait(START, answers).with_context(|| format!("etcd does not answer; it says:\n{}", daemon.log()))?;
    Ok(daemon)
}
