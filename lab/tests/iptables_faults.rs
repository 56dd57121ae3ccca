//! iptables that refuses what policy asks for, lacks what it needs, or is changed by others: one policy is closed and
//! named, the rest goes on; and rules that others take away are back at once.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/programs.rs"]
mod programs;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use programs::installed;
use serde_json::Value;
use tortie_lab::{Lab, Node, Outcome, Pod, Probe, Prober, Rules, probe, wait};
use tortie_net::Family;

const START: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);
const PROGRAMS: [&str; 3] = ["iptables-legacy-restore", "iptables-nft-restore", "ipset"];

/// `b` takes UDP from `a` on one port, `c` takes all.
const POLICY: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: some}
spec:
  order: 5
  selector: name == 'b'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, source: {selector: name == 'a'}, destination: {ports: [9000]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: later}
spec: {order: 20, selector: name == 'c', types: [Ingress], ingress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: out}
spec: {selector: 'name in {\"a\", \"c\"}', types: [Egress], egress: [{action: Allow}]}
";

fn odd(name: &str, selector: &str, rule: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec: {{order: 9, selector: {selector}, types: [Ingress], ingress: [{rule}, {{action: Allow}}]}}\n"
    )
}

fn world(rules: Rules, before: impl FnOnce(&Lab)) -> (Lab, [Pod; 3]) {
    let lab = Lab::builder().nodes(1).rules(rules).up().unwrap();
    before(&lab);
    lab.start(START).unwrap();
    lab.apply(POLICY).unwrap();
    let pods = ["a", "b", "c"].map(|name| lab.node(1).add_pod("default", name, &[("name", name)]).unwrap());
    (lab, pods)
}

fn becomes(from: &Pod, to: &Pod, port: u16, wanted: Outcome, why: &str) {
    let mut last = None;
    let seen = wait(SOON, || {
        // A question that could not be asked is asked again.
        last = probe::ask(&from.place(), &to.place(), &Probe::udp(port)).ok();
        (last == Some(wanted)).then_some(())
    });
    assert!(seen.is_some(), "{why}: port {port} is {last:?}");
}

fn state(lab: &Lab) -> Value {
    serde_json::from_str(&lab.ctl(&["node", "status", "-o", "json"], "").unwrap()).unwrap()
}

/// A program of that name before the real one, which refuses every input that holds a text, at its line.
fn refuse(lab: &Lab, program: &str, text: &str) {
    let path = lab.dir().path().join("bin").join(program);
    let script = format!(
        "#!/bin/sh\ninput=$(cat)\nline=$(printf '%s\\n' \"$input\" | grep -n -e '{text}' | head -n 1 | cut -d: -f1)\n\
         if [ -n \"$line\" ]; then echo \"Error occurred at line: $line\" >&2; exit 2; fi\n\
         printf '%s\\n' \"$input\" | PATH=${{PATH#*:}} exec {program} \"$@\"\n"
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
#[ignore = "needs root"]
fn what_iptables_refuses_closes_its_policy_alone() {
    if !installed(&PROGRAMS) {
        return;
    }
    for (rules, flavour) in [(Rules::IptablesLegacy, "legacy"), (Rules::IptablesNft, "nft")] {
        let (lab, [a, b, c]) = world(rules, |lab| {
            refuse(lab, &format!("iptables-{flavour}-restore"), "--dports 6666");
            refuse(lab, "ipset", "192.0.2.66");
        });
        becomes(&a, &b, 9000, Outcome::Open, "the policy is there");
        for (name, rule) in [
            ("by-program", "{action: Deny, protocol: UDP, destination: {ports: [6666]}}"),
            ("by-set", "{action: Deny, source: {selector: has(odd)}}"),
        ] {
            becomes(&a, &c, 9000, Outcome::Open, "before it");
            lab.apply(&odd(name, "name == 'c'", rule)).unwrap();
            if name == "by-set" {
                let set = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\n\
                           metadata: {name: odd, labels: {odd: ''}}\nspec: {nets: [192.0.2.66/32]}\n";
                lab.apply(set).unwrap();
            }
            let key = format!("gnp/{name}");
            let told = wait(SOON, || state(&lab)["unsupported"][&key].as_str().map(str::to_owned));
            assert!(told.is_some(), "{flavour}, {name}: {:#}\n{}", state(&lab)["unsupported"], lab.node(1).log());
            assert_eq!(state(&lab)["rulesFault"], Value::Null);
            becomes(&a, &c, 9000, Outcome::Dropped, "what can't be said in full allows nothing");
            // All else goes on, and goes on changing.
            becomes(&a, &b, 9000, Outcome::Open, "another policy");
            lab.apply(&POLICY.replace("[9000]", "[9000, 9001]")).unwrap();
            becomes(&a, &b, 9001, Outcome::Open, "a change");
            lab.apply(POLICY).unwrap();
            becomes(&a, &b, 9001, Outcome::Dropped, "the change taken back");
            lab.ctl(&["delete", "gnp", name], "").unwrap();
            becomes(&a, &c, 9000, Outcome::Open, "without it");
            let gone = || state(&lab)["unsupported"][&key].is_null().then_some(());
            assert!(wait(SOON, gone).is_some(), "{:#}", state(&lab));
        }
        lab.down().unwrap();
    }
}

#[test]
#[ignore = "needs root"]
fn without_marks_on_connections_policy_holds_and_the_status_says_what_does_not() {
    if !installed(&PROGRAMS) {
        return;
    }
    let (lab, [a, b, c]) = world(Rules::IptablesLegacy, |lab| refuse(lab, "iptables-legacy-restore", "connmark"));
    becomes(&a, &b, 9000, Outcome::Open, "policy is in force");
    becomes(&c, &b, 9000, Outcome::Dropped, "policy is in force");
    let told = state(&lab)["unsupported"]["revocation"].as_str().map(str::to_owned);
    assert!(told.is_some_and(|told| told.contains("connmark")), "{:#}", state(&lab));
    lab.down().unwrap();
}

fn on(node: &Node, program: &str, args: &[&str]) {
    let output = node.command(program).unwrap().args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs root"]
fn rules_that_others_take_away_are_back_at_once() {
    if !installed(&PROGRAMS) {
        return;
    }
    for (rules, flavour) in [(Rules::IptablesLegacy, "legacy"), (Rules::IptablesNft, "nft")] {
        let (lab, [a, b, c]) = world(rules, |_| {});
        becomes(&a, &b, 9000, Outcome::Open, "policy is in force");
        becomes(&c, &b, 9000, Outcome::Dropped, "policy is in force");
        lab.apply(&POLICY.replace("[9000]", "[9000, 9002]")).unwrap();
        let stream = |from: &Pod, port| Prober::start(&from.place(), &b.place(), Family::V4, port, 1_000).unwrap();
        let (allowed, forbidden) = (stream(&a, 9002), stream(&c, 9003));
        assert!(allowed.wait_received(1_000, SOON), "policy changed");
        let (flowing, mut quiet, mut got_in) = (allowed.mark(), Vec::new(), Vec::new());
        let (node, program) = (lab.node(1), format!("iptables-{flavour}"));
        assert!(!node.log().contains("changed our rules"), "what the node does is its own\n{}", node.log());
        let mut longest = Duration::ZERO;
        for args in
            [&["-w", "-F"][..], &["-w", "-F", "FORWARD"], &["-w", "-F", "cali-FORWARD"], &["-w", "-D", "FORWARD", "1"]]
        {
            let repaired = || node.log().matches("are repaired").count();
            let (before, arrived) = (repaired(), forbidden.received());
            let begun = Instant::now();
            on(node, &program, args);
            let back = wait(SOON, || (repaired() > before).then_some(()));
            longest = longest.max(begun.elapsed());
            assert!(back.is_some(), "{flavour} {args:?}: nobody noticed\n{}", node.log());
            becomes(&c, &b, 9000, Outcome::Dropped, "closed again");
            becomes(&a, &b, 9000, Outcome::Open, "and open to those who may");
            // The flow that began meanwhile ends too.
            std::thread::sleep(Duration::from_secs(1));
            let closed = forbidden.mark();
            got_in.push(forbidden.received() - arrived);
            // Each look that finds something is followed by a later one, until one finds nothing.
            std::thread::sleep(Duration::from_secs(2));
            quiet.push(closed..forbidden.mark());
        }
        let (allowed, forbidden) = (allowed.stop(), forbidden.stop());
        let lost: u64 = allowed.lost().into_iter().filter(|range| range.end > flowing).map(|r| r.end - r.start).sum();
        println!(
            "{flavour}: back after {longest:?} at most; of 1,000 forbidden packets/s {got_in:?} got in with the flow \
             that they began; of {} allowed ones {lost} were lost",
            allowed.sent - flowing
        );
        quiet.into_iter().for_each(|numbers| forbidden.expect_none(numbers).unwrap());
        // Others may keep rules of their own, which are no change of ours.
        let before = node.log().matches("changed our rules").count();
        on(node, &program, &["-w", "-N", "OTHERS"]);
        on(node, &program, &["-w", "-A", "OTHERS", "-j", "RETURN"]);
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(node.log().matches("changed our rules").count(), before, "{}", node.log());
        lab.down().unwrap();
    }
}
