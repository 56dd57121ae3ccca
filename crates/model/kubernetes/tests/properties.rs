//! Whatever an object holds: no panic, and no policy that is wider than what was understood.

use proptest::prelude::*;
use serde_json::{Value, json};
use tortie_api::{Action, Resource};
use tortie_kubernetes as k8s;

fn golden_objects() -> Vec<Value> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut out = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("objects").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(file).expect("a readable file");
        for part in text.split("=== ").skip(1) {
            let object = part.split_once('\n').map_or("", |(_, body)| body.split("\n---").next().unwrap_or(body));
            out.push(serde_json::from_str(object.trim()).expect("an object"));
        }
    }
    out
}

/// Every conversion of what reads at all; nothing may panic.
fn convert_all(object: &Value) {
    let text = object.to_string();
    macro_rules! each {
        ($($convert:expr),*) => {
            $(if let Ok(read) = serde_json::from_str(&text) { let _ = $convert(&read); })*
        };
    }
    each!(
        |pod| k8s::pod(pod, "cali"),
        k8s::namespace,
        k8s::service_account,
        k8s::network_policy,
        k8s::cluster_network_policy,
        k8s::endpoint_slice,
        k8s::service,
        |node| k8s::node(node, k8s::PodCidrs::Unused),
        |node| k8s::node(node, k8s::PodCidrs::Used),
        k8s::staged_network_policy,
        k8s::pod_patch,
        k8s::node_patch
    );
}

/// Replaces or removes the leaf or branch of this number.
fn mutate(value: &mut Value, at: &mut usize, with: &Value) -> bool {
    if *at == 0 {
        *value = with.clone();
        return true;
    }
    *at -= 1;
    match value {
        Value::Object(members) => members.values_mut().any(|member| mutate(member, at, with)),
        Value::Array(items) => items.iter_mut().any(|item| mutate(item, at, with)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!([])),
        Just(json!([{}])),
        any::<i64>().prop_map(|number| json!(number)),
        any::<bool>().prop_map(|truth| json!(truth)),
        "[ -~]{0,12}".prop_map(|text| json!(text)),
        "[0-9]{0,24}(\\.[0-9]{0,24})?(Ki|Ei|m|n|k|E|e[0-9]{1,6})?".prop_map(|text| json!(text)),
    ]
}

fn spec_of(resource: &Resource) -> (&str, usize) {
    match resource {
        Resource::KubernetesNetworkPolicy(policy) => {
            let rules = policy.spec.ingress.iter().chain(&policy.spec.egress);
            (&policy.spec.selector, rules.filter(|rule| rule.action == Action::Allow).count())
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_of_a_good_object_panics(which in 0usize..1000, at in 0usize..200, with in any_value()) {
        let objects = golden_objects();
        let mut object = objects[which % objects.len()].clone();
        mutate(&mut object, &mut { at }, &with);
        convert_all(&object);
    }

    /// A field that is not known, put anywhere into a rule, takes the rule away.
    #[test]
    fn an_unknown_field_in_a_rule_never_widens_it(place in 0usize..5) {
        let rule = json!({
            "from": [{ "podSelector": { "matchLabels": { "app": "a" } } }],
            "ports": [{ "port": 80 }],
        });
        let mut odd = rule.clone();
        let part = match place {
            0 => &mut odd,
            1 => &mut odd["from"][0],
            2 => &mut odd["from"][0]["podSelector"],
            3 => &mut odd["ports"][0],
            _ => &mut odd["from"][0]["podSelector"]["matchExpressions"],
        };
        if place == 4 {
            *part = json!([{ "key": "a", "operator": "Exists", "unknown": 1 }]);
        } else {
            part["unknown"] = json!({ "narrower": true });
        }
        let policy = |rules: Value| {
            let text = json!({
                "metadata": { "name": "p", "namespace": "ns" },
                "spec": { "podSelector": {}, "policyTypes": ["Ingress"], "ingress": rules },
            });
            k8s::network_policy(&serde_json::from_value(text).expect("a policy")).expect("converts")
        };
        let (good, both) = (policy(json!([rule])), policy(json!([rule, odd])));
        prop_assert_eq!(both.problems.len(), 1);
        prop_assert_eq!(spec_of(&good.resource), spec_of(&both.resource));
    }
}
