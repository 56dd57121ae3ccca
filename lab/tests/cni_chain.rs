//! The CNI plugin beside others: chained before portmap and bandwidth, with a foreign IPAM, and its own IPAM alone.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/streams.rs"]
mod streams;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use streams::{START, Streams};
use tortie_lab::cni::{Call, default_conflist};
use tortie_lab::{Lab, Outcome, Pod, Probe, Store, probe};

/// Whether a plugin of others is there; says so when it is not.
fn plugin(name: &str) -> bool {
    let there = ["/usr/lib/cni", "/opt/cni/bin"].iter().any(|folder| Path::new(folder).join(name).exists());
    if !there {
        println!("skipped: the CNI plugin {name} is not installed");
    }
    there
}

const OPEN: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: open}
spec:
  selector: name == 'served'
  ingress: [{action: Allow}]
  egress: [{action: Allow}]
";

/// Answers one TCP connection in a pod with a word.
fn answer_once(pod: &Pod, port: u16) -> std::thread::JoinHandle<bool> {
    let listener = pod.place().run(|| Ok(TcpListener::bind(("0.0.0.0", port))?)).unwrap();
    std::thread::spawn(move || listener.accept().is_ok_and(|(mut stream, _)| stream.write_all(b"served").is_ok()))
}

#[test]
#[ignore = "needs root"]
fn portmap_and_bandwidth_follow_in_a_chain() {
    if !plugin("portmap") || !plugin("bandwidth") {
        return;
    }
    let streams = Streams::start(Lab::builder().nodes(2).up().unwrap());
    let lab = &streams.lab;
    lab.apply(OPEN).unwrap();
    let node = lab.node(1);
    let plain = node.conflist().unwrap();
    let mut chained = plain.clone();
    let plugins = chained["plugins"].as_array_mut().unwrap();
    // As a runtime fills in what a pod asks for by capabilities.
    let mappings = json!([{ "hostPort": 8080, "containerPort": 9000, "protocol": "tcp" }]);
    let limit = json!({ "ingressRate": 8_000_000, "ingressBurst": 8_000_000, "egressRate": 8_000_000, "egressBurst": 8_000_000 });
    plugins.push(json!({ "type": "portmap", "backend": "nftables", "runtimeConfig": { "portMappings": mappings } }));
    plugins.push(json!({ "type": "bandwidth", "runtimeConfig": { "bandwidth": limit } }));
    node.set_conflist(&chained).unwrap();
    let mut pod = node.prepare_pod("default", "served", &[("name", "served")]).unwrap();
    let result = pod.cni_add().unwrap().unwrap();
    assert_eq!(result["cniVersion"], "1.0.0");
    assert_eq!(result["interfaces"][1]["name"], "eth0", "the others keep the first plugin's result: {result}");
    let queues = node.command("tc").unwrap().args(["qdisc", "show", "dev", pod.host_interface()]).output();
    if let Ok(queues) = queues {
        let text = String::from_utf8(queues.stdout).unwrap();
        assert!(text.contains("tbf"), "bandwidth limits {}: {text}", pod.host_interface());
    }
    let served = answer_once(&pod, 9000);
    let outside = lab.node(2).place();
    let target = std::net::SocketAddr::from((node.ip(), 8080));
    let word = outside.run(|| {
        let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut word = String::new();
        stream.read_to_string(&mut word)?;
        Ok(word)
    });
    assert_eq!(word.unwrap(), "served", "the host's port leads to the pod");
    assert!(served.join().unwrap());
    for _ in 0..2 {
        assert!(pod.cni("DEL").unwrap().is_ok());
    }
    pod.remove_netns().unwrap();
    node.set_conflist(&plain).unwrap();
    streams.end();
}

#[test]
#[ignore = "needs root"]
fn host_local_gives_addresses_and_gets_them_back() {
    if !plugin("host-local") {
        return;
    }
    let lab = Lab::builder().nodes(1).up().unwrap();
    lab.start(START).unwrap();
    lab.apply(OPEN).unwrap();
    let node = lab.node(1);
    let data = lab.dir().path().join("host-local");
    let mut conflist = default_conflist(false);
    conflist["plugins"][0]["ipam"] = json!({
        "type": "host-local",
        "dataDir": data,
        "ranges": [[{ "subnet": "10.77.0.0/29" }]],
        "routes": [{ "dst": "0.0.0.0/0" }]
    });
    node.set_conflist(&conflist).unwrap();
    let held = || {
        let entries = std::fs::read_dir(data.join("k8s-pod-network")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("10.77.")).count()
    };
    let check = |pod: &Pod, result: &Value| {
        let (netns, args) = (pod.netns_path(), pod.cni_args());
        let container_id = &pod.record().container_id;
        let call = Call { command: "CHECK", container_id, netns: Some(&netns), ifname: "eth0", args: &args };
        node.cni_chain(&call, pod.labels(), Some(result)).unwrap()
    };
    let a = node.add_pod("default", "a", &[("name", "served")]).unwrap();
    let b = node.add_pod("default", "b", &[("name", "served")]).unwrap();
    let outsider = node.add_pod("default", "c", &[]).unwrap();
    for pod in [&a, &b, &outsider] {
        assert!(pod.ip().to_string().starts_with("10.77.0."), "{}", pod.ip());
        let result = json!({ "cniVersion": "1.0.0", "ips": [{ "address": format!("{}/29", pod.ip()) }] });
        assert!(check(pod, &result).is_ok());
    }
    assert_eq!(probe::ask(&a.place(), &b.place(), &Probe::udp(9000)).unwrap(), Outcome::Open);
    // On Kubernetes a namespace's profile lets in what no policy is about.
    let unnamed = if lab.store() == Store::Kubernetes { Outcome::Open } else { Outcome::Dropped };
    assert_eq!(probe::ask(&a.place(), &outsider.place(), &Probe::udp(9000)).unwrap(), unnamed);
    assert_eq!(held(), 3);
    // An ADD that the node can't finish gives the address back.
    node.kill9().unwrap();
    assert!(node.add_pod("default", "late", &[]).is_err());
    assert_eq!(held(), 3);
    node.start().unwrap();
    node.wait_in_sync(START).unwrap();
    // host-local is asked too: an address that it does not know is found.
    std::fs::remove_file(data.join("k8s-pod-network").join(outsider.ip().to_string())).unwrap();
    assert!(check(&outsider, &json!({ "cniVersion": "1.0.0", "ips": [] })).is_err());
    for pod in [a, b, outsider] {
        pod.delete().unwrap();
    }
    assert_eq!(held(), 0);
    let shown = lab.ctl(&["ipam", "show"], "").unwrap();
    assert!(!shown.contains("10.77"), "{shown}");
}

#[test]
#[ignore = "needs root"]
fn calico_ipam_alone_gives_addresses_to_another_plugin() {
    let lab = Lab::builder().nodes(1).dual_stack().up().unwrap();
    lab.start(START).unwrap();
    let node = lab.node(1);
    let pod = node.prepare_pod("default", "p", &[]).unwrap();
    let netns = pod.netns_path();
    let conf = |version: &str| {
        let ipam = json!({ "type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "true" });
        json!({ "name": "theirs", "type": "ptp", "cniVersion": version, "ipam": ipam })
    };
    let call = |command: &str, container_id: &str, version: &str| {
        let call = Call { command, container_id, netns: Some(&netns), ifname: "eth0", args: "" };
        node.cni_call("calico-ipam", &conf(version), &call).unwrap()
    };
    for (index, version) in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"].into_iter().enumerate() {
        let container = format!("c{index}");
        let result = call("ADD", &container, version).unwrap();
        let address = |at: usize| result["ips"][at]["address"].as_str().unwrap_or_default();
        assert!(address(0).starts_with("192.168.") && address(0).ends_with("/32"), "{result}");
        assert!(address(1).starts_with("fd00:192:168:") && address(1).ends_with("/128"), "{result}");
        assert_eq!((&result["cniVersion"], &result["interfaces"]), (&json!(version), &Value::Null));
        assert_eq!(call("CHECK", &container, version), Ok(Value::Null));
        for _ in 0..2 {
            assert_eq!(call("DEL", &container, version), Ok(Value::Null));
        }
    }
    let shown = lab.ctl(&["ipam", "show"], "").unwrap();
    let used: Vec<_> = shown.lines().filter(|l| l.contains("IP Pool")).map(|l| l.split('|').nth(4).unwrap()).collect();
    assert!(used.len() == 2 && used.iter().all(|cell| cell.trim().starts_with('0')), "{shown}");
}
