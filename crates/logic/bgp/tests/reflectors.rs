//! Three hundred speakers behind reflectors: restarts and partitions lose no route for good, and nothing goes in circles.

mod sim;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use sim::{Dice, Net, address, block};
use tortie_net::IpNet;

const NODES: usize = 300;
/// The first are reflectors: two of each of two clusters.
const REFLECTORS: usize = 4;

fn cluster(node: usize) -> usize {
    node % 2
}

/// Clients peer with both reflectors of their cluster, reflectors with each other.
fn reflected(seed: u64, nodes: usize) -> Net {
    let mut net = Net::new(seed);
    for node in 0..nodes {
        net.add(64512, &[block(node, 0)]);
    }
    for reflector in 0..REFLECTORS {
        for other in reflector + 1..REFLECTORS {
            net.peer(reflector, other);
        }
        for client in (REFLECTORS..nodes).filter(|client| cluster(*client) == cluster(reflector)) {
            net.peer(reflector, client);
            let id = [10, 255, 0, cluster(reflector) as u8 + 1].into();
            net.nodes[reflector].peers.get_mut(&address(client)).expect("just added").reflector_cluster = Some(id);
        }
    }
    net
}

/// Every node has a route to every block of every other, straight to its origin, and no path passed a cluster twice.
fn check(net: &Net, nodes: usize, seed: u64) {
    for at in 0..nodes {
        let others = (0..nodes).filter(|other| *other != at);
        let expected: BTreeMap<IpNet, IpAddr> = others.map(|other| (block(other, 0), address(other))).collect();
        assert_eq!(net.next_hops(at), expected, "seed {seed}, node {at}");
        for (prefix, learned) in &net.nodes[at].table {
            let list = &learned.attributes.cluster_list;
            let distinct: BTreeSet<&u32> = list.iter().collect();
            assert!(distinct.len() == list.len() && list.len() <= 2, "seed {seed}, node {at}, {prefix}: {list:?}");
            assert_ne!(learned.attributes.originator_id.map(IpAddr::V4), Some(address(at)), "our own comes back");
        }
    }
}

fn clear(net: &mut Net) {
    net.nodes.iter_mut().for_each(|node| node.withdrawn.clear());
}

#[test]
fn three_hundred_speakers_survive_restarts_and_partitions() {
    let seed = std::env::var("TORTIE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(11);
    println!("seed {seed}; TORTIE_SEED runs another");
    let mut net = reflected(seed, NODES);
    net.whole = true;
    net.start_all();
    net.run_for(Duration::from_secs(20));
    assert!(net.all_established(), "seed {seed}");
    check(&net, NODES, seed);

    // A reflector and ten clients die and come back: nobody withdraws anything.
    clear(&mut net);
    let mut dice = Dice(seed * 31 + 7);
    let dead: BTreeSet<usize> =
        (0..10).map(|_| REFLECTORS + dice.below((NODES - REFLECTORS) as u64) as usize).chain([1]).collect();
    for node in &dead {
        net.kill(*node);
        net.run_for(Duration::from_millis(dice.below(500)));
    }
    for node in &dead {
        net.nodes[*node].config.restarting = true;
        net.start(*node);
        net.run_for(Duration::from_millis(dice.below(500)));
    }
    net.run_for(Duration::from_secs(20));
    assert!(net.all_established(), "seed {seed}");
    check(&net, NODES, seed);
    for (at, node) in net.nodes.iter().enumerate() {
        assert!(node.withdrawn.is_empty(), "seed {seed}, node {at}: {:?}", node.withdrawn);
    }

    // One reflector of each cluster, and thirty clients of both, on an island: within a part everything stays known.
    let island: BTreeSet<usize> = (0..2).chain((0..30).map(|at| REFLECTORS + at * 7)).collect();
    net.part(island.clone());
    net.run_for(Duration::from_secs(100));
    for at in 0..NODES {
        let same: BTreeSet<IpNet> = (0..NODES)
            .filter(|other| *other != at && island.contains(other) == island.contains(&at))
            .map(|other| block(other, 0))
            .collect();
        let known: BTreeSet<IpNet> = net.next_hops(at).into_keys().collect();
        assert_eq!(known, same, "seed {seed}, node {at}");
    }
    net.heal();
    net.run_for(Duration::from_secs(30));
    assert!(net.all_established(), "seed {seed}");
    check(&net, NODES, seed);
}

#[test]
fn many_small_worlds_come_to_rest_whatever_breaks() {
    for seed in 1..25 {
        let mut net = reflected(seed, 14);
        net.start_all();
        let mut dice = Dice(seed * 101 + 3);
        for _ in 0..25 {
            net.run_for(Duration::from_millis(dice.below(3000)));
            match dice.below(4) {
                0 => net.cut_any(),
                1 => {
                    let node = dice.below(14) as usize;
                    net.kill(node);
                    net.run_for(Duration::from_millis(dice.below(4000)));
                    net.nodes[node].config.restarting = dice.below(2) == 0;
                    net.start(node);
                }
                2 => {
                    net.part((0..14).filter(|_| dice.below(2) == 0).collect());
                    net.run_for(Duration::from_millis(dice.below(200_000)));
                    net.heal();
                }
                _ => {}
            }
        }
        net.run_for(Duration::from_secs(200));
        assert!(net.all_established(), "seed {seed}");
        check(&net, 14, seed);
    }
}
