//! Filters and rules between live speakers: what passes, and that changes of them bounce no session.

mod sim;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sim::{Dice, Net, address, block};
use tortie_bgp::policy::{PRIORITY_SUM, tell_everything};
use tortie_bgp::{LocalRoute, NextHopMode, PeerConfig, PeerState};
use tortie_desired::{
    BgpFilter, BgpPolicy, Community, ExportRule, FilterOperation, FilterRule, PrefixMatch, PrefixOperator,
};
use tortie_net::{AsNumber, IpNet};

fn rule(net: IpNet, accept: bool) -> FilterRule {
    FilterRule {
        prefix: Some(PrefixMatch { net, operator: PrefixOperator::In, lengths: None }),
        learned: false,
        interface: None,
        internal: None,
        community: None,
        as_path_prefix: Vec::new(),
        priority: None,
        accept,
        operations: Vec::new(),
    }
}

fn import(rules: Vec<FilterRule>) -> Vec<Arc<BgpFilter>> {
    vec![Arc::new(BgpFilter { name: "f".into(), import_v4: rules, ..BgpFilter::default() })]
}

fn export(rules: Vec<FilterRule>) -> Vec<Arc<BgpFilter>> {
    vec![Arc::new(BgpFilter { name: "f".into(), export_v4: rules, ..BgpFilter::default() })]
}

impl Net {
    fn change(&mut self, node: usize, peer: usize, change: impl FnOnce(&mut PeerConfig)) {
        change(self.nodes[node].peers.get_mut(&address(peer)).expect("configured"));
        let peers = self.nodes[node].peers.clone();
        self.with(node, |speaker, now| speaker.set_peers(now, peers));
        self.run_for(Duration::from_secs(2));
    }

    fn holds(&self, node: usize) -> Vec<IpNet> {
        self.nodes[node].table.keys().copied().collect()
    }
}

/// Two ASes, one session.
fn pair() -> Net {
    let mut net = Net::new(1);
    for node in 0..2 {
        net.add(65000 + node as u32, &[block(node, 0), block(node, 1)]);
    }
    net.peer(0, 1);
    net.start_all();
    net.run_for(Duration::from_secs(3));
    assert!(net.all_established());
    net
}

#[test]
fn an_import_filter_comes_changes_and_goes_without_a_new_session() {
    let mut net = pair();
    let since = net.nodes[0].speaker.as_ref().expect("runs").peers()[0].since;
    let sent = net.bytes_sent;
    net.change(0, 1, |peer| peer.filters = import(vec![rule(block(1, 0), false)]));
    assert_eq!(net.holds(0), [block(1, 1)]);
    let status = |net: &Net| net.nodes[0].speaker.as_ref().expect("runs").peers().remove(0);
    assert_eq!((status(&net).prefixes_received, status(&net).prefixes_filtered), (1, 1));
    let seen = net.nodes[0].speaker.as_ref().expect("runs").seen(address(1)).expect("a peer");
    assert_eq!(
        seen.iter().map(|route| (route.prefix, route.filtered)).collect::<Vec<_>>(),
        [(block(1, 0), true), (block(1, 1), false)]
    );
    net.change(0, 1, |peer| {
        let operations = vec![FilterOperation::AddCommunity(Community::Standard(9)), FilterOperation::SetPriority(7)];
        peer.filters = import(vec![FilterRule { operations, ..rule(block(1, 0), true) }, rule(block(1, 1), false)]);
    });
    assert_eq!(net.holds(0), [block(1, 0)]);
    let attributes = &net.nodes[0].table[&block(1, 0)].attributes;
    assert_eq!((&*attributes.communities, attributes.local_pref), (&[9][..], Some(PRIORITY_SUM - 7)));
    net.change(0, 1, |peer| peer.filters = Vec::new());
    assert_eq!(net.holds(0), [block(1, 0), block(1, 1)]);
    assert!(net.nodes[0].table[&block(1, 0)].attributes.communities.is_empty());
    assert_eq!((status(&net).since, status(&net).prefixes_filtered), (since, 0));
    assert!(net.bytes_sent - sent < 200, "the peer is asked nothing: {} bytes", net.bytes_sent - sent);
}

#[test]
fn filtered_routes_of_a_restarted_peer_do_not_come_back_from_the_dead() {
    let mut net = pair();
    net.change(0, 1, |peer| peer.filters = import(vec![rule(block(1, 0), false)]));
    net.kill(1);
    net.nodes[1].routes.remove(&block(1, 0));
    net.nodes[1].config.restarting = true;
    net.start(1);
    net.run_for(Duration::from_secs(10));
    assert!(net.all_established());
    net.change(0, 1, |peer| peer.filters = Vec::new());
    assert_eq!(net.holds(0), [block(1, 1)]);
}

#[test]
fn an_export_filter_is_applied_to_what_was_told() {
    let mut net = pair();
    net.change(1, 0, |peer| peer.filters = export(vec![rule(block(1, 0), false)]));
    assert_eq!(net.holds(0), [block(1, 1)]);
    net.change(1, 0, |peer| {
        let operations = vec![FilterOperation::PrependAsPath(vec![AsNumber(1), AsNumber(2)])];
        peer.filters = export(vec![FilterRule { operations, ..rule(block(1, 0), true) }]);
    });
    assert_eq!(net.holds(0), [block(1, 0), block(1, 1)]);
    assert_eq!(net.nodes[0].table[&block(1, 0)].attributes.as_path.to_string(), "1 2 65001");
    assert_eq!(net.nodes[0].table[&block(1, 1)].attributes.as_path.to_string(), "65001");
}

/// What matches is what leads out through the interface now, in as well as out, as interfaces change.
#[test]
fn a_filter_sees_the_interface_of_a_learned_route() {
    let mut net = Net::new(3);
    for node in 0..3 {
        net.add(65000 + node as u32, &[block(node, 0)]);
    }
    net.peer(0, 1);
    net.peer(1, 2);
    net.start_all();
    net.run_for(Duration::from_secs(3));
    let by = |name: &str| vec![FilterRule { prefix: None, interface: Some(name.into()), ..rule(block(0, 0), false) }];
    net.change(1, 0, |peer| peer.filters = import(by("wg*")));
    net.change(1, 2, |peer| peer.filters = export(by("eth*")));
    assert_eq!(net.holds(1), [block(0, 0), block(2, 0)], "no interface is known");
    assert_eq!(net.holds(2), [block(0, 0), block(1, 0)]);
    for (interface, held, passed) in [("wg0", false, false), ("eth0", true, false), ("bond0", true, true)] {
        let around: IpNet = "0.0.0.0/0".parse().expect("a literal");
        let links = [(IpNet::from(address(0)), Arc::from(interface)), (around, Arc::from("other"))];
        net.with(1, |speaker, _| speaker.set_links(links.into()));
        net.run_for(Duration::from_secs(2));
        assert_eq!(net.holds(1).contains(&block(0, 0)), held, "{interface}");
        assert_eq!(net.holds(2).contains(&block(0, 0)), passed, "{interface}");
        assert!(net.holds(2).contains(&block(1, 0)), "what is told from here has no interface");
    }
}

#[test]
fn rules_of_the_speaker_say_what_is_passed_on() {
    let mut net = Net::new(2);
    for node in 0..3 {
        net.add(65000 + node as u32, &[block(node, 0), block(node, 1)]);
    }
    net.peer(0, 1);
    net.peer(1, 2);
    net.start_all();
    let policy = |refused: &[IpNet]| {
        let refused = refused.iter().map(|net| ExportRule::Refuse(*net));
        let told = [ExportRule::Tell(block(0, 0)), ExportRule::Tell(block(1, 0))];
        Arc::new(BgpPolicy {
            export: refused.chain(told).collect(),
            communities: vec![(block(1, 0), vec![Community::Standard(5), Community::Large([1, 2, 3])])],
            ..BgpPolicy::default()
        })
    };
    net.with(1, |speaker, _| speaker.set_policy(policy(&[])));
    net.run_for(Duration::from_secs(5));
    assert_eq!(net.holds(2), [block(0, 0), block(1, 0)]);
    let told = &net.nodes[2].table[&block(1, 0)].attributes;
    assert_eq!((&*told.communities, &*told.large_communities), (&[5][..], &[[1, 2, 3]][..]));
    net.with(1, |speaker, _| speaker.set_policy(policy(&[block(0, 0)])));
    net.run_for(Duration::from_secs(2));
    assert_eq!(net.holds(2), [block(1, 0)]);
    // A filter that accepts wins over what the speaker would not tell.
    net.change(1, 2, |peer| peer.filters = export(vec![rule(block(0, 1), true)]));
    assert_eq!(net.holds(2), [block(0, 1), block(1, 0)]);
}

#[test]
fn nothing_is_told_before_the_rules_are_known() {
    let mut net = pair();
    net.kill(1);
    net.nodes[1].policy = Arc::default();
    net.start(1);
    net.run_for(Duration::from_secs(5));
    assert!(net.all_established() && net.holds(0).is_empty());
    net.with(1, |speaker, _| speaker.set_policy(tell_everything()));
    net.run_for(Duration::from_secs(2));
    assert_eq!(net.holds(0), [block(1, 0), block(1, 1)]);
}

/// A workload's address is announced by its node, and then by the node that it moves to as well.
#[test]
fn a_route_of_a_higher_priority_wins_over_one_that_yields() {
    let mut net = Net::new(9);
    for node in 0..3 {
        net.add(65000, &[block(node, 0)]);
    }
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        net.peer(a, b);
    }
    net.start_all();
    let mut tell = |node: usize, priority: Option<u32>, yields: bool| {
        let own = priority.map(|priority| {
            let local_pref = Some(PRIORITY_SUM - priority);
            (block(9, 0), LocalRoute { local_pref, yields, ..LocalRoute::default() })
        });
        net.with(node, |speaker, now| speaker.set_local_routes(now, own.into_iter().collect()));
        net.run_for(Duration::from_secs(3));
        [0, 1, 2].map(|node| net.next_hops(node).get(&block(9, 0)).copied())
    };
    let [zero, one] = [0, 1].map(|node| Some(address(node)));
    assert_eq!(tell(0, Some(1024), true), [None, zero, zero]);
    assert_eq!(tell(1, Some(1024), true)[..2], [None, None]);
    assert_eq!(tell(1, Some(512), true), [one, None, one]);
    assert_eq!(tell(0, Some(1024), false), [None, None, one], "now it is no workload's");
    assert_eq!(tell(0, Some(1024), true), [one, None, one]);
    assert_eq!(tell(1, None, true), [None, zero, zero]);
}

#[test]
fn next_hops_follow_their_mode_without_a_new_session() {
    let mut net = Net::new(3);
    for (node, asn) in [(0, 65000), (1, 65001), (2, 65001)] {
        net.add(asn, &[block(node, 0)]);
    }
    net.peer(0, 1);
    net.peer(1, 2);
    net.start_all();
    net.run_for(Duration::from_secs(5));
    let hop = |net: &Net, node: usize, of: usize| net.next_hops(node)[&block(of, 0)];
    assert_eq!((hop(&net, 2, 0), hop(&net, 0, 2)), (address(0), address(1)));
    net.change(1, 2, |peer| peer.next_hop = NextHopMode::SelfAddress);
    net.change(1, 0, |peer| peer.next_hop = NextHopMode::Keep);
    assert_eq!((hop(&net, 2, 0), hop(&net, 0, 2)), (address(1), address(2)));
}

#[test]
fn a_peer_that_tells_too_much_is_cut_off_and_kept_out_for_a_while() {
    let mut net = pair();
    net.change(0, 1, |peer| peer.max_prefixes = Some(3));
    assert!(net.all_established());
    is_kept_out_for_a_while(net);
    // The same for one that is known by a range alone.
    let mut net = pair();
    let config = net.nodes[0].peers.remove(&address(1)).expect("configured");
    net.with(0, |speaker, now| {
        let range = "10.0.0.2/31".parse().expect("a literal");
        speaker.set_ranges(now, BTreeMap::from([(range, PeerConfig { max_prefixes: Some(3), ..config })]));
        speaker.set_peers(now, BTreeMap::new());
    });
    net.run_for(Duration::from_secs(10));
    is_kept_out_for_a_while(net);
}

/// Node 1, which may tell three routes, tells four.
fn is_kept_out_for_a_while(mut net: Net) {
    assert_eq!(net.holds(0), [block(1, 0), block(1, 1)]);
    let routes: BTreeMap<IpNet, LocalRoute> = (0..4).map(|at| (block(1, at), LocalRoute::default())).collect();
    net.with(1, |speaker, now| speaker.set_local_routes(now, routes));
    net.run_for(Duration::from_secs(30));
    let peer = net.nodes[0].speaker.as_ref().expect("runs").peers().remove(0);
    assert!(peer.info().contains("Maximum number of prefixes reached"), "{}", peer.info());
    assert!(net.holds(0).is_empty() && peer.state != PeerState::Established);
    assert!(net.now - peer.since > Duration::from_secs(29), "no session since");
    net.with(1, |speaker, now| speaker.set_local_routes(now, BTreeMap::from([(block(1, 0), LocalRoute::default())])));
    net.run_for(Duration::from_secs(60));
    assert_eq!(net.holds(0), [block(1, 0)]);
}

#[test]
fn hosts_of_a_range_come_and_go() {
    let mut net = Net::new(4);
    for node in 0..4 {
        net.add(if node == 0 { 65000 } else { 65001 }, &[block(node, 0)]);
    }
    for node in 1..4 {
        net.nodes[node].peers.insert(address(0), PeerConfig::new(address(0), AsNumber(65000)));
    }
    net.start_all();
    let range = |text: &str| {
        let config = PeerConfig::new(IpAddr::from([10, 0, 0, 0]), AsNumber(65001));
        BTreeMap::from([(text.parse::<IpNet>().expect("a literal"), config)])
    };
    // Nodes 1 to 3 are 10.0.0.2 to 10.0.0.4.
    net.with(0, |speaker, now| speaker.set_ranges(now, range("10.0.0.2/31")));
    net.run_for(Duration::from_secs(15));
    assert_eq!(net.holds(0), [block(1, 0), block(2, 0)]);
    net.with(0, |speaker, now| speaker.set_peers(now, BTreeMap::new()));
    net.run_for(Duration::from_secs(5));
    assert_eq!(net.holds(0), [block(1, 0), block(2, 0)], "configured peers are another matter");
    net.kill(1);
    net.run_for(Duration::from_secs(60));
    assert_eq!(net.holds(0), [block(1, 0), block(2, 0)], "graceful restart is for them too");
    net.run_for(Duration::from_secs(120));
    let known: Vec<IpAddr> = net.nodes[0].speaker.as_ref().expect("runs").peers().iter().map(|p| p.address).collect();
    assert_eq!((net.holds(0), known), (vec![block(2, 0)], vec![address(2)]));
    net.with(0, |speaker, now| speaker.set_ranges(now, BTreeMap::new()));
    assert!(net.holds(0).is_empty());
}

#[test]
fn who_is_barred_is_let_in_by_no_wider_range() {
    let mut net = Net::new(5);
    for node in 0..4 {
        net.add(if node == 0 { 65000 } else { 65001 }, &[block(node, 0)]);
    }
    for node in 1..4 {
        net.nodes[node].peers.insert(address(0), PeerConfig::new(address(0), AsNumber(65000)));
    }
    net.start_all();
    let literal = |text: &str| text.parse::<IpNet>().expect("a literal");
    let config = PeerConfig::new(IpAddr::from([10, 0, 0, 0]), AsNumber(65001));
    // Nodes 1 to 3 are 10.0.0.2 to 10.0.0.4.
    for (barred, narrow, expected) in [
        (vec![], false, vec![1, 2, 3]),
        (vec!["10.0.0.2/32"], false, vec![2, 3]),
        (vec!["10.0.0.2/31", "10.0.0.4/32"], false, vec![]),
        (vec!["10.0.0.2/31"], true, vec![1, 3]),
        (vec!["10.0.0.2/31", "10.0.0.2/32"], true, vec![3]),
        (vec!["10.0.0.0/24"], true, vec![1]),
    ] {
        let mut ranges = BTreeMap::from([(literal("10.0.0.0/24"), config.clone())]);
        ranges.extend(narrow.then(|| (literal("10.0.0.2/32"), config.clone())));
        net.with(0, |speaker, now| {
            speaker.set_barred(barred.iter().map(|net| literal(net)).collect());
            speaker.set_ranges(now, ranges);
        });
        let expected: Vec<IpNet> = expected.into_iter().map(|node| block(node, 0)).collect();
        assert!(net.holds(0).iter().all(|net| expected.contains(net)), "{barred:?}: gone at once");
        net.run_for(Duration::from_secs(15));
        assert_eq!(net.holds(0), expected, "{barred:?}");
    }
}

#[test]
fn another_identity_withdraws_nothing() {
    for seed in 1..30 {
        let mut net = Net::mesh(seed, 4);
        net.start_all();
        net.run_for(Duration::from_secs(5));
        net.nodes.iter_mut().for_each(|node| node.withdrawn.clear());
        net.nodes[0].config.router_id = [192, 0, 2, 99].into();
        let config = net.nodes[0].config.clone();
        net.with(0, |speaker, now| speaker.set_config(now, config));
        net.run_for(Duration::from_secs(10));
        assert!(net.all_established(), "seed {seed}");
        net.check_mesh();
        // The whole mesh goes to another AS, one node after the other.
        let mut dice = Dice(seed + 77);
        for node in 0..4 {
            let Node { config, peers } = {
                let node = &mut net.nodes[node];
                node.config.local_as = AsNumber(65100);
                node.peers.values_mut().for_each(|peer| peer.remote_as = AsNumber(65100));
                Node { config: node.config.clone(), peers: node.peers.clone() }
            };
            net.with(node, |speaker, now| {
                speaker.set_config(now, config);
                speaker.set_peers(now, peers);
            });
            net.run_for(Duration::from_millis(dice.below(800)));
        }
        net.run_for(Duration::from_secs(20));
        assert!(net.all_established(), "seed {seed}");
        net.check_mesh();
        for node in &net.nodes {
            assert!(node.withdrawn.is_empty(), "seed {seed}: {:?}", node.withdrawn);
        }
    }
}

struct Node {
    config: tortie_bgp::SpeakerConfig,
    peers: BTreeMap<IpAddr, PeerConfig>,
}

#[test]
fn long_lived_routes_outlive_the_restart_time_as_the_last_choice() {
    let mut net = Net::new(6);
    for node in 0..3 {
        net.add(65000 + node as u32, &[block(node, 0)]);
    }
    net.peer(0, 1);
    net.peer(0, 2);
    for (a, b) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
        net.nodes[a].peers.get_mut(&address(b)).expect("configured").long_lived_secs = 1000;
    }
    net.start_all();
    net.run_for(Duration::from_secs(5));
    assert!(net.all_established());
    net.kill(1);
    net.run_for(Duration::from_secs(200));
    for node in [0, 2] {
        let kept = &net.nodes[node].table[&block(1, 0)];
        assert!(kept.attributes.has_community(0xffff_0006), "node {node}: {:?}", kept.attributes);
    }
    // Any other path is better.
    net.with(2, |speaker, now| {
        let routes = [block(2, 0), block(1, 0)].map(|prefix| (prefix, LocalRoute::default()));
        speaker.set_local_routes(now, routes.into());
    });
    net.run_for(Duration::from_secs(2));
    assert_eq!(net.next_hops(0)[&block(1, 0)], address(2));
    net.with(2, |speaker, now| speaker.set_local_routes(now, BTreeMap::new()));
    net.run_for(Duration::from_secs(700));
    assert_eq!(net.holds(0), [block(1, 0)]);
    net.run_for(Duration::from_secs(300));
    assert!(net.holds(0).is_empty(), "kept for 1000 s after the restart time");
}

#[test]
fn a_marked_refresh_sweeps_what_is_not_told_again() {
    let mut net = pair();
    net.nodes[0].withdrawn.clear();
    assert_eq!(net.with(0, |speaker, _| speaker.ask_again(address(1))), Some(true));
    net.run_for(Duration::from_secs(2));
    assert_eq!(net.holds(0), [block(1, 0), block(1, 1)]);
    assert!(net.nodes[0].withdrawn.is_empty());
    let seen = net.nodes[0].speaker.as_ref().expect("runs").seen(address(1)).expect("a peer");
    assert!(seen.iter().all(|route| !route.stale), "the end was marked");
    // How often our own AS may be on a path changes by a refresh as well.
    let since = net.nodes[0].speaker.as_ref().expect("runs").peers()[0].since;
    net.change(0, 1, |peer| peer.allowed_local_as = 1);
    assert_eq!(net.nodes[0].speaker.as_ref().expect("runs").peers()[0].since, since);
}
