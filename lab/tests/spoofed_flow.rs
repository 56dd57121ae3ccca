//! No pod gets a packet into another pod's flow, whoever made its interface and whatever was written to its settings.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

#[path = "support/drops.rs"]
mod drops;
mod support;

use std::net::UdpSocket;
use std::time::Duration;

use drops::Sent;
use support::Traces;
use tortie_lab::{Lab, Node, Place, wait};
use tortie_net::Family;

const START: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);
/// The node reads everything back every 90 s.
const REFRESHED: Duration = Duration::from_secs(110);
/// How long nothing may arrive before a packet counts as dropped.
const QUIET: Duration = Duration::from_millis(300);
const PORT: u16 = 9001;
/// What the packets made by hand come from.
const CLIENT_PORT: u16 = 40000;

/// A setting of the node's, whoever writes it.
struct Setting<'a> {
    node: &'a Node,
    path: String,
}

impl<'a> Setting<'a> {
    fn of(node: &'a Node, interface: &str, name: &str) -> Setting<'a> {
        Setting { node, path: format!("/proc/sys/net/ipv4/conf/{interface}/{name}") }
    }

    fn write(&self, value: &str) {
        self.node.place().run(|| Ok(std::fs::write(&self.path, value)?)).unwrap();
    }

    fn wait(&self, value: &str, timeout: Duration) {
        let read = || self.node.place().run(|| Ok(std::fs::read_to_string(&self.path)?)).ok();
        let is = || read().is_some_and(|found| found.trim() == value).then_some(());
        wait(timeout, is).unwrap_or_else(|| panic!("{} is not {value} in time", self.path));
    }
}

struct Flow {
    client: UdpSocket,
    server: UdpSocket,
}

impl Flow {
    fn drain(&self) {
        while self.server.recv(&mut [0; 16]).is_ok() {}
    }

    /// Both sides speak, so that the kernel knows the flow as established.
    fn speak(&self) {
        for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            wait(SOON, || {
                from.send(b"own").unwrap();
                to.recv(&mut [0; 16]).ok()
            })
            .expect("the flow's own packets pass");
        }
        self.drain();
    }

    /// Whether a packet in the client's name, from another place, gets in.
    fn takes(&self, spoofed: &Sent, from: &Place) -> bool {
        self.speak();
        (0..3).any(|_| {
            spoofed.send(from);
            self.server.recv(&mut [0; 16]).is_ok()
        })
    }
}

#[test]
#[ignore = "needs root"]
fn no_pod_gets_into_the_flow_of_another_one() {
    let before = Traces::now();
    let lab = Lab::builder().nodes(1).up().unwrap();
    lab.start(START).unwrap();
    lab.open_network().unwrap();
    let node = lab.node(1);
    let [client, server, hostile] = ["client", "server", "hostile"].map(|n| node.add_pod("default", n, &[]).unwrap());
    let [from, to] = [&client, &server].map(|pod| pod.place().ip(Family::V4).unwrap());
    let spoofed = Sent::udp_from(from, to, PORT);
    let socket = |place: Place, at, port| place.run(|| Ok(UdpSocket::bind((at, port))?)).unwrap();
    let flow = Flow { client: socket(client.place(), from, CLIENT_PORT), server: socket(server.place(), to, PORT) };
    flow.client.connect((to, PORT)).unwrap();
    flow.server.connect((from, CLIENT_PORT)).unwrap();
    for socket in [&flow.client, &flow.server] {
        socket.set_read_timeout(Some(QUIET)).unwrap();
    }
    let interface = hostile.record().host_interface.clone().unwrap();
    let own = Setting::of(node, &interface, "rp_filter");
    let all = Setting::of(node, "all", "rp_filter");
    all.write("0");
    assert!(!flow.takes(&spoofed, &hostile.place()), "as the node made it");

    // As an interface that others made may be.
    own.write("0");
    Setting::of(node, &interface, "proxy_arp").write("0");
    assert!(flow.takes(&spoofed, &hostile.place()), "the packet is right, and the kernel's check is what ends it");
    node.restart().unwrap();
    node.wait_in_sync(START).unwrap();
    own.wait("1", SOON);
    Setting::of(node, &interface, "proxy_arp").wait("1", SOON);
    assert!(!flow.takes(&spoofed, &hostile.place()), "after the node started");

    own.write("0");
    own.wait("1", REFRESHED);
    assert!(!flow.takes(&spoofed, &hostile.place()), "after the node looked again");

    // Loose for all is loose for each, whatever is written there.
    all.write("2");
    node.restart().unwrap();
    node.wait_in_sync(START).unwrap();
    own.wait("1", SOON);
    assert!(!flow.takes(&spoofed, &hostile.place()), "with a loose check on all interfaces");
    lab.down().unwrap();
    assert_eq!(Traces::now(), before);
}
