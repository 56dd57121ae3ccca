//! WireGuard against a real kernel, with devices that encrypt nothing: what is told of keys when something fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helper functions too")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{command, ip, net};
use tortie_desired::{Tables, Wireguard, WireguardPeer};
use tortie_net::{Family, PublicKey};
use tortie_netlink::{
    Error, Event, Handle, LinkKind, Netns, Result, WireguardChange, WireguardDevices, WireguardPeerState,
    WireguardState,
};
use tortie_routing::{WireguardReport, Wireguards};

const PEER: PublicKey = PublicKey([7; 32]);

#[derive(Default)]
struct Maker {
    devices: BTreeMap<String, WireguardState>,
    made: u8,
    /// The error number of every question.
    failing: Option<i32>,
    /// Nothing can be made.
    unsupported: bool,
    /// Peers are not taken.
    alone: bool,
}

/// Bridges in the calling thread's namespace, and what a WireGuard device would keep.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Maker>>);

fn there(name: &str) -> bool {
    Handle::open().unwrap().link(name).is_ok()
}

impl WireguardDevices for Fake {
    fn place(&self) -> &'static str {
        "a test"
    }

    fn kind(&self) -> LinkKind {
        LinkKind::Bridge
    }

    fn ensure(&mut self, name: &str) -> Result<()> {
        let mut maker = self.0.lock().unwrap();
        if maker.unsupported {
            return Err(Error::from_errno(libc::EOPNOTSUPP, "make it", ""));
        }
        if !there(name) {
            assert!(Command::new("ip").args(["link", "add", name, "type", "bridge"]).status().unwrap().success());
            maker.devices.insert(name.to_owned(), WireguardState::default());
        }
        Ok(())
    }

    fn device(&mut self, name: &str) -> Result<WireguardState> {
        let maker = self.0.lock().unwrap();
        let none = || Error::from_errno(libc::ENODEV, "ask it", "");
        match maker.failing {
            Some(errno) => Err(Error::from_errno(errno, "ask it", "")),
            None => maker.devices.get(name).filter(|_| there(name)).cloned().ok_or_else(none),
        }
    }

    fn change(&mut self, name: &str, change: &WireguardChange) -> Result<()> {
        let mut maker = self.0.lock().unwrap();
        if maker.alone && !change.peers.is_empty() {
            return Err(Error::from_errno(libc::EIO, "add a peer", ""));
        }
        let taken = |port: &u16| {
            maker.devices.iter().any(|(other, state)| other != name && state.port == *port && there(other))
        };
        if change.port.is_some_and(|port| taken(&port)) {
            return Err(Error::from_errno(libc::EADDRINUSE, "set it up", ""));
        }
        maker.made += u8::from(change.private_key.is_some());
        let key = PublicKey([maker.made; 32]);
        let device = maker.devices.get_mut(name).unwrap();
        device.public_key = device.public_key.or(change.private_key.as_ref().map(|_| key));
        device.port = change.port.unwrap_or(device.port);
        device.mark = change.mark.unwrap_or(device.mark);
        for (key, peer) in &change.peers {
            match peer {
                Some(peer) => {
                    let (endpoint, allowed) = (Some(peer.endpoint), peer.allowed.clone());
                    let state = WireguardPeerState { endpoint, allowed, ..WireguardPeerState::default() };
                    device.peers.insert(*key, state);
                }
                None => drop(device.peers.remove(key)),
            }
        }
        Ok(())
    }
}

/// One device of IPv4, with a node behind it.
fn tables(name: &str) -> Tables {
    let allowed = BTreeSet::from([net("10.0.2.0/26")]);
    let peer = WireguardPeer { key: PEER, endpoint: ip("172.17.8.102"), address: None, allowed };
    let (_, table) = Wireguard::default_place(Family::V4);
    let wireguard = Wireguard {
        name: Arc::from(name),
        port: 51820,
        table,
        priority: 99,
        underlay: ip("172.17.8.101"),
        address: Some(ip("10.0.1.0")),
        mtu: None,
        keepalive_secs: 0,
        threaded: false,
        peers: BTreeMap::from([(Arc::from("other"), peer)]),
        plain: BTreeSet::from([net("10.0.1.0/26")]),
    };
    Tables { wireguard: BTreeMap::from([(Family::V4, wireguard)]), ..Tables::default() }
}

struct Node {
    netns: Netns,
    fake: Fake,
    wireguards: Wireguards,
}

impl Node {
    fn new() -> Node {
        let netns = Netns::unnamed().unwrap();
        command(&netns, "ip link add eth0 type bridge");
        command(&netns, "ip link set eth0 up");
        command(&netns, "ip address add 172.17.8.101/24 dev eth0");
        let fake = Fake::default();
        let wireguards = Wireguards::new(Handle::open_in(&netns).unwrap(), vec![Box::new(fake.clone())]);
        Node { netns, fake, wireguards }
    }

    fn apply(&mut self) -> WireguardReport {
        self.wireguards.on_event(&Event::Resync);
        self.netns.run(|| self.wireguards.apply(Instant::now()).clone()).unwrap()
    }
}

/// What the report says of the key: none at all, withdrawn, or the first byte of it.
fn key(report: &WireguardReport) -> Option<Option<u8>> {
    report.keys.get(&Family::V4).map(|key| key.map(|key| key.0[0]))
}

#[test]
#[ignore = "needs root"]
fn a_fault_withdraws_no_key() {
    let mut node = Node::new();
    let report = node.apply();
    assert_eq!((key(&report), report.faults.len()), (Some(None), 0), "not wanted");

    // A start while the address is away: nothing is known.
    command(&node.netns, "ip address del 172.17.8.101/24 dev eth0");
    node.wireguards.set_desired(&tables("wireguard.cali"));
    let report = node.apply();
    assert_eq!((key(&report), report.faults.len()), (None, 1));
    command(&node.netns, "ip address add 172.17.8.101/24 dev eth0");
    let report = node.apply();
    assert_eq!((key(&report), report.faults.len()), (Some(Some(1)), 0), "{report:?}");

    command(&node.netns, "ip address del 172.17.8.101/24 dev eth0");
    let report = node.apply();
    assert_eq!(key(&report), None, "{report:?}");
    assert!(report.faults[&Family::V4].contains("no interface of this host has the address 172.17.8.101"));
    command(&node.netns, "ip address add 172.17.8.101/24 dev eth0");
    assert_eq!(key(&node.apply()), Some(Some(1)));

    // A device that does not answer, or that something fails about, is there yet.
    for errno in [libc::ETIMEDOUT, libc::EOPNOTSUPP, libc::EIO] {
        node.fake.0.lock().unwrap().failing = Some(errno);
        let report = node.apply();
        assert_eq!((key(&report), report.faults.len()), (None, 1), "{report:?}");
        node.fake.0.lock().unwrap().failing = None;
    }
    // Another device, of which what comes after the key fails: others encrypt for it nevertheless.
    command(&node.netns, "ip link del wireguard.cali");
    node.fake.0.lock().unwrap().alone = true;
    let report = node.apply();
    assert_eq!((key(&report), report.faults.len()), (Some(Some(2)), 1), "{report:?}");
    node.fake.0.lock().unwrap().alone = false;

    // Without a device, and no way to make one, there is no key.
    command(&node.netns, "ip link del wireguard.cali");
    node.fake.0.lock().unwrap().unsupported = true;
    let report = node.apply();
    assert_eq!((key(&report), report.faults.len()), (Some(None), 1), "{report:?}");
    node.fake.0.lock().unwrap().unsupported = false;
    assert_eq!(key(&node.apply()), Some(Some(3)), "another device has another key");
    node.wireguards.set_desired(&Tables::default());
    assert_eq!(key(&node.apply()), Some(None));
    let waits = node.wireguards.wake_at(Instant::now() + Duration::from_secs(1));
    assert_eq!(waits, None, "nothing is left to do");
}

#[test]
#[ignore = "needs root"]
fn a_device_of_another_name_takes_the_place_of_the_old_one() {
    let mut node = Node::new();
    let routes = |node: &Node| command(&node.netns, "ip route show table 1");
    // The other family has one too, which stays.
    command(&node.netns, "ip address add fd00:8::101/64 dev eth0");
    let both = |name: &str| {
        let mut tables = tables(name);
        let v6 = Wireguard {
            name: Arc::from("wg-v6.cali"),
            port: 51821,
            table: Wireguard::default_place(Family::V6).1,
            underlay: ip("fd00:8::101"),
            address: None,
            peers: BTreeMap::new(),
            plain: BTreeSet::new(),
            ..tables.wireguard[&Family::V4].clone()
        };
        tables.wireguard.insert(Family::V6, v6);
        tables
    };
    node.wireguards.set_desired(&both("wireguard.cali"));
    assert_eq!(key(&node.apply()), Some(Some(1)));
    assert!(routes(&node).contains("10.0.2.0/26 dev wireguard.cali"), "{}", routes(&node));
    // Somebody else's device of the same kind.
    command(&node.netns, "ip link add other type bridge");
    node.fake.0.lock().unwrap().devices.insert("other".to_owned(), WireguardState::default());

    // The new one is not there at once: what went through the old one goes nowhere.
    node.wireguards.set_desired(&both("wg-new"));
    node.fake.0.lock().unwrap().unsupported = true;
    let report = node.apply();
    assert_eq!((key(&report), report.faults.len()), (Some(None), 2), "{report:?}");
    assert!(routes(&node).contains("blackhole 10.0.2.0/26"), "{}", routes(&node));
    node.fake.0.lock().unwrap().unsupported = false;
    let report = node.apply();
    assert_eq!((key(&report), report.faults.len()), (Some(Some(3)), 0), "{report:?}");
    assert!(routes(&node).contains("10.0.2.0/26 dev wg-new"), "{}", routes(&node));

    // A node without memory knows it by its mark, and takes it away when WireGuard is off.
    node.wireguards = Wireguards::new(Handle::open_in(&node.netns).unwrap(), vec![Box::new(node.fake.clone())]);
    let report = node.apply();
    assert_eq!((key(&report), report.faults.len()), (Some(None), 0), "{report:?}");
    let links = command(&node.netns, "ip -o link show type bridge");
    assert!(links.contains("other") && !links.contains("wg-new") && !links.contains("wireguard.cali"), "{links}");
    assert_eq!(command(&node.netns, "ip route show table all proto 80"), "");
    assert!(!command(&node.netns, "ip rule").contains("fwmark"));
}
