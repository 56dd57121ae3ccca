//! Policies of their own for one endpoint, where no list of rules can be edited: those of Kubernetes belong to others.

use std::collections::BTreeMap;

use tortie_api::{
    Action, GlobalNetworkPolicy, GlobalNetworkPolicySpec, Kind, Metadata, NetworkPolicy, NetworkPolicySpec, PolicyType,
    Resource, Rule, Tier, TierSpec,
};
use tortie_desired::EndpointId;
use tortie_facts::Key;
use tortie_verdict::{Direction, Stage};

use crate::World;
use crate::change::{Change, Ends, exact, takes_ports};
use crate::label::{own, selecting, title};

/// One change of one condition of one rule.
const STEP: usize = 10;
/// The name of a tier that is made to come before all others.
const TIER: &str = "why";

/// Where such a policy stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Where {
    /// In the default tier, as the only one for the endpoint. What it does not decide goes on to the profiles as
    /// before, if there are any.
    Alone,
    /// In the default tier, beside others and before those of this order; last of all without one.
    Beside(Option<f64>),
    /// In a tier before all others.
    Ahead,
}

/// The endpoint and direction that decided, and the packet.
pub(crate) struct Own<'a> {
    pub(crate) world: &'a World,
    pub(crate) ends: Ends<'a>,
    pub(crate) id: &'a EndpointId,
    /// Which policies, of a host endpoint; `None` for a workload.
    pub(crate) stage: Option<Stage>,
    pub(crate) direction: Direction,
}

impl Own<'_> {
    /// A policy with a rule for exactly this packet: by the peer's labels, and by its address.
    pub(crate) fn policies(&self, action: Action, place: Where) -> Vec<Change> {
        [true, false].into_iter().filter_map(|by_labels| self.policy(action, place, by_labels)).collect()
    }

    fn policy(&self, action: Action, place: Where, by_labels: bool) -> Option<Change> {
        let Own { world, ends, id, stage: _, direction } = self;
        let target = self.target()?;
        let (tier, order, cost) = match place {
            Where::Alone => (None, None, 2 * STEP),
            Where::Beside(before) => (None, before.map(|order| order - 1.0), 2 * STEP + 3),
            Where::Ahead => (Some(first_tier(world)), None, 4 * STEP),
        };
        let mut rules = vec![exact(world, ends, *direction, &id.namespace, by_labels, action)?];
        if matches!(place, Where::Alone) && target.profiles {
            rules.push(Rule { action: Action::Pass, ..Rule::default() });
        }
        let word = if action == Action::Deny { "deny" } else { "allow" };
        let mut texts = Vec::new();
        let mut edits = BTreeMap::new();
        let mut prefix = String::new();
        let mut in_tier = String::new();
        if let Some(tier) = tier {
            let (name, order) = (tier.metadata.name.clone(), tier.spec.order.unwrap_or_default());
            texts.push(format!("create a Tier {name} of order {order} that passes by default"));
            prefix = format!("{name}.");
            edits.insert(Key::resource(Kind::Tier, "", &name), Resource::from(tier));
            in_tier = name;
        }
        let of_kind = |name: &str| Key::resource(target.kind, &id.namespace, name);
        let (key, name) = free(world, &format!("{prefix}why-{word}"), of_kind);
        let policy = self.resource(&target, &name, in_tier, order, rules);
        let at = order.map_or_else(String::new, |order| format!(" of order {order}"));
        let peer = match direction {
            Direction::Ingress => format!("from {}", ends.source.name),
            Direction::Egress => format!("to {}", ends.destination.name),
        };
        texts.push(format!(
            "apply a {}{at} for {} that {}s {direction} {peer}, {}",
            title(&policy),
            target.selector,
            if action == Action::Deny { "denie" } else { "allow" },
            flow_text(ends),
        ));
        edits.insert(key, policy);
        Some(Change { texts, edits, cost: cost + if by_labels { 5 } else { 7 } })
    }

    /// What selects the endpoint, by the labels that people gave it.
    fn target(&self) -> Option<Target> {
        let EndpointId { namespace, name } = self.id;
        let kinds = match self.stage {
            None => (Kind::WorkloadEndpoint, Kind::NetworkPolicy),
            Some(_) => (Kind::HostEndpoint, Kind::GlobalNetworkPolicy),
        };
        let resource = self.world.resource(&Key::resource(kinds.0, namespace, name))?;
        let profiles = match resource {
            Resource::WorkloadEndpoint(wep) => &wep.spec.profiles,
            Resource::HostEndpoint(host) => &host.spec.profiles,
            _ => return None,
        };
        let selector = match (selecting(&own(resource.metadata())), self.stage) {
            (Some(selector), _) => selector,
            (None, None) => "all()".to_owned(),
            // All host endpoints, and no workload.
            (None, Some(_)) => "!has(projectcalico.org/namespace)".to_owned(),
        };
        Some(Target { kind: kinds.1, selector, profiles: !profiles.is_empty() })
    }

    fn resource(&self, target: &Target, name: &str, tier: String, order: Option<f64>, rules: Vec<Rule>) -> Resource {
        let (ingress, egress, types) = match self.direction {
            Direction::Ingress => (rules, Vec::new(), vec![PolicyType::Ingress]),
            Direction::Egress => (Vec::new(), rules, vec![PolicyType::Egress]),
        };
        let selector = target.selector.clone();
        match self.stage {
            None => {
                let metadata = Metadata::in_namespace(&*self.id.namespace, name);
                let spec =
                    NetworkPolicySpec { tier, order, selector, types, ingress, egress, ..NetworkPolicySpec::default() };
                NetworkPolicy { metadata, spec }.into()
            }
            Some(stage) => {
                let spec = GlobalNetworkPolicySpec {
                    tier,
                    order,
                    selector,
                    types,
                    ingress,
                    egress,
                    do_not_track: stage == Stage::Untracked,
                    pre_dnat: stage == Stage::PreDnat,
                    apply_on_forward: stage != Stage::Normal,
                    ..GlobalNetworkPolicySpec::default()
                };
                GlobalNetworkPolicy { metadata: Metadata::named(name), spec }.into()
            }
        }
    }
}

/// Whom a policy is for.
struct Target {
    kind: Kind,
    selector: String,
    /// Whether the endpoint has profiles.
    profiles: bool,
}

/// A name that no resource of the kind has.
fn free(world: &World, name: &str, of_kind: impl Fn(&str) -> Key) -> (Key, String) {
    let mut number = 0;
    loop {
        let tried = if number == 0 { name.to_owned() } else { format!("{name}-{number}") };
        let key = of_kind(&tried);
        if world.resource(&key).is_none() {
            return (key, tried);
        }
        number += 1;
    }
}

/// A new tier that comes before all that there are, those of Kubernetes included, and denies nothing by itself.
fn first_tier(world: &World) -> Tier {
    /// The order of the tier of Kubernetes' administrators, as upstream has it.
    const KUBE_ADMIN: f64 = 1_000.0;
    let orders = world.resources().filter_map(|resource| match resource {
        Resource::Tier(tier) => tier.spec.order,
        _ => None,
    });
    let lowest = orders.fold(KUBE_ADMIN, f64::min);
    let (_, name) = free(world, TIER, |name| Key::resource(Kind::Tier, "", name));
    let spec = TierSpec { order: Some(lowest - 1.0), default_action: Some(Action::Pass) };
    Tier { metadata: Metadata::named(name), spec, status: Default::default() }
}

fn flow_text(ends: &Ends<'_>) -> String {
    let protocol = ends.packet.protocol;
    if takes_ports(protocol) { format!("{protocol} port {}", ends.packet.dst_port) } else { protocol.to_string() }
}
