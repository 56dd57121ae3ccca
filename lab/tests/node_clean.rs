//! `tortie node clean`: a host is afterwards as it was before the node's first start, seen by another tool.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/overlay.rs"]
mod overlay;
#[path = "support/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::path::Path;

use overlay::{START, kernel_has};
use run::run;
use tortie_lab::{Lab, Node, wait};

/// What the host's kernel holds, by kind.
fn snapshot(lab: &Lab, node: &Node) -> BTreeMap<String, String> {
    let tell = |program: &str, args: &[&str]| {
        let output = node.command(program).unwrap().args(args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    // Counters, life times and the order of interfaces are no state of ours. The kernel's own `tunl0` can't be deleted,
    // and whoever sets it up once can't take its queue away again.
    let line = |line: &str| match line.contains(" tunl0@") {
        true => line.trim_end().replace("qdisc noqueue", "qdisc noop"),
        false => line.trim_end().to_owned(),
    };
    let kept = |text: String| text.lines().map(line).collect::<Vec<_>>().join("\n");
    let mut all: BTreeMap<String, String> = [
        ("links", tell("ip", &["-o", "link"])),
        ("addresses", tell("ip", &["-o", "address"])),
        ("routes", tell("ip", &["route", "show", "table", "all"])),
        ("routes6", tell("ip", &["-6", "route", "show", "table", "all"])),
        ("rules", tell("ip", &["rule"])),
        ("rules6", tell("ip", &["-6", "rule"])),
        ("neighbours", tell("ip", &["neighbour", "show", "nud", "permanent"])),
        ("forwarding entries", tell("bridge", &["fdb"])),
        ("packet filter", tell("nft", &["list", "ruleset"])),
    ]
    .map(|(kind, text)| (kind.to_owned(), kept(text)))
    .into();
    let place = lab.place(node.name()).unwrap();
    let settings = place.run(|| {
        let mut all = BTreeMap::new();
        ["ipv4", "ipv6"].iter().for_each(|family| settings(&Path::new("/proc/sys/net").join(family), &mut all));
        Ok(all)
    });
    all.extend(settings.unwrap());
    all
}

fn settings(folder: &Path, all: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Nor the settings that it gets for IPv6 when it is up first.
        if ["conf", "neigh"].iter().any(|kind| path.ends_with(format!("ipv6/{kind}/tunl0"))) {
            continue;
        }
        if path.is_dir() {
            settings(&path, all);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            all.insert(path.to_str().unwrap().to_owned(), text);
        }
    }
}

fn difference(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
    let differ = names.filter(|name| before.get(*name) != after.get(*name));
    differ.map(|name| format!("{name}: {:#?} became {:#?}", before.get(name), after.get(name))).collect()
}

#[test]
#[ignore = "needs root"]
fn a_clean_host_is_as_it_was() {
    leaves("CALICO_IPV4POOL_VXLAN", "vxlan.calico");
}

#[test]
#[ignore = "needs root"]
fn a_host_that_had_ipip_is_as_it_was() {
    if kernel_has("IPIP", |kernel| kernel.create_ipip("tunl0")) {
        leaves("CALICO_IPV4POOL_IPIP", "tunl0");
    }
}

/// A host between its node's start and its end, with a pool of this mode, whose routes lead through this device.
fn leaves(mode: &str, device: &str) {
    let mut lab = Lab::builder().nodes(2).dual_stack().env(mode, "Always");
    // In the kernel or in user space.
    let wireguard = Path::new("/dev/net/tun").exists();
    if wireguard {
        lab = lab.env("FELIX_WIREGUARDENABLED", "true").env("FELIX_WIREGUARDENABLEDV6", "true");
    }
    let lab = lab.up().unwrap();
    let node = lab.node(1);
    let before = snapshot(&lab, node);
    lab.start(START).unwrap();
    let _pods: Vec<_> = (1..=2).map(|n| lab.node(n).add_pod("default", &format!("p{n}"), &[]).unwrap()).collect();
    let filled = wait(START, || {
        let now = snapshot(&lab, node);
        let has = |kind: &str, text: &str| now[kind].contains(text);
        let encrypts = has("rules", "fwmark 0x200000") && has("rules6", "fwmark 0x200000");
        ((encrypts || !wireguard)
            && has("addresses", device)
            && has("links", "cali")
            && has("routes", "blackhole")
            && has("routes", &format!("dev {device} proto 80"))
            && has("routes6", "proto bird")
            && has("packet filter", "table inet tortie"))
        .then_some(())
    });
    assert!(filled.is_some(), "the node fills its host");
    // As the kernel's WireGuard does, which may not be the one at work here.
    if wireguard {
        let off = run(node, "sysctl", &["-w", "net.ipv4.conf.all.send_redirects=0"], &[]);
        assert_eq!(off.code, Some(0), "{}", off.text);
    }

    let refused = run(node, "tortie", &["node", "clean"], &[]);
    assert_eq!(refused.code, Some(1), "{}", refused.text);
    assert!(refused.text.contains("a node runs on this host"), "{}", refused.text);
    let running = snapshot(&lab, node);
    let told = run(node, "tortie", &["node", "clean", "--dry-run"], &[]);
    assert_eq!(told.code, Some(0), "{}", told.text);
    for what in ["would go: interface cali", "would go: route", "nftables table", device] {
        assert!(told.text.contains(what), "{what} in\n{}", told.text);
    }
    assert_eq!(difference(&running, &snapshot(&lab, node)), [""; 0], "a dry run changes nothing");

    // Started twice, so that the second start finds the settings of the first.
    node.restart().unwrap();
    node.wait_in_sync(START).unwrap();
    node.stop().unwrap();
    let cleaned = run(node, "tortie", &["node", "clean"], &[]);
    assert_eq!(cleaned.code, Some(0), "{}", cleaned.text);
    assert_eq!(difference(&before, &snapshot(&lab, node)), [""; 0], "{}", cleaned.text);
    let again = run(node, "tortie", &["node", "clean"], &[]);
    assert_eq!(again.code, Some(0), "cleaning what is clean is fine: {}", again.text);

    node.start().unwrap();
    node.wait_in_sync(START).unwrap();
}

#[test]
#[ignore = "needs root"]
fn what_wireguard_left_is_cleaned() {
    let lab = Lab::builder().nodes(1).dual_stack().up().unwrap();
    let node = lab.node(1);
    let ip = |args: &str| {
        let done = run(node, "ip", &args.split(' ').collect::<Vec<_>>(), &[]);
        assert_eq!(done.code, Some(0), "ip {args}: {}", done.text);
    };
    // Another's rule with the same mark, and its route, stay.
    ip("rule add fwmark 0x200000/0x200000 lookup 77 priority 50");
    ip("route add blackhole 10.77.0.0/16 table 77 proto static");
    let before = snapshot(&lab, node);
    for family in ["-4", "-6"] {
        ip(&format!("{family} rule add not fwmark 0x200000/0x200000 lookup 99 priority 99 proto 80"));
    }
    ip("route add throw 10.9.0.0/16 table 99 proto 80");
    ip("-6 route add throw fd09::/64 table 99 proto 80");
    // The rule of these went in an earlier try.
    ip("route add throw 10.8.0.0/16 table 1 proto 80");
    let cleaned = run(node, "tortie", &["node", "clean"], &[]);
    assert_eq!(cleaned.code, Some(0), "{}", cleaned.text);
    assert_eq!(difference(&before, &snapshot(&lab, node)), [""; 0], "{}", cleaned.text);
}
