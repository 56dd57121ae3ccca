//! Graceful restart (RFC 4724): routes outlive the death of a process, and no stale one outlives its time.

mod sim;

use std::time::Duration;

use sim::{Dice, Net, address, block};
use tortie_bgp::PeerState;

fn settled(seed: u64, nodes: usize) -> Net {
    let mut net = Net::mesh(seed, nodes);
    net.start_all();
    net.run_for(Duration::from_secs(5));
    assert!(net.all_established());
    net.nodes.iter_mut().for_each(|node| node.withdrawn.clear());
    net
}

#[test]
fn a_restart_withdraws_nothing_anywhere() {
    for seed in 1..40 {
        let mut net = settled(seed, 4);
        net.kill(1);
        net.run_for(Duration::from_secs(2 + seed % 20));
        net.check_others_keep(1);
        net.nodes[1].config.restarting = true;
        net.start(1);
        assert_eq!(net.with(1, |speaker, _| speaker.initial_sync_done()), Some(false));
        net.run_for(Duration::from_secs(15));
        assert_eq!(net.with(1, |speaker, _| speaker.initial_sync_done()), Some(true), "seed {seed}");
        assert!(net.all_established());
        net.check_mesh();
        for node in &net.nodes {
            assert!(node.withdrawn.is_empty(), "seed {seed}: {:?}", node.withdrawn);
        }
    }
}

impl Net {
    fn check_others_keep(&self, dead: usize) {
        for (at, node) in self.nodes.iter().enumerate().filter(|(at, _)| *at != dead) {
            let kept = &node.table[&block(dead, 0)];
            assert_eq!(kept.next_hop, address(dead), "node {at}");
            let status = node.speaker.as_ref().expect("runs").peers();
            let peer = status.iter().find(|peer| peer.address == address(dead)).expect("configured");
            assert!(peer.keeps_stale && peer.state != PeerState::Established);
        }
    }
}

#[test]
fn routes_that_a_restarted_peer_no_longer_has_go_at_end_of_rib() {
    let mut net = settled(5, 3);
    net.kill(1);
    net.run_for(Duration::from_secs(2));
    net.nodes[1].routes.remove(&block(1, 1));
    net.nodes[1].config.restarting = true;
    net.start(1);
    net.run_for(Duration::from_secs(10));
    for at in [0, 2] {
        assert!(net.nodes[at].table.contains_key(&block(1, 0)));
        assert!(!net.nodes[at].table.contains_key(&block(1, 1)), "node {at} swept the stale route");
        assert!(!net.nodes[at].withdrawn.contains(&block(1, 0)));
    }
}

#[test]
fn a_peer_that_stays_away_loses_its_routes_when_the_timer_ends() {
    let mut net = settled(6, 3);
    net.kill(1);
    net.run_for(Duration::from_secs(119));
    net.check_others_keep(1);
    net.run_for(Duration::from_secs(2));
    for at in [0, 2] {
        assert!(!net.nodes[at].table.contains_key(&block(1, 0)), "node {at}");
        assert!(net.nodes[at].table.contains_key(&block(2 - at, 0)), "node {at} keeps the others");
    }
}

#[test]
fn a_peer_that_lost_its_forwarding_state_loses_its_routes_at_once() {
    let mut net = settled(8, 2);
    net.nodes[1].routes.clear();
    net.kill(1);
    net.run_for(Duration::from_secs(1));
    net.start(1); // not `restarting`: a reboot
    net.run_for(Duration::from_secs(6));
    assert!(net.all_established());
    assert!(net.nodes[0].table.is_empty());
}

#[test]
fn a_planned_stop_keeps_routes_and_a_removed_peer_does_not() {
    let mut net = settled(9, 3);
    net.with(1, |speaker, now| speaker.shutdown(now));
    net.nodes[1].speaker = None;
    net.run_for(Duration::from_secs(3));
    net.check_others_keep(1);
    let without = net.nodes[2].peers.iter().filter(|(peer, _)| **peer != address(0));
    let without = without.map(|(peer, config)| (*peer, config.clone())).collect();
    net.with(2, |speaker, now| speaker.set_peers(now, without));
    net.run_for(Duration::from_secs(1));
    assert!(!net.nodes[0].table.contains_key(&block(2, 0)), "de-configured: no graceful restart");
    assert!(!net.nodes[2].table.contains_key(&block(0, 0)));
}

#[test]
fn recovery_ends_at_its_deadline_if_a_peer_never_comes() {
    let mut net = settled(10, 3);
    net.kill(1);
    net.kill(2);
    net.run_for(Duration::from_secs(1));
    net.nodes[1].config.restarting = true;
    net.start(1);
    net.run_for(Duration::from_secs(100));
    assert_eq!(net.with(1, |speaker, _| speaker.initial_sync_done()), Some(false));
    net.run_for(Duration::from_secs(21));
    assert_eq!(net.with(1, |speaker, _| speaker.initial_sync_done()), Some(true));
}

/// A peer is left out at first, as its password is not known yet.
#[test]
fn recovery_waits_for_a_peer_that_is_left_out_at_first() {
    for comes in [true, false] {
        let mut net = settled(13, 3);
        net.kill(0);
        net.run_for(Duration::from_secs(1));
        net.nodes[0].config.restarting = true;
        let all = net.nodes[0].peers.clone();
        net.nodes[0].peers.remove(&address(1));
        net.nodes[0].awaits = true;
        net.start(0);
        net.run_for(Duration::from_secs(20));
        assert_eq!(net.with(0, |speaker, _| speaker.initial_sync_done()), Some(false));
        let kept = |net: &Net, node: usize| net.nodes[node].speaker.as_ref().expect("runs").peers()[0].keeps_stale;
        assert!(kept(&net, 2), "its End-of-RIB waits as well");
        if comes {
            net.nodes[0].peers = all.clone();
            net.with(0, |speaker, now| {
                speaker.await_more(false);
                speaker.set_peers(now, all);
            });
            net.run_for(Duration::from_secs(10));
            net.check_mesh();
            assert!(net.nodes.iter().all(|node| node.withdrawn.is_empty()) && !kept(&net, 2));
        } else {
            net.run_for(Duration::from_secs(98));
            assert_eq!(net.with(0, |speaker, _| speaker.initial_sync_done()), Some(false));
            net.run_for(Duration::from_secs(3));
            assert!(!kept(&net, 2));
        }
        assert_eq!(net.with(0, |speaker, _| speaker.initial_sync_done()), Some(true));
    }
}

/// Node 1 calls node 0, which knows it by a range alone; node 2 is a peer as any other.
#[test]
fn recovery_waits_for_hosts_of_a_range() {
    for (seed, away) in (1..20).map(|seed| (seed, 1 + seed % 24)) {
        let mut net = Net::new(seed);
        for node in 0..3 {
            net.add(65000 + node as u32, &[block(node, 0)]);
        }
        net.peer(0, 1);
        net.peer(0, 2);
        let config = net.nodes[0].peers.remove(&address(1)).expect("configured");
        net.nodes[0].ranges.insert("10.0.0.2/32".parse().expect("a literal"), config);
        net.start_all();
        net.run_for(Duration::from_secs(8));
        let all = [block(1, 0), block(2, 0)];
        assert!(net.nodes[0].table.keys().eq(&all) && net.nodes[2].table.contains_key(&all[0]));
        net.kill(0);
        net.run_for(Duration::from_secs(1));
        net.part([1].into());
        net.nodes[0].config.restarting = true;
        net.start(0);
        net.run_for(Duration::from_secs(away));
        net.heal();
        net.run_for(Duration::from_secs(6));
        assert!(net.nodes.iter().all(|node| node.withdrawn.is_empty()), "seed {seed}");
        assert!(net.nodes[0].table.keys().eq(&all) && net.nodes[2].table.contains_key(&all[0]));
        let kept = |net: &Net| net.nodes[2].speaker.as_ref().expect("runs").peers()[0].keeps_stale;
        assert!(kept(&net), "seed {seed}: others may come");
        net.run_for(Duration::from_secs(31));
        assert!(!kept(&net), "seed {seed}: none has come for long");
        assert_eq!(net.with(0, |speaker, _| speaker.initial_sync_done()), Some(false));
        net.run_for(Duration::from_secs(85));
        assert_eq!(net.with(0, |speaker, _| speaker.initial_sync_done()), Some(true));
        assert!(net.nodes.iter().all(|node| node.withdrawn.is_empty()), "seed {seed}");
    }
}

#[test]
fn two_that_restart_at_once_do_not_wait_for_each_other() {
    let mut net = settled(11, 2);
    for node in [0, 1] {
        net.kill(node);
        net.nodes[node].config.restarting = true;
    }
    net.run_for(Duration::from_secs(1));
    net.start_all();
    net.run_for(Duration::from_secs(10));
    for node in [0, 1] {
        assert_eq!(net.with(node, |speaker, _| speaker.initial_sync_done()), Some(true));
    }
    net.check_mesh();
}

/// Whoever dies, with others or while it starts: whatever one tells its kernel, no route is taken away anywhere.
#[test]
fn deaths_on_both_sides_and_during_the_start_withdraw_nothing() {
    for seed in 1..200 {
        let mut net = settled(seed, 2 + seed as usize % 3);
        let mut dice = Dice(seed * 131 + 17);
        for round in 0..6 {
            let count = net.nodes.len();
            let dead: Vec<usize> = (0..count).filter(|_| dice.below(2) == 0).collect();
            dead.iter().for_each(|node| net.kill(*node));
            net.run_for(Duration::from_millis(dice.below(1500)));
            for node in &dead {
                net.nodes[*node].config.restarting = true;
                net.start(*node);
                net.run_for(Duration::from_millis(dice.below(60)));
                if dice.below(3) == 0 {
                    net.kill(*node);
                    net.run_for(Duration::from_millis(dice.below(300)));
                    net.start(*node);
                }
            }
            net.run_for(Duration::from_millis(dice.below(8000)));
            for (at, node) in net.nodes.iter().enumerate() {
                assert!(node.withdrawn.is_empty(), "seed {seed}, round {round}, node {at}: {:?}", node.withdrawn);
            }
        }
        net.run_for(Duration::from_secs(200));
        net.check_mesh();
    }
}

/// A peer that knows no graceful restart says nothing when it is done: its routes stay until it had time to tell them.
#[test]
fn routes_of_a_peer_without_graceful_restart_outlive_our_restart() {
    for seed in 1..40 {
        let mut net = settled(seed, 2);
        net.whole = true;
        net.without_restart.insert(0);
        net.kill(1);
        net.run_for(Duration::from_secs(3));
        net.nodes[1].withdrawn.clear();
        net.nodes[1].config.restarting = true;
        net.start(1);
        net.run_for(Duration::from_secs(20));
        assert!(net.all_established(), "seed {seed}");
        assert_eq!(net.with(1, |speaker, _| speaker.initial_sync_done()), Some(true), "seed {seed}");
        assert!(net.nodes[1].withdrawn.is_empty(), "seed {seed}: {:?}", net.nodes[1].withdrawn);
    }
}

#[test]
fn a_silent_peer_is_given_up_after_the_hold_time() {
    let mut net = settled(12, 2);
    // The process hangs: no closing, no bytes.
    net.nodes[1].speaker = None;
    net.run_for(Duration::from_secs(58));
    assert!(net.nodes[0].table.contains_key(&block(1, 0)), "the last keepalive is at most 30 s old");
    net.run_for(Duration::from_secs(33));
    assert!(!net.nodes[0].table.contains_key(&block(1, 0)));
    let peers = net.nodes[0].speaker.as_ref().expect("runs").peers();
    // Dialled again since, and nobody listens.
    assert_eq!(peers[0].info(), "Active Socket: Connection refused");
}
