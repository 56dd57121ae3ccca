//! A mesh grows until it elects reflectors, lives with them, and shrinks to a mesh again, on a virtual clock: no node
//! ever loses a route to another that is there, whoever hears of the change first, and nothing goes in circles.
//!
//! `TORTIE_FULL` asks for 1,000 speakers; `TORTIE_SEED` runs another sequence.

mod sim;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use sim::{Dice, Net, address, block};
use tortie_bgp::PeerConfig;
use tortie_calc::elect_reflectors;
use tortie_net::{AsNumber, IpNet};

const AS: AsNumber = AsNumber(64512);

/// How many speakers there are at most, how many are a mesh, and how many are left in the end.
struct Size {
    most: usize,
    meshed: usize,
    left: usize,
}

const SMALL: Size = Size { most: 26, meshed: 12, left: 10 };
const FULL: Size = Size { most: 1000, meshed: 100, left: 90 };

fn name(node: usize) -> String {
    format!("node{node}")
}

struct Cluster {
    net: Net,
    dice: Dice,
    /// Which nodes there are, and which of them are elected.
    there: BTreeSet<usize>,
    reflectors: BTreeSet<usize>,
    meshed: usize,
    seed: u64,
}

impl Cluster {
    fn elect(&self) -> BTreeSet<usize> {
        let names: BTreeMap<String, usize> = self.there.iter().map(|node| (name(*node), *node)).collect();
        elect_reflectors(names.keys().map(String::as_str), self.meshed).into_iter().map(|name| names[name]).collect()
    }

    /// The peers of a node, as policy calculation has them.
    fn peers(&self, me: usize) -> BTreeMap<IpAddr, PeerConfig> {
        let own = |node: usize| self.reflectors.contains(&node);
        let met = |other: &usize| *other != me && (self.reflectors.is_empty() || own(me) || own(*other));
        let peer = |other: usize| {
            let IpAddr::V4(router_id) = address(me) else { unreachable!("addresses are IPv4") };
            let client = own(me) && !own(other);
            let config = PeerConfig::new(address(other), AS);
            (address(other), PeerConfig { lingers: true, reflector_cluster: client.then_some(router_id), ..config })
        };
        self.there.iter().copied().filter(|other| met(other)).map(peer).collect()
    }

    /// Everybody hears who is there now, each at its own time; new nodes start, the others of `gone` are dead.
    fn change(&mut self, there: BTreeSet<usize>) {
        let old = std::mem::replace(&mut self.there, there);
        self.reflectors = self.elect();
        for node in old.difference(&self.there) {
            self.net.kill(*node);
        }
        let mut order: Vec<usize> = self.there.iter().copied().collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.dice.below(at as u64 + 1) as usize);
        }
        for node in order {
            let peers = self.peers(node);
            self.net.nodes[node].peers = peers.clone();
            if old.contains(&node) {
                self.net.with(node, |speaker, now| speaker.set_peers(now, peers));
            } else {
                self.net.start(node);
            }
            let pause = self.dice.below(40);
            self.net.run_for(Duration::from_millis(pause));
        }
    }

    fn forget_withdrawn(&mut self) {
        self.net.nodes.iter_mut().for_each(|node| node.withdrawn.clear());
    }

    /// Nobody lost a route to a node that is there.
    fn check_kept(&self, what: &str) {
        let blocks: BTreeSet<IpNet> = self.there.iter().map(|node| block(*node, 0)).collect();
        for node in &self.there {
            let lost: Vec<&IpNet> = self.net.nodes[*node].withdrawn.intersection(&blocks).collect();
            assert!(lost.is_empty(), "seed {}, {what}: node {node} lost {lost:?}", self.seed);
        }
    }

    /// Everybody has a route to everybody, straight, and no path passed a cluster twice.
    fn check(&self, what: &str) {
        let seed = self.seed;
        for at in &self.there {
            let others = self.there.iter().filter(|other| *other != at);
            let expected: BTreeMap<IpNet, IpAddr> = others.map(|other| (block(*other, 0), address(*other))).collect();
            assert_eq!(self.net.next_hops(*at), expected, "seed {seed}, {what}: node {at}");
            for learned in self.net.nodes[*at].table.values() {
                let list = &learned.attributes.cluster_list;
                let distinct: BTreeSet<&u32> = list.iter().collect();
                assert!(distinct.len() == list.len() && list.len() <= 2, "seed {seed}, {what}: {list:?}");
            }
            let peers = self.net.nodes[*at].speaker.as_ref().expect("runs").peers();
            assert_eq!(
                peers.len(),
                self.peers(*at).len(),
                "seed {seed}, {what}: who was to go has gone from node {at}"
            );
        }
    }
}

#[test]
fn a_mesh_becomes_reflectors_and_a_mesh_again_without_a_lost_route() {
    let seed = std::env::var("TORTIE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(23);
    let Size { most, meshed, left } = if std::env::var_os("TORTIE_FULL").is_some() { FULL } else { SMALL };
    println!("seed {seed}, {most} speakers; TORTIE_SEED runs another");
    let mut net = Net::new(seed);
    net.whole = true;
    for node in 0..most {
        net.add(AS.0, &[block(node, 0)]);
    }
    let mut cluster =
        Cluster { net, dice: Dice(seed * 77 + 5), there: BTreeSet::new(), reflectors: BTreeSet::new(), meshed, seed };
    cluster.change((0..meshed).collect());
    cluster.net.run_for(Duration::from_secs(20));
    cluster.check("the mesh");
    assert!(cluster.reflectors.is_empty());

    cluster.forget_withdrawn();
    cluster.change((0..most).collect());
    cluster.net.run_for(Duration::from_secs(90));
    cluster.check_kept("growing");
    cluster.check("with reflectors");
    assert_eq!(cluster.reflectors.len(), 3);

    // A reflector and some others die and come back.
    let first = *cluster.reflectors.first().expect("three");
    let dead: BTreeSet<usize> = (0..8).map(|_| cluster.dice.below(most as u64) as usize).chain([first]).collect();
    dead.iter().for_each(|node| cluster.net.kill(*node));
    cluster.net.run_for(Duration::from_secs(3));
    for node in &dead {
        cluster.net.nodes[*node].config.restarting = true;
        cluster.net.start(*node);
        let pause = cluster.dice.below(300);
        cluster.net.run_for(Duration::from_millis(pause));
    }
    cluster.net.run_for(Duration::from_secs(30));
    cluster.check_kept("restarts");
    cluster.check("after restarts");

    // A reflector goes for good, and another takes its place.
    cluster.change((0..most).filter(|node| *node != first).collect());
    cluster.net.run_for(Duration::from_secs(90));
    cluster.check_kept("another reflector");
    cluster.check("with another reflector");

    // An island of a reflector and every fifth node; what it does not see is lost, and comes back.
    let island = cluster.reflectors.iter().copied().take(1).chain((0..most).step_by(5)).collect();
    cluster.net.part(island);
    cluster.net.run_for(Duration::from_secs(100));
    cluster.net.heal();
    cluster.net.run_for(Duration::from_secs(60));
    cluster.check("after the partition");

    // Most nodes go at once, reflectors among them.
    cluster.forget_withdrawn();
    cluster.change((0..left).filter(|node| *node != first).collect());
    cluster.net.run_for(Duration::from_secs(150));
    cluster.check_kept("shrinking");
    cluster.check("a mesh again");
    assert!(cluster.reflectors.is_empty());
}
