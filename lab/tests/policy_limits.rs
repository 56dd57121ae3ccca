//! Policy at its limits: very large sets, very many policies on one endpoint, names and selectors as long as they may
//! be, rules that contradict themselves, and a packet filter that refuses. Each works or is refused with the reason.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/facts.rs"]
mod facts;
#[path = "support/programs.rs"]
mod programs;

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use facts::holds;
use programs::installed;
use tortie_lab::{Lab, Outcome, Pod, Probe, Rules, probe, wait};

const START: Duration = Duration::from_secs(60);
/// How long a large change may take on a busy machine.
const LARGE: Duration = Duration::from_secs(180);

/// A node with pods `a`, `b` and `c`.
fn world(rules: Rules) -> (Lab, [Pod; 3]) {
    let lab = Lab::builder().nodes(1).rules(rules).up().unwrap();
    lab.start(START).unwrap();
    let pods = ["a", "b", "c"].map(|name| lab.node(1).add_pod("default", name, &[("name", name)]).unwrap());
    (lab, pods)
}

fn resource(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// Every pod but `b` may send what it likes.
fn out() -> String {
    resource("GlobalNetworkPolicy", "out", "{selector: name != 'b', types: [Egress], egress: [{action: Allow}]}")
}

#[track_caller]
fn becomes(from: &Pod, to: &Pod, port: u16, outcome: Outcome, why: &str) {
    let seen = probe::becomes(&from.place(), &to.place(), &Probe::udp(port), outcome, LARGE).unwrap();
    assert!(seen, "{} to {} port {port} becomes {outcome:?}: {why}", from.name(), to.name());
}

/// The state of a node as `node status` tells it.
fn state(lab: &Lab) -> serde_json::Value {
    serde_json::from_str(&lab.ctl(&["node", "status", "-o", "json"], "").unwrap()).unwrap()
}

#[test]
#[ignore = "needs root"]
fn a_set_with_a_hundred_thousand_members_works() {
    let (lab, [a, b, c]) = world(Rules::from_env().unwrap());
    // Fifty resources, as one value in etcd has at most 1.5 MiB.
    let mut manifest = String::new();
    for part in 0..50_u32 {
        let nets = (0..2000_u32).map(|n| format!("10.{part}.{}.{}", n / 250, n % 250 + 1));
        let nets: Vec<String> = nets.collect();
        writeln!(
            manifest,
            "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {{name: many-{part}, labels: {{many: \"yes\"}}}}\nspec: {{nets: [{}]}}",
            nets.join(", ")
        )
        .unwrap();
    }
    let rule = "{action: Allow, protocol: UDP, source: {selector: \"many == 'yes' || name == 'a'\"}, destination: {ports: [9000]}}";
    manifest += &resource(
        "GlobalNetworkPolicy",
        "in",
        &format!("{{selector: name == 'b', types: [Ingress], ingress: [{rule}]}}"),
    );
    manifest += &out();
    lab.apply(&manifest).unwrap();
    becomes(&a, &b, 9000, Outcome::Open, "a is a member");
    becomes(&c, &b, 9000, Outcome::Dropped, "c is none");
    // One member more among a hundred thousand.
    let more = format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {{name: more, labels: {{many: \"yes\"}}}}\nspec: {{nets: [{}/32]}}\n",
        c.ip()
    );
    lab.apply(&more).unwrap();
    becomes(&c, &b, 9000, Outcome::Open, "c is a member now");
    lab.ctl(&["delete", "globalnetworkset", "more"], "").unwrap();
    becomes(&c, &b, 9000, Outcome::Dropped, "c is none any more");
    assert_eq!(state(&lab)["rulesFault"], serde_json::Value::Null);
    lab.down().unwrap();
}

#[test]
#[ignore = "needs root"]
fn ten_thousand_policies_on_one_endpoint_work() {
    let (lab, [a, b, _c]) = world(Rules::from_env().unwrap());
    let mut manifest = String::new();
    for n in 0..10_000_u32 {
        let rule = format!("{{action: Allow, protocol: TCP, source: {{nets: [10.{}.{}.0/24]}}}}", n / 256, n % 256);
        let spec = format!("{{order: {n}, selector: name == 'b', types: [Ingress], ingress: [{rule}]}}");
        manifest += &resource("GlobalNetworkPolicy", &format!("p{n}"), &spec);
    }
    manifest += &out();
    let last = resource(
        "GlobalNetworkPolicy",
        "last",
        "{order: 20000, selector: name == 'b', types: [Ingress], ingress: [{action: Allow, protocol: UDP, destination: {ports: [9000]}}]}",
    );
    lab.apply(&(manifest + &last)).unwrap();
    becomes(&a, &b, 9000, Outcome::Open, "the last of them allows it");
    becomes(&a, &b, 9001, Outcome::Dropped, "none of them allows it");
    lab.ctl(&["delete", "globalnetworkpolicy", "last"], "").unwrap();
    becomes(&a, &b, 9000, Outcome::Dropped, "the last of them is gone");
    assert_eq!(state(&lab)["rulesFault"], serde_json::Value::Null);
    lab.down().unwrap();
}

#[test]
#[ignore = "needs root"]
fn names_and_selectors_may_be_as_long_as_they_may() {
    let (lab, [a, b, c]) = world(Rules::from_env().unwrap());
    let name = "p".repeat(253);
    let set = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    assert_eq!(set.len(), 253);
    let key = format!("{set}/{}", "k".repeat(63));
    let mut selector = format!("has({key})");
    while selector.len() + 16 <= 1024 {
        selector += " && name != 'zz'";
    }
    selector += &" ".repeat(1024 - selector.len());
    let policy = |name: &str, selector: &str| {
        let rule = format!(
            "{{action: Allow, protocol: UDP, source: {{selector: \"{selector}\"}}, destination: {{ports: [9000]}}}}"
        );
        let spec = format!("{{selector: name == 'b', types: [Ingress], ingress: [{rule}]}}");
        resource("GlobalNetworkPolicy", name, &spec)
    };
    let members = format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {{name: {set}, labels: {{? {key} : \"{}\"}}}}\nspec: {{nets: [{}/32]}}\n",
        "v".repeat(63),
        a.ip()
    );
    lab.apply(&(policy(&name, &selector) + &members + &out())).unwrap();
    becomes(&a, &b, 9000, Outcome::Open, "the long policy allows it");
    becomes(&c, &b, 9000, Outcome::Dropped, "nothing allows it");
    // One character more than there may be.
    for (manifest, part) in [
        (policy(&format!("{name}p"), "all()"), "DNS-1123 label"),
        (policy("p", &format!("{selector} ")), "1024"),
        (members.replace(&set, &format!("{set}e")), "253"),
    ] {
        let refused = lab.calicoctl(&["apply", "-f", "-"], &manifest).unwrap();
        assert!(!refused.status.success(), "{part}");
        holds(&String::from_utf8(refused.stderr).unwrap(), &[part]);
    }
    lab.down().unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_rule_that_contradicts_itself_is_refused_or_matches_nothing() {
    let (lab, [a, b, _c]) = world(Rules::from_env().unwrap());
    let ingress = |rule: &str| {
        resource("GlobalNetworkPolicy", "p", &format!("{{selector: name == 'b', types: [Ingress], ingress: [{rule}]}}"))
    };
    for (rule, parts) in [
        ("{action: Allow, protocol: ICMP, destination: {ports: [80]}}", ["protocol", "ports"]),
        ("{action: Allow, destination: {ports: [80]}}", ["protocol", "ports"]),
        ("{action: Allow, protocol: TCP, ipVersion: 6, source: {nets: [10.0.0.0/8]}}", ["10.0.0.0/8", "IPv6"]),
        ("{action: Allow, protocol: TCP, destination: {ports: [\"90:80\"]}}", ["90:80", "ports"]),
        ("{action: Allow, source: {notNets: [0.0.0.0/0]}}", ["notNets", "no packet can match"]),
        ("{action: Allow, protocol: TCP, icmp: {type: 8}}", ["icmp", "ICMP"]),
    ] {
        let refused = lab.calicoctl(&["apply", "-f", "-"], &ingress(rule)).unwrap();
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success(), "{rule} is refused");
        holds(&text, &parts);
    }
    let open = "{action: Allow, protocol: UDP, destination: {ports: [9000]}}";
    lab.apply(&(ingress(open) + &out())).unwrap();
    becomes(&a, &b, 9000, Outcome::Open, "a rule allows it");
    for nothing in [
        "{action: Allow, protocol: UDP, notProtocol: UDP}",
        "{action: Allow, protocol: UDP, source: {nets: [0.0.0.0/1], notNets: [0.0.0.0/1]}}",
        "{action: Allow, protocol: UDP, destination: {ports: [9000], notPorts: [9000]}}",
        "{action: Allow, protocol: UDP, source: {selector: all(), notSelector: all()}}",
    ] {
        lab.apply(&ingress(open)).unwrap();
        becomes(&a, &b, 9000, Outcome::Open, "a rule allows it");
        lab.apply(&ingress(nothing)).unwrap();
        becomes(&a, &b, 9000, Outcome::Dropped, nothing);
    }
    lab.down().unwrap();
}

/// A program before the real one, that fails while a file is there.
fn stubborn(folder: &Path, program: &str) {
    let path = folder.join(program);
    let script = format!(
        "#!/bin/sh\nif [ -e '{0}/refuse' ]; then cat >/dev/null; echo 'line 3 failed: no more room' >&2; exit 4; fi\nPATH=${{PATH#*:}} exec {program} \"$@\"\n",
        folder.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
#[ignore = "needs root"]
fn a_packet_filter_that_refuses_keeps_the_last_good_policy_and_new_pods_closed() {
    if !installed(&["iptables-nft"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for program in ["iptables-nft-restore", "ip6tables-nft-restore"] {
        stubborn(folder.path(), program);
    }
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let lab = Lab::builder().nodes(1).rules(Rules::IptablesNft).env("PATH", &path).up().unwrap();
    lab.start(START).unwrap();
    let [a, b] = ["a", "b"].map(|name| lab.node(1).add_pod("default", name, &[("name", name)]).unwrap());
    let ingress = |port: u16| {
        resource(
            "GlobalNetworkPolicy",
            "in",
            &format!(
                "{{selector: name == 'b', types: [Ingress], ingress: [{{action: Allow, protocol: UDP, destination: {{ports: [{port}]}}}}]}}"
            ),
        )
    };
    lab.apply(&(ingress(9000) + &out())).unwrap();
    // Where a namespace's profile lets all in, what is closed shows that the policy is in force.
    becomes(&a, &b, 9001, Outcome::Dropped, "the first policy");
    becomes(&a, &b, 9000, Outcome::Open, "the first policy");
    let refuse = folder.path().join("refuse");
    fs::write(&refuse, "").unwrap();
    lab.apply(&ingress(9001)).unwrap();
    let told = wait(START, || state(&lab)["rulesFault"].as_str().map(str::to_owned));
    holds(&told.expect("the cause is in the status"), &["tables-nft-restore refused", "no more room"]);
    assert!(!lab.node(1).ready(), "a node whose rules are refused is not ready");
    let mut conflist = lab.node(1).conflist().unwrap();
    conflist["plugins"][0]["policy_setup_timeout_seconds"] = 2.into();
    lab.node(1).set_conflist(&conflist).unwrap();
    let mut new = lab.node(1).prepare_pod("default", "new", &[]).unwrap();
    assert!(new.cni_add().unwrap().is_err(), "ADD does not succeed without policy");
    becomes(&a, &b, 9000, Outcome::Open, "the last good policy stands");
    becomes(&a, &b, 9001, Outcome::Dropped, "the refused one does not");
    fs::remove_file(&refuse).unwrap();
    becomes(&a, &b, 9001, Outcome::Open, "it is taken in the end");
    becomes(&a, &b, 9000, Outcome::Dropped, "and the old one is gone");
    assert!(wait(START, || state(&lab)["rulesFault"].is_null().then_some(())).is_some());
    assert!(wait(START, || lab.node(1).ready().then_some(())).is_some());
    assert!(new.cni("DEL").unwrap().is_ok());
    let again = new.cni_add().unwrap();
    assert!(again.is_ok(), "ADD works again: {again:?}");
    lab.down().unwrap();
}
