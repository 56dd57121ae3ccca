//! Policies of both kinds, and profiles.

use tortie_api::{
    Action, GlobalNetworkPolicy, GlobalNetworkPolicySpec, Metadata, NetworkPolicy, NetworkPolicySpec,
    PolicyPerformanceHint, PolicyType, Profile, ProfileSpec, Rule,
};

use super::endpoints::{NAMESPACES, PROFILES};
use super::entity::{SELECTORS, narrow_rule, rules};
use super::{Facts, put};
use crate::rng::Rng;

const TIERS: [&str; 5] = ["", "default", "first", "first", "second"];
/// Ties on purpose: then the name decides.
const ORDERS: [Option<f64>; 4] = [None, Some(1.0), Some(1.0), Some(-2.5)];
const RULES: usize = 5;

/// What both kinds have.
struct Common {
    tier: String,
    order: Option<f64>,
    selector: String,
    types: Vec<PolicyType>,
    ingress: Vec<Rule>,
    egress: Vec<Rule>,
    service_account_selector: String,
    performance_hints: Vec<PolicyPerformanceHint>,
}

fn common(rng: &mut Rng) -> Common {
    use PolicyType::{Egress, Ingress};
    let types = rng.pick(&[vec![], vec![Ingress], vec![Egress], vec![Ingress, Egress], vec![Ingress, Egress]]);
    Common {
        tier: rng.pick(&TIERS).to_owned(),
        order: rng.pick(&ORDERS),
        selector: rng.pick(&SELECTORS).to_owned(),
        ingress: if types == [Egress] { Vec::new() } else { rules(rng, RULES) },
        egress: if types == [Ingress] { Vec::new() } else { rules(rng, RULES) },
        types,
        service_account_selector: rng.pick(&["", "", "", "", "a == 'x'", "all()"]).to_owned(),
        performance_hints: if rng.percent(5) {
            vec![PolicyPerformanceHint::AssumeNeededOnEveryNode]
        } else {
            Vec::new()
        },
    }
}

pub(super) fn policies(rng: &mut Rng, facts: &mut Facts) {
    let namespaced = ["p", "p-q", "q"].into_iter().flat_map(|name| NAMESPACES.map(|namespace| (namespace, name)));
    for (namespace, name) in namespaced {
        if rng.percent(45) {
            let Common { tier, order, selector, types, ingress, egress, service_account_selector, performance_hints } =
                common(rng);
            let metadata = Metadata::in_namespace(namespace, in_tier(&tier, name));
            let spec = NetworkPolicySpec {
                tier,
                order,
                ingress,
                egress,
                selector,
                types,
                service_account_selector,
                performance_hints,
            };
            put(facts, NetworkPolicy { metadata, spec });
        }
    }
    for name in ["p", "p-q", "g", "h"] {
        if rng.percent(55) {
            let Common { tier, order, selector, types, ingress, egress, service_account_selector, performance_hints } =
                common(rng);
            // Policies that apply before connection tracking or NAT say nothing about workloads.
            let untracked = rng.percent(5);
            let namespace_selector =
                if rng.percent(25) { rng.pick(&["all()", "env == 'x'", "env != 'x'"]) } else { "" };
            let spec = GlobalNetworkPolicySpec {
                order,
                selector,
                types,
                ingress,
                egress,
                service_account_selector,
                namespace_selector: namespace_selector.to_owned(),
                do_not_track: untracked,
                pre_dnat: false,
                apply_on_forward: untracked || rng.percent(10),
                performance_hints,
                tier: tier.clone(),
            };
            put(facts, GlobalNetworkPolicy { metadata: Metadata::named(in_tier(&tier, name)), spec });
        }
    }
}

/// Policies next to each other that all ask for ports, or all for prefixes: from such a packet may choose.
pub(super) fn narrow(rng: &mut Rng, facts: &mut Facts) {
    if !rng.percent(40) {
        return;
    }
    let side = rng.below(3);
    for number in 0..2 + rng.below(5) {
        let types = rng.pick(&[vec![PolicyType::Ingress], vec![PolicyType::Ingress, PolicyType::Egress]]);
        let mut rules = || (0..1 + rng.below(2)).map(|_| narrow_rule(rng, side)).collect();
        let (ingress, egress): (Vec<Rule>, Vec<Rule>) = (rules(), rules());
        let spec = GlobalNetworkPolicySpec {
            order: Some(0.0),
            selector: rng.pick(&["all()", "all()", "a == 'x'", "has(b)"]).to_owned(),
            ingress,
            egress: if types.len() == 2 { egress } else { Vec::new() },
            types,
            ..GlobalNetworkPolicySpec::default()
        };
        put(facts, GlobalNetworkPolicy { metadata: Metadata::named(format!("n{number}")), spec });
    }
}

/// The name as upstream wants it of policies outside of the default tier.
fn in_tier(tier: &str, name: &str) -> String {
    if tier.is_empty() || tier == "default" { name.to_owned() } else { format!("{tier}.{name}") }
}

pub(super) fn profiles(rng: &mut Rng, facts: &mut Facts) {
    let lent = [("pcns.env", "x"), ("pcns.env", "y"), ("c", "lent"), ("a", "x"), ("pcsa.a", "x"), ("pcsa.env", "x")];
    for name in PROFILES {
        if !rng.percent(85) {
            continue;
        }
        let labels = rng.some(&lent, 3);
        let all = || vec![Rule { action: Action::Allow, ..Rule::default() }];
        let open = name == "open" || rng.percent(40);
        let (ingress, egress) = if open { (all(), all()) } else { (rules(rng, 3), rules(rng, 3)) };
        let labels_to_apply = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        put(facts, Profile { metadata: Metadata::named(name), spec: ProfileSpec { ingress, egress, labels_to_apply } });
    }
}
