//! Old documents and what becomes of them: each file of `tests/documents` holds the old form, then the new one and the
//! notes. `TORTIE_BLESS=1` rewrites what is expected.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use tortie_api::{FieldError, manifest, to_yaml};
use tortie_legacy::{Converted, KINDS, convert, is_old};

const LINE: &str = "\n=== becomes\n";

/// The new resources of a text of old ones, checked, with the notes.
fn translate(text: &str) -> Result<String, String> {
    let mut notes = Vec::new();
    let resources = manifest::parse_with("old", text, true, &mut |value| {
        convert(value).map(|result| {
            let take = |Converted { resource, notes: more }| {
                notes.extend(more);
                resource
            };
            result.map(|all| all.into_iter().map(take).collect())
        })
    });
    let resources = resources.map_err(|error| error.to_string())?;
    let mut out: Vec<String> = resources.iter().map(|resource| to_yaml(&resource.to_value())).collect();
    out.extend((!notes.is_empty()).then(|| format!("# {}\n", notes.join("\n# "))));
    Ok(out.join("---\n"))
}

#[test]
fn documents_become_what_upstreams_converter_makes_of_them() {
    let bless = std::env::var_os("TORTIE_BLESS").is_some();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(files.len() >= 8, "{} left", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let old = text.split(LINE).next().expect("there is a first part");
        let found = format!("{}{LINE}{}", old, translate(old).unwrap_or_else(|error| format!("error: {error}\n")));
        if bless {
            std::fs::write(&path, found).expect("writable");
        } else {
            similar_asserts::assert_eq!(text, found, "{}", path.display());
        }
    }
}

#[test]
fn what_is_not_old_is_left_alone() {
    for value in [
        json!({"apiVersion": "projectcalico.org/v3", "kind": "Profile"}),
        json!({"apiVersion": "v1", "kind": "Pod"}),
        json!({"apiVersion": "v1", "kind": "List"}),
        json!({"kind": "profile"}),
        json!([]),
    ] {
        assert!(!is_old(&value) && convert(&value).is_none(), "{value}");
    }
}

#[test]
fn wrong_fields_and_values_are_named_in_the_old_form() {
    for (document, parts) in [
        (json!({"kind": "policy", "metadata": {"name": "a"}, "spec": {"ingres": []}}), ["spec.ingres:", "\"ingress\""]),
        (
            json!({"kind": "policy", "metadata": {"name": "a"}, "spec": {"ingress": [{"action": "alow"}]}}),
            ["spec.ingress[0].action: \"alow\"", "allow, deny"],
        ),
        (json!({"kind": "policy", "metadata": {"name": "a"}, "spec": {"ingress": [{}]}}), ["action", "missing"]),
        (
            json!({"kind": "profile", "metadata": {"name": "a", "tags": ["t"], "labels": {"t": "x"}}}),
            ["metadata.tags[0]: \"t\"", "tags are labels"],
        ),
        (json!({"kind": "ipPool", "metadata": {"cidr": "10.0.0"}}), ["metadata.cidr", "10.0.0.0/8"]),
        (
            json!({"kind": "ipPool", "metadata": {"cidr": "10.0.0.0/8"}, "spec": {"ipip": {"mode": "x"}}}),
            ["spec.ipip.mode: \"x\"", "cross-subnet"],
        ),
        (json!({"kind": "bgpPeer", "metadata": {"peerIP": "10.0.0.1"}}), ["metadata.scope", "global or node"]),
        (
            json!({"kind": "bgpPeer", "metadata": {"scope": "node", "peerIP": "10.0.0.1"}}),
            ["metadata.node", "name of a"],
        ),
        (json!({"kind": "node", "metadata": {"name": "n"}, "spec": {"bgp": {}}}), ["spec.bgp", "ipv4Address"]),
        (
            json!({"kind": "workloadEndpoint", "metadata":
                {"name": "eth0", "workload": "pod", "orchestrator": "k8s", "node": "n"}}),
            ["metadata.workload: \"pod\"", "NAMESPACE.POD"],
        ),
        (json!({"kind": "policyList", "items": [{"metadata": {}}]}), ["items[0].metadata", "missing"]),
    ] {
        let mut document = document;
        document["apiVersion"] = json!("v1");
        let error: FieldError = convert(&document).expect("it is old").expect_err(parts[0]);
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

/// Any value, with names that old documents know.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        prop_oneof!["10\\.0\\.0\\.[0-9]{1,3}(/[0-9]{1,2})?", "\\PC{0,8}", "allow|global|node|tcp|k8s"]
            .prop_map(Value::String),
    ];
    let key = prop_oneof![
        "name|node|cidr|peerIP|scope|tags|labels|tier|workload|orchestrator",
        "ingress|egress|action|source|nets|net|tag|protocol|ports|types|bgp|ipip|mac"
    ];
    leaf.prop_recursive(5, 60, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(kind in prop::sample::select(&KINDS[..]), metadata in any_value(), spec in any_value()) {
        let value = json!({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec});
        if let Some(Ok(all)) = convert(&value) {
            for Converted { mut resource, notes: _ } in all {
                resource.apply_defaults();
                let _ = resource.validate();
            }
        }
    }
}
