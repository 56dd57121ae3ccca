//! What a node itself sends into a tunnel has the tunnel's address, whatever address it was sent from, so that answers
//! come back through the tunnel.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod support;

use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::Traces;
use tortie_lab::{Lab, Node, wait};
use tortie_net::Family;

const START: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(300);
const PORT: u16 = 9001;
/// An address that nobody has, which a rule of others leads to the pod, as of a service.
const SERVICE: &str = "10.99.0.1";

fn tunnel_address(node: &Node) -> Option<IpAddr> {
    let mut kernel = node.netlink().unwrap();
    let device = kernel.link("vxlan.calico").ok()?.index;
    let found = kernel.addresses().unwrap().into_iter().find(|a| a.index == device && a.net.addr().is_ipv4());
    found.map(|address| address.net.addr())
}

/// Runs `nft` on the node, as others would.
fn nft(node: &Node, rules: &str) {
    let run = || {
        let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn()?;
        child.stdin.take().unwrap().write_all(rules.as_bytes())?;
        Ok(child.wait()?)
    };
    assert!(node.place().run(run).unwrap().success());
}

/// Who the pod takes the sender for; the sender gets the answer.
fn seen(node: &Node, from: IpAddr, to: IpAddr, pod: &UdpSocket) -> IpAddr {
    let client = node.place().run(|| Ok(UdpSocket::bind((from, 0))?)).unwrap();
    client.connect(SocketAddr::new(to, PORT)).unwrap();
    client.set_read_timeout(Some(QUIET)).unwrap();
    let exchange = || {
        client.send(b"question").ok()?;
        let (_, who) = pod.recv_from(&mut [0; 16]).ok()?;
        pod.send_to(b"answer", who).unwrap();
        client.recv(&mut [0; 16]).ok()?;
        Some(who.ip())
    };
    wait(SOON, exchange).unwrap_or_else(|| panic!("from {from} to {to}: no answer"))
}

fn everything_has_the_tunnels_address(env: &[(&str, &str)]) {
    let before = Traces::now();
    let lab = Lab::builder().nodes(2).env("CALICO_IPV4POOL_VXLAN", "Always");
    let lab = env.iter().fold(lab, |lab, (name, value)| lab.env(name, value)).up().unwrap();
    lab.start(START).unwrap();
    lab.open_network().unwrap();
    let node = lab.node(1);
    let pod = lab.node(2).add_pod("default", "far", &[]).unwrap();
    let to = pod.place().ip(Family::V4).unwrap();
    node.wait_route(START, "to the other node", |route| route.net.contains(&to)).unwrap();
    let tunnel = wait(SOON, || tunnel_address(node)).expect("the tunnel gets an address");
    let socket = pod.place().run(|| Ok(UdpSocket::bind((to, PORT))?)).unwrap();
    socket.set_read_timeout(Some(QUIET)).unwrap();
    nft(
        node,
        &format!(
            "add table ip others\nadd chain ip others out {{ type nat hook output priority -100; }}\n\
             add rule ip others out ip daddr {SERVICE} udp dport {PORT} dnat to {to}\n"
        ),
    );
    // The kernel chooses the source by the way to the destination as it was before translation.
    let link = node.netlink().unwrap().link("eth0").unwrap().index;
    let service = SERVICE.parse::<IpAddr>().unwrap();
    let way = tortie_netlink::Route::link(tortie_net::host_net(service), link, tortie_netlink::RouteProtocol::BOOT);
    node.netlink().unwrap().add_route(way).unwrap();
    let own = IpAddr::V4(node.ip());
    let any = IpAddr::from([0; 4]);
    for (from, to) in [(any, to), (own, to), (any, service)] {
        assert_eq!(seen(node, from, to, &socket), tunnel, "from {from} to {to}");
    }
    lab.down().unwrap();
    assert_eq!(Traces::now(), before);
}

#[test]
#[ignore = "needs root"]
fn what_a_node_sends_into_a_tunnel_has_the_tunnels_address() {
    everything_has_the_tunnels_address(&[]);
}

#[test]
#[ignore = "needs root"]
fn it_has_in_iptables_too() {
    if !["iptables-legacy", "ip6tables-legacy", "ipset"].iter().all(|name| there(name)) {
        println!("skipped: iptables or ipset is not installed");
        return;
    }
    everything_has_the_tunnels_address(&[("FELIX_NFTABLESMODE", "Disabled"), ("FELIX_IPTABLESBACKEND", "Legacy")]);
}

fn there(program: &str) -> bool {
    ["/usr/sbin", "/sbin", "/usr/bin"].iter().any(|folder| std::path::Path::new(folder).join(program).exists())
}
