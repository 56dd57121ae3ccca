//! The text of every key, as a file to compare with: a kind or a form of key that is not in it fails here.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tortie_api::Kind;
use tortie_facts::{AffinityKey, Filter, Foreign, Key, OwnerKind};

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
        Key::Foreign(Foreign::LiveMigration { namespace: _, name: _ }) => "live migration",
        Key::Foreign(Foreign::Subnet { region: _, id: _ }) => "subnet",
        Key::Foreign(Foreign::Election { region: _ }) => "election",
    }
}

const FORMS: [&str; 10] = [
    "resource",
    "block",
    "affinity of a node",
    "affinity of another owner",
    "handle",
    "settings of IPAM",
    "status",
    "live migration",
    "subnet",
    "election",
];

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
    let region = || "region-east".to_owned();
    let foreign = [
        Foreign::LiveMigration { namespace: "openstack-region-east".into(), name: "vm-1".into() },
        Foreign::Subnet { region: region(), id: "3f2b".into() },
        Foreign::Election { region: region() },
    ];
    all.extend(foreign.map(Key::Foreign));
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

/// Keys as they stand in upstream's own tests (`libcalico-go/lib/backend/model`, `networking-calico`), and whether they are keys.
#[test]
fn upstreams_own_examples_are_read() {
    for good in [
        "/calico/resources/v3/projectcalico.org/networkpolicies/default/my-network-policy",
        "/calico/resources/v3/projectcalico.org/nodes/127.0.0.1",
        "/calico/resources/v3/projectcalico.org/bgppeers/peer1",
        "/calico/resources/v3/projectcalico.org/bgpfilters/pt-filter",
        "/calico/ipam/v2/handle/foobar",
        "/calico/felix/v2/region-Europe/host/h1/workload/o1/w1/endpoint/e1",
        "/calico/felix/v2/region-Europe/host/h1/last_reported_status",
        "/calico/felix/v1/host/foo/endpoint/bar",
        "/calico/dhcp/v2/no-region/subnet/subnet-id-10.65.0--24",
        "/calico/dhcp/v1/subnet/subnet-id-10.65.0--24",
        "/calico/openstack/v1/neutron_election",
    ] {
        assert_eq!(Key::from_path(good).map(|key| key.path()).as_deref(), Ok(good));
    }
    for bad in [
        "/calico/resources/v3/projectcalico.org/foo/bar/baz",
        "/calico/resources/v3/projectcalico.org/felixconfigurations/default/my-network-policy",
        "/calico/resources/v3/projectcalico.org/networkpolicies/default",
        "/calico/ipam/v2/handle/foobar/baz",
        "/calico/ipam/v2/assignment/ipv4/1.2.3.4-26",
        "/calico/dhcp/v2//subnet/x",
        "/calico/dhcp/v2/no-region/subnet",
        "/calico/openstack/v2/no-region",
        "/calico/resources/v3/projectcalico.org/livemigrations/name",
    ] {
        assert!(Key::from_path(bad).is_err(), "{bad}");
    }
}
