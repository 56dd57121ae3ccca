//! The lab's own promises: packets pass as the topology says, probes tell the truth, and nothing is left behind.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod support;

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::Traces;
use tortie_lab::{Lab, LabBuilder, LabDir, Matrix, Outcome, Pod, Probe, Prober, probe};
use tortie_net::Family;
use tortie_netlink::{NextHop, Route, RouteProtocol};

/// A lab without Tortie: no test here starts a node process.
fn bare() -> LabBuilder {
    Lab::builder().binary("/bin/true")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A pod on each of the first two nodes, with static routes between them.
fn wired(lab: &Lab) -> (Pod, Pod) {
    let a = lab.node(1).add_bare_pod("default", "a", ip("192.168.1.1")).unwrap();
    let b = lab.node(2).add_bare_pod("default", "b", ip("192.168.2.1")).unwrap();
    for (node, net, via) in [(1, "192.168.2.0/24", "172.17.8.102"), (2, "192.168.1.0/24", "172.17.8.101")] {
        let mut handle = lab.node(node).netlink().unwrap();
        let eth0 = handle.link("eth0").unwrap().index;
        let hop = NextHop::via(ip(via), eth0);
        handle.add_route(Route::via(net.parse().unwrap(), vec![hop], RouteProtocol::STATIC)).unwrap();
    }
    (a, b)
}

#[test]
#[ignore = "needs root"]
fn nodes_and_router_reach_each_other_over_both_families() {
    let before = Traces::now();
    let lab = bare().nodes(3).subnet("172.17.8.0/24").dual_stack().router("router").up().unwrap();
    let places = lab.places().unwrap();
    assert_eq!(places.len(), 4);
    for probe in [Probe::icmp(), Probe::udp(9000), Probe::tcp(9000)] {
        for probe in [probe, probe.v6()] {
            let matrix = Matrix::measure(&places, &probe.within(Duration::from_secs(20))).unwrap();
            matrix.expect(|_, _| true).unwrap();
            assert_eq!(matrix.paths.len(), 12);
        }
    }
    let route = lab.node(1).ip_route(false).unwrap();
    assert!(route.contains("172.17.8.0/24 dev eth0 proto kernel scope link src 172.17.8.101"), "{route}");
    assert!(route.contains("default via 172.17.8.1 dev eth0"), "{route}");
    lab.down().unwrap();
    assert_eq!(Traces::now(), before);
}

#[test]
#[ignore = "needs root"]
fn two_subnets_are_joined_by_the_router_alone() {
    let lab = bare().nodes(1).subnet("172.17.8.0/24").subnet("172.17.9.0/24").node_in(1).router("router").up().unwrap();
    let (one, two) = (lab.place("node1").unwrap(), lab.place("node2").unwrap());
    assert_eq!(two.ips(), [ip("172.17.9.102")]);
    assert!(probe::can(&one, &two, &Probe::icmp().within(Duration::from_secs(20))).unwrap());
    let mut router = tortie_netlink::Handle::open_in(
        &tortie_netlink::Netns::named(lab.place("router").unwrap().netns_name()).unwrap(),
    )
    .unwrap();
    router.set_link_up("eth1", false).unwrap();
    assert!(!probe::can(&one, &two, &Probe::icmp()).unwrap());
}

#[test]
#[ignore = "needs root"]
fn probes_tell_open_refused_and_dropped_apart() {
    let lab = bare().nodes(2).up().unwrap();
    let (a, b) = wired(&lab);
    let (a, b) = (a.place(), b.place());
    for probe in [Probe::icmp(), Probe::udp(9000), Probe::tcp(9000)] {
        assert_eq!(probe::ask(&a, &b, &probe.within(Duration::from_secs(20))).unwrap(), Outcome::Open, "{probe}");
    }
    for probe in [Probe::udp(9001), Probe::tcp(9001)] {
        assert_eq!(probe::ask_all(&[(&a, &b)], &probe).unwrap(), [Outcome::Refused], "{probe}: nobody listens");
    }
    assert_eq!(probe::ask(&a, &b, &Probe::udp(9000).v6()).unwrap(), Outcome::Unaddressed);
    let blackhole = Route::blackhole("192.168.1.1/32".parse().unwrap(), RouteProtocol::STATIC);
    lab.node(2).netlink().unwrap().add_route(blackhole).unwrap();
    for probe in [Probe::icmp(), Probe::udp(9000), Probe::tcp(9000)] {
        assert_eq!(probe::ask(&a, &b, &probe).unwrap(), Outcome::Dropped, "{probe}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_prober_sees_each_packet_and_exactly_the_gap() {
    let lab = bare().nodes(2).up().unwrap();
    let (a, b) = wired(&lab);
    let prober = Prober::start(&a.place(), &b.place(), Family::V4, 9000, 2000).unwrap();
    // The first packets wait for the nodes to find each other's hardware addresses, and too many of them are lost.
    assert!(prober.wait_received(500, Duration::from_secs(20)));
    let first = prober.mark();
    prober.wait_sent(500);
    let blackhole = Route::blackhole("192.168.2.1/32".parse().unwrap(), RouteProtocol::STATIC);
    let mut node = lab.node(1).netlink().unwrap();
    let before = prober.mark();
    node.add_route(blackhole.clone()).unwrap();
    // The packet that was being sent when the fault came may still arrive.
    prober.wait_sent(2);
    let closed = prober.mark();
    prober.wait_sent(500);
    let opening = prober.mark();
    node.delete_route(blackhole).unwrap();
    let open = prober.mark() + 1;
    prober.wait_sent(500);
    let report = prober.stop();
    assert!(report.rate() >= 1000.0, "{} packets/s", report.rate());
    report.expect_all(first..before - 1).unwrap();
    report.expect_none(closed..opening).unwrap();
    report.expect_all(open..report.sent).unwrap();
    assert_eq!(report.duplicates, 0);
    assert!(report.expect_no_loss().is_err() && report.expect_silence().is_err());
}

#[test]
#[ignore = "needs root"]
fn programs_see_their_node_and_leave_the_machine_alone() {
    let lab = bare().nodes(1).up().unwrap();
    let run = |script: &str| {
        let output = lab.node(1).command("/bin/sh").unwrap().args(["-c", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(run("cat /proc/sys/kernel/hostname"), "node1");
    assert_eq!(run("ls /sys/class/net"), "eth0\nlo");
    run("mkdir -p /run/calico /var/lib/calico && touch /run/calico/x /var/lib/calico/y /run/z");
    assert_eq!(
        run("ls /run/calico /var/lib/calico /run/z").lines().last(),
        Some("y"),
        "the next program sees the files"
    );
    assert!(!std::path::Path::new("/run/z").exists() && !std::path::Path::new("/var/lib/calico/y").exists());
    assert!(run("command -v calicoctl").starts_with(&*lab.dir().path().to_string_lossy()));
    assert!(run("env").contains("DATASTORE_TYPE="), "the lab's environment is set");
    let netns = lab.node(1).netns_name();
    assert!(run("ls /run/netns").lines().any(|line| line == netns), "namespaces are seen by their names");
}

#[test]
#[ignore = "needs root"]
fn a_panic_leaves_nothing_behind() {
    let before = Traces::now();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let lab = bare().nodes(2).router("router").up().unwrap();
        let (a, b) = wired(&lab);
        let _prober = Prober::start(&a.place(), &b.place(), Family::V4, 9000, 1000).unwrap();
        let mut command = lab.node(1).command("/bin/sleep").unwrap();
        let mut child = command.arg("1000").spawn().unwrap();
        assert_ne!(Traces::now(), before);
        // Waited for elsewhere, so that the lab's end alone ends it.
        std::thread::spawn(move || child.wait());
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(Traces::now(), before);
}

#[test]
#[ignore = "needs root"]
fn what_a_killed_process_left_is_taken_down_by_another() {
    let before = Traces::now();
    let me = std::env::current_exe().unwrap();
    let mut child = Command::new(me)
        .args(["--ignored", "--exact", "left_behind", "--nocapture"])
        .env("LAB_LEFT_BEHIND", "left-behind")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let dir = LabDir::of("left-behind").unwrap();
    let pod = tortie_lab::wait(Duration::from_secs(20), || dir.pods().ok().filter(|pods| pods.len() == 2));
    assert!(pod.is_some(), "the other process made its lab");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(Lab::attach(Some("left-behind")).unwrap().places().unwrap().len(), 4);
    tortie_lab::teardown(&dir).unwrap();
    assert_eq!(Traces::now(), before);
}

#[test]
#[ignore = "needs root"]
fn a_lab_of_a_dead_process_is_swept_by_the_next() {
    let before = Traces::now();
    let me = std::env::current_exe().unwrap();
    let mut child = Command::new(me)
        .args(["--ignored", "--exact", "left_behind"])
        .env("LAB_LEFT_BEHIND", "to-sweep")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let dir = LabDir::of("to-sweep").unwrap();
    tortie_lab::wait(Duration::from_secs(20), || dir.pods().ok().filter(|pods| pods.len() == 2)).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let lab = bare().nodes(1).up().unwrap();
    assert!(!dir.path().exists());
    drop(lab);
    assert_eq!(Traces::now(), before);
}

#[test]
#[ignore = "needs root"]
fn a_signal_takes_the_lab_down() {
    let before = Traces::now();
    let me = std::env::current_exe().unwrap();
    let mut child = Command::new(me)
        .args(["--ignored", "--exact", "left_behind"])
        .env("LAB_LEFT_BEHIND", "interrupted")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let dir = LabDir::of("interrupted").unwrap();
    tortie_lab::wait(Duration::from_secs(20), || dir.pods().ok().filter(|pods| pods.len() == 2)).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(Traces::now(), before);
}

/// Not a test by itself: the process that the tests above end.
#[test]
#[ignore = "needs root"]
fn left_behind() {
    let Ok(id) = std::env::var("LAB_LEFT_BEHIND") else { return };
    let lab = bare().id(&id).nodes(2).up().unwrap();
    wired(&lab);
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
#[ignore = "needs root"]
fn a_second_lab_of_the_same_id_is_refused_and_the_first_stays() {
    let lab = bare().id("twice").nodes(1).up().unwrap();
    let error = bare().id("twice").nodes(1).up().map(drop).unwrap_err().to_string();
    assert!(error.contains("tortie lab down --id twice"), "{error}");
    assert!(lab.node(1).netns().is_ok());
}
