//! The IPIP device against a real kernel: it follows what is wanted, whoever made it, and is bare again at the end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helper functions too")]

use std::net::IpAddr;
use std::time::Instant;

use tortie_dataplane::testing::{Rig, State, converges};
use tortie_desired::{Ipip, Tables, TunnelDevice};
use tortie_netlink::{AddressSpec, Error, Handle, LinkKind, Netns};
use tortie_routing::{DeviceKind, DeviceState, DeviceTable, Tunnels};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A namespace with a bridge that has the address of a node; none where the kernel has no IPIP.
fn world() -> Option<Netns> {
    let scratch = Netns::unnamed().unwrap();
    if let Err(Error::Unsupported { .. }) = Handle::open_in(&scratch).unwrap().create_ipip("tunl0") {
        println!("skipped: this kernel has no IPIP (cargo xtask lab-vm has)");
        return None;
    }
    let netns = Netns::unnamed().unwrap();
    let mut kernel = Handle::open_in(&netns).unwrap();
    let bridge = kernel.create_bridge("br0").unwrap();
    kernel.add_address(&AddressSpec::new(bridge, "172.17.8.101/24".parse().unwrap())).unwrap();
    Some(netns)
}

struct Devices(Netns);

impl Devices {
    fn kernel(&self) -> Handle {
        Handle::open_in(&self.0).unwrap()
    }
}

impl Rig for Devices {
    type Target = DeviceTable;

    fn target(&mut self) -> DeviceTable {
        DeviceTable::new(self.kernel())
    }

    fn foreign(&mut self) -> String {
        let links = self.kernel().links().unwrap().into_iter().filter(|link| link.name != "tunl0");
        format!("{:?}", links.collect::<Vec<_>>())
    }

    fn steal(&mut self, _: &TunnelDevice) -> bool {
        self.kernel().set_link_up("tunl0", false).unwrap();
        true
    }
}

#[test]
#[ignore = "needs root"]
fn the_device_converges() {
    let Some(netns) = world() else { return };
    let device = |mtu, addresses: &[&str]| {
        let addresses = addresses.iter().map(|text| ip(text)).collect();
        (TunnelDevice::Ipip, DeviceState { kind: DeviceKind::Ipip, mtu, up: true, addresses })
    };
    let states = [
        State::<DeviceTable>::from([device(1480, &["10.0.0.1"])]),
        State::<DeviceTable>::from([device(1400, &["10.0.0.2"])]),
        State::<DeviceTable>::new(),
        State::<DeviceTable>::from([device(1300, &[])]),
    ];
    converges(&mut Devices(netns), &states);
}

#[test]
#[ignore = "needs root"]
fn it_follows_the_mtu_below_and_is_bare_when_nobody_wants_it() {
    let Some(netns) = world() else { return };
    let mut kernel = Handle::open_in(&netns).unwrap();
    let mut tunnels = Tunnels::new(|| Handle::open_in(&netns)).unwrap();
    let ipip = Ipip {
        underlay: ip("172.17.8.101"),
        address: Some(ip("10.0.0.1")),
        mtu: None,
        peers: [(ip("172.17.8.102"), "node2".into())].into(),
        ends: Default::default(),
        learned: Default::default(),
    };
    let tables = Tables { ipip: Some(ipip), ..Tables::default() };
    for mtu in [1500, 1400, 9000] {
        kernel.set_link_mtu("br0", mtu).unwrap();
        tunnels.resync();
        tunnels.set_desired(&tables);
        let report = tunnels.apply(Instant::now());
        assert!(report.is_clean(), "{report}");
        let link = kernel.link("tunl0").unwrap();
        assert_eq!((link.mtu, link.up, link.kind), (mtu - 20, true, LinkKind::Ipip));
    }
    tunnels.set_desired(&Tables::default());
    let report = tunnels.apply(Instant::now());
    assert!(report.is_clean(), "{report}");
    let left = kernel.link("tunl0").ok();
    assert!(left.is_none_or(|link| !link.up && link.mtu == 1480), "as the kernel made it");
    assert!(kernel.addresses().unwrap().iter().all(|address| address.net.addr() != ip("10.0.0.1")));
}
