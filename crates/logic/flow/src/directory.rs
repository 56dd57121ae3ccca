//! Who is behind interfaces and addresses of this node, and what was asked of a packet that ended.
//!
//! It follows the tables by their batches and holds what it needs of them alone, so that records are made without
//! asking the agent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::{
    Action, Batch, Endpoint, EndpointId, HostEndpoint, HostInterface, Policy, PolicyId, Profile, Rule, TierPolicies,
};
use tortie_ruleset::{Beside, Cause, CauseOwner, Direction};

use crate::record::Record;
use crate::seen::{Hook, Seen};

/// See the module.
#[derive(Debug, Default)]
pub struct Directory {
    endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
    /// Of several that claim an interface, the first has it.
    by_interface: BTreeSet<(Arc<str>, EndpointId)>,
    by_address: BTreeSet<(IpAddr, EndpointId)>,
    hosts: BTreeMap<HostInterface, Arc<HostEndpoint>>,
    /// Causes whose text is hashed, by that text.
    hashed: BTreeMap<String, Cause>,
    hashed_of: BTreeMap<CauseOwner, Vec<String>>,
}

/// Whose rules ended a packet.
enum Subject<'a> {
    Workload(&'a EndpointId, &'a Endpoint),
    Host(&'a HostEndpoint),
}

impl Directory {
    /// Takes in what a batch changes.
    pub fn apply(&mut self, batch: &Batch) {
        for (id, endpoint) in &batch.endpoints {
            self.endpoint(id, endpoint.as_ref());
        }
        for (interface, endpoint) in &batch.host_endpoints {
            match endpoint {
                Some(endpoint) => self.hosts.insert(interface.clone(), endpoint.clone()),
                None => self.hosts.remove(interface),
            };
        }
        for (id, policy) in &batch.policies {
            let rules = policy.as_deref().map(|Policy { tier: _, stage: _, ingress, egress }| (ingress, egress));
            self.owner(&CauseOwner::Policy(id.clone()), rules);
        }
        for (name, profile) in &batch.profiles {
            let rules = profile.as_deref().map(|Profile { ingress, egress }| (ingress, egress));
            self.owner(&CauseOwner::Profile(name.clone()), rules);
        }
    }

    fn endpoint(&mut self, id: &EndpointId, now: Option<&Arc<Endpoint>>) {
        if let Some(had) = self.endpoints.remove(id) {
            self.by_interface.remove(&(had.interface.clone(), id.clone()));
            for address in &had.addresses {
                self.by_address.remove(&(*address, id.clone()));
            }
        }
        if let Some(now) = now {
            self.by_interface.insert((now.interface.clone(), id.clone()));
            self.by_address.extend(now.addresses.iter().map(|address| (*address, id.clone())));
            self.endpoints.insert(id.clone(), now.clone());
        }
    }

    /// Keeps the causes of an owner whose name is so long that their texts can't be read back.
    fn owner(&mut self, owner: &CauseOwner, rules: Option<(&Vec<Rule>, &Vec<Rule>)>) {
        for text in self.hashed_of.remove(owner).into_iter().flatten() {
            self.hashed.remove(&text);
        }
        let mut causes: Vec<Cause> = Vec::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            // Endpoints may list it longer than it is there.
            causes.push(Cause::Missing { owner: owner.clone(), direction });
            let rules = rules.map(|(ingress, egress)| match direction {
                Direction::Ingress => ingress,
                Direction::Egress => egress,
            });
            let ends = |rule: &Rule| matches!(rule.action, Action::Deny | Action::Pass);
            let numbers = rules.into_iter().flatten().enumerate().filter(|(_, rule)| ends(rule));
            causes.extend(numbers.map(|(index, _)| Cause::Rule { owner: owner.clone(), direction, index }));
        }
        let hashed: Vec<(String, Cause)> =
            causes.into_iter().filter(Cause::is_hashed).map(|cause| (cause.prefix(), cause)).collect();
        if rules.is_some() && !hashed.is_empty() {
            self.hashed_of.insert(owner.clone(), hashed.iter().map(|(text, _)| text.clone()).collect());
            self.hashed.extend(hashed);
        }
    }

    /// Makes a record of a packet, heard of at this time (milliseconds since 1970); `None`: its text is none of ours.
    pub fn record(&self, seen: &Seen, time_ms: u64) -> Option<Record> {
        let Seen { prefix, hook, input, output, flow } = seen;
        let cause = Cause::parse(prefix).or_else(|| self.hashed.get(prefix).cloned())?;
        let mut record = Record {
            time_ms,
            cause: cause.word().to_owned(),
            direction: match cause.direction() {
                Direction::Ingress => "ingress".to_owned(),
                Direction::Egress => "egress".to_owned(),
            },
            input: input.clone(),
            output: output.clone(),
            hook: hook.name().to_owned(),
            ..Record::default()
        };
        if let Some(flow) = flow {
            record.source = Some(flow.source);
            record.destination = Some(flow.destination);
            (record.source_port, record.destination_port) = flow.ports.unzip();
            (record.icmp_type, record.icmp_code) = flow.icmp.unzip();
            record.protocol = Some(flow.protocol.to_string());
            record.source_endpoint = self.at(flow.source);
            record.destination_endpoint = self.at(flow.destination);
        }
        let subject = self.subject(seen, &cause);
        if let Some(subject) = &subject {
            (record.endpoint, record.host_endpoint) = match subject {
                Subject::Workload(id, _) => (Some(id.to_string()), false),
                Subject::Host(host) => (Some(host.name.to_string()), true),
            };
        }
        self.decision(&mut record, &cause, *hook, subject.as_ref());
        Some(record)
    }

    fn decision(&self, record: &mut Record, cause: &Cause, hook: Hook, subject: Option<&Subject<'_>>) {
        let direction = cause.direction();
        let tiers: Vec<&TierPolicies> = subject.map(|subject| tiers(subject, hook)).unwrap_or_default();
        match cause {
            Cause::Rule { owner, direction: _, index } => {
                record.rule = Some(*index);
                name(record, owner, &tiers, direction);
            }
            Cause::Missing { owner, direction: _ } => name(record, owner, &tiers, direction),
            Cause::EndOfTier { tier, direction: _, host: _ } => {
                record.tier = Some(tier.to_string());
                let own = tiers.into_iter().filter(|t| t.tier == *tier && decides(subject, t));
                record.asked = own.flat_map(|t| listed(t, direction)).map(ToString::to_string).collect();
            }
            Cause::NothingMatched { direction: _, host: _ } => {
                let policies = tiers
                    .into_iter()
                    .filter(|t| decides(subject, t))
                    .flat_map(|t| listed(t, direction))
                    .map(ToString::to_string);
                let profiles = subject.map(profiles).unwrap_or_default().iter().map(|name| format!("pro/{name}"));
                record.asked = policies.chain(profiles).collect();
            }
            Cause::Beside { what: _, direction: _ } => {}
        }
    }

    /// The workload of this node with an address.
    fn at(&self, address: IpAddr) -> Option<String> {
        let first = EndpointId { namespace: Arc::from(""), name: Arc::from("") };
        let (found, id) = self.by_address.range((address, first)..).next()?;
        (*found == address).then(|| id.to_string())
    }

    fn workload(&self, interface: Option<&String>) -> Option<Subject<'_>> {
        let interface: Arc<str> = Arc::from(interface?.as_str());
        let first = EndpointId { namespace: Arc::from(""), name: Arc::from("") };
        let (found, id) = self.by_interface.range((interface.clone(), first)..).next()?;
        (*found == interface).then(|| self.endpoints.get(id).map(|endpoint| Subject::Workload(id, endpoint)))?
    }

    fn host(&self, interface: Option<&String>) -> Option<Subject<'_>> {
        let named = HostInterface::Named(Arc::from(interface?.as_str()));
        self.hosts.get(&named).or_else(|| self.hosts.get(&HostInterface::All)).map(|host| Subject::Host(host))
    }

    /// Whose rules they were. A forwarded packet meets those of the host's interface that it came by before those of
    /// its receiver, and those of its sender before those of the host's interface that it leaves by.
    fn subject(&self, seen: &Seen, cause: &Cause) -> Option<Subject<'_>> {
        let Seen { prefix: _, hook, input, output, flow: _ } = seen;
        let (input, output) = (input.as_ref(), output.as_ref());
        let direction = cause.direction();
        let (workload, host) = match (hook, direction) {
            (Hook::Prerouting, _) => (None, self.host(input)),
            (Hook::Input, _) => (self.workload(input), self.host(input)),
            (Hook::Forward, Direction::Ingress) => (self.workload(output), self.host(input)),
            (Hook::Forward, Direction::Egress) => (self.workload(input), self.host(output)),
            (Hook::Output | Hook::Postrouting, _) => (None, self.host(output)),
        };
        match cause {
            Cause::Rule { owner, direction, index: _ } | Cause::Missing { owner, direction } => {
                let candidates = match direction {
                    Direction::Ingress => [host, workload],
                    Direction::Egress => [workload, host],
                };
                candidates.into_iter().flatten().find(|subject| lists(subject, *hook, owner, *direction))
            }
            Cause::EndOfTier { host: of_host, .. } | Cause::NothingMatched { host: of_host, .. } => {
                if *of_host {
                    host
                } else {
                    workload
                }
            }
            Cause::Beside { what, direction: _ } => match what {
                Beside::Invalid => workload.or(host),
                Beside::Spoofed
                | Beside::Ipv6Off
                | Beside::Vxlan
                | Beside::Ipip
                | Beside::ToHost
                | Beside::PacketRate
                | Beside::Connections => workload,
                Beside::UnknownInterface | Beside::ServiceLoop | Beside::ForeignTunnel | Beside::Revoked => None,
            },
        }
    }
}

fn tiers<'a>(subject: &Subject<'a>, hook: Hook) -> Vec<&'a TierPolicies> {
    match subject {
        Subject::Workload(_, endpoint) => endpoint.tiers.iter().collect(),
        Subject::Host(host) => {
            let HostEndpoint { name: _, untracked, pre_dnat, forward, tiers, profiles: _ } = host;
            match hook {
                Hook::Prerouting => untracked.iter().chain(pre_dnat).collect(),
                Hook::Forward => forward.iter().collect(),
                Hook::Input => tiers.iter().collect(),
                Hook::Output | Hook::Postrouting => untracked.iter().chain(tiers).collect(),
            }
        }
    }
}

/// Whether the end of the tier, or of all tiers, says anything: those before connection tracking and before NAT end
/// without a decision.
fn decides(subject: Option<&Subject<'_>>, tier: &TierPolicies) -> bool {
    match subject {
        None | Some(Subject::Workload(_, _)) => true,
        Some(Subject::Host(host)) => {
            !host.untracked.iter().chain(&host.pre_dnat).any(|early| std::ptr::eq(early, tier))
        }
    }
}

fn profiles<'a>(subject: &Subject<'a>) -> &'a [Arc<str>] {
    match subject {
        Subject::Workload(_, endpoint) => &endpoint.profiles,
        Subject::Host(host) => &host.profiles,
    }
}

fn listed(tier: &TierPolicies, direction: Direction) -> &[PolicyId] {
    match direction {
        Direction::Ingress => &tier.ingress,
        Direction::Egress => &tier.egress,
    }
}

fn lists(subject: &Subject<'_>, hook: Hook, owner: &CauseOwner, direction: Direction) -> bool {
    match owner {
        CauseOwner::Policy(id) => tiers(subject, hook).into_iter().any(|tier| listed(tier, direction).contains(id)),
        CauseOwner::Profile(name) => profiles(subject).contains(name),
    }
}

fn name(record: &mut Record, owner: &CauseOwner, tiers: &[&TierPolicies], direction: Direction) {
    match owner {
        CauseOwner::Policy(id) => {
            let tier = tiers.iter().find(|tier| listed(tier, direction).contains(id));
            record.tier = tier.map(|tier| tier.tier.to_string());
            record.policy = Some(id.to_string());
        }
        CauseOwner::Profile(name) => record.profile = Some(name.to_string()),
    }
}

#[cfg(test)]
mod tests;
