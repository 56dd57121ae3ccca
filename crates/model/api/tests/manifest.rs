//! Files of resources: what is taken, and what people are told about the rest.

use tortie_api::manifest::{ManifestError, parse, parse_unchecked};
use tortie_api::{Action, Kind, Port, Resource};

fn errors(text: &str) -> String {
    parse("file.yaml", text).expect_err("it is wrong").to_string()
}

const POLICY: &str = "\
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: web
  namespace: prod
  labels: {tier: 1, on: yes}
spec:
  selector: app == 'web'
  order: 010
  ingress:
  - action: Allow
    protocol: TCP
    source:
      nets: [10.0.0.0/8]
    destination:
      ports: [80, '8000:8080', http]
";

#[test]
fn documents_lists_and_json_are_taken() {
    let list = "kind: NetworkPolicyList\napiVersion: projectcalico.org/v3\nmetadata: {resourceVersion: '7'}\n\
                items:\n- metadata: {name: a, namespace: n}\n  spec: {}\n";
    let mixed = "- apiVersion: projectcalico.org/v3\n  kind: Tier\n  metadata: {name: t}\n\
                 - {apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: p}}\n";
    let generic = r#"{"kind":"List","apiVersion":"v1","items":[
        {"kind":"NetworkSet","apiVersion":"projectcalico.org/v3","metadata":{"name":"s","namespace":"n"}}]}"#;
    let text = format!("# a file\n---\n{POLICY}---\n# nothing\n---\n{list}---\n{mixed}---\n{generic}\n");
    let resources = parse("stdin", &text).expect("all good");
    let kinds: Vec<Kind> = resources.iter().map(Resource::kind).collect();
    assert_eq!(kinds, [Kind::NetworkPolicy, Kind::NetworkPolicy, Kind::Tier, Kind::Profile, Kind::NetworkSet]);
    let Resource::NetworkPolicy(policy) = &resources[0] else { panic!("a policy") };
    // Go's reader makes the number and the truth value text, and takes 010 for an octal number.
    assert_eq!(policy.metadata.labels.get("tier"), Some("1"));
    assert_eq!(policy.metadata.labels.get("on"), Some("true"));
    assert_eq!(policy.spec.order, Some(8.0));
    assert_eq!(policy.spec.ingress[0].action, Action::Allow);
    let ports = &policy.spec.ingress[0].destination.ports;
    assert_eq!(ports[0], Port::number(80));
    assert_eq!(ports[1].to_string(), "8000:8080");
    assert_eq!(ports[2], Port::Named("http".to_owned()));
    assert!(policy.spec.types.is_empty() && policy.spec.tier.is_empty(), "defaults are for the store");
}

#[test]
fn comments_may_stand_anywhere() {
    let text = "# one\napiVersion: projectcalico.org/v3 # two\n# three\nkind: GlobalNetworkSet\nmetadata:\n  # four\n  \
                name: a\nspec: # five\n  nets:\n  # six\n  - 10.0.0.0/8 # seven\n  # eight\n---\n# nine\n";
    assert_eq!(parse("stdin", text).expect("all good").len(), 1);
    let many = "# a line\n".repeat(10_000);
    assert_eq!(parse("stdin", &format!("{many}---\n{many}{text}{many}")).expect("all good").len(), 1);
}

#[test]
fn everything_wrong_is_named_with_its_place_and_the_nearest_choice() {
    for (from, to, expected) in [
        (
            "action: Allow",
            "action: Alow",
            "file.yaml:11: document 1, NetworkPolicy prod/web: spec.ingress[0].action: \"Alow\": expected one of Allow, Deny, Log, Pass; did you mean \"Allow\"?",
        ),
        (
            "    protocol: TCP",
            "    protocl: TCP",
            "file.yaml:12: document 1, NetworkPolicy prod/web: spec.ingress[0].protocl: unknown field: expected one of the fields action, ipVersion, protocol, icmp, notProtocol, notICMP, source, destination, http, metadata; did you mean \"protocol\"?",
        ),
        (
            "kind: NetworkPolicy",
            "kind: NetworkPolcy",
            "file.yaml:2: document 1: kind: \"NetworkPolcy\": expected a kind of projectcalico.org/v3; did you mean \"NetworkPolicy\"?",
        ),
        (
            "projectcalico.org/v3",
            "projectcalico.org/v2",
            "file.yaml:1: document 1, NetworkPolicy prod/web: apiVersion: \"projectcalico.org/v2\": expected \"projectcalico.org/v3\"; did you mean \"projectcalico.org/v3\"?",
        ),
        (
            "projectcalico.org/v3",
            "v1",
            "file.yaml:1: document 1, NetworkPolicy prod/web: apiVersion: \"v1\": expected \"projectcalico.org/v3\"; resources of the old apiVersion v1 have to be converted first",
        ),
        (
            "order: 010",
            "order: first",
            "file.yaml:9: document 1, NetworkPolicy prod/web: spec.order: \"first\": expected a number",
        ),
        (
            "nets: [10.0.0.0/8]",
            "nets: 10.0.0.0/8",
            "file.yaml:14: document 1, NetworkPolicy prod/web: spec.ingress[0].source.nets: \"10.0.0.0/8\": expected a list",
        ),
        (
            "10.0.0.0/8",
            "10.0.0.0/33",
            "file.yaml:14: document 1, NetworkPolicy prod/web: spec.ingress[0].source.nets[0]: \"10.0.0.0/33\": expected an IP prefix without host bits, such as 10.0.0.0/8",
        ),
        (
            "80, ",
            "65536, ",
            "file.yaml:16: document 1, NetworkPolicy prod/web: spec.ingress[0].destination.ports[0]: 65536: expected a port from 0 to 65535, a range such as 8000:8080, or a port name",
        ),
        (
            "name: web",
            "name: Web_1",
            "file.yaml:4: document 1, NetworkPolicy prod/Web_1: metadata.name: \"Web_1\": expected a DNS-1123 label, or two joined by '.'",
        ),
        (
            "app == 'web'",
            "app = 'web'",
            "file.yaml:8: document 1, NetworkPolicy prod/web: spec.selector: \"app = 'web'\": expected a selector: bad selector at byte 4: found \"= 'web'\", expected '=='",
        ),
        (
            "  order: 010",
            "  selector: all()",
            "file.yaml:9: document 1: the key \"selector\" again; it first stands on line 8: expected valid YAML or JSON",
        ),
        ("    protocol: TCP", "   protocol: TCP", "file.yaml:12: document 1: "),
    ] {
        assert!(POLICY.contains(from), "{from}");
        let message = errors(&POLICY.replacen(from, to, 1));
        assert!(message == expected || (expected.ends_with(": ") && message.starts_with(expected)), "{message}");
    }
}

#[test]
fn a_value_that_is_left_out_is_the_default_the_empty_text_or_an_unknown_field() {
    let text = POLICY.replace("on: yes", "on: , 'off': null").replace("order: 010", "order:\n  types: ~");
    let Resource::NetworkPolicy(policy) = &parse("f", &text).expect("good")[0] else { panic!("a policy") };
    let labels: Vec<_> = policy.metadata.labels.iter().collect();
    assert_eq!(labels, [("off", ""), ("on", ""), ("tier", "1")]);
    assert_eq!((policy.spec.order, policy.spec.types.len()), (None, 0));
    let profile = "{kind: Profile, apiVersion: projectcalico.org/v3, metadata: {name: p, annotations: {a: , b: c}}, \
                   spec: {labelsToApply: {role: }}}\n";
    let Resource::Profile(profile) = &parse("f", profile).expect("good")[0] else { panic!("a profile") };
    assert_eq!(profile.metadata.annotations.get("a").map(String::as_str), Some(""));
    assert_eq!(profile.spec.labels_to_apply.get("role"), Some(""));
    for (from, to, expected) in [
        ("  order: 010", "  ordr:", "file.yaml:9: document 1, NetworkPolicy prod/web: spec.ordr: unknown field: "),
        ("      ports:", "      prts: ~\n      ports:", "spec.ingress[0].destination.prts: unknown field: "),
        ("spec:", "spek:\nspec:", "spek: unknown field: "),
        ("10.0.0.0/8", "~", "spec.ingress[0].source.nets[0]: null: expected text"),
    ] {
        let message = errors(&POLICY.replacen(from, to, 1));
        assert!(message.contains(expected), "{message}");
    }
    assert!(errors(&POLICY.replace("order: 010", "ordr:")).ends_with("did you mean \"order\"?"));
}

#[test]
fn every_problem_of_every_document_is_told() {
    let text =
        format!("{}---\n{}", POLICY.replace("Allow", "Alow"), POLICY.replace("prod", "Prod").replace("TCP", "ICMP"));
    let ManifestError { file, problems } = parse("dir/a.yaml", &text).expect_err("it is wrong");
    assert_eq!(file, "dir/a.yaml");
    let places: Vec<_> = problems.iter().map(|p| (p.document, p.line, p.error.path.as_str())).collect();
    assert_eq!(
        places,
        [
            (1, 11, "spec.ingress[0].action"),
            (2, 22, "metadata.namespace"),
            (2, 33, "spec.ingress[0].destination.ports")
        ]
    );
}

#[test]
fn problems_within_lists_carry_the_whole_path() {
    let text = "kind: List\napiVersion: v1\nitems:\n- {kind: Tier, apiVersion: projectcalico.org/v3, metadata: {name: a}}\n\
                - kind: Tier\n  apiVersion: projectcalico.org/v3\n  metadata:\n    name: b.c\n";
    let message = errors(text);
    assert!(
        message.starts_with("file.yaml:8: document 1, Tier b.c: items[1].metadata.name: \"b.c\": expected a DNS"),
        "{message}"
    );
    assert!(errors("- 5\n").starts_with("file.yaml:1: document 1: [0]: 5: expected a resource"));
    assert!(errors("hello\n").starts_with("file.yaml:1: document 1: \"hello\": expected a resource or a list"));
    assert!(errors("metadata: {name: x}\n").starts_with("file.yaml:1: document 1: kind: expected the name of a kind"));
}

#[test]
fn internal_kinds_are_refused_like_any_that_is_none() {
    for kind in tortie_api::Kind::INTERNAL {
        let text = format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: x}}\n");
        assert!(errors(&text).contains("expected a kind of projectcalico.org/v3"), "{kind}");
        let list = format!("apiVersion: projectcalico.org/v3\nkind: {kind}List\nitems: []\n");
        assert!(errors(&list).contains("expected a kind of projectcalico.org/v3"), "{kind}");
    }
}

#[test]
fn commands_that_need_names_only_do_not_check_values() {
    let text = POLICY.replace("app == 'web'", "nonsense");
    assert!(parse("f", &text).is_err());
    assert_eq!(parse_unchecked("f", &text).expect("fields and types are right").len(), 1);
}

#[test]
fn a_bundle_of_many_documents_is_taken_and_an_alias_bomb_is_not() {
    let bundle = POLICY.to_owned() + "---\n";
    assert_eq!(parse("f", &bundle.repeat(3000)).expect("good").len(), 3000);
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let before = format!("*a{}, ", i - 1).repeat(10);
        bomb.push_str(&format!("a{i}: &a{i} [{}]\n", before.trim_end_matches(", ")));
    }
    assert!(errors(&bomb).contains("aliases that stand for more than"));
    let deep = "[".repeat(100_000);
    assert!(parse("f", &deep).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = parse("f", &text);
    }

    #[test]
    fn no_mutation_of_a_good_file_panics(at in 0..POLICY.len(), byte in 0u8..128, len in 0usize..6) {
        let mut text = POLICY.as_bytes().to_vec();
        let end = (at + len).min(text.len());
        text.splice(at..end, [byte]);
        let _ = parse("f", &String::from_utf8_lossy(&text));
    }
}
