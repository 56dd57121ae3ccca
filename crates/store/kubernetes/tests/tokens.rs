//! Tokens that are renewed while the store is in use, on a real API server that refuses the old ones: a file that
//! another program replaces, as kubelet does, and a program that gives tokens (`exec` in the kubeconfig).

mod common;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value as Json, json};
use tortie_api::Kind;
use tortie_facts::{Filter, Key, Update, Value};
use tortie_store::mirror::Options as MirrorOptions;
use tortie_store::{Expect, Mirror, Reader, Store, StoreError, Write};
use tortie_store_kubernetes::{Group, KubernetesStore, Options};

use common::Cluster;

static CLUSTER: LazyLock<Option<Cluster>> = LazyLock::new(|| Cluster::start("tokens", &[]));
/// How long anything may take on a busy machine.
const LONG: Duration = Duration::from_secs(120);
const CORE: &str = "/api/v1/namespaces/default";

/// A way to the API server whose connections can be cut.
struct Way {
    port: u16,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(port: u16) -> Way {
        let socket = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let way = Way { port: socket.local_addr().expect("bound").port(), open: Arc::default() };
        let open = Arc::clone(&way.open);
        std::thread::spawn(move || {
            for near in socket.incoming().flatten() {
                let far = TcpStream::connect(("127.0.0.1", port)).expect("the API server listens");
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (mut from, mut to) = (from.try_clone().expect("a copy"), to.try_clone().expect("a copy"));
                    open.lock().expect("no panic").push(from.try_clone().expect("a copy"));
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        way
    }

    fn cut(&self) {
        for stream in self.open.lock().expect("no panic").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A service account that may do everything, and tokens of it that end when their Secret is deleted.
struct Account<'a> {
    cluster: &'a Cluster,
    name: &'static str,
}

impl<'a> Account<'a> {
    fn make(cluster: &'a Cluster, name: &'static str) -> Account<'a> {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        cluster.object(Method::POST, &format!("{CORE}/serviceaccounts"), Some(&account));
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}]});
        cluster.object(Method::POST, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", Some(&binding));
        Account { cluster, name }
    }

    fn secret(&self, number: u32) -> String {
        format!("{}-{number}", self.name)
    }

    fn token(&self, number: u32) -> String {
        let name = self.secret(number);
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        let secret = self.cluster.object(Method::POST, &format!("{CORE}/secrets"), Some(&secret));
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
            "audiences": [], "expirationSeconds": 3600,
            "boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": name, "uid": secret["metadata"]["uid"]}}});
        let path = format!("{CORE}/serviceaccounts/{}/token", self.name);
        let answer = self.cluster.object(Method::POST, &path, Some(&request));
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// Ends a token, and waits until the server knows: it remembers good tokens for some seconds.
    fn revoke(&self, number: u32, token: &str) {
        self.cluster.object(Method::DELETE, &format!("{CORE}/secrets/{}", self.secret(number)), None);
        let options = Options { token: token.to_owned(), ..self.cluster.options(Some(Group::V1)) };
        let deadline = Instant::now() + LONG;
        loop {
            let store = KubernetesStore::open(options.clone()).expect("a thread");
            match store.list(&Filter::Kind(Kind::Tier)) {
                Err(StoreError::Unusable(text)) => return assert!(!text.contains(token), "{text}"),
                other => assert!(Instant::now() < deadline, "the token is still good: {other:?}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Replaces a file in one step.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("a file");
    std::fs::rename(&new, path).expect("the same directory");
}

/// A kubeconfig whose user is this.
fn kubeconfig(cluster: &Cluster, way: &Way, name: &str, user: &Json) -> PathBuf {
    let ca = cluster.directory.join("certificates/apiserver.crt");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster":
            {"server": format!("https://127.0.0.1:{}", way.port), "certificate-authority": ca}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    let path = cluster.directory.join(format!("{name}.kubeconfig"));
    std::fs::write(&path, config.to_string()).expect("a file");
    path
}

fn tier(store: &dyn Store, name: &str) {
    let key = Key::resource(Kind::Tier, "", name);
    let text = format!(
        r#"{{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{{"name":"{name}"}},"spec":{{"order":7}}}}"#
    );
    let value = Value::from_json(&key, &text).expect("a tier");
    store.write_one(Write { key, expect: Expect::Absent, value: Some(value) }).expect("it is absent");
}

/// Follows until these are there; whatever was told stays told.
fn follow(mirror: &Mirror, told: &mut BTreeSet<String>, wanted: &[String]) {
    let deadline = Instant::now() + LONG;
    while !wanted.iter().all(|name| told.contains(name)) {
        assert!(Instant::now() < deadline, "of {wanted:?} only {told:?} came");
        for Update { key, value, revision: _ } in mirror.wait(Duration::from_millis(200)).updates {
            let Key::Resource { kind: _, namespace: _, name } = key else { panic!("{key}") };
            if value.is_some() {
                told.insert(name);
            } else {
                panic!("{name} was never deleted, and is told to be gone");
            }
        }
    }
}

/// Uses a store through three tokens, of which each ends before the next is given; `give` makes a token the current one.
fn rotate(cluster: &Cluster, way: &Way, account: &Account<'_>, kubeconfig: PathBuf, first: &str, give: impl Fn(&str)) {
    let options = Options {
        kubeconfig: kubeconfig.display().to_string(),
        group: Some(Group::V1),
        qps: Some(-1.0),
        patience: Some(Duration::from_secs(1)),
        ..Options::default()
    };
    let name = account.name;
    let store = Arc::new(KubernetesStore::open(options).expect("a thread"));
    let mirror = Mirror::spawn(store.clone(), Filter::Kind(Kind::Tier), MirrorOptions::default()).expect("a thread");
    let others = cluster.store(Some(Group::V1));
    let mut told = BTreeSet::new();
    let mut wanted = vec![format!("{name}-start")];
    tier(&*store, &wanted[0]);
    follow(&mirror, &mut told, &wanted);
    let mut current = first.to_owned();
    for number in 2..=3 {
        let next = account.token(number);
        account.revoke(number - 1, &current);
        // Between the end of one token and the next, others write, connections break, and this store gets nothing.
        way.cut();
        let error = store.get(&Key::resource(Kind::Tier, "", &wanted[0])).expect_err("the token is of no use");
        assert!(matches!(&error, StoreError::Unusable(text) if text.contains("KUBECONFIG")), "{error}");
        assert!(!error.to_string().contains(&current), "{error}");
        for n in 0..3 {
            wanted.push(format!("{name}-{number}-{n}"));
            tier(&others, &wanted[wanted.len() - 1]);
        }
        give(&next);
        follow(&mirror, &mut told, &wanted);
        wanted.push(format!("{name}-{number}-own"));
        tier(&*store, &wanted[wanted.len() - 1]);
        follow(&mirror, &mut told, &wanted);
        current = next;
    }
}

#[test]
fn a_token_file_that_is_replaced_is_read_again() {
    let Some(cluster) = &*CLUSTER else { return };
    let (way, account) = (Way::to(cluster.port), Account::make(cluster, "files"));
    let (file, first) = (cluster.directory.join("token"), account.token(1));
    replace(&file, &first);
    let config = kubeconfig(cluster, &way, "files", &json!({"tokenFile": file}));
    // The second time with a line's end, as people write files.
    let lines = Mutex::new(false);
    rotate(cluster, &way, &account, config, &first, |token| {
        let mut line = lines.lock().expect("no panic");
        *line = !*line;
        replace(&file, &if *line { format!("{token}\n") } else { token.to_owned() });
    });
}

#[test]
fn a_program_that_gives_tokens_is_asked_again() {
    let Some(cluster) = &*CLUSTER else { return };
    let (way, account) = (Way::to(cluster.port), Account::make(cluster, "programs"));
    let (answer, first) = (cluster.directory.join("credential.json"), account.token(1));
    let give = |token: &str| {
        let credential = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": {"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"}});
        replace(&answer, &credential.to_string());
    };
    give(&first);
    let program = cluster.directory.join("credentials.sh");
    let mut file = std::fs::File::create(&program).expect("a file");
    writeln!(file, "#!/bin/sh\nexec cat '{}'", answer.display()).expect("written");
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).expect("ours");
    drop(file);
    let user = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": program,
        "interactiveMode": "Never"}});
    let config = kubeconfig(cluster, &way, "programs", &user);
    rotate(cluster, &way, &account, config, &first, give);
}
