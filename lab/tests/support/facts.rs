//! What the lab's store holds, whichever it is, and looking at texts.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value as Json, json};
use tortie_lab::{Lab, Node, Store};

/// What a store holds, by path, with revisions.
pub type Facts = BTreeMap<String, (String, i64)>;

/// The file of a lab's embedded store.
pub fn store_file(lab: &Lab) -> PathBuf {
    lab.dir().path().join("store/tortie.db")
}

/// Whether nobody has written anything into the store yet.
pub fn untouched(lab: &Lab) -> bool {
    match lab.store() {
        Store::Sqlite => !store_file(lab).exists(),
        Store::Etcd | Store::Kubernetes => facts(lab).is_empty(),
    }
}

/// What the store holds; states of nodes left out, which change by themselves.
pub fn facts(lab: &Lab) -> Facts {
    let all = match lab.store() {
        Store::Sqlite => in_file(lab),
        Store::Etcd => in_etcd(lab),
        Store::Kubernetes => in_kubernetes(lab),
    };
    all.into_iter().filter(|(path, _)| !path.starts_with("/calico/felix/")).collect()
}

fn in_file(lab: &Lab) -> Facts {
    let connection = Connection::open_with_flags(store_file(lab), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    let mut select = connection.prepare("SELECT path, value, revision FROM kv").unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?)))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// What a call of `etcdctl` prints on a node, with the node's own way to etcd.
pub fn etcdctl(node: &Node, args: &[&str]) -> String {
    let env: BTreeMap<String, String> = node.view().env().into_iter().collect();
    let mut command = node.command("etcdctl").unwrap();
    command.env("ETCDCTL_API", "3");
    for (theirs, ours) in [
        ("ETCDCTL_ENDPOINTS", "ETCD_ENDPOINTS"),
        ("ETCDCTL_CACERT", "ETCD_CA_CERT_FILE"),
        ("ETCDCTL_CERT", "ETCD_CERT_FILE"),
        ("ETCDCTL_KEY", "ETCD_KEY_FILE"),
    ] {
        command.env(theirs, &env[ours]);
    }
    let output = command.args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// As `etcdctl` on the first node prints it: a line for each field, texts in quotes.
fn in_etcd(lab: &Lab) -> Facts {
    let text = etcdctl(lab.node(1), &["get", "--prefix", "/", "--write-out=fields"]);
    let (mut all, mut path, mut revision) = (Facts::new(), String::new(), 0);
    for line in text.lines() {
        match line.split_once(" : ") {
            Some(("\"Key\"", text)) => path = serde_json::from_str(text).unwrap(),
            Some(("\"ModRevision\"", number)) => revision = number.parse().unwrap(),
            Some(("\"Value\"", text)) => {
                all.insert(path.clone(), (serde_json::from_str(text).unwrap(), revision));
            }
            _ => {}
        }
    }
    all
}

/// The facts' own objects, and what is written on Nodes and Pods, whose other changes are no facts.
fn in_kubernetes(lab: &Lab) -> Facts {
    const TYPES: &str = "bgpconfigurations bgpfilters bgppeers blockaffinities clusterinformations \
        felixconfigurations globalnetworkpolicies globalnetworksets hostendpoints ipamblocks ipamconfigs ipamhandles \
        ippools ipreservations kubecontrollersconfigurations networkpolicies networksets tiers";
    let mut types: Vec<String> =
        TYPES.split_whitespace().map(|plural| format!("{plural}.crd.projectcalico.org")).collect();
    types.extend(["nodes", "pods"].map(str::to_owned));
    let text = lab.kubectl(&["get", &types.join(","), "-A", "-o", "json"], "").unwrap();
    let list: Json = serde_json::from_str(&text).unwrap();
    let word = |value: &Json| value.as_str().unwrap_or_default().to_owned();
    let mut all = Facts::new();
    for object in list["items"].as_array().unwrap() {
        let (kind, metadata) = (word(&object["kind"]), &object["metadata"]);
        let path = [&kind, &word(&metadata["namespace"]), &word(&metadata["name"])].map(String::as_str).join("/");
        let annotations = metadata["annotations"].as_object().cloned().unwrap_or_default();
        let (value, revision) = if ["Node", "Pod"].contains(&kind.as_str()) {
            let own = annotations.into_iter().filter(|(name, _)| name.contains("projectcalico.org/"));
            let own: BTreeMap<String, Json> = own.collect();
            if own.is_empty() {
                continue;
            }
            (json!(own), 0)
        } else {
            (
                json!([annotations, metadata["labels"], object["spec"]]),
                word(&metadata["resourceVersion"]).parse().unwrap(),
            )
        };
        all.insert(path, (value.to_string(), revision));
    }
    all
}

/// A text that must hold all of some parts.
#[track_caller]
pub fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}
