//! Real packets to, from and through a node whose own interfaces have policy.

#[path = "support/pods.rs"]
mod pods;
mod support;

use std::net::IpAddr;
use std::sync::Arc;

use pods::{Pod, arrives, bind, is_dropped, node};
use support::run;
use tortie_desired::{
    Action, Batch, Endpoint, EndpointId, Failsafe, HostEndpoint, HostInterface, Match, Policy, PolicyId, PolicyKind,
    PolicyStage, Rule, Settings, Tables, TierAction, TierPolicies,
};
use tortie_net::{PortRange, Protocol};
use tortie_nftables::Nftables;

const OPEN: u16 = 8080;
const CLOSED: u16 = 8081;
const FAILSAFE: u16 = 7000;
const HOST: [&str; 2] = ["192.0.2.254", "2001:db8::fe"];

fn id(name: &str) -> PolicyId {
    PolicyId { name: Arc::from(name), namespace: Arc::from(""), kind: PolicyKind::GlobalNetworkPolicy }
}

/// A rule for a destination or source port.
fn port(action: Action, port: u16, of_destination: bool) -> Rule {
    let ports = Match { ports: vec![PortRange::single(port)], ..Match::default() };
    let (source, destination) = if of_destination { (Match::default(), ports) } else { (ports, Match::default()) };
    Rule { protocol: Some(Protocol::UDP), source, destination, ..Rule::any(action) }
}

fn policy(tables: &mut Tables, name: &str, stage: PolicyStage, ingress: Vec<Rule>, egress: Vec<Rule>) {
    let tier = Arc::from("default");
    tables.policies.insert(id(name), Arc::new(Policy { tier, stage, ingress, egress }));
}

fn tier(ingress: &[&str], egress: &[&str]) -> Vec<TierPolicies> {
    let ids = |names: &[&str]| names.iter().map(|name| id(name)).collect();
    let default_action = TierAction::Deny;
    vec![TierPolicies { tier: Arc::from("default"), default_action, ingress: ids(ingress), egress: ids(egress) }]
}

fn named(name: &str) -> HostInterface {
    HostInterface::Named(Arc::from(name))
}

/// A node with a neighbour on `eth9`, a pod that anybody may talk to, and failsafe ports for the tests.
struct Stage {
    outside: Pod,
    pod: Pod,
    tables: Tables,
    nft: Nftables,
}

impl Stage {
    fn new() -> Stage {
        let outside = Pod::new("eth9", &["192.0.2.1", "2001:db8::1"]);
        let pod = Pod::new("cali0a", &["10.65.0.1", "fd00::1"]);
        run("ip", &["address", "add", HOST[0], "dev", "eth9"]);
        run("ip", &["address", "add", HOST[1], "dev", "eth9", "nodad"]);
        let mut tables = Tables::default();
        let failsafe = |port| vec![Failsafe { protocol: Protocol::UDP, port, net: None }];
        tables.settings = Settings {
            failsafe_inbound: failsafe(FAILSAFE),
            failsafe_outbound: failsafe(FAILSAFE),
            ..Settings::default()
        };
        let any = vec![Rule::any(Action::Allow)];
        policy(&mut tables, "any", PolicyStage::Normal, any.clone(), any);
        let endpoint = Endpoint {
            interface: Arc::from("cali0a"),
            addresses: pod.addresses.clone(),
            tiers: tier(&["any"], &["any"]),
            ..Endpoint::default()
        };
        let workload = EndpointId { namespace: Arc::from("ns"), name: Arc::from("pod") };
        tables.endpoints.insert(workload, Arc::new(endpoint));
        let mut nft = Nftables::open().expect("netlink");
        nft.resync(&tables).expect("the first transaction");
        Stage { outside, pod, tables, nft }
    }

    /// Puts a host endpoint there, or takes it away, as a batch; what is there then reads back as written.
    fn set(&mut self, interface: HostInterface, endpoint: Option<HostEndpoint>) {
        let policies = self.tables.policies.iter().map(|(id, policy)| (id.clone(), Some(policy.clone()))).collect();
        let host_endpoints = [(interface, endpoint.map(Arc::new))].into();
        let batch = Batch { policies, host_endpoints, ..Batch::default() };
        self.tables.apply(&batch);
        self.nft.commit(&self.tables, &batch).expect("the batch");
        let report = self.nft.resync(&self.tables).expect("reading back");
        assert!(report.repaired.is_empty() && report.foreign.is_empty() && !report.replaced, "{report:?}");
    }

    /// Whether a packet gets from the neighbour to the node itself.
    fn comes_in(&self, family: usize, to: u16) -> bool {
        let host: IpAddr = HOST[family].parse().expect("literal");
        let (client, server) = (self.outside.socket(self.outside.addresses[family], 0), bind(host, to));
        !is_dropped(&client, &server)
    }

    /// Whether a packet gets from the node itself to the neighbour.
    fn goes_out(&self, family: usize, to: u16) -> bool {
        let host: IpAddr = HOST[family].parse().expect("literal");
        let (client, server) = (bind(host, 0), self.outside.socket(self.outside.addresses[family], to));
        !is_dropped(&client, &server)
    }

    /// Whether a packet gets from the neighbour to the pod, and from the pod to the neighbour.
    fn forwarded(&self, family: usize, to: u16) -> [bool; 2] {
        let (near, far) = (self.pod.addresses[family], self.outside.addresses[family]);
        let inward = !is_dropped(&self.outside.socket(far, 0), &self.pod.socket(near, to));
        [inward, !is_dropped(&self.pod.socket(near, 0), &self.outside.socket(far, to))]
    }
}

#[test]
#[ignore = "needs root"]
fn a_host_endpoint_closes_the_node_but_for_policy_and_failsafe_ports() {
    let _alone = node();
    let mut stage = Stage::new();
    for family in [0, 1] {
        assert!(stage.comes_in(family, CLOSED) && stage.goes_out(family, CLOSED), "without a host endpoint");
    }
    stage.set(named("eth9"), Some(HostEndpoint { name: Arc::from("hep"), ..HostEndpoint::default() }));
    for family in [0, 1] {
        for (port, passes) in [(CLOSED, false), (OPEN, false), (FAILSAFE, true)] {
            assert_eq!(stage.comes_in(family, port), passes, "{family} in to {port}, no policy");
            assert_eq!(stage.goes_out(family, port), passes, "{family} out to {port}, no policy");
        }
        assert_eq!(stage.forwarded(family, CLOSED), [true, true], "normal policy is not for what is forwarded");
    }
    let open = || vec![port(Action::Allow, OPEN, true)];
    policy(&mut stage.tables, "open", PolicyStage::Normal, open(), open());
    let tiers = tier(&["open"], &["open"]);
    stage.set(named("eth9"), Some(HostEndpoint { name: Arc::from("hep"), tiers, ..HostEndpoint::default() }));
    for family in [0, 1] {
        for (port, passes) in [(CLOSED, false), (OPEN, true), (FAILSAFE, true)] {
            assert_eq!(stage.comes_in(family, port), passes, "{family} in to {port}");
            assert_eq!(stage.goes_out(family, port), passes, "{family} out to {port}");
        }
    }
    // The node itself reaches its pod whatever its own policy says, and answers get back.
    let (host, near) = (bind(HOST[0].parse().expect("literal"), 0), stage.pod.socket(stage.pod.ipv4(), CLOSED));
    assert!(arrives(&host, &near) && arrives(&near, &host));
    // Once it is gone, nothing is policed.
    stage.set(named("eth9"), None);
    assert!(stage.comes_in(0, CLOSED) && stage.goes_out(0, CLOSED) && stage.comes_in(1, CLOSED));
    assert!(!run("nft", &["list", "ruleset"]).contains("cali-fh"), "nothing is left");
}

#[test]
#[ignore = "needs root"]
fn forward_policy_is_for_what_is_forwarded_alone() {
    let _alone = node();
    let mut stage = Stage::new();
    let open = || vec![port(Action::Allow, OPEN, true)];
    let any = || vec![Rule::any(Action::Allow)];
    policy(&mut stage.tables, "open", PolicyStage::Normal, open(), open());
    policy(&mut stage.tables, "all", PolicyStage::Normal, any(), any());
    let (forward, tiers) = (tier(&["open"], &["open"]), tier(&["all"], &["all"]));
    let endpoint = HostEndpoint { name: Arc::from("hep"), forward, tiers, ..HostEndpoint::default() };
    for interface in [named("eth9"), HostInterface::All] {
        stage.set(interface.clone(), Some(endpoint.clone()));
        for family in [0, 1] {
            assert_eq!(stage.forwarded(family, OPEN), [true, true], "{interface}");
            assert_eq!(stage.forwarded(family, CLOSED), [false, false], "{interface}");
            assert_eq!(stage.forwarded(family, FAILSAFE), [false, false], "no failsafe here");
            assert!(stage.comes_in(family, CLOSED) && stage.goes_out(family, CLOSED), "{interface}");
        }
        stage.set(interface, None);
    }
    // Of all interfaces, a name stands out.
    stage.set(HostInterface::All, Some(endpoint.clone()));
    let tiers = tier(&["all"], &["all"]);
    stage.set(named("eth9"), Some(HostEndpoint { name: Arc::from("own"), tiers, ..HostEndpoint::default() }));
    let [inward, _] = stage.forwarded(0, CLOSED);
    assert!(!inward, "the pod's interface is none of its own: leaving by it, the policy of all counts");
    let closed = HostEndpoint { name: Arc::from("all"), ..HostEndpoint::default() };
    stage.set(HostInterface::All, Some(closed));
    assert!(stage.comes_in(0, CLOSED) && stage.goes_out(0, CLOSED), "the one with the name governs");
    stage.set(named("eth9"), None);
    assert!(!stage.comes_in(0, CLOSED) && !stage.goes_out(0, CLOSED), "now the one of all does");
}

#[test]
#[ignore = "needs root"]
fn pre_dnat_policy_sees_packets_before_translation() {
    let _alone = node();
    let mut stage = Stage::new();
    let dnat = format!(
        "add table ip foreign; add chain ip foreign pre {{ type nat hook prerouting priority -100; }}; \
         add rule ip foreign pre ip daddr {} udp dport {{ {OPEN}, {CLOSED}, {FAILSAFE} }} dnat to {}:9",
        HOST[0],
        stage.pod.ipv4()
    );
    run("nft", &[&dnat]);
    let through = |stage: &Stage, to: u16| {
        let server = stage.pod.socket(stage.pod.ipv4(), 9);
        server.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a timeout");
        let client = stage.outside.socket(stage.outside.ipv4(), 0);
        client.send_to(b"probe", (HOST[0].parse::<IpAddr>().expect("literal"), to)).expect("sent");
        server.recv_from(&mut [0; 16]).is_ok()
    };
    assert!(through(&stage, OPEN) && through(&stage, CLOSED));
    let rules = vec![port(Action::Allow, OPEN, true), Rule::any(Action::Deny)];
    policy(&mut stage.tables, "early", PolicyStage::PreDnat, rules, vec![]);
    // Forward policy denies everything: what was accepted before NAT does not meet it coming in.
    policy(&mut stage.tables, "never", PolicyStage::Normal, vec![Rule::any(Action::Deny)], vec![]);
    let (pre_dnat, forward) = (tier(&["early"], &[]), tier(&["never"], &[]));
    let endpoint = HostEndpoint { name: Arc::from("hep"), pre_dnat, forward, ..HostEndpoint::default() };
    for interface in [named("eth9"), HostInterface::All] {
        stage.set(interface.clone(), Some(endpoint.clone()));
        assert!(through(&stage, OPEN), "{interface}: accepted by its port before translation");
        assert!(!through(&stage, CLOSED), "{interface}: denied before translation");
        assert!(!through(&stage, FAILSAFE), "{interface}: the failsafe port passes here, but not forward policy");
        stage.set(interface, None);
    }
    run("nft", &["delete table ip foreign"]);
}

#[test]
#[ignore = "needs root"]
fn untracked_policy_needs_both_directions_and_leaves_no_trace() {
    let _alone = node();
    let mut stage = Stage::new();
    let to = || vec![port(Action::Allow, OPEN, true)];
    policy(&mut stage.tables, "half", PolicyStage::Untracked, to(), vec![]);
    policy(&mut stage.tables, "both", PolicyStage::Untracked, to(), vec![port(Action::Allow, OPEN, false)]);
    for (untracked, answers) in [(tier(&["half"], &["half"]), false), (tier(&["both"], &["both"]), true)] {
        let endpoint = HostEndpoint { name: Arc::from("hep"), untracked, ..HostEndpoint::default() };
        stage.set(named("eth9"), Some(endpoint));
        let client = stage.outside.socket(stage.outside.ipv4(), 0);
        let server = bind(HOST[0].parse().expect("literal"), OPEN);
        assert!(arrives(&client, &server), "allowed, though no normal policy does");
        assert_eq!(!is_dropped(&server, &client), answers, "an answer of no known flow");
        assert!(!run("conntrack", &["-L", "-p", "udp"]).contains(&format!("dport={OPEN}")), "it is not tracked");
        assert!(!stage.comes_in(0, CLOSED), "the rest meets normal policy");
        assert!(stage.comes_in(0, FAILSAFE), "failsafe ports are tracked and open");
    }
}

#[test]
#[ignore = "needs root"]
fn what_the_node_sends_to_a_service_is_judged_by_where_it_goes() {
    let _alone = node();
    let mut stage = Stage::new();
    let other = Pod::new("eth8", &["203.0.113.1", "2001:db8:8::1"]);
    // The service's address lies behind eth8, where nothing is policed; its backend lies behind eth9.
    let dnat = format!(
        "add table ip foreign; add chain ip foreign out {{ type nat hook output priority -100; }}; \
         add rule ip foreign out ip daddr {} dnat to {}",
        other.ipv4(),
        stage.outside.ipv4()
    );
    run("nft", &[&dnat]);
    policy(&mut stage.tables, "open", PolicyStage::Normal, vec![], vec![port(Action::Allow, OPEN, true)]);
    let tiers = tier(&[], &["open"]);
    stage.set(named("eth9"), Some(HostEndpoint { name: Arc::from("hep"), tiers, ..HostEndpoint::default() }));
    for (to, passes) in [(OPEN, true), (CLOSED, false)] {
        let server = stage.outside.socket(stage.outside.ipv4(), to);
        server.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a timeout");
        let client = bind(HOST[0].parse().expect("literal"), 0);
        let _ = client.send_to(b"probe", (other.ipv4(), to));
        assert_eq!(server.recv_from(&mut [0; 16]).is_ok(), passes, "to {to}");
    }
    run("nft", &["delete table ip foreign"]);
}
