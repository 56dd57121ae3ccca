//! Who is named for a packet, and what was asked of it.

use tortie_desired::{PolicyKind, PolicyStage, TierAction};
use tortie_net::Protocol;

use super::*;
use crate::seen::Flow;

fn policy(name: &str) -> PolicyId {
    PolicyId { name: name.into(), namespace: "ns".into(), kind: PolicyKind::NetworkPolicy }
}

fn tier(name: &str, ingress: &[&str]) -> TierPolicies {
    let ingress = ingress.iter().map(|name| policy(name)).collect();
    TierPolicies { tier: name.into(), default_action: TierAction::Deny, ingress, egress: vec![] }
}

fn directory() -> Directory {
    let id = EndpointId { namespace: "ns".into(), name: "web".into() };
    let web = Endpoint {
        interface: "cali1".into(),
        addresses: vec![IpAddr::from([10, 65, 0, 1])],
        tiers: vec![tier("first", &["a", "b"]), tier("default", &["c"])],
        profiles: vec!["kns.ns".into()],
        ..Endpoint::default()
    };
    let host =
        HostEndpoint { name: "guarded".into(), forward: vec![tier("default", &["c", "f"])], ..HostEndpoint::default() };
    let long = Policy {
        tier: "default".into(),
        stage: PolicyStage::Normal,
        ingress: vec![Rule::any(Action::Allow), Rule::any(Action::Deny)],
        egress: vec![],
    };
    let mut directory = Directory::default();
    directory.apply(&Batch {
        endpoints: [(id, Some(Arc::new(web)))].into(),
        host_endpoints: [(HostInterface::All, Some(Arc::new(host)))].into(),
        policies: [(policy(&"l".repeat(80)), Some(Arc::new(long)))].into(),
        ..Batch::default()
    });
    directory
}

fn seen(prefix: &str) -> Seen {
    let flow = Flow {
        source: IpAddr::from([10, 65, 9, 9]),
        destination: IpAddr::from([10, 65, 0, 1]),
        protocol: Protocol::TCP,
        ports: Some((40000, 80)),
        icmp: None,
    };
    let (input, output) = (Some("eth0".to_owned()), Some("cali1".to_owned()));
    Seen { prefix: prefix.to_owned(), hook: Hook::Forward, input, output, flow: Some(flow) }
}

#[test]
fn an_implicit_denial_names_the_policies_that_made_it_one() {
    let record = directory().record(&seen("DPI|first"), 5).expect("ours");
    assert_eq!(record.endpoint.as_deref(), Some("ns/web"));
    assert_eq!((record.cause.as_str(), record.tier.as_deref()), ("end-of-tier", Some("first")));
    assert_eq!(record.asked, ["np/ns/a", "np/ns/b"]);
    assert_eq!((record.destination_endpoint.as_deref(), record.source_endpoint), (Some("ns/web"), None));
    assert_eq!((record.destination_port, record.time_ms), (Some(80), 5));
    let record = directory().record(&seen("DRI"), 5).expect("ours");
    assert_eq!(record.asked, ["np/ns/a", "np/ns/b", "np/ns/c", "pro/kns.ns"]);
}

#[test]
fn a_rule_is_that_of_the_endpoint_that_lists_its_policy() {
    let record = |prefix: &str| directory().record(&seen(prefix), 0).expect("ours");
    let own = record("DPI3|np/ns/a");
    assert_eq!((own.endpoint.as_deref(), own.host_endpoint, own.rule), (Some("ns/web"), false, Some(3)));
    assert_eq!((own.tier.as_deref(), own.policy.as_deref()), (Some("first"), Some("np/ns/a")));
    let host = record("DPI0|np/ns/f");
    assert_eq!((host.endpoint.as_deref(), host.host_endpoint), (Some("guarded"), true));
    // Both list it: the host's interface is asked first.
    assert!(record("DPI0|np/ns/c").host_endpoint);
    let end = record("DPI|default|host");
    assert_eq!((end.endpoint.as_deref(), end.asked), (Some("guarded"), vec!["np/ns/c".into(), "np/ns/f".into()]));
}

#[test]
fn names_that_were_hashed_are_found_while_their_policy_is_there() {
    let mut directory = directory();
    let id = policy(&"l".repeat(80));
    let cause = Cause::Rule { owner: CauseOwner::Policy(id.clone()), direction: Direction::Ingress, index: 1 };
    let record = directory.record(&seen(&cause.prefix()), 0).expect("known");
    assert_eq!(record.policy, Some(id.to_string()));
    directory.apply(&Batch { policies: [(id, None)].into(), ..Batch::default() });
    assert_eq!(directory.record(&seen(&cause.prefix()), 0), None);
    assert!(directory.hashed.is_empty() && directory.hashed_of.is_empty());
}

#[test]
fn who_went_is_forgotten() {
    let mut directory = directory();
    let id = EndpointId { namespace: "ns".into(), name: "web".into() };
    directory.apply(&Batch { endpoints: [(id, None)].into(), ..Batch::default() });
    let record = directory.record(&seen("DPI|first"), 0).expect("ours");
    assert_eq!((record.endpoint, record.destination_endpoint, record.asked), (None, None, vec![]));
    assert!(directory.by_interface.is_empty() && directory.by_address.is_empty());
    assert_eq!(directory.record(&seen("somebody else's"), 0), None);
}
