//! Real packets between namespaces: who reaches whom under which rules.

#[path = "support/pods.rs"]
mod pods;
mod support;

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pods::{Pod, arrives, bind, is_dropped, node};
use support::run;
use tortie_desired::{
    Action, Batch, Endpoint, EndpointId, HostAction, Match, Member, Policy, PolicyId, PolicyKind, PolicyStage, Pool,
    Rule, SetChange, SetId, SetKind, Settings, Tables, TierAction, TierPolicies,
};
use tortie_net::{IpNet, PortRange, Protocol};
use tortie_nftables::{Nftables, Options};

const OPEN: u16 = 8080;

fn policy_id(name: &str) -> PolicyId {
    PolicyId { name: Arc::from(name), namespace: Arc::from("ns"), kind: PolicyKind::NetworkPolicy }
}

fn endpoint_id(name: &str) -> EndpointId {
    EndpointId { namespace: Arc::from("ns"), name: Arc::from(name) }
}

fn endpoint(pod: &Pod, ingress: &[&str], egress: &[&str]) -> Arc<Endpoint> {
    let ids = |names: &[&str]| names.iter().map(|n| policy_id(n)).collect();
    let default_action = TierAction::Deny;
    let tier = TierPolicies { tier: Arc::from("default"), default_action, ingress: ids(ingress), egress: ids(egress) };
    Arc::new(Endpoint {
        interface: Arc::from(pod.interface.as_str()),
        addresses: pod.addresses.clone(),
        mac: None,
        tiers: vec![tier],
        profiles: vec![],
        ..Endpoint::default()
    })
}

fn policy(ingress: Vec<Rule>, egress: Vec<Rule>) -> Arc<Policy> {
    Arc::new(Policy { tier: Arc::from("default"), stage: PolicyStage::Normal, ingress, egress })
}

/// A and B with policies: `web` lets the set `s:clients` in to the open port, `out` lets everything out.
fn tables(a: &Pod, b: &Pod) -> Tables {
    let mut tables = Tables::default();
    let clients = a.addresses.iter().map(|addr| Member::Net(IpNet::from(*addr))).collect();
    tables.sets.insert(SetId::new("s:clients"), (SetKind::Addresses, clients));
    let web = Rule {
        protocol: Some(Protocol::UDP),
        source: Match { sets: vec![SetId::new("s:clients")], ..Match::default() },
        destination: Match { ports: vec![PortRange::single(OPEN)], ..Match::default() },
        ..Rule::any(Action::Allow)
    };
    tables.policies.insert(policy_id("web"), policy(vec![web], vec![]));
    tables.policies.insert(policy_id("out"), policy(vec![], vec![Rule::any(Action::Allow)]));
    tables.endpoints.insert(endpoint_id("a"), endpoint(a, &["web"], &["out"]));
    tables.endpoints.insert(endpoint_id("b"), endpoint(b, &["web"], &["out"]));
    tables
}

fn commit(nft: &mut Nftables, tables: &mut Tables, batch: Batch) {
    tables.apply(&batch);
    nft.commit(tables, &batch).expect("the batch");
}

#[test]
#[ignore = "needs root"]
fn packets_pass_where_both_ends_allow_and_nowhere_else() {
    let _alone = node();
    let a = Pod::new("cali0a", &["10.65.0.1", "fd00::1"]);
    let b = Pod::new("cali0b", &["10.65.0.2", "fd00::2"]);
    let unknown = Pod::new("cali0c", &["10.65.0.3", "fd00::3"]);
    let outside = Pod::new("eth9", &["192.0.2.1", "2001:db8::1"]);
    let mut tables = tables(&a, &b);
    let mut nft = Nftables::open().expect("netlink");
    nft.resync(&tables).expect("the first transaction");

    for address in [Pod::ipv4, Pod::ipv6] {
        let client = || a.socket(address(&a), 0);
        let server = b.socket(address(&b), OPEN);
        assert!(arrives(&client(), &server), "both ends allow");
        assert!(is_dropped(&client(), &b.socket(address(&b), 1)), "another port");
        assert!(is_dropped(&b.socket(address(&b), 0), &a.socket(address(&a), OPEN)), "not in the set");
        assert!(is_dropped(&outside.socket(address(&outside), 0), &server), "from outside, not in the set");
        assert!(arrives(&client(), &outside.socket(address(&outside), 1)), "out of the node");
        assert!(is_dropped(&unknown.socket(address(&unknown), 0), &server), "from an unknown interface");
        assert!(is_dropped(&client(), &unknown.socket(address(&unknown), OPEN)), "to an unknown interface");
    }

    // The set loses its member: new flows end, the flow that is established goes on.
    let (client, server) = (a.socket(a.ipv4(), 0), b.socket(b.ipv4(), OPEN));
    assert!(arrives(&client, &server));
    assert!(arrives(&server, &client), "an answer");
    let member = Member::Net(IpNet::from(a.ipv4()));
    let change = SetChange::Delta { added: Default::default(), removed: [member].into() };
    commit(&mut nft, &mut tables, Batch { sets: [(SetId::new("s:clients"), change)].into(), ..Batch::default() });
    assert!(arrives(&client, &server), "an established flow");
    assert!(is_dropped(&a.socket(a.ipv4(), 0), &server), "a new flow");

    // The endpoint's own policy goes: its egress is closed, whatever the other end allows.
    let batch = Batch { endpoints: [(endpoint_id("a"), Some(endpoint(&a, &[], &[])))].into(), ..Batch::default() };
    commit(&mut nft, &mut tables, batch);
    assert!(is_dropped(&a.socket(a.ipv4(), 0), &outside.socket(outside.ipv4(), 1)), "no policy, no profile");
}

#[test]
#[ignore = "needs root"]
fn sources_are_the_pods_own_and_the_host_is_guarded() {
    let _alone = node();
    let a = Pod::new("cali0a", &["10.65.0.1", "fd00::1"]);
    let b = Pod::new("cali0b", &["10.65.0.2", "fd00::2"]);
    run("ip", &["address", "add", "198.51.100.1", "dev", "lo"]);
    run("ip", &["address", "add", "2001:db8:1::1", "dev", "lo"]);
    a.inside(|| {
        run("ip", &["address", "add", "10.65.0.99", "dev", "eth0"]);
        run("ip", &["address", "add", "fd00::99", "dev", "eth0", "nodad"]);
    });
    let mut tables = tables(&a, &b);
    let any_source = Rule { source: Match::default(), ..Rule::any(Action::Allow) };
    tables.policies.insert(policy_id("web"), policy(vec![any_source], vec![]));
    let mut nft = Nftables::open().expect("netlink");
    nft.resync(&tables).expect("the first transaction");

    for (address, spoofed, host) in
        [(Pod::ipv4 as fn(&Pod) -> IpAddr, "10.65.0.99", "198.51.100.1"), (Pod::ipv6, "fd00::99", "2001:db8:1::1")]
    {
        let (spoofed, host): (IpAddr, IpAddr) = (spoofed.parse().expect("literal"), host.parse().expect("literal"));
        let server = b.socket(address(&b), OPEN);
        assert!(arrives(&a.socket(address(&a), 0), &server));
        assert!(is_dropped(&a.socket(spoofed, 0), &server), "a foreign source");

        let on_host: UdpSocket = bind(host, 0);
        assert!(is_dropped(&a.socket(address(&a), 0), &on_host), "to the host, dropped unless told otherwise");
        assert!(arrives(&bind(host, 0), &server), "from the host, not policed");
        for (endpoint_to_host, passes) in [(HostAction::Accept, true), (HostAction::Drop, false)] {
            let settings = Some(Settings { endpoint_to_host, ..Settings::default() });
            commit(&mut nft, &mut tables, Batch { settings, ..Batch::default() });
            let probe = if passes { arrives } else { is_dropped };
            assert!(probe(&a.socket(address(&a), 0), &on_host), "{endpoint_to_host:?}");
        }
    }

    // Nor can a pod send into a flow that another pod established.
    let outside = Pod::new("eth9", &["192.0.2.1", "2001:db8::1"]);
    for address in [Pod::ipv4 as fn(&Pod) -> IpAddr, Pod::ipv6] {
        let (server, client) = (outside.socket(address(&outside), OPEN), b.socket(address(&b), 4000));
        assert!(arrives(&client, &server) && arrives(&server, &client) && arrives(&client, &server));
        let stolen = address(&b);
        a.inside(move || drop(run("ip", &["address", "add", &stolen.to_string(), "dev", "eth0", "nodad"])));
        let thief = a.socket(stolen, 4000);
        assert!(is_dropped(&thief, &server), "{stolen} stolen");
        assert!(arrives(&client, &server), "the flow itself goes on");
        drop(thief);
        a.inside(move || drop(run("ip", &["address", "del", &stolen.to_string(), "dev", "eth0"])));
    }

    let settings = Some(Settings { ipv6: false, ..Settings::default() });
    commit(&mut nft, &mut tables, Batch { settings, ..Batch::default() });
    assert!(arrives(&a.socket(a.ipv4(), 0), &b.socket(b.ipv4(), OPEN)));
    assert!(is_dropped(&a.socket(a.ipv6(), 0), &b.socket(b.ipv6(), OPEN)), "IPv6 is not managed");
}

#[test]
#[ignore = "needs root"]
fn what_leaves_a_pool_with_outgoing_nat_takes_the_nodes_address() {
    let _alone = node();
    let a = Pod::new("cali0a", &["10.65.0.1", "fd00::1"]);
    let b = Pod::new("cali0b", &["10.65.0.2", "fd00::2"]);
    let outside = Pod::new("eth9", &["192.0.2.1", "2001:db8::1"]);
    run("ip", &["address", "add", "192.0.2.254", "dev", "eth9"]);
    run("ip", &["address", "add", "2001:db8::fe", "dev", "eth9", "nodad"]);
    let mut tables = tables(&a, &b);
    let mut nft = Nftables::open().expect("netlink");
    nft.resync(&tables).expect("the first transaction");
    let source_seen = |from: &UdpSocket, to: &UdpSocket| {
        from.send_to(b"probe", to.local_addr().expect("bound")).expect("sent");
        to.recv_from(&mut [0; 16]).expect("it arrives").1.ip()
    };
    for nat_outgoing in [false, true, false] {
        let pools = ["10.65.0.0/16", "fd00::/64"].map(|p| (p.parse().expect("literal"), Some(Pool { nat_outgoing })));
        commit(&mut nft, &mut tables, Batch { pools: pools.into(), ..Batch::default() });
        for (address, of_node) in [(Pod::ipv4 as fn(&Pod) -> IpAddr, "192.0.2.254"), (Pod::ipv6, "2001:db8::fe")] {
            let (inner, outer) = (b.socket(address(&b), OPEN), outside.socket(address(&outside), OPEN));
            let expected = if nat_outgoing { of_node.parse().expect("literal") } else { address(&a) };
            assert_eq!(source_seen(&a.socket(address(&a), 0), &outer), expected, "out of every pool");
            assert_eq!(source_seen(&a.socket(address(&a), 0), &inner), address(&a), "within the pools");
        }
    }
    assert!(!run("nft", &["list", "ruleset"]).contains("nat-POSTROUTING"), "nothing is left to translate");
}

/// How many packets a second a storm is.
const RATE: u32 = 2000;

/// How many packets follow each other without a pause: far fewer than a queue of the kernel holds.
const BURST: u64 = 32;

/// Sends packets at the rate until told to stop; returns how many.
fn storm(from: UdpSocket, to: std::net::SocketAddr, stop: &AtomicBool) -> u64 {
    let (started, mut sent, mut due) = (Instant::now(), 0, 0);
    while !stop.load(Ordering::Relaxed) {
        // A thread that did not run for a while catches up.
        let until = (started.elapsed().as_secs_f64() * f64::from(RATE)) as u64;
        for _ in 0..(until - due).min(BURST) {
            sent += u64::from(from.send_to(b"storm", to).is_ok());
            due += 1;
        }
        std::thread::sleep(Duration::from_micros(400));
    }
    sent
}

/// Counts until told that the senders have ended, and then what is still on its way.
fn count(socket: &UdpSocket, received: &AtomicU64, ended: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(150))).expect("a timeout");
    let mut buffer = [0; 16];
    loop {
        let last = ended.load(Ordering::Acquire);
        match socket.recv_from(&mut buffer) {
            Ok(_) => _ = received.fetch_add(1, Ordering::Relaxed),
            Err(_) if last => return,
            Err(_) => {}
        }
    }
}

/// Tells the threads of a test to stop, also when it fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
#[ignore = "needs root"]
fn flushes_restarts_and_changes_let_nothing_forbidden_through_and_lose_nothing_allowed() {
    let _alone = node();
    let a = Pod::new("cali0a", &["10.65.0.1", "fd00::1"]);
    let b = Pod::new("cali0b", &["10.65.0.2", "fd00::2"]);
    let mut tables = tables(&a, &b);
    let mut nft = Nftables::open().expect("netlink");
    assert!(nft.resync(&tables).expect("the first transaction").owned, "this test needs Linux 6.9");

    let (stop, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let (forbidden, allowed) = (AtomicU64::new(0), AtomicU64::new(0));
    let (closed, open) = (b.socket(b.ipv4(), 9), b.socket(b.ipv4(), OPEN));
    let (bad, good) = (a.socket(a.ipv4(), 0), a.socket(a.ipv4(), 0));
    let (closed_at, open_at) = (closed.local_addr().expect("bound"), open.local_addr().expect("bound"));
    assert!(arrives(&good, &open));
    let started = Instant::now();
    let mut took = Duration::ZERO;
    let (bad_sent, good_sent) = std::thread::scope(|scope| {
        scope.spawn(|| count(&closed, &forbidden, &ended));
        scope.spawn(|| count(&open, &allowed, &ended));
        let bad = scope.spawn(|| storm(bad, closed_at, &stop));
        let good = scope.spawn(|| storm(good, open_at, &stop));
        let (stops, ends) = (Stops(&stop), Stops(&ended));
        for round in 0..40 {
            run("nft", &["flush", "ruleset"]);
            match round % 4 {
                0 => {
                    // The process dies; its rules stay while nobody is there.
                    drop(std::mem::replace(&mut nft, Nftables::open().expect("netlink")));
                    std::thread::sleep(Duration::from_millis(10));
                    let report = nft.resync(&tables).expect("taking over");
                    assert!(report.repaired.is_empty() && !report.replaced, "{report:?}");
                }
                1 => {
                    let web = tables.policies[&policy_id("web")].clone();
                    let more = [
                        vec![Rule { protocol: Some(Protocol(100 + round)), ..Rule::any(Action::Deny) }],
                        web.ingress.clone(),
                    ];
                    let new = policy(more.concat(), vec![]);
                    let batch = Batch { policies: [(policy_id("web"), Some(new))].into(), ..Batch::default() };
                    commit(&mut nft, &mut tables, batch);
                }
                2 => {
                    let settings = Some(Settings { accept_invalid: round % 8 == 2, ..Settings::default() });
                    commit(&mut nft, &mut tables, Batch { settings, ..Batch::default() });
                }
                _ => {
                    let new = endpoint(&b, if round % 8 == 3 { &["web", "out"] } else { &["web"] }, &["out"]);
                    let batch = Batch { endpoints: [(endpoint_id("b"), Some(new))].into(), ..Batch::default() };
                    commit(&mut nft, &mut tables, batch);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(100));
        drop(stops);
        let sent = (bad.join().expect("storm"), good.join().expect("storm"));
        took = started.elapsed();
        drop(ends);
        sent
    });
    let rate = bad_sent as f64 / took.as_secs_f64();
    let (forbidden, allowed) = (forbidden.into_inner(), allowed.into_inner());
    println!(
        "{bad_sent} forbidden packets at {rate:.0}/s: {forbidden} arrived; {allowed} of {good_sent} allowed arrived"
    );
    assert_eq!(forbidden, 0);
    assert!(rate >= 1000.0, "{rate}");
    assert_eq!(allowed, good_sent, "every allowed packet arrived");
}

#[test]
#[ignore = "needs root"]
fn where_a_table_cannot_be_owned_a_flush_is_noticed_named_and_repaired() {
    let _alone = node();
    let a = Pod::new("cali0a", &["10.65.0.1", "fd00::1"]);
    let b = Pod::new("cali0b", &["10.65.0.2", "fd00::2"]);
    let tables = tables(&a, &b);
    let mut nft = Nftables::open_with(Options { own: false, ..Options::default() }).expect("netlink");
    nft.resync(&tables).expect("the first transaction");
    assert_eq!(nft.drain_events(), [], "its own changes are not foreign");
    run("nft", &["add", "table", "inet", "other"]);
    assert_eq!(nft.drain_events(), [], "other tables don't matter");
    let started = Instant::now();
    run("nft", &["flush", "ruleset"]);
    let events = nft.drain_events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].table_removed && events[0].process_name.as_deref() == Some("nft"), "{events:?}");
    nft.resync(&tables).expect("repair");
    println!("flushed, noticed and repaired in {:?}", started.elapsed());
    assert!(is_dropped(&a.socket(a.ipv4(), 0), &b.socket(b.ipv4(), 1)));
    run("nft", &["insert rule inet tortie cali-pi-np/ns/web accept"]);
    run("nft", &["delete element inet tortie cali-to-wl-dispatch { \"cali0a\" }"]);
    run("nft", &["add chain inet tortie extra { type filter hook forward priority -5; }"]);
    assert_eq!(nft.drain_events().len(), 3);
    let report = nft.resync(&tables).expect("repair");
    assert_eq!(report.foreign, [Arc::from("extra")]);
    assert_eq!(report.repaired, [Arc::from("cali-pi-np/ns/web"), Arc::from("cali-to-wl-dispatch")]);
    assert_eq!(nft.resync(&tables).expect("a second pass").written, Default::default());
    // A base chain in the wrong place can't be edited: all is replaced at once.
    run("nft", &["flush chain inet tortie filter-FORWARD-to-wl"]);
    run("nft", &["delete chain inet tortie filter-FORWARD-to-wl"]);
    run("nft", &["add chain inet tortie filter-FORWARD-to-wl { type filter hook forward priority 7; }"]);
    assert!(nft.resync(&tables).expect("repair").replaced);
    assert_eq!(nft.resync(&tables).expect("a second pass").written, Default::default());
}
