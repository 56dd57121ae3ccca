//! How long the kernel and we take: one member, one rule, one endpoint, a full resync.
//!
//! Needs root; makes a network namespace of its own. Prints p50 and p99 of each over many rounds.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use tortie_desired::{
    Action, Batch, Endpoint, EndpointId, Match, Member, Policy, PolicyId, PolicyKind, PolicyStage, Rule, SetChange,
    SetId, SetKind, Tables, TierAction, TierPolicies,
};
use tortie_net::{IpNet, PortRange, Protocol};
use tortie_nftables::{Error, Nftables};

const MEMBERS: u32 = 50;
const RULES: u16 = 10;

fn set_id(number: u32) -> SetId {
    SetId::new(&format!("s:set{number}"))
}

fn policy_id(number: u32) -> PolicyId {
    PolicyId { name: Arc::from(format!("policy{number}")), namespace: Arc::from("ns"), kind: PolicyKind::NetworkPolicy }
}

fn endpoint_id(number: u32) -> EndpointId {
    EndpointId { namespace: Arc::from("ns"), name: Arc::from(format!("pod{number}")) }
}

fn member(number: u32) -> Member {
    Member::Net(IpNet::from(std::net::IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number))))
}

fn policy(number: u32, port: u16) -> Arc<Policy> {
    let rule = |port| Rule {
        protocol: Some(Protocol::TCP),
        source: Match { sets: vec![set_id(number)], ..Match::default() },
        destination: Match { ports: vec![PortRange::single(port)], ..Match::default() },
        ..Rule::any(Action::Allow)
    };
    let ingress = (port..port + RULES).map(rule).collect();
    Arc::new(Policy { tier: Arc::from("default"), stage: PolicyStage::Normal, ingress, egress: vec![] })
}

fn endpoint(number: u32, policies: Vec<PolicyId>) -> Arc<Endpoint> {
    let tier = TierPolicies {
        tier: Arc::from("default"),
        default_action: TierAction::Deny,
        ingress: policies,
        egress: vec![],
    };
    Arc::new(Endpoint {
        interface: Arc::from(format!("cali{number}")),
        addresses: vec![Ipv4Addr::from(0x0a41_0000 + number).into()],
        mac: None,
        tiers: vec![tier],
        profiles: vec![],
        ..Endpoint::default()
    })
}

/// Policies with a set each; every endpoint has `each` of the policies.
fn tables(policies: u32, endpoints: u32, each: u32) -> Tables {
    let mut tables = Tables::default();
    for number in 0..policies {
        let members = (0..MEMBERS).map(|m| member(number * MEMBERS + m)).collect();
        tables.sets.insert(set_id(number), (SetKind::Addresses, members));
        tables.policies.insert(policy_id(number), policy(number, 80));
    }
    for number in 0..endpoints {
        let ids = (0..each).map(|n| policy_id((number * each + n) % policies)).collect();
        tables.endpoints.insert(endpoint_id(number), endpoint(number, ids));
    }
    tables
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!("{what:52} p50 {:>9.3?}  p99 {:>9.3?}  ({} rounds)", at(50), at(99), times.len());
}

fn commits(
    what: &str,
    rounds: u32,
    nft: &mut Nftables,
    tables: &mut Tables,
    batch: impl Fn(u32) -> Batch,
) -> Result<(), Error> {
    let mut times = Vec::new();
    for round in 0..rounds {
        let batch = batch(round);
        tables.apply(&batch);
        let start = Instant::now();
        nft.commit(tables, &batch)?;
        times.push(start.elapsed());
    }
    report(what, times);
    Ok(())
}

fn run(policies: u32, endpoints: u32, each: u32) -> Result<(), Error> {
    println!(
        "-- {policies} policies of {RULES} rules and sets of {MEMBERS}, {endpoints} endpoints with {each} policies each"
    );
    let mut tables = tables(policies, endpoints, each);
    let mut nft = Nftables::open()?;
    let start = Instant::now();
    let first = nft.resync(&tables)?;
    println!("first transaction {:?}: {:?}", start.elapsed(), first.written);
    commits("one member of one set", 1000, &mut nft, &mut tables, |round| {
        let changed = BTreeSet::from([member(0x00f0_0000)]);
        let (added, removed) = if round % 2 == 0 { (changed, BTreeSet::new()) } else { (BTreeSet::new(), changed) };
        Batch { sets: [(set_id(0), SetChange::Delta { added, removed })].into(), ..Batch::default() }
    })?;
    commits("one rule of one policy", 300, &mut nft, &mut tables, |round| {
        let port = u16::try_from(1000 + round).expect("few rounds");
        Batch { policies: [(policy_id(0), Some(policy(0, port)))].into(), ..Batch::default() }
    })?;
    commits("one endpoint comes or goes", 300, &mut nft, &mut tables, |round| {
        let new = (round % 2 == 0).then(|| endpoint(endpoints, vec![policy_id(0)]));
        Batch { endpoints: [(endpoint_id(endpoints), new)].into(), ..Batch::default() }
    })?;
    let (mut times, before) = (Vec::new(), cpu());
    for _ in 0..20 {
        let start = Instant::now();
        let again = nft.resync(&tables)?;
        times.push(start.elapsed());
        assert_eq!(again.written, Default::default(), "nothing was wrong");
    }
    report("full resync, nothing wrong", times);
    println!("    of processor time, on average {} ms", (cpu() - before) * 10 / 20);
    nft.remove_all()
}

/// User and system time of this process, in hundredths of a second.
fn cpu() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn main() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| Error::Unavailable(e.into()))?;
    run(1, 1, 1)?;
    run(500, 100, 5)?;
    run(2000, 100, 20)?;
    run(1000, 2, 1000)
}
