//! Revocation in a table of many flows: the one that policy comes to deny ends soon, all the others go on; and all of
//! them end when policy says so. Prints how long it took (`TORTIE_FULL`: 100,000 flows).

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod support;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use support::Traces;
use tortie_lab::{Lab, Node, Place, Prober, wait};
use tortie_net::Family;

const START: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(60);
/// Packets a second of each stream: how fine the time of its end is known.
const RATE: u32 = 1_000;
/// A stream that brings nothing for this long has ended.
const SILENCE: Duration = Duration::from_secs(2);
const FLOWS_OF_A_SOCKET: usize = 1_000;

fn policy(denied: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: p}}\nspec:\n  \
         selector: all()\n  types: [Ingress, Egress]\n  egress: [{{action: Allow}}]\n  ingress:\n  \
         - {{action: Deny, protocol: UDP, destination: {{ports: {denied}}}}}\n  - {{action: Allow}}\n"
    )
}

/// One datagram for each of so many flows.
fn fill(from: &Place, to: &Place, flows: usize) {
    let (source, to) = (from.ip(Family::V4).unwrap(), to.ip(Family::V4).unwrap());
    let work = || {
        for socket in 0..flows.div_ceil(FLOWS_OF_A_SOCKET) {
            let socket = UdpSocket::bind(SocketAddr::new(source, u16::try_from(20_000 + socket).unwrap()))?;
            for port in 0..FLOWS_OF_A_SOCKET {
                // What comes back says that nobody listens there.
                let _ = socket.send_to(b"x", SocketAddr::new(to, u16::try_from(30_000 + port).unwrap()));
            }
        }
        Ok(())
    };
    from.run(work).unwrap();
}

/// Processor time of the node so far.
fn cpu(node: &Node) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.process().unwrap().pid)).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Changes policy; how long after the change was written the stream brought its last packet.
fn ends(lab: &Lab, stream: &Prober, denied: &str) -> Duration {
    lab.apply(&policy(denied)).unwrap();
    let written = Instant::now();
    let (mut received, mut last) = (stream.received(), written);
    while last.elapsed() < SILENCE {
        assert!(written.elapsed() < SOON, "the stream goes on");
        let now = stream.received();
        if now != received {
            (received, last) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    last - written
}

/// Flows that the node said it stopped, since its log had this length.
fn stopped(node: &Node, since: usize) -> usize {
    let log = node.log();
    let told = log.get(since..).unwrap_or_default().split("stopped=").skip(1);
    told.filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok()).sum()
}

#[test]
#[ignore = "needs root"]
fn one_flow_of_many_ends_and_then_all_of_them() {
    let before = Traces::now();
    let flows = if std::env::var_os("TORTIE_FULL").is_some() { 100_000 } else { 5_000 };
    let lab = Lab::builder().nodes(1).env("NO_COLOR", "1").up().unwrap();
    lab.start(START).unwrap();
    lab.apply(&policy("[1]")).unwrap();
    let node = lab.node(1);
    let [a, b] = ["a", "b"].map(|name| node.add_pod("default", name, &[]).unwrap());
    let stream = |port| {
        let stream = Prober::start(&a.place(), &b.place(), Family::V4, port, RATE).unwrap();
        assert!(stream.wait_received(100, START), "port {port} flows");
        stream
    };
    let (goes_on, few, many) = (stream(9000), stream(9001), stream(9002));
    let alone = ends(&lab, &few, "[9001]");
    let mark = node.log().len();
    fill(&a.place(), &b.place(), flows);
    let (used, began) = (cpu(node), Instant::now());
    let among = ends(&lab, &many, "[9001, 9002]");
    let (used, over) = (cpu(node) - used, began.elapsed());
    assert!(stopped(node, mark) <= 2, "no other flow is stopped: {}", node.log());
    goes_on.stop().expect_no_loss().unwrap();
    // And all of them, anew as the kernel forgets such flows after half a minute.
    fill(&a.place(), &b.place(), flows);
    let mark = node.log().len();
    lab.apply(&policy("[9001, 9002, \"30000:31000\"]")).unwrap();
    let written = Instant::now();
    let all = wait(SOON, || (stopped(node, mark) >= flows).then(|| written.elapsed()));
    let Some(all) = all else {
        panic!("{} of {flows} were stopped\n{}", stopped(node, mark), node.log());
    };
    println!(
        "a flow ends {alone:.0?} after the write alone, {among:.0?} among {flows} (the node used {used:.0?} in {over:.0?}); \
         all {flows} are stopped {all:.1?} after the write"
    );
    drop((few, many));
    lab.down().unwrap();
    assert_eq!(Traces::now(), before);
}
