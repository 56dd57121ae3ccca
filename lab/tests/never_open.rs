//! Never open: the node is killed and its rules flushed by others, again and again, while policies change; no
//! forbidden packet passes.
//!
//! 10,000 forbidden packets a second, each the first of its connection, and as many allowed ones; beside them new
//! allowed connections, to state what is lost of them. `TORTIE_FULL` asks for 500 kills and 100 flushes.
//!
//! Flushes come while the node is there: it owns its table, so that they pass it by. Nobody owns the table of a node
//! that is dead, and who flushes that has opened the node; see `docs/limits.md`.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tortie_lab::{Lab, Node, Place, Prober, Rules};
use tortie_net::Family;

const START: Duration = Duration::from_secs(60);
/// Packets a second of the allowed stream, and of both forbidden streams together.
const RATE: u32 = 10_000;

/// How often what happens.
struct Size {
    kills: u64,
    flushes: u64,
}

const SMALL: Size = Size { kills: 30, flushes: 6 };
const FULL: Size = Size { kills: 500, flushes: 100 };

/// `a` may send to ports 9000 and 9002 of `b`, and to nothing else; `c` may send nothing at all. The number changes
/// everything about the policies but that.
fn policies(number: u64) -> String {
    let order = 10 + number % 7;
    let source = match number % 3 {
        0 => "selector: name == 'a'",
        1 => "selector: 'name in {\"a\", \"nobody\"}', notSelector: name == 'c'",
        _ => "namespaceSelector: all(), selector: '!has(other) && name == \"a\"'",
    };
    let deny = format!(
        "- {{action: Deny, protocol: UDP, destination: {{ports: [{}, \"9100:9{}\"]}}}}",
        7000 + number % 500,
        101 + number % 800
    );
    let ports = if number.is_multiple_of(2) { "[9000, 9002]" } else { "[9002, 9000, \"9500:9600\"]" };
    let nets = format!("192.0.2.{}/32", number % 250);
    format!(
        "
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {{name: first}}
spec: {{order: {order}, defaultAction: Pass}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {{name: partners, labels: {{name: partner}}}}
spec: {{nets: [{nets}]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: first.some}}
spec:
  tier: first
  order: {order}
  types: [Ingress, Egress]
  ingress:
  {deny}
  - {{action: Allow, protocol: UDP, source: {{selector: name == 'partner'}}}}
  egress:
  - {{action: Pass}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: ingress}}
spec:
  order: {order}
  selector: name == 'b'
  types: [Ingress]
  ingress:
  {deny}
  - {{action: Allow, protocol: UDP, source: {{{source}}}, destination: {{ports: {ports}}}}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: egress}}
spec:
  order: {order}
  selector: name == 'a'
  types: [Egress]
  egress:
  - {{action: Allow, protocol: UDP, destination: {{notPorts: [{}]}}}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: silent}}
spec:
  order: {order}
  selector: name == 'c'
  types: [Egress]
  egress:
  - {{action: Deny, protocol: TCP}}
",
        7000 + number % 500
    )
}

/// New connections, one packet each, until told to stop: how many were sent, and how many arrived.
fn connections(from: &Place, to: &Place, stop: &AtomicBool) -> (u64, u64) {
    let target = SocketAddr::new(to.ip(Family::V4).unwrap(), 9002);
    let (arrived, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let listen = to.run(|| Ok(UdpSocket::bind(target)?)).unwrap();
        listen.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let (arrived, ended) = (&arrived, &ended);
        let receiver = scope.spawn(move || {
            let mut buffer = [0; 16];
            loop {
                let last = ended.load(Ordering::Acquire);
                match listen.recv(&mut buffer) {
                    Ok(_) => _ = arrived.fetch_add(1, Ordering::Relaxed),
                    Err(_) if last => return,
                    Err(_) => {}
                }
            }
        });
        let source = SocketAddr::new(from.ip(Family::V4).unwrap(), 0);
        let send = || {
            let mut sent = 0;
            while !stop.load(Ordering::Acquire) {
                // The kernel chooses another port for each, so that each is a connection of its own.
                sent += u64::from(UdpSocket::bind(source)?.send_to(b"new", target).is_ok());
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(sent)
        };
        let sent = from.run(send).unwrap();
        ended.store(true, Ordering::Release);
        receiver.join().unwrap();
        (sent, arrived.load(Ordering::Relaxed))
    })
}

/// How many datagrams sockets of a place had no room for, of all time.
fn overflows(place: &Place) -> u64 {
    let text = place.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/snmp")?)).unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, numbers) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "RcvbufErrors").unwrap();
    numbers.split(' ').nth(at).unwrap().parse().unwrap()
}

fn flush(node: &Node) {
    let done = node.command("nft").unwrap().args(["flush", "ruleset"]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Starts the node until it stays, as its supervisor would: on a busy machine threads of the one that was killed may
/// hold its ports for a moment longer.
fn revive(node: &Node) {
    let begun = Instant::now();
    loop {
        node.start().unwrap();
        match node.wait_in_sync(START) {
            Ok(()) => return,
            Err(error) => assert!(node.process().is_none() && begun.elapsed() < START, "{error:#}"),
        }
    }
}

/// Kills a node, sometimes again while it starts, and waits until it is there again; how often it was killed.
fn kill(node: &Node, round: u64) -> u64 {
    let pause = |most: u64| std::thread::sleep(Duration::from_millis(round * 7 % most));
    node.kill9().unwrap();
    pause(40);
    let mut killed = 1;
    if round.is_multiple_of(3) {
        node.start().unwrap();
        pause(120);
        // It may have ended by itself, see above.
        killed += u64::from(node.kill9().is_ok());
    }
    revive(node);
    killed
}

#[test]
#[ignore = "needs root"]
fn no_forbidden_packet_passes_while_the_node_dies_rules_are_flushed_and_policies_change() {
    if Command::new("nft").arg("--version").output().is_err() {
        println!("skipped: nft is not installed");
        return;
    }
    let Size { kills, flushes } = if std::env::var_os("TORTIE_FULL").is_some() { FULL } else { SMALL };
    let lab = Lab::builder().nodes(1).env("CALICO_IPV4POOL_NAT_OUTGOING", "false").up().unwrap();
    // Rules in iptables belong to nobody.
    let flushes = if lab.rules() == Rules::Nftables { flushes } else { 0 };
    lab.start(START).unwrap();
    lab.apply(&policies(0)).unwrap();
    let node = lab.node(1);
    let [a, b, c] = ["a", "b", "c"].map(|name| node.add_pod("default", name, &[("name", name)]).unwrap());
    let stream = |from: &Place, port, rate| Prober::start(from, &b.place(), Family::V4, port, rate).unwrap();
    let allowed = stream(&a.place(), 9000, RATE);
    assert!(allowed.wait_received(100, START), "the allowed stream flows");
    let flowing = allowed.mark();
    // One that the receiver's rules must stop, and one that the sender's must.
    let forbidden = [stream(&a.place(), 9001, RATE / 2), stream(&c.place(), 9003, RATE / 2)];

    let (stop, begun) = (AtomicBool::new(false), Instant::now());
    let (mut killed, mut flushed) = (0, 0);
    let (changes, (sent, arrived)) = std::thread::scope(|scope| {
        let new = scope.spawn(|| connections(&a.place(), &b.place(), &stop));
        let churn = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(Ordering::Acquire) {
                number += 1;
                lab.apply(&policies(number)).unwrap();
                if number.is_multiple_of(4) {
                    lab.ctl(&["delete", "gnp", "first.some"], "").unwrap();
                }
            }
            number
        });
        let stops = Stops(&stop);
        for round in 0.. {
            if killed >= kills && flushed >= flushes {
                break;
            }
            if killed < kills {
                killed += kill(node, round);
            }
            while flushed * kills < killed * flushes {
                flush(node);
                flushed += 1;
            }
        }
        drop(stops);
        (churn.join().unwrap(), new.join().unwrap())
    });
    let took = begun.elapsed().as_secs_f64();
    let allowed = allowed.stop();
    let forbidden = forbidden.map(Prober::stop);
    let rate: f64 = forbidden.iter().map(tortie_lab::Report::rate).sum();
    let lost: u64 = allowed.lost().into_iter().filter(|range| range.end > flowing).map(|r| r.end - r.start).sum();
    let unread = overflows(&b.place());
    println!(
        "{killed} kills, {flushed} flushes and {changes} changes of all policies in {took:.0} s: of {} forbidden \
         packets at {rate:.0}/s {} arrived; of {} allowed ones at {:.0}/s {lost} were lost, with room for all but {unread} at the receiver; of {sent} new allowed \
         connections {} failed",
        forbidden.iter().map(|report| report.sent).sum::<u64>(),
        forbidden.iter().map(|report| report.received).sum::<u64>(),
        allowed.sent,
        allowed.rate(),
        sent - arrived.min(sent),
    );
    forbidden.iter().for_each(|report| report.expect_silence().unwrap());
    assert!(rate >= 0.9 * f64::from(RATE), "{rate} forbidden packets a second");
    // A receiver that does not run for a while on a busy machine loses packets, too; but a path that closes loses more.
    assert!(lost * 100 < allowed.sent, "{lost} of {} allowed packets were lost", allowed.sent);
    assert!((sent - arrived.min(sent)) * 100 <= sent, "{arrived} of {sent} new connections");
}

/// Tells the threads of the test to stop, also when it fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
