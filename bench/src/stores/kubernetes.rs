//! A real API server over etcd on a host's loopback, as `lab` runs it, with the objects that a kubelet would have made.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tortie_etcd_server::Pki;
use tortie_lab::kubernetes::{DEFINITIONS, TOKEN, config, missing, program, server_arguments};
use tortie_netlink::Netns;

use super::etcd::Etcd;
use crate::bed::{Bed, Running};
use crate::node::NODE;

const START: Duration = Duration::from_secs(120);

/// A running API server.
pub struct Kubernetes {
    process: Running,
    _etcd: Etcd,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubernetes {
    /// Starts one on a host, with its own types and the node's object.
    pub fn start(bed: &Bed, host: &Netns) -> Result<Kubernetes> {
        if let Some(missing) = missing() {
            bail!("{missing} is not there: no Kubernetes API");
        }
        let etcd = Etcd::start(bed, Some(host))?;
        let own = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let pki = Pki::make(&bed.folder("certificates")?, &[own]);
        let arguments = server_arguments(&bed.folder("api")?, &pki, &etcd.endpoints, &own)?;
        let log = fs::File::create(bed.path("apiserver.log"))?;
        let mut command = Command::new(program("kube-apiserver"));
        command.env_clear().args(arguments).arg(format!("--bind-address={own}"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = host.run(|| command.spawn())?.context("can't start kube-apiserver")?;
        let kubeconfig = bed.path("kubeconfig");
        fs::write(&kubeconfig, config(&own, &pki, "admin", TOKEN).to_string())?;
        let (process, cache) = (Running::of(child), bed.path("kubectl"));
        let mut server = Kubernetes { process, _etcd: etcd, kubeconfig, cache };
        let begun = Instant::now();
        while server.kubectl(host, &["get", "--raw", "/readyz"], "").is_err() {
            if server.process.ended() || begun.elapsed() > START {
                bail!("the API server does not answer: see {}", bed.path("apiserver.log").display());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        server.create(host, DEFINITIONS)?;
        let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"];
        server.kubectl(host, &established, "")?;
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
        server.create(host, &node.to_string())?;
        Ok(server)
    }

    /// Makes the objects of pods that are bound to the node.
    pub fn make_pods(&self, host: &Netns, names: &[String]) -> Result<()> {
        let pods: Vec<Value> = names
            .iter()
            .map(|name| {
                json!({
                    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
                    "spec": {
                        "nodeName": NODE, "serviceAccountName": "default", "automountServiceAccountToken": false,
                        "containers": [{"name": "main", "image": "none"}],
                    },
                })
            })
            .collect();
        self.create(host, &json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string())
    }

    fn create(&self, host: &Netns, objects: &str) -> Result<()> {
        self.kubectl(host, &["create", "-f", "-", "--validate=false"], objects)
    }

    fn kubectl(&self, host: &Netns, args: &[&str], stdin: &str) -> Result<()> {
        let mut command = Command::new(program("kubectl"));
        command.args(args).env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", &self.cache);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = host.run(|| command.spawn())?.context("can't start kubectl")?;
        // A program that does not read its input may end before it is written.
        let _ = child.stdin.take().context("a piped input")?.write_all(stdin.as_bytes());
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// The environment of a program that uses it.
    pub fn env(&self) -> Vec<(String, String)> {
        vec![
            ("DATASTORE_TYPE".to_owned(), "kubernetes".to_owned()),
            ("KUBECONFIG".to_owned(), self.kubeconfig.display().to_string()),
        ]
    }
}
