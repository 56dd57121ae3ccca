//! Faults under traffic: whatever dies or is flushed, allowed packets go on and forbidden ones never pass.
//!
//! Each test sends at least 1,000 packets a second on an allowed and on a forbidden path through the fault.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/programs.rs"]
mod programs;
#[path = "support/streams.rs"]
mod streams;

use std::io::Write as _;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use programs::installed;
use streams::{START, Streams};
use tortie_lab::{Lab, Node, Rules, wait};
use tortie_netlink::{Route, RouteFilter};

/// Two nodes, a pod on each, an allowed and a forbidden stream between them.
fn two_nodes() -> Streams {
    Streams::start(Lab::builder().nodes(2).env("CALICO_IPV4POOL_NAT_OUTGOING", "false").up().unwrap())
}

fn in_netns(streams: &Streams, node: usize, program: &str, args: &[&str]) -> bool {
    let mut command = streams.lab.node(node).command(program).unwrap();
    command.args(args).output().is_ok_and(|output| output.status.success())
}

#[test]
#[ignore = "needs root"]
fn kill_9_of_the_node_at_any_time_loses_no_packet_and_opens_nothing() {
    let streams = two_nodes();
    for round in 0..8_u64 {
        let node = streams.lab.node(if round % 2 == 0 { 1 } else { 2 });
        node.kill9().unwrap();
        streams.run(50 + 37 * round);
        node.start().unwrap();
        if round % 3 == 0 {
            // Killed again while it starts.
            streams.run(20 * round);
            node.kill9().unwrap();
            node.start().unwrap();
        }
        node.wait_in_sync(START).unwrap();
        streams.run(200);
    }
    streams.end();
}

#[test]
#[ignore = "needs root"]
fn a_foreign_flush_of_all_rules_opens_nothing() {
    // Rules in iptables belong to nobody; docs/limits.md says what that means.
    if !installed(&["nft"]) || Rules::from_env().unwrap() != Rules::Nftables {
        return;
    }
    let streams = two_nodes();
    for _ in 0..20 {
        assert!(in_netns(&streams, 2, "nft", &["flush", "ruleset"]));
        streams.run(50);
    }
    // A table that can be deleted comes back; one that is owned can't be.
    let _ = in_netns(&streams, 2, "nft", &["delete", "table", "inet", "tortie"]);
    streams.run(200);
    assert!(in_netns(&streams, 2, "nft", &["list", "table", "inet", "tortie"]), "our table is there");
    streams.end();
}

/// Processor time of a node's process so far, in ticks of 10 ms.
fn ticks(node: &Node) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.process().unwrap().pid)).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
#[ignore = "needs root"]
fn an_agent_whose_first_rules_are_refused_waits_at_rest() {
    if !installed(&["nft"]) || Rules::from_env().unwrap() != Rules::Nftables {
        return;
    }
    let lab = Lab::builder().nodes(1).up().unwrap();
    let node = lab.node(1);
    // A table of its name that another process holds.
    let mut holder = node.command("nft").unwrap().arg("-i").stdin(Stdio::piped()).spawn().unwrap();
    let mut words = holder.stdin.take().unwrap();
    writeln!(words, "add table inet tortie {{ flags owner; }}").unwrap();
    let held = || node.command("nft").unwrap().args(["list", "tables"]).output().unwrap();
    wait(START, || String::from_utf8_lossy(&held().stdout).contains("tortie").then_some(())).unwrap();
    node.start().unwrap();
    let refused = || node.log().contains("the kernel does not take the rules").then_some(());
    wait(START, refused).unwrap_or_else(|| panic!("{}", node.log()));
    let (before, time) = (ticks(node), Duration::from_secs(3));
    thread::sleep(time);
    let used = Duration::from_millis(10 * (ticks(node) - before));
    drop(words);
    holder.wait().unwrap();
    assert!(used * 5 < time, "{used:?} of {time:?} with nothing to do");
    node.wait_in_sync(START).unwrap();
}

#[test]
#[ignore = "needs root"]
fn deleted_routes_come_back() {
    let streams = two_nodes();
    let mut kernel = streams.lab.node(2).netlink().unwrap();
    let ours = |kernel: &mut tortie_netlink::Handle, streams: &Streams| -> Vec<Route> {
        let (a, b) = (streams.a.ip(), streams.b.ip());
        let routes = kernel.routes(&RouteFilter::default()).unwrap();
        routes.into_iter().filter(|r| r.net.prefix_len() > 0 && (r.net.contains(&a) || r.net.contains(&b))).collect()
    };
    let before = ours(&mut kernel, &streams);
    assert!(before.len() >= 3, "the pod, the block's blackhole, the other block: {before:?}");
    for route in &before {
        kernel.delete_route(route.clone()).unwrap();
        let back = wait(START, || (ours(&mut kernel, &streams) == before).then_some(()));
        assert!(back.is_some(), "{route} comes back; there is {:?}", ours(&mut kernel, &streams));
    }
    let mark = streams.allowed.mark();
    streams.end_from(mark + 20);
}

#[test]
#[ignore = "needs root"]
fn a_deleted_veth_is_made_again_with_its_address() {
    let streams = two_nodes();
    let mut kernel = streams.lab.node(2).netlink().unwrap();
    let old = kernel.link(streams.b.host_interface()).unwrap().index;
    kernel.delete_link(old).unwrap();
    let new = wait(START, || kernel.link(streams.b.host_interface()).ok().filter(|link| link.up && link.index != old));
    assert!(new.is_some(), "the device is there again");
    // The receiver's socket is bound to an address that went and came back, so it hears the stream again.
    assert!(streams.allowed.wait_received(200, START), "the allowed stream flows again");
    let mark = streams.allowed.mark();
    streams.end_from(mark);
}

#[test]
#[ignore = "needs root"]
fn an_interface_that_belongs_to_no_endpoint_is_cut_off_even_with_the_node_dead() {
    let streams = two_nodes();
    streams.lab.node(2).kill9().unwrap();
    // A device of a workload's name that nobody knows: its packets go nowhere.
    let stranger = streams.lab.node(2).prepare_pod("default", "stranger", &[]).unwrap();
    let netns = tortie_netlink::Netns::open(stranger.netns_path()).unwrap();
    let mut kernel = streams.lab.node(2).netlink().unwrap();
    use std::os::fd::AsFd;
    let peer = tortie_netlink::VethPeer { name: "eth0", mac: None, netns: Some(netns.as_fd()) };
    let spec = tortie_netlink::VethSpec { name: "calistranger", mac: None, mtu: None, up: true, peer };
    let index = kernel.create_veth(&spec).unwrap();
    let addr: std::net::IpAddr = "192.168.255.1".parse().unwrap();
    let net = tortie_net::host_net(addr);
    kernel.add_route(Route::link(net, index, tortie_netlink::RouteProtocol::STATIC)).unwrap();
    let mut inside = tortie_netlink::Handle::open_in(&netns).unwrap();
    inside.set_link_up("eth0", true).unwrap();
    let link = inside.link("eth0").unwrap();
    inside.add_address(&tortie_netlink::AddressSpec::new(link.index, net)).unwrap();
    let node_ip = std::net::IpAddr::V4(streams.lab.node(2).ip());
    let host_mac = kernel.link("calistranger").unwrap().mac.unwrap();
    inside.set_neighbour(link.index, node_ip, host_mac).unwrap();
    inside
        .add_route(Route::link(tortie_net::host_net(node_ip), link.index, tortie_netlink::RouteProtocol::STATIC))
        .unwrap();
    let from = tortie_lab::Place::new("stranger", &stranger.record().netns, vec![addr]);
    let host = streams.lab.place("node2").unwrap();
    let probe = tortie_lab::Probe::udp(9000);
    assert_eq!(tortie_lab::probe::ask(&from, &host, &probe).unwrap(), tortie_lab::Outcome::Dropped);
    kernel.delete_link(index).unwrap();
    stranger.remove_netns().unwrap();
    streams.end();
}

#[test]
#[ignore = "needs root"]
fn a_node_killed_in_the_middle_of_add_and_del_leaks_no_address() {
    let lab = Lab::builder().nodes(1).up().unwrap();
    lab.start(START).unwrap();
    let node = lab.node(1);
    for round in 0..6_u64 {
        let mut pod = node.prepare_pod("default", &format!("p{round}"), &[]).unwrap();
        std::thread::scope(|scope| {
            let adding = scope.spawn(|| pod.cni_add());
            std::thread::sleep(Duration::from_millis(2 + 3 * round));
            node.kill9().unwrap();
            // Whatever ADD says, the runtime calls DEL in the end.
            let _ = adding.join().unwrap();
        });
        node.start().unwrap();
        node.wait_in_sync(START).unwrap();
        assert!(pod.cni("DEL").unwrap().is_ok());
        pod.remove_netns().unwrap();
    }
    let used = lab.ctl(&["ipam", "show"], "").unwrap();
    let pool = used.lines().find(|line| line.contains("IP Pool")).unwrap_or_else(|| panic!("a pool in\n{used}"));
    let cells: Vec<&str> = pool.split('|').map(str::trim).collect();
    assert!(cells[4].starts_with('0'), "no address is in use after every DEL: {pool}");
    let left = wait(START, || {
        let links = node.netlink().unwrap().links().unwrap();
        links.iter().all(|link| !link.name.starts_with("cali")).then_some(())
    });
    assert!(left.is_some(), "no device is left");
}
