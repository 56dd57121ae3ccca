//! The packet filter's own part: one member into a large table, and reading all of it back.
//!
//! A set and a chain of ten rules for each policy, as upstream's benchmarks of its `nftables` package have; the floor is
//! the same with a single set and chain.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use ipnet::IpNet;
use tortie_desired::{
    Action, Batch, Endpoint, EndpointId, Match, Member, Policy, PolicyId, PolicyKind, PolicyStage, Rule, SetChange,
    SetId, SetKind, Tables, TierAction, TierPolicies,
};
use tortie_net::{PortRange, Protocol};
use tortie_nftables::Nftables;

use crate::Setting;
use crate::bed::Bed;
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;
use crate::topology::host;

const MEMBERS: u32 = 50;
const RULES: u16 = 10;
/// Endpoints, which share the policies out among them.
const ENDPOINTS: usize = 100;

/// Runs it.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let (floor, floor_resync) = table(setting, 1)?;
    let mut findings = Vec::new();
    for (count, stat, most_resync) in [(500, Stat::P50, 60.0), (2_000, Stat::P99, 200.0)] {
        let (member, resync) = table(setting, count)?;
        let name = format!("one member, {count} sets and chains");
        let beside = ("a single set", &floor);
        findings.extend(Finding::beside(name, "ms", stat, Target::AtMost(1.0), &member, beside));
        let name = format!("read back and compared, {count} sets and chains");
        let target = Target::AtMost(most_resync);
        findings.extend(Finding::beside(name, "ms", Stat::P50, target, &resync, ("a single set", &floor_resync)));
    }
    Ok(findings)
}

fn table(setting: &Setting, count: usize) -> Result<(Samples, Samples)> {
    let mut bed = Bed::new()?;
    let host = host(&mut bed, "host")?;
    host.netns.run(|| measure(setting, count))?
}

fn measure(setting: &Setting, count: usize) -> Result<(Samples, Samples)> {
    let mut tables = tables(count);
    let mut kernel = Nftables::open()?;
    kernel.resync(&tables)?;
    let (mut member_times, mut resync_times) = (Samples::default(), Samples::default());
    for round in 0..setting.times(1_000) {
        let changed = BTreeSet::from([member(0x00f0_0000)]);
        let (added, removed) = if round % 2 == 0 { (changed, BTreeSet::new()) } else { (BTreeSet::new(), changed) };
        let batch = Batch { sets: [(set_id(0), SetChange::Delta { added, removed })].into(), ..Batch::default() };
        tables.apply(&batch);
        let begun = Instant::now();
        kernel.commit(&tables, &batch)?;
        member_times.push_ms(begun.elapsed());
    }
    for _ in 0..setting.times(20) {
        let begun = Instant::now();
        let report = kernel.resync(&tables)?;
        resync_times.push_ms(begun.elapsed());
        ensure!(report.written == Default::default(), "nothing was wrong, yet {:?} was written", report.written);
    }
    kernel.remove_all()?;
    Ok((member_times, resync_times))
}

fn tables(count: usize) -> Tables {
    let mut tables = Tables::default();
    let mut first = 0;
    for number in 0..count {
        let members = (first..first + MEMBERS).map(member).collect();
        first += MEMBERS;
        tables.sets.insert(set_id(number), (SetKind::Addresses, members));
        tables.policies.insert(policy_id(number), policy(number));
    }
    for number in 0..ENDPOINTS.min(count) {
        let own = (number..count).step_by(ENDPOINTS).map(policy_id).collect();
        let id = EndpointId { namespace: Arc::from("ns"), name: Arc::from(format!("pod{number}")) };
        tables.endpoints.insert(id, endpoint(number, own));
    }
    tables
}

fn set_id(number: usize) -> SetId {
    SetId::new(&format!("s:set{number}"))
}

fn policy_id(number: usize) -> PolicyId {
    PolicyId { name: Arc::from(format!("policy{number}")), namespace: Arc::from("ns"), kind: PolicyKind::NetworkPolicy }
}

fn member(number: u32) -> Member {
    Member::Net(IpNet::from(IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number))))
}

fn policy(number: usize) -> Arc<Policy> {
    let rule = |port| Rule {
        protocol: Some(Protocol::TCP),
        source: Match { sets: vec![set_id(number)], ..Match::default() },
        destination: Match { ports: vec![PortRange::single(port)], ..Match::default() },
        ..Rule::any(Action::Allow)
    };
    let ingress = (80..80 + RULES).map(rule).collect();
    Arc::new(Policy { tier: Arc::from("default"), stage: PolicyStage::Normal, ingress, egress: vec![] })
}

fn endpoint(number: usize, policies: Vec<PolicyId>) -> Arc<Endpoint> {
    let tier = TierPolicies {
        tier: Arc::from("default"),
        default_action: TierAction::Deny,
        ingress: policies,
        egress: vec![],
    };
    let low = u8::try_from(number).unwrap_or(u8::MAX);
    Arc::new(Endpoint {
        interface: Arc::from(format!("cali{number}")),
        addresses: vec![Ipv4Addr::new(10, 65, 0, low).into()],
        tiers: vec![tier],
        ..Endpoint::default()
    })
}
