//! A pod that claims the addresses of others, by ARP and by neighbour discovery: the node sends everything where it did.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use support::Traces;
use tortie_lab::{Lab, Node, Outcome, Pod, Probe, Prober, probe, wait};
use tortie_net::{Family, Mac};

const START: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);
/// What the forger says is everybody's Ethernet address.
const FORGED: [u8; 6] = [2, 0, 0, 0, 6, 6];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const ROUNDS: usize = 20;

const POLICY: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: all}
spec: {selector: all(), types: [Ingress, Egress], ingress: [{action: Allow}], egress: [{action: Allow}]}
";

/// An ARP packet of a host that says it is `sender`.
fn arp(operation: u8, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let body = [&head[..], &FORGED, &sender.octets(), &[0; 6], &target.octets()].concat();
    [&[0xff; 6][..], &FORGED, &[8, 6], &body].concat()
}

/// A message of neighbour discovery about `target`, with the forged Ethernet address in its option.
fn discovery(icmp_type: u8, from: Ipv6Addr, to: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    // An advertisement is unsolicited and overrides; its option is that of the target, not of the source.
    let (flags, option) = if icmp_type == 136 { (0x20, 2) } else { (0, 1) };
    let mut message = [&[icmp_type, 0, 0, 0, flags, 0, 0, 0][..], &target.octets(), &[option, 1], &FORGED].concat();
    let length = u8::try_from(message.len()).unwrap();
    let pseudo = [&from.octets()[..], &to.octets(), &[0, 0, 0, length, 0, 0, 0, 58], &message].concat();
    let mut sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
    let ip = [&[0x60, 0, 0, 0, 0, length, 58, 255][..], &from.octets(), &to.octets(), &message].concat();
    let group = to.octets();
    [&[0x33, 0x33, group[12], group[13], group[14], group[15]][..], &FORGED, &[0x86, 0xdd], &ip].concat()
}

/// Sends frames out of a pod's interface, as they are.
fn send(pod: &Pod, frames: &[Vec<u8>]) {
    let work = || {
        // SAFETY: plain numbers; the result is looked at.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the kernel just gave it to us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: an address of zero bytes is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        // SAFETY: the name ends with a zero byte.
        address.sll_ifindex = unsafe { libc::if_nametoindex(c"eth0".as_ptr()) } as i32;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        for frame in frames {
            let (data, to) = (frame.as_ptr().cast(), (&raw const address).cast());
            // SAFETY: the frame and the address live during the call, and their sizes are given.
            let sent = unsafe { libc::sendto(fd.as_raw_fd(), data, frame.len(), 0, to, length) };
            assert!(usize::try_from(sent) == Ok(frame.len()), "{}", std::io::Error::last_os_error());
        }
        Ok(())
    };
    pod.place().run(work).unwrap();
}

/// The node's neighbours with a known Ethernet address, by interface and address.
fn neighbours(node: &Node) -> BTreeMap<(u32, IpAddr), Mac> {
    let all = node.netlink().unwrap().neighbours().unwrap().into_iter();
    all.filter_map(|entry| Some(((entry.index, entry.addr), entry.mac?))).collect()
}

#[test]
#[ignore = "needs root"]
fn what_a_pod_claims_changes_nobody_elses_neighbours() {
    let before = Traces::now();
    let lab = Lab::builder().nodes(2).dual_stack().up().unwrap();
    lab.start(START).unwrap();
    lab.apply(POLICY).unwrap();
    let (node, far_node) = (lab.node(1), lab.node(2));
    let [forger, victim, friend] =
        ["forger", "victim", "friend"].map(|name| node.add_pod("default", name, &[]).unwrap());
    let six = |pod: &Pod| match pod.place().ip(Family::V6) {
        Some(IpAddr::V6(addr)) => addr,
        other => panic!("{other:?}"),
    };
    let four = |pod: &Pod| match pod.ip() {
        IpAddr::V4(addr) => addr,
        IpAddr::V6(addr) => panic!("{addr}"),
    };
    let reaches = |from: &Pod, to: &Pod| {
        let open =
            || (probe::ask(&from.place(), &to.place(), &Probe::udp(9000)).unwrap() == Outcome::Open).then_some(());
        assert!(wait(SOON, open).is_some(), "{} reaches {}", from.title(), to.title());
    };
    reaches(&friend, &victim);
    reaches(&forger, &victim);
    let streams = Family::ALL.map(|family| {
        let stream = Prober::start(&friend.place(), &victim.place(), family, 9001, 500).unwrap();
        assert!(stream.wait_received(100, START), "{family} flows");
        stream
    });
    let forgers = node.netlink().unwrap().link(forger.host_interface()).unwrap().index;
    let known = neighbours(node);
    assert!(known.keys().any(|(_, addr)| *addr == victim.ip()), "{known:?}");

    let claimed = [GATEWAY, four(&victim), four(&friend), node.ip(), far_node.ip()];
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let mut frames = Vec::new();
    for addr in claimed {
        frames.extend([arp(1, addr, addr), arp(2, addr, addr), arp(2, addr, GATEWAY), arp(1, addr, GATEWAY)]);
        frames.push(arp(1, addr, four(&victim)));
    }
    for addr in [six(&victim), six(&friend)] {
        frames.push(discovery(136, addr, all_nodes, addr));
        frames.push(discovery(135, addr, all_nodes, six(&victim)));
    }
    for _ in 0..ROUNDS {
        send(&forger, &frames);
        std::thread::sleep(Duration::from_millis(50));
    }

    let forged = Mac(FORGED);
    let after = neighbours(node);
    let elsewhere: Vec<_> = after.iter().filter(|((index, _), mac)| *index != forgers && **mac == forged).collect();
    assert!(elsewhere.is_empty(), "believed on other interfaces: {elsewhere:?}");
    for (place, mac) in known.iter().filter(|((index, _), _)| *index != forgers) {
        assert!(after.get(place).is_none_or(|now| now == mac), "{place:?} was {mac} and is {:?}", after.get(place));
    }
    // The kernel's check of sources holds for ARP as well: not even on its own link is it believed.
    let own = |addr: &IpAddr| forger.ips().contains(addr) || addr.is_ipv6();
    let believed: Vec<_> = after.keys().filter(|(index, addr)| *index == forgers && !own(addr)).collect();
    assert!(believed.is_empty(), "{believed:?}");
    for stream in streams {
        stream.stop().expect_no_loss().unwrap();
    }
    reaches(&friend, &victim);
    reaches(&forger, &victim);
    lab.down().unwrap();
    assert_eq!(Traces::now(), before);
}
