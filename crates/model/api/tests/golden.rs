//! Every kind against upstream's spelling. `golden/KIND.json` holds every field that upstream's structure has, in its
//! order; `golden/written_when_empty.txt` holds the fields that upstream writes even when they are empty.

use std::path::PathBuf;

use serde_json::Value;
use tortie_api::{FieldError, Kind, ReadError, Resource};

fn golden(kind: Kind) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{kind}.json"));
    std::fs::read_to_string(path).expect("every kind has a golden file").trim_end().to_owned()
}

#[test]
fn every_field_is_read_and_written_back_byte_for_byte() {
    for kind in Kind::ALL {
        let text = golden(*kind);
        let resource = Resource::from_json(&text).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert_eq!(resource.kind(), *kind);
        similar_asserts::assert_eq!(resource.to_json(), text, "{kind}");
        assert_eq!(Resource::from_value(resource.to_value()).as_ref(), Ok(&resource), "{kind}");
    }
}

#[test]
fn empty_fields_are_written_where_upstream_writes_them() {
    let table = include_str!("golden/written_when_empty.txt");
    assert_eq!(table.lines().count(), Kind::ALL.len());
    for line in table.lines() {
        let (kind, expected) = line.split_once(' ').expect("kind and fields");
        let bare = format!(r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3"}}"#);
        let written: Value = serde_json::from_str(&Resource::from_json(&bare).expect(kind).to_json()).expect("JSON");
        let expected: Value = serde_json::from_str(expected).expect("JSON");
        for part in ["spec", "status"] {
            assert_same_fields(kind, part, written.get(part), expected.get(part));
        }
    }
}

fn assert_same_fields(kind: &str, path: &str, written: Option<&Value>, expected: Option<&Value>) {
    match (written, expected) {
        (None, None) | (Some(_), Some(Value::Null)) => {}
        (Some(Value::Object(written)), Some(Value::Object(expected))) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(written), names(expected), "{kind} {path}");
            for (name, value) in expected {
                assert_same_fields(kind, &format!("{path}.{name}"), written.get(name), Some(value));
            }
        }
        (written, expected) => panic!("{kind} {path}: wrote {written:?}, upstream {expected:?}"),
    }
}

/// Fields whose members are named by the user.
const MAPS: [&str; 12] = [
    "labels",
    "annotations",
    "labelsToApply",
    "secondary",
    "alternateOwnerAttrs",
    "block",
    "sequenceNumberForAllocation",
    "bpfLogFilters",
    "environmentVars",
    "matchLabels",
    "managedFields",
    "selfLink",
];

/// One step of a path: a member or an item.
#[derive(Clone)]
enum Step {
    Member(String),
    Item(usize),
}

fn show(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Member(name) if out.is_empty() => out.push_str(name),
            Step::Member(name) => out.push_str(&format!(".{name}")),
            Step::Item(index) => out.push_str(&format!("[{index}]")),
        }
    }
    out
}

fn walk(value: &Value, path: &mut Vec<Step>, visit: &mut impl FnMut(&[Step], &Value)) {
    visit(path, value);
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                path.push(Step::Member(name.clone()));
                walk(member, path, visit);
                path.pop();
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(Step::Item(index));
                walk(item, path, visit);
                path.pop();
            }
        }
        _ => {}
    }
}

fn at<'a>(mut value: &'a mut Value, path: &[Step]) -> &'a mut Value {
    for step in path {
        value = match step {
            Step::Member(name) => &mut value[name.as_str()],
            Step::Item(index) => &mut value[*index],
        };
    }
    value
}

fn typos(word: &str) -> Vec<String> {
    let last = word.chars().next_back().expect("not empty");
    let mut swapped: Vec<char> = word.chars().collect();
    swapped.swap(0, 1);
    let swapped: String = swapped.into_iter().collect();
    let all = [word[1..].to_owned(), format!("{word}{last}"), swapped];
    all.into_iter().filter(|typo| typo != word).collect()
}

fn refusal(value: Value) -> Option<FieldError> {
    match Resource::from_value(value) {
        Ok(_) => None,
        Err(ReadError::Field(error)) => Some(error),
        Err(other) => panic!("{other}"),
    }
}

/// The suggestion is the right word, or one to which the misspelling is just as close, as `BGP` is to eBGP and iBGP.
fn assert_means(error: &FieldError, typo: &str, right: &str, place: &str) {
    let nearest = error.nearest.as_deref().unwrap_or_else(|| panic!("{place}: nothing suggested for {typo}"));
    let distance = |word: &str| strsim::damerau_levenshtein(word, typo);
    assert!(nearest == right || distance(nearest) <= distance(right), "{place}: {typo} as {nearest}, not {right}");
}

#[test]
fn a_misspelt_field_is_refused_with_the_right_name() {
    let mut tried = 0;
    for kind in Kind::ALL {
        let good: Value = serde_json::from_str(&golden(*kind)).expect("JSON");
        let mut fields = Vec::new();
        walk(&good, &mut Vec::new(), &mut |path, _| {
            if let Some(Step::Member(_)) = path.last()
                && path.len() > 1
                && !path[..path.len() - 1].iter().any(|s| matches!(s, Step::Member(n) if MAPS.contains(&n.as_str())))
            {
                fields.push(path.to_vec());
            }
        });
        for path in fields {
            let (Step::Member(name), parent) = (path.last().expect("not empty"), &path[..path.len() - 1]) else {
                continue;
            };
            for typo in typos(name) {
                let mut bad = good.clone();
                let Value::Object(members) = at(&mut bad, parent) else { panic!("a member's parent is an object") };
                let value = members.remove(name).expect("the member is there");
                members.insert(typo.clone(), value);
                let error = refusal(bad).unwrap_or_else(|| panic!("{kind} {} as {typo} was taken", show(&path)));
                let mut wrong = parent.to_vec();
                wrong.push(Step::Member(typo.clone()));
                assert_eq!(error.path, show(&wrong), "{kind}");
                assert_means(&error, &typo, name, &format!("{kind} {}", show(&path)));
                tried += 1;
            }
        }
    }
    assert!(tried > 1500, "{tried}");
}

#[test]
fn a_misspelt_choice_is_refused_with_the_right_word() {
    let mut tried = Vec::new();
    for kind in Kind::ALL {
        let good: Value = serde_json::from_str(&golden(*kind)).expect("JSON");
        let mut words = Vec::new();
        walk(&good, &mut Vec::new(), &mut |path, value| {
            if let Value::String(word) = value
                && path.len() > 1
                && word.len() > 1
            {
                words.push((path.to_vec(), word.clone()));
            }
        });
        for (path, word) in words {
            for typo in typos(&word) {
                let mut bad = good.clone();
                *at(&mut bad, &path) = Value::String(typo.clone());
                // Free text takes anything; only a refusal by a list of choices is judged.
                let Some(error) = refusal(bad).filter(|e| e.expected.starts_with("one of ")) else { continue };
                assert_eq!((&error.path, &error.value), (&show(&path), &format!("{typo:?}")), "{kind}");
                assert_means(&error, &typo, &word, &format!("{kind} {}", show(&path)));
                tried.push(format!("{kind} {}", show(&path)));
            }
        }
    }
    tried.dedup();
    for expected in [
        "NetworkPolicy spec.ingress[0].action",
        "NetworkPolicy spec.ingress[0].protocol",
        "NetworkPolicy spec.types[0]",
        "StagedGlobalNetworkPolicy spec.stagedAction",
        "Tier spec.defaultAction",
        "IPPool spec.vxlanMode",
        "IPPool spec.allowedUses[0]",
        "BGPPeer spec.nextHopMode",
        "BGPFilter spec.exportV4[0].matchOperator",
        "FelixConfiguration spec.nftablesMode",
        "KubeControllersConfiguration spec.controllers.node.hostEndpoint.autoCreate",
        "CalicoNodeStatus spec.classes[0]",
    ] {
        assert!(tried.iter().any(|t| t == expected), "{expected} takes any text");
    }
}

#[test]
fn fields_of_newer_versions_are_left_out_when_a_store_is_read() {
    for kind in Kind::ALL {
        let text = golden(*kind);
        let mut value: Value = serde_json::from_str(&text).expect("JSON");
        value["new"] = Value::Bool(true);
        value["metadata"]["new.er"] = Value::Null;
        value["metadata"]["ownerReferences"][0]["newest"] = serde_json::json!({"a": [1]});
        let (resource, unknown) = Resource::from_stored_json(&value.to_string()).expect("all else is known");
        assert_eq!(resource.to_json(), text, "{kind}");
        // A member that is null says nothing, whatever its name.
        assert_eq!(unknown, ["metadata.ownerReferences[0].newest", "new"], "{kind}");
    }
    let wrong = golden(Kind::NetworkPolicy).replace("Pass", "Jump");
    assert!(Resource::from_stored_json(&wrong).is_err(), "an action that is not known cannot be left out");
}

#[test]
fn a_rule_that_a_newer_version_made_narrower_lets_nothing_on_and_is_written_back() {
    let rule =
        |action: &str| serde_json::json!({ "action": action, "source": { "nets": ["10.0.0.0/8"], "moon": "full" } });
    let mut value: Value = serde_json::from_str(&golden(Kind::NetworkPolicy)).expect("JSON");
    value["spec"]["ingress"] = serde_json::json!([rule("Allow"), rule("Deny"), { "action": "Allow" }]);
    value["spec"]["egress"] = serde_json::json!([rule("Pass")]);
    let (mut resource, unknown) = Resource::from_stored_json(&value.to_string()).expect("all else is known");
    assert_eq!(unknown.len(), 3, "{unknown:?}");
    let Resource::NetworkPolicy(policy) = &mut resource else { panic!("a policy") };
    let [allow, deny, plain] = &policy.spec.ingress[..] else { panic!("three rules") };
    assert_eq!((allow.source.selector.as_str(), allow.source.nets.len()), ("!all()", 0));
    assert_eq!((deny.source.selector.as_str(), deny.source.nets.len()), ("", 1));
    assert_eq!(plain.source.selector, "");
    assert_eq!(policy.spec.egress[0].destination.selector, "!all()");
    policy.spec.order = Some(7.0);
    value["spec"]["order"] = serde_json::json!(7);
    assert_eq!(serde_json::from_str::<Value>(&resource.to_stored_json()).expect("JSON"), value);
}

proptest::proptest! {
    #[test]
    fn no_mutation_of_a_good_object_panics(kind in 0..Kind::ALL.len(), at in 0usize..4000, byte in 0u8..128, len in 0usize..8) {
        let mut text = golden(Kind::ALL[kind]).into_bytes();
        let at = at % text.len();
        let end = (at + len).min(text.len());
        text.splice(at..end, [byte]);
        if let Ok((resource, _)) = Resource::from_stored_json(&String::from_utf8_lossy(&text)) {
            let _ = resource.to_stored_json();
        }
        if let Ok(mut resource) = Resource::from_json(&String::from_utf8_lossy(&text)) {
            resource.apply_defaults();
            let _ = resource.validate();
            let again = Resource::from_json(&resource.to_json()).expect("what is written can be read");
            proptest::prop_assert_eq!(again, resource);
        }
    }
}
