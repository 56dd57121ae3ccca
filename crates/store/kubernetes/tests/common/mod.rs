//! A real API server on a real etcd, on loopback, made by the test process and ended with it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use http::{Method, Request};
use kube::Client;
use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;
use tortie_api::Kind;
use tortie_facts::Revision;
use tortie_store_kubernetes::{Group, KubernetesStore, Options};

/// Tokens of the test users: one may do everything, one nothing.
pub const ADMIN: &str = "admin-of-the-test";
pub const NOBODY: &str = "nobody-of-the-test";
/// May read what a test grants to the user `reader`.
pub const READER: &str = "reader-of-the-test";

/// A control plane.
pub struct Cluster {
    pub port: u16,
    pub etcd: u16,
    pub directory: PathBuf,
    pub runtime: Runtime,
    client: Client,
}

fn server_program() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    std::env::var_os("K8S_LAB").map_or(cache.join("k8s-lab"), PathBuf::from).join("bin/kube-apiserver")
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback").port()
}

/// Starts a program that ends when this process ends, however it ends.
fn start(program: &Path, arguments: &[String], log: &Path) {
    let log = std::fs::File::create(log).expect("a log");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program).args(arguments);
    command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
    // The signal comes when the thread that started it ends: this one never does.
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut child = command.spawn().expect("setpriv is part of every Debian");
        sender.send(()).expect("somebody waits");
        let _ = child.wait();
        loop {
            std::thread::park();
        }
    });
    receiver.recv().expect("the program starts");
}

/// Directories of test processes that are no more.
fn tidy(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("cluster-").and_then(|rest| rest.split('-').next()) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Cluster {
    /// Starts one; `None`, and a word why, where this machine has not what it needs.
    pub fn start(name: &str, more: &[&str]) -> Option<Cluster> {
        let server = server_program();
        for program in [server.as_path(), Path::new("/usr/bin/etcd"), Path::new("/usr/bin/openssl")] {
            if !program.exists() {
                println!("skipped: {} is not there", program.display());
                return None;
            }
        }
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        tidy(root);
        let directory = root.join(format!("cluster-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let (etcd, peer, port) = (free_port(), free_port(), free_port());
        let at = |file: &str| directory.join(file).display().to_string();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let arguments: Vec<String> = [
            ("data-dir", at("etcd")),
            ("listen-client-urls", url(etcd)),
            ("advertise-client-urls", url(etcd)),
            ("listen-peer-urls", url(peer)),
            ("initial-advertise-peer-urls", url(peer)),
            ("initial-cluster", format!("default={}", url(peer))),
        ]
        .map(|(name, value)| format!("--{name}={value}"))
        .into_iter()
        .chain(["--unsafe-no-fsync".to_owned()])
        .collect();
        start(Path::new("/usr/bin/etcd"), &arguments, &directory.join("etcd.log"));

        let made = Command::new("openssl").args(["genrsa", "-out", &at("sa.key"), "2048"]).output().expect("openssl");
        assert!(made.status.success(), "{made:?}");
        let tokens = format!("{ADMIN},admin,1,system:masters\n{NOBODY},nobody,2,nobodies\n{READER},reader,3,readers\n");
        std::fs::write(directory.join("tokens.csv"), tokens).expect("a file");
        let arguments: Vec<String> = [
            ("etcd-servers", url(etcd)),
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", port.to_string()),
            ("cert-dir", at("certificates")),
            ("token-auth-file", at("tokens.csv")),
            ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("service-account-key-file", at("sa.key")),
            ("service-account-signing-key-file", at("sa.key")),
            ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
            ("authorization-mode", "RBAC".to_owned()),
            ("disable-admission-plugins", "ServiceAccount".to_owned()),
            // Nothing but the test writes: revisions stand still between two of its writes.
            ("endpoint-reconciler-type", "none".to_owned()),
            ("feature-gates", "APIServerIdentity=false".to_owned()),
            ("enable-priority-and-fairness", "false".to_owned()),
        ]
        .map(|(name, value)| format!("--{name}={value}"))
        .into_iter()
        .chain(more.iter().map(|flag| (*flag).to_owned()))
        .collect();
        start(&server, &arguments, &directory.join("apiserver.log"));

        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
        let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse().expect("a URL"));
        (config.accept_invalid_certs, config.default_retry) = (true, false);
        config.auth_info.token = Some(ADMIN.to_owned().into());
        let client = runtime.block_on(async { Client::try_from(config) }).expect("a client");
        let cluster = Cluster { port, etcd, directory, runtime, client };
        cluster.wait_ready();
        cluster.define();
        Some(cluster)
    }

    fn wait_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.call(Method::GET, "/readyz", None).is_err() {
            let log = self.directory.join("apiserver.log");
            assert!(Instant::now() < deadline, "the API server does not start: see {}", log.display());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends a request as somebody who may do everything.
    pub fn call(&self, method: Method, path: &str, body: Option<&Json>) -> Result<String, kube::Error> {
        let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body);
        self.runtime.block_on(self.client.request_text(request.expect("a request")))
    }

    /// Sends a request as it is; the answer's body is still to come.
    pub fn send(
        &self,
        request: Request<kube::client::Body>,
    ) -> Result<http::Response<kube::client::Body>, kube::Error> {
        self.runtime.block_on(self.client.send(request))
    }

    /// As [`Cluster::call`], for an object; panics where the server refuses.
    pub fn object(&self, method: Method, path: &str, body: Option<&Json>) -> Json {
        let text = self.call(method.clone(), path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Makes the custom resource definitions of both groups, as lax as they can be.
    fn define(&self) {
        let kinds = Kind::ALL.iter().filter(|kind| ![Kind::Profile, Kind::Node, Kind::WorkloadEndpoint].contains(kind));
        let mut defined = Vec::new();
        for (group, kind) in kinds.flat_map(|kind| [(Group::V1, *kind), (Group::V3, *kind)]) {
            let (name, plural) = match (group, kind) {
                (Group::V1, Kind::IpamConfiguration) => ("IPAMConfig", "ipamconfigs"),
                (_, kind) => (kind.name(), kind.plural()),
            };
            let status = group == Group::V3
                && [Kind::IpPool, Kind::Tier, Kind::CalicoNodeStatus, Kind::KubeControllersConfiguration]
                    .contains(&kind);
            let version = group.api_version().rsplit('/').next().expect("a version");
            let definition = json!({
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.{}", group.name()),
                    "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
                "spec": {
                    "group": group.name(),
                    "names": {"kind": name, "plural": plural, "singular": name.to_lowercase(), "listKind": format!("{name}List")},
                    "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
                    "versions": [{
                        "name": version, "served": true, "storage": true,
                        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                        "subresources": if status { json!({"status": {}}) } else { json!({}) },
                    }],
                },
            });
            self.object(Method::POST, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", Some(&definition));
            defined.push(format!("/apis/{}/{plural}", group.api_version()));
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        for path in defined {
            while self.call(Method::GET, &path, None).is_err() {
                assert!(Instant::now() < deadline, "{path} does not come");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        // Definitions settle: their status is written for a moment yet.
        let mut last = String::new();
        loop {
            let now =
                self.object(Method::GET, "/api/v1/namespaces?limit=1", None)["metadata"]["resourceVersion"].to_string();
            if now == last {
                return;
            }
            last = now;
            std::thread::sleep(Duration::from_millis(1500));
        }
    }

    /// The settings of a client that may do everything.
    pub fn options(&self, group: Option<Group>) -> Options {
        Options {
            endpoint: format!("https://127.0.0.1:{}", self.port),
            ca_file: self.directory.join("certificates/apiserver.crt").display().to_string(),
            token: ADMIN.to_owned(),
            group,
            qps: Some(-1.0),
            ..Options::default()
        }
    }

    /// A client of its own.
    pub fn store(&self, group: Option<Group>) -> KubernetesStore {
        KubernetesStore::open(self.options(group)).expect("a thread")
    }

    /// Deletes every object of a type.
    pub fn clear(&self, path: &str) {
        self.object(Method::DELETE, path, None);
    }

    /// Compacts the etcd below.
    pub fn compact(&self, upto: Revision) {
        let body = json!({"revision": upto.0.to_string(), "physical": true}).to_string();
        let mut socket = TcpStream::connect(("127.0.0.1", self.etcd)).expect("etcd listens");
        let head = format!("POST /v3/kv/compaction HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
        socket.write_all(format!("{head}{body}").as_bytes()).expect("it reads");
        let mut answer = String::new();
        let _ = socket.read_to_string(&mut answer);
        assert!(answer.contains(" 200 "), "{answer}");
    }
}
