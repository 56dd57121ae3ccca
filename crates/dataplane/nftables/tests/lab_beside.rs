//! What stands beside policy, on real packets: tunnels and sources of workloads, floating addresses, NAT, service
//! loops, limits and marks.

#[path = "support/pods.rs"]
mod pods;
mod support;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use pods::{Pod, arrives, is_dropped, node};
use support::{lab, run};
use tortie_desired::{
    Action, Batch, Endpoint, EndpointId, FloatingAddress, Limits, NatSettings, PacketRate, Policy, PolicyId,
    PolicyKind, PolicyStage, Pool, Rule, Settings, Tables, TierAction, TierPolicies,
};
use tortie_net::{Family, IpNet, PortRange};
use tortie_nftables::Nftables;

fn any() -> PolicyId {
    PolicyId { name: Arc::from("any"), namespace: Arc::from(""), kind: PolicyKind::GlobalNetworkPolicy }
}

fn endpoint(pod: &Pod) -> Endpoint {
    let default_action = TierAction::Deny;
    let tier = TierPolicies { tier: Arc::from("default"), default_action, ingress: vec![any()], egress: vec![any()] };
    Endpoint {
        interface: Arc::from(pod.interface.as_str()),
        addresses: pod.addresses.clone(),
        tiers: vec![tier],
        ..Endpoint::default()
    }
}

/// A node with a pod that policy leaves open, and a neighbour.
struct Stage {
    pod: Pod,
    outside: Pod,
    tables: Tables,
    nft: Nftables,
}

impl Stage {
    fn new() -> Stage {
        let pod = Pod::new("cali0a", &["10.65.0.1", "fd00::1"]);
        let outside = Pod::new("eth9", &["192.0.2.1", "2001:db8::1"]);
        run("ip", &["address", "add", "192.0.2.254", "dev", "eth9"]);
        let mut tables = Tables::default();
        let rules = vec![Rule::any(Action::Allow)];
        let stage = PolicyStage::Normal;
        let policy = Policy { tier: Arc::from("default"), stage, ingress: rules.clone(), egress: rules };
        tables.policies.insert(any(), Arc::new(policy));
        let mut stage = Stage { pod, outside, tables, nft: Nftables::open().expect("netlink") };
        stage.nft.resync(&stage.tables).expect("the first transaction");
        stage.change(|_, _| {});
        stage
    }

    /// Commits changes of the settings and of the pod's endpoint; what is there then reads back as written.
    fn change(&mut self, change: impl FnOnce(&mut Settings, &mut Endpoint)) {
        let id = EndpointId { namespace: Arc::from("ns"), name: Arc::from("pod") };
        let (mut settings, mut endpoint) = (Settings::default(), endpoint(&self.pod));
        change(&mut settings, &mut endpoint);
        let endpoints = Batch { endpoints: [(id, Some(Arc::new(endpoint)))].into(), ..Batch::default() };
        for batch in [endpoints, Batch { settings: Some(settings), ..Batch::default() }] {
            self.commit(&batch);
        }
    }

    fn commit(&mut self, batch: &Batch) {
        self.tables.apply(batch);
        self.nft.commit(&self.tables, batch).expect("the batch");
        let report = self.nft.resync(&self.tables).expect("reading back");
        assert!(report.repaired.is_empty() && report.foreign.is_empty() && !report.replaced, "{report:?}");
    }

    /// What the neighbour sees as the source of a packet from the pod.
    fn source_seen(&self) -> SocketAddr {
        let server = self.outside.socket(self.outside.ipv4(), 80);
        let client = self.pod.socket(self.pod.ipv4(), 0);
        client.send_to(b"probe", server.local_addr().expect("bound")).expect("sent");
        server.recv_from(&mut [0; 16]).expect("it arrives").1
    }
}

#[test]
#[ignore = "needs root"]
fn pods_make_no_tunnels_of_their_own_unless_allowed() {
    let _alone = node();
    let mut stage = Stage::new();
    for (allowed, port) in [(false, 4789), (true, 4789), (false, 4790)] {
        stage.change(|settings, _| settings.vxlan_from_workloads = allowed);
        for address in [Pod::ipv4 as fn(&Pod) -> IpAddr, Pod::ipv6] {
            let far = stage.outside.socket(address(&stage.outside), port);
            let passes = allowed || port != 4789;
            assert_eq!(!is_dropped(&stage.pod.socket(address(&stage.pod), 0), &far), passes, "{allowed} {port}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn more_sources_pass_where_they_are_allowed_and_no_others() {
    let _alone = node();
    let mut stage = Stage::new();
    let extra: [IpAddr; 2] = ["10.66.0.7".parse().expect("literal"), "fd01::7".parse().expect("literal")];
    let foreign: [IpAddr; 2] = ["10.67.0.7".parse().expect("literal"), "fd02::7".parse().expect("literal")];
    for addr in extra.into_iter().chain(foreign) {
        stage.pod.inside(move || drop(run("ip", &["address", "add", &addr.to_string(), "dev", "eth0"])));
    }
    // The kernel's own check is off, as it knows routes only.
    run("sysctl", &["-qw", "net.ipv4.conf.cali0a.rp_filter=0", "net.ipv4.conf.all.rp_filter=0"]);
    for allowed in [false, true, false] {
        let nets = ["10.66.0.0/16", "fd01::/64"].map(|net| net.parse::<IpNet>().expect("literal"));
        stage.change(|_, endpoint| endpoint.allowed_sources.extend(nets.into_iter().filter(|_| allowed)));
        for family in [0, 1] {
            let far = stage.outside.socket(stage.outside.addresses[family], 80);
            let own = stage.pod.socket(stage.pod.addresses[family], 0);
            assert!(arrives(&own, &far) && arrives(&far, &own) && arrives(&own, &far), "its own address");
            assert_eq!(!is_dropped(&stage.pod.socket(extra[family], 0), &far), allowed, "an allowed one");
            assert!(is_dropped(&stage.pod.socket(foreign[family], 0), &far), "another one");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_floating_address_leads_to_the_pod_from_outside_and_from_itself() {
    let _alone = node();
    let mut stage = Stage::new();
    let external: IpAddr = "198.51.100.7".parse().expect("literal");
    let internal = stage.pod.ipv4();
    let reaches = |from: &Pod, stage: &Stage| {
        let server = stage.pod.socket(internal, 80);
        server.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        let client = from.socket(from.ipv4(), 0);
        let _ = client.send_to(b"probe", (external, 80));
        server.recv_from(&mut [0; 16]).ok().map(|(_, from)| from.ip())
    };
    for there in [false, true, false] {
        let floating = FloatingAddress { external, internal };
        stage.change(|_, endpoint| endpoint.floating.extend(there.then_some(floating)));
        assert_eq!(reaches(&stage.outside, &stage), there.then(|| stage.outside.ipv4()));
        assert_eq!(reaches(&stage.pod, &stage), there.then_some(external), "its own floating address");
    }
}

#[test]
#[ignore = "needs root"]
fn outgoing_nat_takes_the_address_and_ports_that_are_set() {
    let _alone = node();
    let mut stage = Stage::new();
    let pool = ("10.65.0.0/16".parse().expect("literal"), Some(Pool { nat_outgoing: true }));
    stage.commit(&Batch { pools: [pool].into(), ..Batch::default() });
    assert_eq!(stage.source_seen().ip(), "192.0.2.254".parse::<IpAddr>().expect("literal"));
    let (ports, address) = (PortRange::new(1200, 1203).expect("ascending"), "203.0.113.9".parse().expect("literal"));
    for address in [None, Some(address)] {
        stage.change(|settings, _| {
            settings.nat = NatSettings { ports: Some(ports), address, exclude_hosts: false };
        });
        let seen = stage.source_seen();
        let expected = address.map_or_else(|| "192.0.2.254".parse().expect("literal"), IpAddr::V4);
        assert_eq!(seen.ip(), expected);
        assert!(ports.contains(seen.port()), "{seen}");
    }
}

#[test]
#[ignore = "needs root"]
fn packets_of_a_service_that_nobody_translated_are_not_forwarded() {
    let _alone = node();
    let mut stage = Stage::new();
    let service = Pod::new("eth8", &["10.96.0.1", "fd96::1"]);
    for blocked in [false, true] {
        let nets = ["10.96.0.0/12", "fd96::/64"].map(|net| net.parse::<IpNet>().expect("literal"));
        stage.change(|settings, _| settings.service_loops.extend(nets.into_iter().filter(|_| blocked)));
        for address in [Pod::ipv4 as fn(&Pod) -> IpAddr, Pod::ipv6] {
            let far = service.socket(address(&service), 80);
            for from in [&stage.outside, &stage.pod] {
                assert_eq!(is_dropped(&from.socket(address(from), 0), &far), blocked, "from {}", from.interface);
            }
        }
    }
}

#[test]
#[ignore = "needs root"]
fn packets_over_the_rate_are_dropped_in_each_direction() {
    let _alone = node();
    let mut stage = Stage::new();
    let through = |stage: &Stage, inward: bool| {
        let (from, to) = if inward { (&stage.outside, &stage.pod) } else { (&stage.pod, &stage.outside) };
        let (client, server) = (from.socket(from.ipv4(), 0), to.socket(to.ipv4(), 80));
        server.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        let target = server.local_addr().expect("bound");
        (0..100).for_each(|_| drop(client.send_to(b"probe", target)));
        std::iter::from_fn(|| server.recv_from(&mut [0; 16]).ok()).count()
    };
    let rate = Some(PacketRate { per_second: 1, burst: 10 });
    for (ingress_packets, egress_packets) in [(None, None), (rate, None), (None, rate)] {
        stage.change(|_, endpoint| {
            endpoint.limits = Limits { ingress_packets, egress_packets, ..Limits::default() };
        });
        for (inward, limit) in [(true, ingress_packets), (false, egress_packets)] {
            let arrived = through(&stage, inward);
            match limit {
                None => assert_eq!(arrived, 100),
                // The machine may be slow enough for a few more, never for half of them.
                Some(_) => assert!((10..50).contains(&arrived), "{arrived} of 100"),
            }
        }
    }
}

#[test]
#[ignore = "needs root"]
fn connections_over_the_limit_are_refused() {
    let _alone = node();
    let mut stage = Stage::new();
    stage.change(|_, endpoint| endpoint.limits = Limits { ingress_connections: Some(2), ..Limits::default() });
    let at = SocketAddr::new(stage.pod.ipv4(), 80);
    let listener = stage.pod.inside(move || TcpListener::bind(at).expect("a listener"));
    let connect = || stage.outside.inside(move || TcpStream::connect_timeout(&at, Duration::from_secs(5)));
    let first = connect().expect("the first");
    let _second = connect().expect("the second");
    assert_eq!(connect().expect_err("one too many").kind(), ErrorKind::ConnectionRefused);
    let answer = |stream: &TcpStream| stream.peer_addr().is_ok();
    assert!(answer(&first), "those that are there stay");
    drop(listener);
}

#[test]
#[ignore = "needs root"]
fn what_leaves_the_cluster_is_marked() {
    let _alone = node();
    let mut stage = Stage::new();
    let inner = Pod::new("cali0b", &["10.65.0.2", "fd00::2"]);
    let id = EndpointId { namespace: Arc::from("ns"), name: Arc::from("inner") };
    let pools =
        ["10.65.0.0/16", "fd00::/64"].map(|net| (net.parse().expect("literal"), Some(Pool { nat_outgoing: false })));
    stage.commit(&Batch {
        endpoints: [(id, Some(Arc::new(endpoint(&inner))))].into(),
        pools: pools.into(),
        ..Batch::default()
    });
    stage.change(|_, endpoint| endpoint.limits = Limits { dscp: Some(46), ..Limits::default() });
    let count = "add table inet seen; add chain inet seen in { type filter hook input priority 0; }; \
                 add rule inet seen in ip dscp ef udp dport 80 counter; add rule inet seen in ip6 dscp ef udp dport 80 counter";
    for (to, marked) in [(&stage.outside, true), (&inner, false)] {
        to.inside(move || drop(run("nft", &[count])));
        for address in [Pod::ipv4 as fn(&Pod) -> IpAddr, Pod::ipv6] {
            assert!(arrives(&stage.pod.socket(address(&stage.pod), 0), &to.socket(address(to), 80)));
        }
        let seen = to.inside(|| run("nft", &["list", "table", "inet", "seen"]));
        let packets = if marked { "packets 1" } else { "packets 0" };
        assert_eq!(seen.matches(packets).count(), 2, "{seen}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_table_of_iptables_goes_only_when_nothing_is_in_it() {
    let _alone = lab();
    let remove = |family| tortie_nftables::remove_empty(family, "raw").expect("the kernel answers");
    let there = || run("nft", &["list", "tables"]);
    assert!(!remove(Family::V4), "there is none");
    run("iptables-nft", &["-t", "raw", "-A", "OUTPUT", "-d", "10.9.9.9", "-j", "ACCEPT"]);
    run("ip6tables-nft", &["-t", "raw", "-N", "mine"]);
    assert!(!remove(Family::V4), "it has a rule");
    assert!(!remove(Family::V6), "it has a chain of a user");
    run("iptables-nft", &["-t", "raw", "-F"]);
    assert!(remove(Family::V4));
    assert_eq!(there(), "table ip6 raw\n");
    run("ip6tables-nft", &["-t", "raw", "-X", "mine"]);
    assert!(remove(Family::V6));
    assert_eq!(there(), "");
    run("iptables-nft", &["-t", "raw", "-A", "OUTPUT", "-d", "10.9.9.9", "-j", "ACCEPT"]);
    assert!(!remove(Family::V4), "iptables makes it again");
}

#[test]
#[ignore = "needs root"]
fn upstreams_tables_go_and_no_others() {
    let _alone = lab();
    assert!(!tortie_nftables::holds_policy().expect("it is read"));
    for table in ["ip calico", "ip6 calico", "inet calico", "ip other"] {
        run("nft", &[&format!("add table {table} {{ chain c {{ type filter hook forward priority 0; }}; }}")]);
    }
    assert!(tortie_nftables::holds_policy().expect("it is read"));
    assert_eq!(tortie_nftables::remove_upstream().expect("removal"), 2);
    assert_eq!(run("nft", &["list", "tables"]), "table inet calico\ntable ip other\n");
    assert_eq!(tortie_nftables::remove_upstream().expect("nothing is left"), 0);
    assert!(!tortie_nftables::holds_policy().expect("it is read"));
}
