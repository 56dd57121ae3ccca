//! The text of every key, as a file to compare with: a kind or a form of key that is not in it fails here.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tortie_api::Kind;
use tortie_facts::{AffinityKey, Filter, Key, OwnerKind};

/// The forms of keys; a new one has to be named here, and then needs an example below.
fn form(key: &Key) -> &'static str {
    match key {
        Key::Resource { kind: _, namespace: _, name: _ } => "resource",
        Key::Block(_) => "block",
        Key::Affinity(AffinityKey { kind: OwnerKind::Host, owner: _, cidr: _ }) => "affinity of a node",
        Key::Affinity(AffinityKey { kind: OwnerKind::Virtual, owner: _, cidr: _ }) => "affinity of another owner",
        Key::Handle(_) => "handle",
        Key::IpamConfig => "settings of IPAM",
        Key::Status(_) => "status",
    }
}

const FORMS: [&str; 7] =
    ["resource", "block", "affinity of a node", "affinity of another owner", "handle", "settings of IPAM", "status"];

fn examples() -> Vec<Key> {
    let resource = |kind: Kind| Key::resource(kind, if kind.namespaced() { "prod" } else { "" }, "web-1");
    let mut all: Vec<Key> = Kind::every().map(resource).collect();
    for cidr in ["10.65.0.64/26", "fd00:10::40/122"] {
        let cidr = cidr.parse().expect("a prefix");
        let balancer = AffinityKey { kind: OwnerKind::Virtual, owner: "load-balancer".into(), cidr };
        all.extend([Key::Block(cidr), Key::host_affinity("node-1.example", cidr), Key::Affinity(balancer)]);
    }
    all.extend([Key::Handle("k8s-pod-network.0a1b".into()), Key::IpamConfig]);
    for status in [
        "v2/no-region/host/n1/status",
        "v2/no-region/host/n1/last_reported_status",
        "v2/no-region/host/n1/workload/k8s/prod%2fweb-1/endpoint/eth0",
        "v1/host/n1/endpoint/eth0",
        "controllers/calico-kube-controllers",
    ] {
        all.push(Key::Status(status.into()));
    }
    all
}

#[test]
fn every_form_of_key_has_an_example() {
    let found: BTreeSet<&str> = examples().iter().map(form).collect();
    assert_eq!(found, FORMS.into_iter().collect());
}

#[test]
fn the_text_of_keys_is_that_of_the_file() {
    let made: String = examples().iter().map(|key| key.path() + "\n").collect();
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/keys.txt");
    if std::env::var_os("TORTIE_BLESS").is_some() {
        std::fs::write(&file, &made).expect("it can be written");
    }
    let found = std::fs::read_to_string(&file).expect("the golden file");
    assert_eq!(made, found, "{}: `cargo xtask bless` rewrites it", file.display());
    for (key, path) in examples().into_iter().zip(found.lines()) {
        assert_eq!(Key::from_path(path), Ok(key.clone()), "{path}");
        assert!(Filter::All.covers(&key) || matches!(key, Key::Status(_)), "{path}");
    }
}
