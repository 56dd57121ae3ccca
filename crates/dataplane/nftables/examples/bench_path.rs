//! What the rules cost packets: TCP round trips and new connections between two pods, bare and with policies.
//!
//! Needs root; makes network namespaces of its own. Both ends run on one CPU. Bare and ruled rounds alternate, so that
//! other load hits both; the median of the rounds' p50 is compared. Policies are shown to each packet one after the other
//! (walked), or chosen from by its port, as a node does it.

#[path = "../tests/support/pods.rs"]
mod pods;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use pods::Pod;
use tortie_desired::{
    Action, Endpoint, EndpointId, Match, Member, Policy, PolicyId, PolicyKind, PolicyStage, Rule, SetId, SetKind,
    Tables, TierAction, TierPolicies,
};
use tortie_net::{IpNet, PortRange, Protocol};
use tortie_nftables::{Nftables, Options};
use tortie_ruleset::SHORTEST_RUN;

const PORT: u16 = 9000;
const ROUNDS: usize = 10;
const TRACKED: &str = "add table inet tracked { chain c { type filter hook forward priority 0; \
                       ct state established accept; }; }";

fn pin() {
    let mut cpus = CpuSet::new();
    cpus.set(1).expect("a second CPU");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("pinning");
}

fn policy_id(number: usize) -> PolicyId {
    PolicyId { name: Arc::from(format!("p{number}")), namespace: Arc::from("ns"), kind: PolicyKind::NetworkPolicy }
}

/// Policies on both pods and in both directions, of which the last one allows.
fn tables(pods: [&Pod; 2], policies: usize) -> Tables {
    let mut tables = Tables::default();
    tables.settings.revoke_flows = true;
    let members = pods.iter().map(|p| Member::Net(IpNet::from(p.ipv4()))).collect();
    tables.sets.insert(SetId::new("s:pods"), (SetKind::Addresses, members));
    for number in 0..policies {
        let port = if number + 1 == policies { PORT } else { 1 };
        let rule = |source: bool| {
            let peer = Match { sets: vec![SetId::new("s:pods")], ..Match::default() };
            let ports = vec![PortRange::single(port)];
            let (source, destination) = if source {
                (peer, Match { ports, ..Match::default() })
            } else {
                (Match::default(), Match { ports, ..peer })
            };
            Rule { protocol: Some(Protocol::TCP), source, destination, ..Rule::any(Action::Allow) }
        };
        let policy = Policy {
            tier: Arc::from("default"),
            stage: PolicyStage::Normal,
            ingress: vec![rule(true)],
            egress: vec![rule(false)],
        };
        tables.policies.insert(policy_id(number), Arc::new(policy));
    }
    for pod in pods {
        let ids: Vec<PolicyId> = (0..policies).map(policy_id).collect();
        let default_action = TierAction::Deny;
        let tier = TierPolicies { tier: Arc::from("default"), default_action, ingress: ids.clone(), egress: ids };
        let endpoint = Endpoint {
            interface: Arc::from(pod.interface.as_str()),
            addresses: pod.addresses.clone(),
            mac: None,
            tiers: vec![tier],
            profiles: vec![],
            ..Endpoint::default()
        };
        let id = EndpointId { namespace: Arc::from("ns"), name: Arc::from(pod.interface.as_str()) };
        tables.endpoints.insert(id, Arc::new(endpoint));
    }
    tables
}

fn serve(listener: TcpListener) {
    pin();
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            if stream.write_all(&byte).is_err() {
                break;
            }
        }
    }
}

fn exchange(stream: &mut TcpStream) {
    let mut byte = [7];
    stream.write_all(&byte).expect("a request");
    stream.read_exact(&mut byte).expect("a response");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Medians of round trips on one connection and of connections with one round trip each.
fn measure(server: IpAddr) -> [Duration; 2] {
    pin();
    let connect = || {
        let stream = TcpStream::connect(SocketAddr::new(server, PORT)).expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        stream
    };
    let mut stream = connect();
    let time = |mut work: Box<dyn FnMut() + '_>| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let round_trips = (0..4000).map(|_| time(Box::new(|| exchange(&mut stream)))).collect();
    drop(stream);
    let connections = (0..300).map(|_| time(Box::new(|| exchange(&mut connect())))).collect();
    [median(round_trips), median(connections)]
}

fn main() {
    let _alone = pods::node();
    let client = Pod::new("cali0a", &["10.65.0.1", "fd00::1"]);
    let server = Pod::new("cali0b", &["10.65.0.2", "fd00::2"]);
    let at = server.ipv4();
    let listener = server.inside(move || TcpListener::bind(SocketAddr::new(at, PORT)).expect("a listener"));
    std::thread::spawn(move || serve(listener));
    client.inside(|| support::run("sysctl", &["-qw", "net.ipv4.ip_local_port_range=1024 65535"]));
    println!(
        "p50 in microseconds, median of {ROUNDS} rounds; connection tracking alone is the floor of stateful policy"
    );
    println!("policies   {0:46} {0:46}", "bare  tracked   walked   chosen  ratio");
    for policies in [1, 100, 1000] {
        let tables = tables([&client, &server], policies);
        let mut all: [[Vec<Duration>; 2]; 4] = Default::default();
        for round in 0..4 * ROUNDS {
            let shortest_run = if round % 4 == 2 { usize::MAX } else { SHORTEST_RUN };
            let mut nft = Nftables::open_with(Options { shortest_run, ..Options::default() }).expect("netlink");
            nft.remove_all().expect("removal");
            match round % 4 {
                0 => {}
                1 => drop(support::run("nft", &[TRACKED])),
                _ => drop(nft.resync(&tables).expect("rules")),
            }
            let seen = client.inside(move || measure(at));
            for (all, seen) in all[round % 4].iter_mut().zip(seen) {
                all.push(seen);
            }
            support::try_run("nft", &["delete table inet tracked"]);
        }
        let [bare, tracked, walked, chosen] = all.map(|times| times.map(|t| median(t).as_secs_f64() * 1e6));
        print!("{policies:8}");
        for n in 0..2 {
            print!("   {:6.2}   {:6.2}   {:6.2}   {:6.2}", bare[n], tracked[n], walked[n], chosen[n]);
            print!("  {:5.3}    ", chosen[n] / bare[n]);
        }
        println!();
    }
}
