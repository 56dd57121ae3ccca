//! Three nodes and a router between two subnets, one pod on each, and what travels between them.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tortie_flow::Connection;
use tortie_flowtap::Connections;
use tortie_lab::{Lab, LabBuilder, Matrix, Node, Pod, Probe, cni};
use tortie_net::Family;
use tortie_netlink::{Error, Handle, Netns, Route, RouteProtocol};

/// Longest wait for a node or a route; a virtual machine is slow.
pub const START: Duration = Duration::from_secs(120);

/// Whether this kernel makes a device; says so if not. Any other fault than a missing kind fails the test.
pub fn kernel_has<T>(what: &str, make: impl FnOnce(&mut Handle) -> Result<T, Error>) -> bool {
    let netns = Netns::unnamed().unwrap();
    match make(&mut Handle::open_in(&netns).unwrap()) {
        Ok(_) => true,
        Err(Error::Unsupported { .. }) => {
            println!("skipped: this kernel has no {what} (cargo xtask lab-vm has)");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

/// Nodes 1 and 2 in one subnet, node 3 in another, a router between.
pub fn three_nodes() -> LabBuilder {
    Lab::builder().nodes(2).subnet("172.17.8.0/24").subnet("172.17.9.0/24").node_in(1).router("router")
}

/// Starts the nodes of a lab, where pods may talk without a policy.
pub fn started(lab: Lab) -> Lab {
    for node in lab.nodes().iter().filter(|node| node.process().is_none()) {
        node.start().unwrap();
    }
    lab.nodes().iter().for_each(|node| node.wait_in_sync(START).unwrap());
    let dual = lab.nodes()[0].machine().ips().iter().any(|ip| ip.is_ipv6());
    lab.nodes().iter().for_each(|node| node.set_conflist(&cni::default_conflist(dual)).unwrap());
    lab.open_network().unwrap();
    lab
}

/// A pod on each node.
pub fn pods(lab: &Lab) -> Vec<Pod> {
    let names = ["a", "b", "c", "d"];
    lab.nodes().iter().zip(names).map(|(node, name)| node.add_pod("default", name, &[]).unwrap()).collect()
}

/// The route of a node to a pod of another node, once it is there, with the name of the device that it leads through.
pub fn route(lab: &Lab, from: usize, to: &Pod, protocol: RouteProtocol) -> (Route, String) {
    let leads = |r: &Route| r.net.prefix_len() > 16 && r.net.contains(&to.ip()) && r.protocol == protocol;
    let route = lab.node(from).wait_route(START, &format!("to {} of protocol {protocol}", to.ip()), leads).unwrap();
    let device = lab.node(from).netlink().unwrap().link(route.hops[0].interface).unwrap().name;
    (route, device)
}

/// Every pod reaches every other, by each of the probes.
pub fn everybody_talks(pods: &[Pod], probes: &[Probe]) -> anyhow::Result<()> {
    let places: Vec<_> = pods.iter().map(Pod::place).collect();
    for probe in probes {
        let probe = probe.within(Duration::from_secs(30));
        Matrix::measure(&places, &probe)?.expect(|_, _| true)?;
    }
    Ok(())
}

/// Whether a datagram of so many bytes arrives, which must not be cut in pieces on the way.
pub fn arrives_whole(from: &Pod, to: &Pod, target: IpAddr, payload: usize) -> bool {
    let receiver = to.place().run(|| Ok(UdpSocket::bind((target, 0))?)).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let sender = from.place().run(|| Ok(UdpSocket::bind((any, 0))?)).unwrap();
    if Family::of(target) == Family::V6 {
        setsockopt(&sender, sockopt::Ipv6DontFrag, &true).unwrap();
    }
    let sent = sender.send_to(&vec![7; payload], receiver.local_addr().unwrap());
    sent.is_ok() && receiver.recv(&mut vec![0; 2 * payload]).is_ok_and(|length| length == payload)
}

/// A pool as a resource, `modes` being fields such as `ipipMode: Always`.
pub fn pool(modes: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: default-ipv4-ippool}}\n\
         spec: {{cidr: 192.168.0.0/16, {modes}, natOutgoing: true, nodeSelector: all()}}\n"
    )
}

/// The flows that a node's kernel knows, of those that a test asks for.
pub fn flows(node: &Node, wanted: impl Fn(&Connection) -> bool + Sync) -> Vec<String> {
    let list = || {
        let mut found = Vec::new();
        Connections::open()?.list(|flow| found.extend(wanted(&flow.connection).then(|| format!("{flow:?}"))))?;
        Ok(found)
    };
    node.place().run(list).unwrap()
}
