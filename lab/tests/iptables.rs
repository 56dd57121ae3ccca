//! Policy in iptables: from one packet filter to another, and from upstream's rules to ours, while packets flow. No
//! forbidden packet passes, and nothing is left of what was before.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/programs.rs"]
mod programs;

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use programs::installed;
use tortie_lab::{Lab, Node, Outcome, Pod, Probe, Prober, Rules, probe, wait};
use tortie_net::Family;

const START: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);
const PROGRAMS: [&str; 4] = ["iptables-legacy", "iptables-nft", "ipset", "nft"];
/// Packets a second of each stream.
const RATE: u32 = 5_000;

const POLICY: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: ingress}
spec:
  selector: name == 'b'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, source: {selector: name == 'a'}, destination: {ports: [9000, \"9500:9600\"]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: egress}
spec:
  selector: name == 'a'
  types: [Egress]
  egress:
  - {action: Allow}
";

/// Runs a program on the node, with an input.
fn on(node: &Node, program: &str, args: &[&str], input: &str) -> String {
    let mut command = node.command(program).unwrap();
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {args:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Which packet filters hold anything of ours or of upstream.
fn holders(node: &Node) -> Vec<&'static str> {
    let mut found = Vec::new();
    let tables = on(node, "nft", &["list", "tables"], "");
    if tables.lines().any(|table| table.ends_with(" tortie") || table.ends_with(" calico")) {
        found.push("nftables");
    }
    for (name, programs) in [
        ("iptables-legacy", ["iptables-legacy-save", "ip6tables-legacy-save"]),
        ("iptables-nft", ["iptables-nft-save", "ip6tables-nft-save"]),
    ] {
        if programs.into_iter().any(|program| on(node, program, &[], "").contains("cali-")) {
            found.push(name);
        }
    }
    found
}

/// A node with three pods, of which `a` may send to one port of `b`, and `c` nothing.
fn world(rules: Rules) -> (Lab, [Pod; 3]) {
    let lab = Lab::builder().nodes(1).rules(rules).env("CALICO_IPV4POOL_NAT_OUTGOING", "false").up().unwrap();
    lab.start(START).unwrap();
    lab.apply(POLICY).unwrap();
    let pods = ["a", "b", "c"].map(|name| lab.node(1).add_pod("default", name, &[("name", name)]).unwrap());
    (lab, pods)
}

/// An allowed stream, and two forbidden ones.
fn streams([a, b, c]: &[Pod; 3]) -> (Prober, [Prober; 2]) {
    let stream = |from: &Pod, port| Prober::start(&from.place(), &b.place(), Family::V4, port, RATE).unwrap();
    let allowed = stream(a, 9000);
    assert!(allowed.wait_received(100, START), "the allowed stream flows");
    (allowed, [stream(a, 9001), stream(c, 9003)])
}

fn restart(node: &Node, rules: Rules) {
    node.kill9().unwrap();
    node.start_with(&["node"], &rules.env()).unwrap();
    node.wait_in_sync(START).unwrap();
}

#[test]
#[ignore = "needs root"]
fn from_one_packet_filter_to_another_nothing_is_ever_open() {
    if !installed(&PROGRAMS) {
        return;
    }
    let (lab, pods) = world(Rules::Nftables);
    let node = lab.node(1);
    let (allowed, forbidden) = streams(&pods);
    let flowing = allowed.mark();
    let rounds = if std::env::var_os("TORTIE_FULL").is_some() { 10 } else { 1 };
    let ways = [Rules::IptablesLegacy, Rules::IptablesNft, Rules::Nftables, Rules::IptablesNft, Rules::IptablesLegacy];
    for _ in 0..rounds {
        for (rules, name) in ways.into_iter().chain([Rules::Nftables]).map(|rules| match rules {
            Rules::Nftables => (rules, "nftables"),
            Rules::IptablesLegacy => (rules, "iptables-legacy"),
            Rules::IptablesNft => (rules, "iptables-nft"),
        }) {
            restart(node, rules);
            let only = || (holders(node) == [name]).then_some(());
            assert!(wait(SOON, only).is_some(), "policy stands in {name} alone: {:?}\n{}", holders(node), node.log());
        }
    }
    let allowed = allowed.stop();
    let forbidden = forbidden.map(Prober::stop);
    let lost: u64 = allowed.lost().into_iter().filter(|range| range.end > flowing).map(|r| r.end - r.start).sum();
    println!(
        "{} changes of the packet filter: of {} forbidden packets {} arrived, of {} allowed ones {lost} were lost",
        rounds * 6,
        forbidden.iter().map(|report| report.sent).sum::<u64>(),
        forbidden.iter().map(|report| report.received).sum::<u64>(),
        allowed.sent
    );
    forbidden.iter().for_each(|report| report.expect_silence().unwrap());
    assert!(lost * 100 < allowed.sent, "{lost} of {} allowed packets were lost", allowed.sent);
    lab.down().unwrap();
}

/// What upstream leaves behind, as far as it matters here: its hooks, a chain that we have too, one that we have not,
/// and a set.
const UPSTREAMS: &str = "*filter
:cali-FORWARD - [0:0]
:cali-from-wl-dispatch - [0:0]
:cali-sm-eth0 - [0:0]
-A cali-FORWARD -m comment --comment \"cali:vjrMJCRpqwy5oRoX\" -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -i cali+ -m comment --comment \"cali:8ZoYfO5HKXWbB3pk\" -j cali-from-wl-dispatch
-A cali-FORWARD -o cali+ -m comment --comment \"cali:jdEuaPBe14V2hutn\" -m set --match-set cali40s:old src -j DROP
-A cali-from-wl-dispatch -m comment --comment \"cali:zTj6P0TIgYvgz-md\" -m comment --comment \"Unknown interface\" -j DROP
-A cali-sm-eth0 -m comment --comment \"cali:0123456789abcdef\" -j MARK --set-xmark 0x100/0xfff00000
-I FORWARD 1 -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD
-A FORWARD -m comment --comment \"cali:S93hcgKJrXEqnTfs\" -m comment --comment \"Policy explicitly accepted packet.\" -m mark --mark 0x10000/0x10000 -j ACCEPT
-A FORWARD -s 192.0.2.1/32 -j DROP
COMMIT
";

#[test]
#[ignore = "needs root"]
fn from_upstreams_rules_to_ours_nothing_is_ever_open() {
    if !installed(&PROGRAMS) {
        return;
    }
    for (rules, name, flavour) in [
        (Rules::IptablesLegacy, "iptables-legacy", "legacy"),
        (Rules::IptablesNft, "iptables-nft", "nft"),
        (Rules::Nftables, "nftables", "legacy"),
    ] {
        let (lab, pods) = world(rules);
        let node = lab.node(1);
        node.kill9().unwrap();
        let (_, forbidden) = streams(&pods);
        // In one step from ours to upstream's, so that nothing is open meanwhile.
        on(node, "ipset", &["create", "cali40s:old", "hash:net"], "");
        on(node, &format!("iptables-{flavour}-restore"), &["--noflush", "--wait", "20"], UPSTREAMS);
        if rules == Rules::Nftables {
            on(node, "nft", &["add table ip calico { chain c { type filter hook forward priority 0; }; }"], "");
            on(node, "nft", &["delete", "table", "inet", "tortie"], "");
        }
        node.start().unwrap();
        node.wait_in_sync(START).unwrap();
        let only = || (holders(node) == [name]).then_some(());
        assert!(wait(SOON, only).is_some(), "policy stands in {name} alone: {:?}\n{}", holders(node), node.log());
        let gone = || (!on(node, "ipset", &["list", "-n"], "").contains("cali40s:old")).then_some(());
        assert!(wait(SOON, gone).is_some(), "the set is gone");
        let [a, b, _] = &pods;
        for (port, wanted) in [(9500, true), (9700, false)] {
            let seen = probe::ask(&a.place(), &b.place(), &Probe::udp(port)).unwrap();
            assert_eq!(seen == Outcome::Dropped, !wanted, "{name}, {port}: {seen:?}");
        }
        let saved = on(node, &format!("iptables-{flavour}-save"), &[], "");
        assert!(saved.contains("-A FORWARD -s 192.0.2.1/32 -j DROP"), "rules of others stay:\n{saved}");
        assert!(!saved.contains("S93hcgKJrXEqnTfs") && !saved.contains("cali-sm-eth0"), "{saved}");
        forbidden.map(Prober::stop).iter().for_each(|report| report.expect_silence().unwrap());
        lab.down().unwrap();
    }
}
