//! NetworkPolicy of `networking.k8s.io/v1`: what it allows, as a policy of the tier `default`.
//!
//! Rules only ever allow, so a rule that is not understood is left out: that closes. A pod selector that is not
//! understood closes the whole namespace in the policy's directions.

use serde::Deserialize;
use serde_json::Value;
use tortie_api::{
    Action, EntityRule, IntOrString, IpBlock, IpNetText, KubernetesEgressRule, KubernetesIngressRule,
    KubernetesNetworkPolicy, KubernetesPeer, KubernetesPort, KubernetesProtocol, LabelSelector,
    NetworkPolicySpec as Spec, PolicyType, Port, Rule, RuleProtocol, StagedKubernetesNetworkPolicySpec,
};
use tortie_net::{IpNet, Protocol};

use crate::error::{ConversionError, Converted, Object, Wrong, read};
use crate::meta::or_default;
use crate::namespace::new_uid;
use crate::ports::PortsByProtocol;
use crate::{ObjectMeta, selector};

/// A NetworkPolicy of `networking.k8s.io/v1`. Rules stay unread until they are converted, one by one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NetworkPolicy {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What is allowed.
    pub spec: NetworkPolicySpec,
}

/// The specification of a NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// The pods; empty or absent means every pod of the namespace.
    pub pod_selector: Value,
    /// What is allowed towards them.
    #[serde(deserialize_with = "or_default")]
    pub ingress: Vec<Value>,
    /// What is allowed from them.
    #[serde(deserialize_with = "or_default")]
    pub egress: Vec<Value>,
    /// The directions that the policy closes but for its rules.
    #[serde(deserialize_with = "or_default")]
    pub policy_types: Vec<String>,
}

/// Every Kubernetes policy's place in the tier `default`.
const ORDER: f64 = 1000.0;

/// The policy as a fact.
pub fn network_policy(from: &NetworkPolicy) -> Result<Converted, ConversionError> {
    let NetworkPolicy { metadata: meta, spec } = from;
    let object = Object { kind: "NetworkPolicy", namespace: &meta.namespace, name: &meta.name };
    let mut problems = Vec::new();
    let mut parts = Parts::default();
    for (at, value) in spec.ingress.iter().enumerate() {
        match read::<KubernetesIngressRule>(value).and_then(|rule| ingress(&rule)) {
            Ok(rules) => parts.ingress.extend(rules),
            Err(wrong) => problems.push(wrong.below(&format!("spec.ingress[{at}]"))),
        }
    }
    for (at, value) in spec.egress.iter().enumerate() {
        match read::<KubernetesEgressRule>(value).and_then(|rule| egress(&rule)) {
            Ok(rules) => parts.egress.extend(rules),
            Err(wrong) => problems.push(wrong.below(&format!("spec.egress[{at}]"))),
        }
    }
    for (at, name) in spec.policy_types.iter().enumerate() {
        match PolicyType::ALL.iter().find(|known| known.as_str() == name) {
            Some(known) => parts.types.push(*known),
            None => {
                let field = format!("spec.policyTypes[{at}]");
                problems.push(Wrong::new(&field, format!("{name:?}"), "Ingress or Egress"));
            }
        }
    }
    parts.has_egress = !spec.egress.is_empty();
    let pods = match &spec.pod_selector {
        Value::Null => Ok(LabelSelector::default()),
        value => read::<LabelSelector>(value),
    };
    let spec = parts.into_spec(pods.and_then(|pods| selector::pods(Some(&pods))), "spec.podSelector", &mut problems);
    let mut problems = problems.into_iter().map(|wrong| object.wrong(wrong)).collect();
    let metadata = meta.identity(new_uid(&object, &meta.uid, &mut problems));
    Ok(Converted::of(KubernetesNetworkPolicy { metadata, spec }, problems))
}

/// What a staged Kubernetes policy would be as a policy, and what of it is not understood.
pub fn staged_network_policy(from: &StagedKubernetesNetworkPolicySpec) -> (Spec, Vec<String>) {
    let StagedKubernetesNetworkPolicySpec {
        staged_action: _,
        pod_selector,
        ingress: to_pods,
        egress: from_pods,
        policy_types,
    } = from;
    let mut problems = Vec::new();
    let mut parts = Parts { types: policy_types.clone(), has_egress: !from_pods.is_empty(), ..Parts::default() };
    for (at, rule) in to_pods.iter().enumerate() {
        match ingress(rule) {
            Ok(rules) => parts.ingress.extend(rules),
            Err(wrong) => problems.push(wrong.below(&format!("spec.ingress[{at}]"))),
        }
    }
    for (at, rule) in from_pods.iter().enumerate() {
        match egress(rule) {
            Ok(rules) => parts.egress.extend(rules),
            Err(wrong) => problems.push(wrong.below(&format!("spec.egress[{at}]"))),
        }
    }
    let spec = parts.into_spec(selector::pods(Some(pod_selector)), "spec.podSelector", &mut problems);
    let line = |Wrong { field, value, expected }: Wrong| format!("{field}: {value}: expected {expected}");
    (spec, problems.into_iter().map(line).collect())
}

#[derive(Default)]
struct Parts {
    ingress: Vec<Rule>,
    egress: Vec<Rule>,
    types: Vec<PolicyType>,
    has_egress: bool,
}

impl Parts {
    fn into_spec(self, pods: Result<String, Wrong>, field: &str, problems: &mut Vec<Wrong>) -> Spec {
        let Parts { mut ingress, mut egress, types, has_egress } = self;
        let selector = pods.unwrap_or_else(|wrong| {
            problems.push(wrong.below(field));
            ingress.clear();
            egress.clear();
            "projectcalico.org/orchestrator == 'k8s'".to_owned()
        });
        let has = |wanted| types.contains(&wanted);
        // Without types, a policy closes ingress, and egress too if it has rules for it.
        let closes_ingress = types.is_empty() || has(PolicyType::Ingress);
        let closes_egress = has(PolicyType::Egress) || types.is_empty() && has_egress;
        let both = [(PolicyType::Ingress, closes_ingress), (PolicyType::Egress, closes_egress)];
        Spec {
            tier: "default".to_owned(),
            order: Some(ORDER),
            selector,
            ingress,
            egress,
            types: both.into_iter().filter(|(_, closes)| *closes).map(|(direction, _)| direction).collect(),
            ..Spec::default()
        }
    }
}

fn ingress(rule: &KubernetesIngressRule) -> Result<Vec<Rule>, Wrong> {
    let KubernetesIngressRule { ports, from } = rule;
    let build = |protocol, ports, peer| Rule {
        action: Action::Allow,
        protocol,
        source: peer,
        destination: EntityRule { ports, ..EntityRule::default() },
        ..Rule::default()
    };
    rules(ports, from, "from", build)
}

fn egress(rule: &KubernetesEgressRule) -> Result<Vec<Rule>, Wrong> {
    let KubernetesEgressRule { ports, to } = rule;
    let build = |protocol, ports, peer| Rule {
        action: Action::Allow,
        protocol,
        destination: EntityRule { ports, ..peer },
        ..Rule::default()
    };
    rules(ports, to, "to", build)
}

/// One rule for each protocol and peer, protocols by name.
fn rules(
    ports: &[KubernetesPort],
    peers: &[KubernetesPeer],
    peers_field: &str,
    build: impl Fn(Option<RuleProtocol>, Vec<Port>, EntityRule) -> Rule,
) -> Result<Vec<Rule>, Wrong> {
    let mut by_protocol = PortsByProtocol::default();
    for (at, port) in ports.iter().enumerate() {
        let (protocol, port) = self::port(port).map_err(|wrong| wrong.below(&format!("ports[{at}]")))?;
        by_protocol.add(Some(protocol), port);
    }
    if ports.is_empty() {
        by_protocol = PortsByProtocol::any();
    }
    let mut entities = Vec::new();
    for (at, peer) in peers.iter().enumerate() {
        entities.push(self::peer(peer).map_err(|wrong| wrong.below(&format!("{peers_field}[{at}]")))?);
    }
    if peers.is_empty() {
        entities.push(EntityRule::default());
    }
    let mut out = Vec::new();
    for (protocol, ports) in by_protocol.rules() {
        let protocol = protocol.map(RuleProtocol::Name);
        out.extend(entities.iter().map(|entity| build(protocol, ports.clone(), entity.clone())));
    }
    Ok(out)
}

fn port(from: &KubernetesPort) -> Result<(Protocol, Option<Port>), Wrong> {
    let KubernetesPort { protocol, port, end_port } = from;
    let protocol = match protocol.unwrap_or_default() {
        KubernetesProtocol::Tcp => Protocol::TCP,
        KubernetesProtocol::Udp => Protocol::UDP,
        KubernetesProtocol::Sctp => Protocol::SCTP,
    };
    let text = match (port, end_port) {
        (None, None) => return Ok((protocol, None)),
        (None, Some(last)) => return Err(Wrong::new("endPort", last, "none without a port")),
        (Some(IntOrString::Int(number)), None) => number.to_string(),
        (Some(IntOrString::Text(text)), None) => text.clone(),
        (Some(IntOrString::Int(number)), Some(last)) => format!("{number}:{last}"),
        (Some(IntOrString::Text(text)), Some(last)) => format!("{text}:{last}"),
    };
    let parsed = Port::parse(&text).filter(|port| !matches!(port, Port::Range(range) if range.first() == 0));
    let wrong = || Wrong::new("port", format!("{text:?}"), "a port from 1 to 65535, a range of them, or a port's name");
    parsed.map(|port| (protocol, Some(port))).ok_or_else(wrong)
}

fn peer(from: &KubernetesPeer) -> Result<EntityRule, Wrong> {
    let KubernetesPeer { pod_selector, namespace_selector, ip_block } = from;
    match (pod_selector, namespace_selector, ip_block) {
        (None, None, Some(block)) => self::block(block).map_err(|wrong| wrong.below("ipBlock")),
        (None, None, None) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            Err(Wrong::new("", "no peer, or two", "either ipBlock, or podSelector and namespaceSelector"))
        }
        (pods, namespaces, None) => Ok(EntityRule {
            selector: selector::pods(pods.as_ref()).map_err(|wrong| wrong.below("podSelector"))?,
            namespace_selector: match namespaces {
                Some(found) => selector::namespaces(found).map_err(|wrong| wrong.below("namespaceSelector"))?,
                None => String::new(),
            },
            ..EntityRule::default()
        }),
    }
}

fn block(from: &IpBlock) -> Result<EntityRule, Wrong> {
    let IpBlock { cidr, except } = from;
    let mut holes = Vec::new();
    for (at, hole) in except.iter().enumerate() {
        holes.push(prefix(hole.as_str()).map_err(|wrong| wrong.below(&format!("except[{at}]")))?);
    }
    let cidr = prefix(cidr.as_str()).map_err(|wrong| wrong.below("cidr"))?;
    Ok(EntityRule { nets: vec![cidr], not_nets: holes, ..EntityRule::default() })
}

/// A prefix with its host bits cleared. A plain address is none, unlike in Calico's own policies.
pub(crate) fn prefix(text: &str) -> Result<IpNetText, Wrong> {
    let parsed = text.parse::<IpNet>().ok().map(|net| net.trunc().into());
    parsed.ok_or_else(|| Wrong::new("", format!("{text:?}"), "a prefix such as 10.0.0.0/8"))
}
