//! Tunnels against a real kernel: network namespaces as nodes, made and dropped by each test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helper functions too")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use support::{command, ip, net};
use tortie_dataplane::testing::{Rig, State, converges};
use tortie_desired::{Route as Desired, RouteTarget, Tables, TunnelDevice, Vtep, Vxlan};
use tortie_net::{Family, Mac};
use tortie_netlink::{AddressSpec, FdbEntry, Handle, Netns, VethPeer, VethSpec, VxlanSpec};
use tortie_routing::{
    DeviceKind, DeviceState, DeviceTable, ForwardingKey, ForwardingTable, NeighbourKey, NeighbourTable, Options,
    Routing, Tunnels,
};

fn mac(last: u8) -> Mac {
    Mac([0x66, 0, 0, 0, 0, last])
}

/// Two hosts on one wire, .101 and .102 of both families.
fn hosts() -> [(Netns, u32); 2] {
    let (a, b) = (Netns::unnamed().unwrap(), Netns::unnamed().unwrap());
    let peer = VethPeer { name: "eth0", mac: None, netns: Some(b.as_fd()) };
    let spec = VethSpec { name: "eth0", mac: None, mtu: None, up: true, peer };
    Handle::open_in(&a).unwrap().create_veth(&spec).unwrap();
    let hosts = [(a, 101), (b, 102)].map(|(netns, number)| {
        let mut handle = Handle::open_in(&netns).unwrap();
        handle.set_loopback_up().unwrap();
        handle.set_link_up("eth0", true).unwrap();
        let eth0 = handle.link("eth0").unwrap().index;
        for address in [format!("172.17.8.{number}/24"), format!("fd00:8::{number}/64")] {
            handle.add_address(&AddressSpec::new(eth0, net(&address))).unwrap();
        }
        (netns, eth0)
    });
    // What others made has settled, before anybody looks whether it changes.
    for (netns, eth0) in &hosts {
        let mut handle = Handle::open_in(netns).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !handle.link(*eth0).unwrap().running {
            assert!(Instant::now() < deadline, "the kernel never finds that the wire is plugged in");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    hosts
}

fn vxlan(number: u8, family: Family) -> Vxlan {
    let (underlay, address) = match family {
        Family::V4 => (format!("172.17.8.{number}"), format!("10.0.{number}.0")),
        Family::V6 => (format!("fd00:8::{number}"), format!("fd00:10:{number}::")),
    };
    let mac = mac(number + if family == Family::V4 { 0 } else { 100 });
    Vxlan { vni: 4096, port: 4789, underlay: ip(&underlay), address: Some(ip(&address)), mac, mtu: None }
}

/// What a node wants that has one other, both families.
fn tables(own: u8, other: u8) -> Tables {
    let mut tables = Tables::default();
    for family in Family::ALL {
        let device = TunnelDevice::vxlan(family);
        let far = vxlan(other, family);
        let via = far.address.unwrap();
        tables.tunnels.insert(device, vxlan(own, family));
        let node: Arc<str> = Arc::from("other");
        tables.vteps.insert(via, Vtep { node: node.clone(), mac: far.mac, underlay: far.underlay });
        let bits = if family == Family::V4 { 26 } else { 122 };
        let block = IpNet::new(via, bits).unwrap();
        tables.routes.insert(block, Desired { target: RouteTarget::Tunnel { device, node, via } });
    }
    tables
}

struct Node {
    netns: Netns,
    tunnels: Tunnels,
    routing: Routing<Handle>,
}

impl Node {
    fn new(netns: Netns) -> Node {
        let tunnels = Tunnels::new(|| Handle::open_in(&netns)).unwrap();
        let routing = Routing::new(Handle::open_in(&netns).unwrap(), Options::default());
        Node { netns, tunnels, routing }
    }

    fn apply(&mut self, tables: &Tables, now: Instant) {
        self.tunnels.set_desired(tables);
        self.routing.set_desired(tables);
        let report = self.tunnels.apply(now);
        assert!(report.is_clean(), "{report}");
        let report = self.routing.apply(now);
        assert!(report.routes.is_clean() && report.waiting.is_empty(), "{report}");
    }
}

#[test]
#[ignore = "needs root"]
fn two_nodes_talk_through_vxlan_and_a_restart_writes_nothing() {
    let [(a, _), (b, _)] = hosts();
    let now = Instant::now();
    let [mut a, mut b] = [a, b].map(Node::new);
    a.apply(&tables(1 + 100, 102), now);
    b.apply(&tables(102, 101), now);
    let link = command(&a.netns, "ip -d link show vxlan.calico");
    for part in ["mtu 1450", "vxlan id 4096 local 172.17.8.101 dev eth0", "dstport 4789 nolearning"] {
        assert!(link.contains(part), "{part}: {link}");
    }
    let link = command(&a.netns, "ip -d link show vxlan-v6.calico");
    assert!(link.contains("mtu 1430") && link.contains("local fd00:8::101"), "{link}");
    let routes = command(&a.netns, "ip route");
    assert!(routes.contains("10.0.102.0/26 via 10.0.102.0 dev vxlan.calico proto 80 onlink"), "{routes}");
    for address in ["10.0.102.0", "fd00:10:102::"] {
        let socket = b.netns.run(|| UdpSocket::bind((ip(address), 9)).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let any = if ip(address).is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let sender = a.netns.run(|| UdpSocket::bind(any).unwrap()).unwrap();
        sender.send_to(b"meow", (ip(address), 9)).unwrap();
        let mut bytes = [0; 4];
        let (_, from) = socket.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes, b"meow");
        assert!(["10.0.101.0", "fd00:10:101::"].contains(&from.ip().to_string().as_str()), "{from}");
    }

    // As after a restart, without memory.
    let Node { netns, .. } = a;
    let mut again = Node::new(netns);
    again.tunnels.set_desired(&tables(101, 102));
    again.routing.set_desired(&tables(101, 102));
    let report = again.tunnels.apply(now);
    assert!(report.is_clean() && !report.wrote(), "{report}");
    assert!(!again.routing.apply(now).routes.wrote());
    assert_eq!(again.tunnels.state(), BTreeMap::from(Family::ALL.map(|family| (TunnelDevice::vxlan(family), None))));
    assert_eq!(again.tunnels.wake_at(now), None);

    // Without pools nothing is left.
    again.apply(&Tables::default(), now);
    let links = command(&again.netns, "ip link");
    assert!(!links.contains("calico"), "{links}");
}

#[test]
#[ignore = "needs root"]
fn a_device_stands_while_the_interface_below_lacks_its_address() {
    let [(a, eth0), _b] = hosts();
    let now = Instant::now();
    let mut node = Node::new(a);
    node.apply(&tables(101, 102), now);
    let index = || Handle::open_in(&node.netns).unwrap().link("vxlan.calico").unwrap().index;
    let before = index();
    Handle::open_in(&node.netns).unwrap().delete_address(eth0, net("172.17.8.101/24")).unwrap();
    let mut again = Tunnels::new(|| Handle::open_in(&node.netns)).unwrap();
    again.set_desired(&tables(101, 102));
    let report = again.apply(now);
    assert!(report.waiting[&TunnelDevice::VxlanV4].contains("172.17.8.101"), "{report}");
    assert!(!report.wrote(), "{report}");
    assert_eq!(index(), before);
    assert!(again.state()[&TunnelDevice::VxlanV4].is_some());
}

/// Devices, or what lies on them, beside a VXLAN device, entries and neighbours of somebody else.
struct World {
    netns: Netns,
    /// Keeps the far end of the wire there.
    _peer: Netns,
}

impl World {
    fn new() -> (World, u32) {
        let [(netns, eth0), (_peer, _)] = hosts();
        let mut handle = Handle::open_in(&netns).unwrap();
        let spec = VxlanSpec { vni: 9, port: 8472, local: ip("172.17.8.101"), below: eth0 };
        let index = handle.create_vxlan("flannel.1", &spec, mac(200), 1400).unwrap();
        handle.set_link_up(index, true).unwrap();
        handle.set_fdb(&FdbEntry { index, mac: mac(201), remote: ip("172.17.8.9") }).unwrap();
        handle.set_neighbour(index, ip("10.9.0.1"), mac(201)).unwrap();
        handle.set_neighbour(eth0, ip("172.17.8.77"), mac(202)).unwrap();
        (World { netns, _peer }, eth0)
    }

    fn handle(&self) -> Handle {
        Handle::open_in(&self.netns).unwrap()
    }

    fn foreign(&self) -> String {
        // Multicast groups are the kernel's own, which joins them when an address has been checked.
        let group = |line: &str| line.starts_with("33:33:") || line.starts_with("01:00:5e:");
        let foreign = |line: &&str| !line.contains(".calico") && !group(line);
        let mut text = String::new();
        for line in ["ip -o -d link", "ip -o -4 addr", "bridge fdb show", "ip -4 neigh show nud permanent"] {
            let all = command(&self.netns, line);
            let mut lines: Vec<&str> = all.lines().filter(foreign).collect();
            lines.sort_unstable();
            text += &lines.join("\n");
        }
        text
    }

    fn make_devices(&self, below: u32) {
        for (name, local) in [("vxlan.calico", "172.17.8.101"), ("vxlan-v6.calico", "fd00:8::101")] {
            let spec = VxlanSpec { vni: 4096, port: 4789, local: ip(local), below };
            let index = self.handle().create_vxlan(name, &spec, mac(1), 1400).unwrap();
            self.handle().set_link_up(index, true).unwrap();
        }
    }
}

struct Devices(World);

impl Rig for Devices {
    type Target = DeviceTable;

    fn target(&mut self) -> DeviceTable {
        DeviceTable::new(self.0.handle())
    }

    fn foreign(&mut self) -> String {
        self.0.foreign()
    }

    fn steal(&mut self, key: &TunnelDevice) -> bool {
        self.0.handle().delete_link(key.name()).unwrap();
        true
    }
}

#[test]
#[ignore = "needs root"]
fn devices_converge() {
    let (world, below) = World::new();
    let device = |vni, last, mtu, addresses: &[&str], local: &str| DeviceState {
        kind: DeviceKind::Vxlan { spec: VxlanSpec { vni, port: 4789, local: ip(local), below }, mac: mac(last) },
        mtu,
        up: true,
        addresses: addresses.iter().map(|text| ip(text)).collect::<BTreeSet<_>>(),
    };
    let v4 =
        |vni, last, mtu, addresses: &[&str]| (TunnelDevice::VxlanV4, device(vni, last, mtu, addresses, "172.17.8.101"));
    let v6 = |mtu, addresses: &[&str]| (TunnelDevice::VxlanV6, device(4096, 9, mtu, addresses, "fd00:8::101"));
    let states = [
        State::<DeviceTable>::from([v4(4096, 1, 1450, &["10.0.0.1"])]),
        State::<DeviceTable>::from([v4(4096, 2, 1400, &["10.0.0.2"]), v6(1430, &["fd00:10::1"])]),
        State::<DeviceTable>::from([v4(77, 2, 1400, &[]), v6(1300, &["fd00:10::1"])]),
        State::<DeviceTable>::from([v6(1300, &[])]),
    ];
    converges(&mut Devices(world), &states);
}

struct Forwarding(World);

impl Rig for Forwarding {
    type Target = ForwardingTable;

    fn target(&mut self) -> ForwardingTable {
        ForwardingTable::new(self.0.handle())
    }

    fn foreign(&mut self) -> String {
        self.0.foreign()
    }

    fn steal(&mut self, key: &ForwardingKey) -> bool {
        let index = self.0.handle().link(key.device.name()).unwrap().index;
        self.0.handle().delete_fdb(index, key.mac).unwrap();
        true
    }
}

#[test]
#[ignore = "needs root"]
fn forwarding_entries_converge() {
    let (world, below) = World::new();
    world.make_devices(below);
    let entry = |device, last, remote: &str| (ForwardingKey { device, mac: mac(last) }, ip(remote));
    let (v4, v6) = (TunnelDevice::VxlanV4, TunnelDevice::VxlanV6);
    let states = [
        State::<ForwardingTable>::from([entry(v4, 2, "172.17.8.102"), entry(v4, 3, "172.17.9.103")]),
        State::<ForwardingTable>::from([entry(v4, 2, "172.17.8.104"), entry(v6, 2, "fd00:8::102")]),
        State::<ForwardingTable>::from([entry(v6, 2, "fd00:9::102"), entry(v6, 4, "fd00:8::104")]),
    ];
    converges(&mut Forwarding(world), &states);
}

struct Neighbours(World);

impl Rig for Neighbours {
    type Target = NeighbourTable;

    fn target(&mut self) -> NeighbourTable {
        NeighbourTable::new(self.0.handle())
    }

    fn foreign(&mut self) -> String {
        self.0.foreign()
    }

    fn steal(&mut self, key: &NeighbourKey) -> bool {
        let index = self.0.handle().link(key.device.name()).unwrap().index;
        self.0.handle().delete_neighbour(index, key.addr).unwrap();
        true
    }
}

#[test]
#[ignore = "needs root"]
fn neighbours_converge() {
    let (world, below) = World::new();
    world.make_devices(below);
    let entry = |device, addr: &str, last| (NeighbourKey { device, addr: ip(addr) }, mac(last));
    let (v4, v6) = (TunnelDevice::VxlanV4, TunnelDevice::VxlanV6);
    let states = [
        State::<NeighbourTable>::from([entry(v4, "10.0.0.65", 2), entry(v4, "10.0.0.129", 3)]),
        State::<NeighbourTable>::from([entry(v4, "10.0.0.65", 4), entry(v6, "fd00:10::41", 2)]),
        State::<NeighbourTable>::from([entry(v6, "fd00:10::41", 5), entry(v6, "fd00:10::81", 2)]),
    ];
    converges(&mut Neighbours(world), &states);
}
