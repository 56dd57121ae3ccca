//! A real Kubernetes API server, with its etcd, as the lab's datastore, on a machine of its own on every subnet.
//!
//! The lab does what kubelet and `kubectl` do elsewhere: it makes the Node, Namespace and Pod objects, and the custom
//! resource definitions of `manifests/crds.yaml`. There are no controllers of Kubernetes. The agents have the service
//! account and the rights of `manifests/tortie.yaml`, everything else those of an administrator.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tortie_etcd_server::{Pair, Pki};

use crate::daemon::Daemon;
use crate::etcd::MACHINE;
use crate::lab::{Lab, Shared};
use crate::node::wait;
use crate::state::{LabDir, PodRecord};
use crate::topology::{Machine, Topology};
use crate::view::View;

const PORT: u16 = 6443;
/// How long it may take to start, on a busy machine.
const START: Duration = Duration::from_secs(120);
/// The token of the administrator, who may do everything.
pub const TOKEN: &str = "admin-of-the-lab";
/// Group and version of the facts' types.
const FACTS: &str = "/apis/crd.projectcalico.org/v1";
/// The types of the facts.
pub const DEFINITIONS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/crds.yaml"));

/// What is applied to a real cluster, with the agents' rights.
const MANIFEST: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/tortie.yaml"));
/// The kinds of rights and of who has them.
const RIGHTS: [&str; 5] = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];

/// Whose credentials a kubeconfig holds.
#[derive(Clone, Copy)]
enum User {
    /// The lab itself, `calicoctl`, `kubectl`.
    Admin,
    /// The nodes' agents.
    Agent,
}

impl User {
    fn name(self) -> &'static str {
        match self {
            User::Admin => "admin",
            User::Agent => "agent",
        }
    }
}

/// Where `cargo xtask lab-k8s` keeps Kubernetes' programs.
pub fn program(name: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    std::env::var_os("K8S_LAB").map_or(cache.join("k8s-lab"), PathBuf::from).join("bin").join(name)
}

/// The first program that such a lab needs and that is not there.
pub fn missing() -> Option<String> {
    let etcd = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|p| p.join("etcd").exists());
    if !etcd {
        return Some("etcd (Debian: etcd-server)".to_owned());
    }
    let programs = ["kube-apiserver", "kubectl"].map(program);
    programs.iter().find(|path| !path.exists()).map(|path| format!("{} (`cargo xtask lab-k8s`)", path.display()))
}

fn keys(lab: &LabDir) -> PathBuf {
    lab.join("certificates")
}

/// The environment of a program on a node or router that uses the API.
pub(crate) fn env(lab: &LabDir, topology: &Topology, machine: &str) -> Vec<(String, String)> {
    if machine == MACHINE {
        return Vec::new();
    }
    vec![
        ("DATASTORE_TYPE".to_owned(), "kubernetes".to_owned()),
        credentials(lab, topology, machine, User::Admin),
        ("KUBECACHEDIR".to_owned(), lab.join("kubectl-cache").to_string_lossy().into_owned()),
    ]
}

/// What a node's agent has instead of an administrator's rights.
pub(crate) fn agent_env(lab: &LabDir, topology: &Topology, machine: &str) -> (String, String) {
    credentials(lab, topology, machine, User::Agent)
}

fn credentials(lab: &LabDir, topology: &Topology, machine: &str, user: User) -> (String, String) {
    let subnet = topology.machine(machine).ok().and_then(|found| Some(found.interfaces.first()?.subnet));
    let file = kubeconfig(lab, subnet.unwrap_or_default(), user);
    ("KUBECONFIG".to_owned(), file.to_string_lossy().into_owned())
}

/// The kubeconfig for machines whose first subnet is this one.
fn kubeconfig(lab: &LabDir, subnet: usize, user: User) -> PathBuf {
    keys(lab).join(format!("subnet{subnet}.{}.kubeconfig", user.name()))
}

fn write_kubeconfigs(lab: &Lab, pki: &Pki, user: User, token: &str) -> Result<()> {
    let service: &Machine = lab.topology().machine(MACHINE)?;
    for interface in &service.interfaces {
        let ip = interface.addresses.first().context("the datastore has no address")?.addr();
        let config = config(&ip, pki, user.name(), token);
        fs::write(kubeconfig(lab.dir(), interface.subnet, user), config.to_string())?;
    }
    Ok(())
}

/// Starts etcd and the API server, and makes what nodes find in a cluster.
pub(crate) fn start(lab: &Lab) -> Result<Vec<Daemon>> {
    if let Some(missing) = missing() {
        bail!("TORTIE_LAB_STORE=kubernetes needs {missing}");
    }
    symlink(program("kubectl"), lab.dir().join("bin/kubectl")).context("link kubectl")?;
    let ips: Vec<IpAddr> = lab.topology().machine(MACHINE)?.ips();
    let pki = Pki::make(&keys(lab.dir()), &ips);
    write_kubeconfigs(lab, &pki, User::Admin, TOKEN)?;
    let data = lab.folder(MACHINE)?.join("data").to_string_lossy().into_owned();
    let quick =
        ["--unsafe-no-fsync", "--heartbeat-interval", "10", "--election-timeout", "100", "--log-level", "error"];
    let etcd = lab.spawn(MACHINE, "etcd", &[&["--data-dir", data.as_str()][..], &quick].concat())?;
    let server = serve(lab, &pki, ips.first().context("the datastore has no address")?)?;
    let view = lab.node(1).view();
    let ready = || kubectl(&view, &["get", "--raw", "/readyz"], "").ok()?.status.success().then_some(());
    wait(START, ready).with_context(|| format!("the API server does not answer; it says:\n{}", server.log()))?;
    ask(&view, &["create", "-f", "-", "--validate=false"], DEFINITIONS)?;
    write_kubeconfigs(lab, &pki, User::Agent, &agents_token(&view)?)?;
    let nodes: Vec<Value> = lab.nodes().iter().map(|node| object("Node", json!({"name": node.name()}))).collect();
    let nodes = json!({"apiVersion": "v1", "kind": "List", "items": nodes});
    ask(&view, &["create", "-f", "-", "--validate=false"], &nodes.to_string())?;
    let types: Vec<&str> = DEFINITIONS.lines().filter_map(|line| line.strip_prefix("    plural: ")).collect();
    let served = |plural: &&str| {
        let path = format!("{FACTS}/{plural}?limit=1");
        kubectl(&view, &["get", "--raw", &path], "").is_ok_and(|output| output.status.success())
    };
    let mut left = types.iter().peekable();
    wait(START, || {
        while left.next_if(|plural| served(plural)).is_some() {}
        left.peek().is_none().then_some(())
    })
    .context("the API server does not serve all types")?;
    Ok(vec![etcd, server])
}

/// Gives the agents their rights; the token of their service account.
fn agents_token(view: &View) -> Result<String> {
    let is_right = |document: &&str| {
        let kind = document.lines().find_map(|line| line.strip_prefix("kind: "));
        kind.is_some_and(|kind| RIGHTS.contains(&kind))
    };
    let rights: Vec<&str> = MANIFEST.split("\n---\n").filter(is_right).collect();
    // The server makes the namespace a moment after it is ready.
    let there = || kubectl(view, &["get", "namespace", "kube-system"], "").ok()?.status.success().then_some(());
    wait(START, there).context("the API server makes no namespace kube-system")?;
    ask(view, &["create", "-f", "-", "--validate=false"], &rights.join("\n---\n"))?;
    let token = ask(view, &["--namespace", "kube-system", "create", "token", "calico-node", "--duration=24h"], "")?;
    Ok(token.trim().to_owned())
}

fn serve(lab: &Lab, pki: &Pki, own: &IpAddr) -> Result<Daemon> {
    let arguments = server_arguments(&lab.folder(MACHINE)?, pki, "http://127.0.0.1:2379", own)?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    lab.spawn(MACHINE, &program("kube-apiserver").to_string_lossy(), &arguments)
}

/// The arguments of an API server on port 6443 of this address that keeps its things in a folder, and knows the
/// administrator's [`TOKEN`].
pub fn server_arguments(folder: &Path, pki: &Pki, etcd: &str, own: &IpAddr) -> Result<Vec<String>> {
    let Pair { certificate, key } = pki.server();
    let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
    let tokens = folder.join("tokens.csv");
    fs::write(&tokens, format!("{TOKEN},admin,1,system:masters\n"))?;
    let arguments = [
        ("etcd-servers", etcd.to_owned()),
        ("secure-port", PORT.to_string()),
        ("advertise-address", own.to_string()),
        ("cert-dir", folder.join("made").to_string_lossy().into_owned()),
        ("tls-cert-file", certificate.to_string()),
        ("tls-private-key-file", key.to_string()),
        ("token-auth-file", tokens.to_string_lossy().into_owned()),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        // A certificate tells its public key.
        ("service-account-key-file", certificate.to_string()),
        ("service-account-signing-key-file", key.to_string()),
        ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
        ("authorization-mode", "RBAC".to_owned()),
        // Nobody makes service accounts or counts quotas here.
        ("disable-admission-plugins", "ServiceAccount,ResourceQuota".to_owned()),
        ("endpoint-reconciler-type", "none".to_owned()),
        ("enable-priority-and-fairness", "false".to_owned()),
    ];
    Ok(arguments.map(|(name, value)| format!("--{name}={value}")).to_vec())
}

/// What `kubectl` and a node take to find the API server at this address.
pub fn config(own: &IpAddr, pki: &Pki, user: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {
            "server": format!("https://{}", SocketAddr::from((*own, PORT))), "certificate-authority": pki.ca(),
        }}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
    })
}

fn object(kind: &str, metadata: Value) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": metadata})
}

/// Runs `kubectl` in a view.
pub(crate) fn kubectl(view: &View, args: &[&str], stdin: &str) -> Result<Output> {
    let mut command = view.command("kubectl", false)?;
    command.args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start kubectl")?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read its input may end before it is written.
        let _ = pipe.write_all(stdin.as_bytes());
    }
    Ok(child.wait_with_output()?)
}

/// The same; an error when it fails.
pub(crate) fn ask(view: &View, args: &[&str], stdin: &str) -> Result<String> {
    let Output { status, stdout, stderr } = kubectl(view, args, stdin)?;
    if !status.success() {
        bail!("kubectl {}: {status}\n{}", args.join(" "), String::from_utf8_lossy(&stderr));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Makes an object; one that is there stays as it is.
fn create(view: &View, path: &str, object: &Value) -> Result<()> {
    match ask(view, &["create", "--raw", path, "-f", "-"], &object.to_string()) {
        Err(error) if !error.to_string().contains("AlreadyExists") => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Makes the object of a pod that is bound to its node, and its namespace.
pub(crate) fn add_pod(shared: &Shared, pod: &PodRecord) -> Result<()> {
    let PodRecord { namespace, name, node, labels, .. } = pod;
    let view = shared.view(node);
    if namespace != "default" {
        create(&view, "/api/v1/namespaces", &object("Namespace", json!({"name": namespace})))?;
    }
    let mut made = object("Pod", json!({"name": name, "namespace": namespace, "labels": labels}));
    made["spec"] = json!({
        "nodeName": node, "serviceAccountName": "default", "automountServiceAccountToken": false,
        "containers": [{"name": "main", "image": "none"}],
    });
    create(&view, &format!("/api/v1/namespaces/{namespace}/pods"), &made)
}

/// Takes a pod's object away; no kubelet is asked.
pub(crate) fn delete_pod(shared: &Shared, pod: &PodRecord) -> Result<()> {
    let PodRecord { namespace, name, node, .. } = pod;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0");
    match ask(&shared.view(node), &["delete", "--raw", &path], "") {
        Err(error) if !error.to_string().contains("NotFound") => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
