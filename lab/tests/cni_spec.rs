//! The CNI plugin as the specification has it: every command, every version, every error code.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/streams.rs"]
mod streams;

use serde_json::{Value, json};
use streams::{START, Streams};
use tortie_lab::cni::{Call, CniFailure, default_conflist};
use tortie_lab::{Lab, Node, Pod, Store, wait};

const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The configuration of the plugin alone, as a runtime makes it from the conflist.
fn conf(version: &str) -> Value {
    let list = default_conflist(false);
    let mut conf = list["plugins"][0].clone();
    conf["name"] = list["name"].clone();
    conf["cniVersion"] = version.into();
    conf
}

/// Calls a plugin for a pod.
fn call(pod: &Pod, node: &Node, plugin: &str, command: &str, conf: &Value) -> Result<Value, CniFailure> {
    let (netns, args) = (pod.netns_path(), pod.cni_args());
    let call =
        Call { command, container_id: &pod.record().container_id, netns: Some(&netns), ifname: "eth0", args: &args };
    node.cni_call(plugin, conf, &call).unwrap()
}

/// Calls the plugin without a container.
fn bare(node: &Node, plugin: &str, command: &str, conf: &Value) -> Result<Value, CniFailure> {
    let call = Call { command, container_id: "", netns: None, ifname: "", args: "" };
    node.cni_call(plugin, conf, &call).unwrap()
}

#[track_caller]
fn fails(result: Result<Value, CniFailure>, code: u64, parts: &[&str]) {
    let failure = result.unwrap_err();
    assert_eq!(failure.code, code, "{failure}");
    let text = failure.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
}

fn one_node() -> Lab {
    let lab = Lab::builder().nodes(1).up().unwrap();
    lab.start(START).unwrap();
    lab
}

fn address_count(lab: &Lab) -> String {
    let shown = lab.ctl(&["ipam", "show"], "").unwrap();
    let pool = shown.lines().find(|line| line.contains("IP Pool")).unwrap_or_else(|| panic!("a pool in\n{shown}"));
    pool.split('|').nth(4).unwrap().split_whitespace().next().unwrap().to_owned()
}

#[test]
#[ignore = "needs root"]
fn every_version_has_its_result() {
    let lab = one_node();
    let node = lab.node(1);
    for (index, version) in VERSIONS.into_iter().enumerate() {
        let pod = node.prepare_pod("default", &format!("p{index}"), &[]).unwrap();
        let conf = conf(version);
        let result = call(&pod, node, "calico", "ADD", &conf).unwrap();
        assert_eq!(result["cniVersion"], version);
        let address = result["ips"][0]["address"].as_str().unwrap();
        assert!(address.starts_with("192.168.") && address.ends_with("/32"), "{result}");
        let (host, inside) = (&result["interfaces"][0], &result["interfaces"][1]);
        assert!(host["name"].as_str().unwrap().starts_with("cali") && host["sandbox"].is_null(), "{result}");
        assert_eq!((&inside["name"], &inside["sandbox"]), (&json!("eth0"), &json!(pod.netns_path())), "{result}");
        assert_eq!(result["ips"][0]["interface"], 1);
        assert!(result["dns"].is_object());
        let old = version < "1.0.0";
        assert_eq!(result["ips"][0]["version"], if old { json!("4") } else { Value::Null }, "{result}");
        assert_eq!(inside["mtu"], if version == "1.1.0" { json!(1500) } else { Value::Null }, "{result}");
        if version != "0.3.1" {
            let mut check = conf.clone();
            check["prevResult"] = result;
            assert_eq!(call(&pod, node, "calico", "CHECK", &check), Ok(Value::Null));
        }
        assert_eq!(call(&pod, node, "calico", "DEL", &conf), Ok(Value::Null));
        pod.remove_netns().unwrap();
    }
    assert_eq!(address_count(&lab), "0");
}

#[test]
#[ignore = "needs root"]
fn versions_are_told_and_others_are_refused() {
    let lab = Lab::builder().nodes(1).up().unwrap();
    let node = lab.node(1);
    for plugin in ["calico", "calico-ipam"] {
        for version in VERSIONS {
            let told = bare(node, plugin, "VERSION", &json!({ "cniVersion": version })).unwrap();
            assert_eq!(told, json!({ "cniVersion": version, "supportedVersions": VERSIONS }));
        }
    }
    let pod = node.prepare_pod("default", "p", &[]).unwrap();
    for version in ["0.1.0", "2.0.0", ""] {
        for command in ["ADD", "DEL", "CHECK"] {
            fails(call(&pod, node, "calico", command, &conf(version)), 1, &["cniVersion", version, "1.1.0"]);
        }
        fails(bare(node, "calico", "STATUS", &conf(version)), 1, &["cniVersion"]);
    }
}

#[test]
#[ignore = "needs root"]
fn what_is_wrong_in_a_call_has_its_code_and_changes_nothing() {
    let streams = Streams::start(Lab::builder().nodes(1).up().unwrap());
    let lab = &streams.lab;
    let node = lab.node(1);
    let pod = node.prepare_pod("default", "p", &[]).unwrap();
    let with = |key: &str, value: Value| {
        let mut conf = conf("1.0.0");
        conf[key] = value;
        conf
    };
    let add = |conf: &Value| call(&pod, node, "calico", "ADD", conf);
    fails(add(&with("polciy", json!({}))), 7, &["polciy", "policy"]);
    fails(add(&with("etcd_endpoint", json!(""))), 7, &["etcd_endpoint", "etcd_endpoints"]);
    fails(
        add(&with("ipam", json!({ "type": "calico-ipam", "assign_ipv5": "true" }))),
        7,
        &["assign_ipv5", "assign_ipv"],
    );
    fails(add(&with("ipam", json!({ "type": "calico-ipam", "assign_ipv4": "ture" }))), 7, &["ture", "true"]);
    fails(add(&with("ipam", json!({ "type": "host-locl" }))), 7, &["host-locl", "CNI_PATH"]);
    fails(
        add(&with("ipam", json!({ "type": "calico-ipam", "ipv4_pools": ["defualt-ipv4-ippool"] }))),
        7,
        &["defualt-ipv4-ippool", "default-ipv4-ippool"],
    );
    fails(add(&with("policy", json!({ "type": "k8" }))), 7, &["policy.type", "k8s"]);
    fails(add(&with("mtu", json!("big"))), 7, &["mtu"]);
    fails(add(&with("datastore_type", json!("sqlit"))), 7, &["datastore_type", "sqlit", "sqlite"]);
    fails(add(&with("log_level", json!("infoo"))), 7, &["log_level", "infoo", "info"]);
    fails(add(&with("name", json!("a b"))), 7, &["name", "a b"]);
    fails(add(&with("device_type", json!("netkit"))), 2, &["device_type", "netkit", "veth"]);
    let netns = pod.netns_path();
    let calls = [
        Call { command: "ADD", container_id: "../x", netns: Some(&netns), ifname: "eth0", args: "" },
        Call { command: "ADD", container_id: "", netns: Some(&netns), ifname: "eth0", args: "" },
        Call { command: "ADD", container_id: "c", netns: Some(&netns), ifname: "a/b", args: "" },
        Call { command: "ADD", container_id: "c", netns: None, ifname: "eth0", args: "" },
        Call { command: "ADDD", container_id: "c", netns: Some(&netns), ifname: "eth0", args: "" },
        Call { command: "ADD", container_id: "c", netns: Some(&netns), ifname: "eth0", args: "x" },
        Call { command: "ADD", container_id: "c", netns: Some(&netns), ifname: "eth0", args: "IP=10.0.0.300" },
        Call { command: "ADD", container_id: "c", netns: Some(&netns), ifname: "eth0", args: "K8S_POD_NAME=p" },
    ];
    for wrong in calls {
        fails(node.cni_call("calico", &conf("1.0.0"), &wrong).unwrap(), 4, &["CNI_"]);
    }
    assert_eq!(address_count(lab), "2", "of the streams' pods alone");
    pod.remove_netns().unwrap();
    streams.end();
}

#[test]
#[ignore = "needs root"]
fn add_twice_del_twice_and_del_of_the_unknown() {
    let streams = Streams::start(Lab::builder().nodes(1).up().unwrap());
    let lab = &streams.lab;
    let node = lab.node(1);
    let pod = node.add_pod("default", "p", &[]).unwrap();
    let again = call(&pod, node, "calico", "ADD", &conf("1.0.0"));
    fails(again, 4, &["CNI_IFNAME", "eth0", "already"]);
    assert_eq!(pod.cni("CHECK").unwrap(), Ok(Value::Null), "the second ADD took nothing away");
    assert_eq!(address_count(lab), "3");
    for _ in 0..2 {
        assert_eq!(call(&pod, node, "calico", "DEL", &conf("1.0.0")), Ok(Value::Null));
    }
    assert_eq!(address_count(lab), "2");
    let stranger = Call { command: "DEL", container_id: "nobody", netns: None, ifname: "eth0", args: "" };
    assert_eq!(node.cni_call("calico", &conf("1.0.0"), &stranger).unwrap(), Ok(Value::Null));
    let gone = Call { netns: Some("/run/netns/never-was"), ..stranger };
    assert_eq!(node.cni_call("calico", &conf("1.0.0"), &gone).unwrap(), Ok(Value::Null));
    let add = Call { command: "ADD", ..gone };
    fails(node.cni_call("calico", &conf("1.0.0"), &add).unwrap(), 3, &["/run/netns/never-was"]);
    let file = Call { netns: Some("/etc/hostname"), ..add };
    fails(node.cni_call("calico", &conf("1.0.0"), &file).unwrap(), 3, &["/etc/hostname"]);
    assert_eq!(address_count(lab), "2");
    pod.remove_netns().unwrap();
    streams.end();
}

/// Whoever deletes a pod by force deletes its record before DEL comes.
#[test]
#[ignore = "needs root"]
fn del_without_a_record_leaves_no_device() {
    let lab = one_node();
    let node = lab.node(1);
    let pod = node.add_pod("default", "p", &[]).unwrap();
    let kept = lab.dir().join(node.name()).join("run/tortie/pods").join(pod.host_interface());
    assert!(kept.exists(), "{}", kept.display());
    if lab.store() == Store::Kubernetes {
        lab.kubectl(&["delete", "pod", "p", "--force", "--grace-period=0"], "").unwrap();
    } else {
        lab.ctl(&["delete", "workloadendpoint", &pod.endpoint_name()], "").unwrap();
    }
    assert_eq!(call(&pod, node, "calico", "DEL", &conf("1.0.0")), Ok(Value::Null));
    assert!(!kept.exists(), "{}", kept.display());
    let device = || node.netlink().unwrap().link(pod.host_interface()).is_err().then_some(());
    wait(START, device).expect("the device goes");
    assert_eq!(address_count(&lab), "0");
    pod.remove_netns().unwrap();
    lab.down().unwrap();
}

/// DEL answers before the device is gone; an ADD that comes at once in the same namespace does not trip over it.
#[test]
#[ignore = "needs root"]
fn add_may_follow_del_at_once_in_the_same_namespace() {
    let lab = one_node();
    let pod = lab.node(1).prepare_pod("default", "again", &[]).unwrap();
    let conf = conf("1.1.0");
    for _ in 0..10 {
        let result = call(&pod, lab.node(1), "calico", "ADD", &conf).unwrap();
        assert_eq!(result["interfaces"][1]["name"], "eth0", "{result}");
        let mut check = conf.clone();
        check["prevResult"] = result;
        call(&pod, lab.node(1), "calico", "CHECK", &check).unwrap();
        call(&pod, lab.node(1), "calico", "DEL", &conf).unwrap();
    }
    pod.remove_netns().unwrap();
    lab.down().unwrap();
}

#[test]
#[ignore = "needs root"]
fn without_the_node_calls_say_try_again() {
    let streams = Streams::start(Lab::builder().nodes(1).up().unwrap());
    let node = streams.lab.node(1);
    let pod = node.add_pod("default", "p", &[]).unwrap();
    assert_eq!(bare(node, "calico", "STATUS", &conf("1.1.0")), Ok(Value::Null));
    assert_eq!(bare(node, "calico-ipam", "STATUS", &conf("1.1.0")), Ok(Value::Null));
    node.kill9().unwrap();
    let late = node.prepare_pod("default", "late", &[]).unwrap();
    for plugin in ["calico", "calico-ipam"] {
        fails(call(&late, node, plugin, "ADD", &conf("1.0.0")), 11, &["node agent", "cni.sock", "tortie node"]);
        fails(call(&pod, node, plugin, "DEL", &conf("1.0.0")), 11, &["node agent"]);
        fails(bare(node, plugin, "STATUS", &conf("1.1.0")), 50, &["node agent"]);
    }
    fails(call(&pod, node, "calico", "CHECK", &conf("1.0.0")), 11, &["node agent"]);
    node.start().unwrap();
    node.wait_in_sync(START).unwrap();
    assert!(call(&late, node, "calico", "ADD", &conf("1.0.0")).is_ok(), "the same call works with the node up");
    pod.delete().unwrap();
    late.delete().unwrap();
    assert_eq!(address_count(&streams.lab), "2");
    streams.end();
}

#[test]
#[ignore = "needs root"]
fn check_finds_what_is_not_as_add_made_it() {
    let lab = one_node();
    let node = lab.node(1);
    let check = |pod: &Pod, prev: &Value| {
        let mut conf = conf("1.0.0");
        conf["prevResult"] = prev.clone();
        call(pod, node, "calico", "CHECK", &conf)
    };
    let break_it = |pod: &Pod, args: &[&str]| {
        let mut inside =
            tortie_netlink::Handle::open_in(&tortie_netlink::Netns::open(pod.netns_path()).unwrap()).unwrap();
        let link = inside.link("eth0").unwrap();
        match args {
            ["down"] => inside.set_link_up("eth0", false).unwrap(),
            ["delete"] => inside.delete_link(link.index).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    for fault in ["down", "delete"] {
        let mut pod = node.prepare_pod("default", fault, &[]).unwrap();
        let made = pod.cni_add().unwrap().unwrap();
        assert_eq!(check(&pod, &made), Ok(Value::Null));
        let mut other = made.clone();
        other["ips"][0]["address"] = "192.168.255.254/32".into();
        fails(check(&pod, &other), 101, &["192.168.255.254", "prevResult"]);
        break_it(&pod, &[fault]);
        let result = check(&pod, &made);
        // A deleted device may be made again before anybody looks.
        if fault == "down" || result.is_err() {
            fails(result, 101, &["eth0"]);
        }
        pod.delete().unwrap();
    }
    let never = node.prepare_pod("default", "never", &[]).unwrap();
    fails(check(&never, &Value::Null), 101, &["no endpoint"]);
}

#[test]
#[ignore = "needs root"]
fn gc_keeps_what_is_listed_and_nothing_else() {
    let streams = Streams::start(Lab::builder().nodes(1).up().unwrap());
    let lab = &streams.lab;
    let node = lab.node(1);
    let lost = node.add_pod("default", "lost", &[]).unwrap();
    let (a, b) = (lab.pod("a").unwrap(), lab.pod("b").unwrap());
    // An address alone, as after a crash of a runtime between plugins.
    let alone = node.prepare_pod("default", "alone", &[]).unwrap();
    assert!(call(&alone, node, "calico-ipam", "ADD", &conf("1.1.0")).is_ok());
    assert_eq!(address_count(lab), "4");
    let attachment = |pod: &Pod| json!({ "containerID": pod.record().container_id, "ifname": "eth0" });
    let mut gc = conf("1.1.0");
    gc["cni.dev/valid-attachments"] = json!([attachment(&a), attachment(&b), attachment(&lost), attachment(&alone)]);
    assert_eq!(bare(node, "calico", "GC", &gc), Ok(Value::Null));
    assert_eq!(address_count(lab), "4");
    gc["cni.dev/valid-attachments"] = json!([attachment(&a), attachment(&b)]);
    assert_eq!(bare(node, "calico", "GC", &gc), Ok(Value::Null));
    assert_eq!(address_count(lab), "2");
    assert!(call(&lost, node, "calico", "CHECK", &conf("1.1.0")).is_err());
    assert!(call(&a, node, "calico", "CHECK", &conf("1.1.0")).is_ok());
    lost.remove_netns().unwrap();
    alone.remove_netns().unwrap();
    streams.end();
}
