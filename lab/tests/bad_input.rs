//! Wrong manifests and misspelt settings: each is refused with its origin and the nearest choice, and changes nothing.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/facts.rs"]
mod facts;
#[path = "support/run.rs"]
mod run;
#[path = "support/streams.rs"]
mod streams;

use std::fs;

use facts::{facts, holds, untouched};
use run::run;
use streams::{START, Streams};
use tortie_lab::{Lab, Node};

fn pool(name: &str, spec: &str) -> String {
    format!("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

fn policy(spec: &str) -> String {
    format!("apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: p}}\nspec: {spec}\n")
}

/// Manifests with what the message about them must hold.
fn wrong_manifests() -> Vec<(String, Vec<&'static str>)> {
    vec![
        ("kind: [IPPool".to_owned(), vec!["stdin:1", "valid YAML"]),
        (pool("p", "{cidr: 10.9.0.0/24}").replace("IPPool", "IPPol"), vec!["IPPol", "IPPool"]),
        (pool("Not_A_Name", "{cidr: 10.9.0.0/24}"), vec!["Not_A_Name", "name"]),
        (pool("p", "{cidr: 192.168.64.0/20}"), vec!["IPPool(p)", "192.168.64.0/20", "192.168.0.0/16"]),
        (pool("p", "{cidr: 10.9.0.0/27}"), vec!["10.9.0.0/27", "26"]),
        (pool("p", "{cidr: 10.9.0.0/24, blockSze: 28}"), vec!["blockSze", "blockSize"]),
        (pool("p", "{cidr: 10.9.0.0/24, blockSize: many}"), vec!["blockSize", "many"]),
        (pool("p", "{cidr: 10.9.0.0/24, ipipMode: Alwys}"), vec!["ipipMode", "Alwys", "Always"]),
        (policy("{tier: nowhere}"), vec!["nowhere", "tier"]),
        (policy("{selector: 'a == '}"), vec!["selector"]),
        (policy("{ingress: [{action: Alow}]}"), vec!["Alow", "Allow"]),
        // The first document alone would open everything.
        (
            policy("{order: 1, ingress: [{action: Allow}]}")
                + "---\n"
                + &policy("{tier: nowhere}").replace(": p}", ": q}"),
            vec!["nowhere"],
        ),
        (policy("{order: 1, ingress: [{action: Allow}]}") + "---\nkind: [", vec!["document"]),
    ]
}

#[test]
#[ignore = "needs root"]
fn a_wrong_manifest_is_named_and_nothing_of_it_is_written() {
    let streams = Streams::start(Lab::builder().nodes(1).up().unwrap());
    let before = facts(&streams.lab);
    for (manifest, parts) in wrong_manifests() {
        for verb in ["apply", "create"] {
            let output = streams.lab.calicoctl(&[verb, "-f", "-"], &manifest).unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{verb}\n{manifest}\n{text}");
            holds(&text, &parts);
        }
        assert_eq!(facts(&streams.lab), before, "{manifest}");
    }
    streams.end();
}

#[test]
#[ignore = "needs root"]
fn a_manifest_file_is_named_with_its_fault() {
    let lab = Lab::builder().nodes(1).up().unwrap();
    lab.start(START).unwrap();
    let folder = lab.dir().path().join("manifests");
    fs::create_dir(&folder).unwrap();
    let good = folder.join("a.yaml");
    let bad = folder.join("b.yaml");
    fs::write(&good, pool("good", "{cidr: 10.9.0.0/24}")).unwrap();
    fs::write(&bad, pool("bad", "{cidr: 10.9.1.0/24, blockSze: 28}")).unwrap();
    let before = facts(&lab);
    let ended = run(lab.node(1), "calicoctl", &["apply", "-f", folder.to_str().unwrap()], &[]);
    assert_eq!(ended.code, Some(1));
    holds(&ended.text, &["b.yaml", "blockSze", "blockSize"]);
    assert_eq!(facts(&lab), before);
    let ended = run(lab.node(1), "calicoctl", &["apply", "-f", "/nowhere/x.yaml"], &[]);
    assert_eq!(ended.code, Some(1));
    holds(&ended.text, &["/nowhere/x.yaml", "No such file"]);
}

/// Misspelt settings of the node, each with what the message must hold.
const MISSPELT: [(&str, &str, &[&str]); 14] = [
    ("CALICO_NETWORKING_BACKEND", "brid", &["did you mean \"bird\""]),
    ("CALICO_NETWORKING_BAKCEND", "bird", &["did you mean \"CALICO_NETWORKING_BACKEND\""]),
    ("FELIX_NFTABLESMOD", "Enabled", &["did you mean \"FELIX_NFTABLESMODE\""]),
    ("FELIX_NFTABLESMODE", "Enabeld", &["Enabled"]),
    ("FELIX_HEALTHENABLED", "ture", &["did you mean \"true\""]),
    ("FELIX_HEALTHPORT", "many", &["HealthPort"]),
    ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Retrun", &["Return"]),
    ("DATASTORE_TYPE", "sqlit", &["did you mean \"sqlite\""]),
    ("DATASTORE_TYP", "sqlite", &["did you mean \"DATASTORE_TYPE\""]),
    ("IP_AUTODETECTION_METHOD", "first-fuond", &["did you mean \"first-found\""]),
    ("IP_AUTODETECTION_METHOD", "interfaec=eth0", &["did you mean \"interface=\""]),
    ("IP", "autodetetc", &["autodetect"]),
    ("CALICO_IPV4POOL_IPIP", "Alwys", &["did you mean \"Always\""]),
    ("CALICO_IPV4POOL_CIDR", "192.168.0.1/16", &["did you mean 192.168.0.0/16"]),
];

/// Runs both roles with each misspelt setting; `left` looks at what they left.
fn refused(node: &Node, left: impl Fn(&str)) {
    for (name, value, parts) in MISSPELT {
        for role in ["node", "felix"] {
            let ended = run(node, "tortie", &[role], &[(name, value)]);
            assert_eq!(ended.code, Some(1), "{role} {name}={value}: {}", ended.text);
            holds(&ended.text, &["the environment variable", name, value]);
            holds(&ended.text, parts);
        }
        left(&format!("{name}={value}"));
    }
}

#[test]
#[ignore = "needs root"]
fn a_misspelt_setting_stops_a_new_node_before_it_does_anything() {
    let lab = Lab::builder().nodes(1).up().unwrap();
    let node = lab.node(1);
    let routes = node.ip_route(false).unwrap();
    let nft = node.command("nft").unwrap().arg("--version").output().is_ok();
    if !nft {
        println!("skipped: nft is not installed, so nobody looks for rules");
    }
    refused(node, |what| {
        assert!(untouched(&lab), "{what}");
        assert_eq!(node.ip_route(false).unwrap(), routes, "{what}");
        if nft {
            let tables = node.command("nft").unwrap().args(["list", "ruleset"]).output().unwrap();
            assert!(tables.status.success() && tables.stdout.is_empty(), "{what}: a rule in the kernel");
        }
    });
    lab.start(START).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_misspelt_setting_at_a_restart_leaves_traffic_as_it_is() {
    let streams = Streams::start(Lab::builder().nodes(2).up().unwrap());
    let node = streams.lab.node(2);
    node.kill9().unwrap();
    let before = facts(&streams.lab);
    refused(node, |what| assert_eq!(facts(&streams.lab), before, "{what}"));
    node.start().unwrap();
    node.wait_in_sync(START).unwrap();
    streams.end();
}

#[test]
#[ignore = "needs root"]
fn a_misspelt_setting_stops_calicoctl() {
    let streams = Streams::start(Lab::builder().nodes(1).up().unwrap());
    let node = streams.lab.node(1);
    let config = streams.lab.dir().path().join("calicoctl.cfg");
    let before = facts(&streams.lab);
    let head = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n";
    let file = config.to_str().unwrap();
    for (spec, env, parts) in [
        ("  datastoreTyp: sqlite\n", vec![], vec![file, "spec.datastoreTyp", "\"datastoreType\""]),
        ("  datastoreType: sqlit\n", vec![("DATASTORE_TYPE", "")], vec![file, "spec.datastoreType", "\"sqlite\""]),
        ("", vec![("DATASTORE_TYPE", "sqlit")], vec!["environment variable DATASTORE_TYPE", "\"sqlite\""]),
        ("", vec![("DATASTORE_TYP", "sqlite")], vec!["environment variable DATASTORE_TYP", "\"DATASTORE_TYPE\""]),
        ("", vec![("TORTIE_SQLIT", "/x")], vec!["environment variable TORTIE_SQLIT", "\"TORTIE_SQLITE\""]),
    ] {
        fs::write(&config, format!("{head}{spec}")).unwrap();
        let args = ["--config", file, "delete", "globalnetworkpolicy", "ingress"];
        for args in [args, [args[2], args[3], args[4], args[0], args[1]]] {
            let ended = run(node, "calicoctl", &args, &env);
            assert_eq!(ended.code, Some(1), "{spec} {env:?} {args:?}: {}", ended.text);
            holds(&ended.text, &parts);
        }
    }
    let ended = run(node, "calicoctl", &["delet", "ippool", "x"], &[]);
    assert_ne!(ended.code, Some(0));
    holds(&ended.text, &["delet", "delete"]);
    assert_eq!(facts(&streams.lab), before);
    streams.end();
}

#[test]
#[ignore = "needs root"]
fn a_node_whose_name_is_no_dns_name_does_not_start() {
    let lab = Lab::builder().nodes(1).up().unwrap();
    for (name, nearest) in [("Node_1", "node-1"), ("-x", "x"), ("a b", "a-b")] {
        let ended = run(lab.node(1), "tortie", &["node"], &[("NODENAME", name)]);
        assert_eq!(ended.code, Some(1), "{}", ended.text);
        holds(&ended.text, &["NODENAME", name, nearest]);
        assert!(untouched(&lab), "{name}");
    }
}
