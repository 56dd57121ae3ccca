//! Speakers wired together in memory come to the same tables, whatever the network does meanwhile.

mod sim;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use sim::{Dice, Net, address, block};
use tortie_bgp::LocalRoute;
use tortie_net::IpNet;

#[test]
fn two_routers_are_up_within_half_a_second() {
    for seed in 1..200 {
        let mut net = Net::mesh(seed, 2);
        net.max_delay_ms = 5;
        net.start(0);
        net.run_for(Duration::from_millis(seed * 3));
        net.start(1);
        net.run_for(Duration::from_millis(500));
        assert!(net.all_established(), "seed {seed}: {:?}", net.nodes[0].speaker.as_ref().map(|s| s.peers()));
        net.check_mesh();
    }
}

#[test]
fn both_dialling_at_once_end_with_one_connection() {
    for seed in 1..300 {
        let mut net = Net::mesh(seed, 2);
        net.start_all();
        net.run_for(Duration::from_secs(3));
        assert!(net.all_established(), "seed {seed}");
        let since: Vec<_> = net.nodes.iter().map(|n| n.speaker.as_ref().expect("runs").peers()[0].since).collect();
        net.run_for(Duration::from_secs(600));
        let later: Vec<_> = net.nodes.iter().map(|n| n.speaker.as_ref().expect("runs").peers()[0].since).collect();
        assert_eq!(since, later, "seed {seed}: the session stays");
        net.check_mesh();
    }
}

#[test]
fn a_mesh_of_twenty_converges_in_spite_of_lost_connections() {
    for seed in 1..6 {
        let mut net = Net::mesh(seed, 20);
        net.start_all();
        for _ in 0..60 {
            net.run_for(Duration::from_millis(50));
            net.cut_any();
        }
        net.run_for(Duration::from_secs(15));
        assert!(net.all_established(), "seed {seed}");
        net.check_mesh();
    }
}

#[test]
fn routes_that_come_and_go_reach_everyone() {
    let mut net = Net::mesh(7, 6);
    net.start_all();
    let mut dice = Dice(99);
    for _ in 0..100 {
        let node = dice.below(6) as usize;
        let routes: BTreeMap<IpNet, LocalRoute> =
            (0..4).filter(|_| dice.below(2) == 0).map(|at| (block(node, at), LocalRoute::default())).collect();
        net.nodes[node].routes = routes.clone();
        net.with(node, |speaker, now| speaker.set_local_routes(now, routes));
        net.run_for(Duration::from_millis(dice.below(40)));
        if dice.below(10) == 0 {
            net.cut_any();
        }
    }
    net.run_for(Duration::from_secs(15));
    for at in 0..6 {
        let others = (0..6).filter(|other| *other != at);
        let expected: BTreeMap<IpNet, IpAddr> = others
            .flat_map(|other| net.nodes[other].routes.keys().map(move |prefix| (*prefix, address(other))))
            .collect();
        assert_eq!(net.next_hops(at), expected, "node {at}");
    }
}

/// Each router is an AS of its own in a random graph; the model relaxes shortest paths until nothing moves.
#[test]
fn a_random_graph_of_ases_agrees_with_the_slow_model() {
    for seed in 1..20 {
        let mut net = Net::new(seed);
        let count = 10;
        for node in 0..count {
            net.add(65000 + node as u32, &[block(node, 0)]);
        }
        let mut dice = Dice(seed * 7919);
        let mut links = Vec::new();
        for a in 1..count {
            links.push((dice.below(a as u64) as usize, a));
        }
        for _ in 0..8 {
            let (a, b) = (dice.below(count as u64) as usize, dice.below(count as u64) as usize);
            if a < b && !links.contains(&(a, b)) {
                links.push((a, b));
            }
        }
        links.iter().for_each(|(a, b)| net.peer(*a, *b));
        net.start_all();
        for _ in 0..10 {
            net.run_for(Duration::from_millis(100));
            net.cut_any();
        }
        net.run_for(Duration::from_secs(20));
        assert!(net.all_established(), "seed {seed}");
        let neighbors = |node: usize| {
            let ends = links.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]);
            ends.filter(|(a, _)| *a == node).map(|(_, b)| b).collect::<Vec<_>>()
        };
        for target in 0..count {
            let mut path: Vec<Option<Vec<usize>>> = vec![None; count];
            path[target] = Some(vec![]);
            for _ in 0..count * 2 {
                let old = path.clone();
                for node in (0..count).filter(|node| *node != target) {
                    let offers = neighbors(node).into_iter().filter_map(|n| {
                        let rest = old[n].as_ref().filter(|rest| !rest.contains(&node))?;
                        Some(std::iter::once(n).chain(rest.iter().copied()).collect::<Vec<_>>())
                    });
                    path[node] = offers.min_by_key(|offer| (offer.len(), offer[0]));
                }
            }
            for node in (0..count).filter(|node| *node != target) {
                let best = &net.nodes[node].table[&block(target, 0)];
                let model = path[node].as_ref().expect("connected");
                let asns: Vec<String> = model.iter().map(|node| (65000 + node).to_string()).collect();
                assert_eq!(best.attributes.as_path.to_string(), asns.join(" "), "seed {seed}, {node} to {target}");
                assert_eq!(best.next_hop, address(model[0]));
            }
        }
    }
}

#[test]
fn a_reflector_joins_clients_that_do_not_meet() {
    let mut net = Net::new(3);
    for node in 0..5 {
        net.add(64512, &[block(node, 0), block(node, 1)]);
    }
    for client in 1..5 {
        net.peer(0, client);
        let cluster = Some([1, 1, 1, 1].into());
        net.nodes[0].peers.get_mut(&address(client)).expect("just added").reflector_cluster = cluster;
    }
    net.start_all();
    net.run_for(Duration::from_secs(5));
    for at in 0..5 {
        let others = (0..5).filter(|other| *other != at);
        let expected: BTreeMap<IpNet, IpAddr> =
            others.flat_map(|other| [(block(other, 0), address(other)), (block(other, 1), address(other))]).collect();
        assert_eq!(net.next_hops(at), expected, "node {at}: next hops stay those of the origin");
    }
    let seen = &net.nodes[1].table[&block(2, 0)].attributes;
    assert_eq!(seen.originator_id.map(IpAddr::V4), Some(address(2)));
    assert_eq!(*seen.cluster_list, [0x0101_0101]);
}

#[test]
fn internal_routes_are_not_passed_on_to_internal_peers() {
    let mut net = Net::new(4);
    for node in 0..3 {
        net.add(64512, &[block(node, 0)]);
    }
    net.peer(0, 1);
    net.peer(1, 2);
    net.start_all();
    net.run_for(Duration::from_secs(5));
    assert_eq!(net.next_hops(0), BTreeMap::from([(block(1, 0), address(1))]));
}
