//! Policies that upstream up to 3.31 keeps in etcd as `default.NAME`: every command takes NAME, and finds them where they
//! are, until they are renamed.

mod common;

use common::{Cluster, manifest};
use tortie_etcd_server::{Server, installed};

const POLICIES: &str = "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/";

/// A program's environment for this etcd.
fn cluster(server: &Server) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.env.insert("DATASTORE_TYPE".to_owned(), "etcdv3".into());
    cluster.env.extend(server.env().into_iter().map(|(name, value)| (name, value.into())));
    cluster
}

/// The keys that are there, and their orders.
fn stored(server: &Server) -> Vec<(String, i64)> {
    let entries = server.get_prefix(POLICIES).into_iter();
    let one = |(key, text): (String, String)| {
        let policy: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let name = key.strip_prefix(POLICIES).expect("asked for").to_owned();
        // Older versions read the name in the object too.
        assert_eq!(policy["metadata"]["name"], name.as_str(), "{text}");
        (name, policy["spec"]["order"].as_i64().unwrap_or_default())
    };
    entries.map(one).collect()
}

fn plant(server: &Server, name: &str) {
    let text = format!(
        r#"{{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{{"name":"default.{name}","uid":"11111111-2222-3333-4444-555555555555","creationTimestamp":"2026-01-02T03:04:05Z"}},"spec":{{"tier":"default","order":1,"selector":"all()","types":["Ingress"]}}}}"#
    );
    server.put(&format!("{POLICIES}default.{name}"), &text);
}

fn policy(name: &str, order: i64) -> String {
    manifest("GlobalNetworkPolicy", name, &format!("tier: default\norder: {order}\nselector: all()\ntypes: [Ingress]"))
}

#[test]
fn every_command_takes_either_name_until_they_are_renamed() {
    if !installed() {
        return;
    }
    let server = Server::plain().ready();
    let cluster = cluster(&server);
    for name in ["a", "b", "c"] {
        plant(&server, name);
    }
    let shown = cluster.good("get gnp", "");
    let names: Vec<&str> = shown.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    for name in ["a", "default.a"] {
        assert!(cluster.good(&format!("get gnp {name} -o yaml"), "").contains("name: a\n"), "{name}");
    }
    cluster.good("apply -f -", &policy("a", 2));
    assert_eq!(stored(&server)[0], ("default.a".to_owned(), 2));
    assert!(cluster.bad("create -f -", &policy("a", 3)).contains("already exists"));
    cluster.good("delete gnp b", "");
    cluster.good("delete gnp default.c", "");
    assert_eq!(stored(&server), [("default.a".to_owned(), 2)]);
    // So many that they are read by one listing, new ones among them.
    for n in 10..90 {
        plant(&server, &format!("p{n}"));
    }
    let many: String = (10..95).map(|n| policy(&format!("p{n}"), n)).collect();
    cluster.good("apply -f -", &many);
    let mut wanted: Vec<(String, i64)> = vec![("default.a".to_owned(), 2)];
    wanted.extend((10..90).map(|n| (format!("default.p{n}"), n)));
    wanted.extend((90..95).map(|n| (format!("p{n}"), n)));
    assert_eq!(stored(&server), wanted);
    let migrated = cluster.good("datastore migrate-policy-names", "");
    assert_eq!(migrated, "Policy name migration complete, migrated 81 policies.\n");
    let renamed: Vec<(String, i64)> =
        wanted.into_iter().map(|(name, order)| (name.trim_start_matches("default.").to_owned(), order)).collect();
    assert_eq!(stored(&server), renamed);
}
