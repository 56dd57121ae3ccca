//! Whatever is given: an answer, never a panic, and nothing written.

mod common;

use common::{Cluster, manifest};
use proptest::prelude::*;

/// Text that is nearly a manifest.
fn nearly() -> impl Strategy<Value = String> {
    let whole = manifest("NetworkPolicy", "p", "selector: all()\norder: 1\ningress: [{action: Allow}]");
    (0..whole.len(), 0..12usize, "[ -~\\n]{0,6}").prop_map(move |(at, cut, new)| {
        let end = (at + cut).min(whole.len());
        format!("{}{new}{}", &whole[..at], &whole[end..])
    })
}

/// A JSON value with few names, so that paths often meet something.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        (-9..9i64).prop_map(Into::into),
        "[a-c/~$-]{0,3}".prop_map(Into::into),
    ];
    let name = prop_oneof![
        Just("spec".to_owned()),
        Just("metadata".to_owned()),
        Just("$patch".to_owned()),
        Just("op".to_owned()),
        Just("path".to_owned()),
        Just("value".to_owned()),
        Just("labels".to_owned()),
        "[a-c]",
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::hash_map(name.clone(), inner, 0..4)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_is_judged(text in prop_oneof![nearly(), ".{0,80}"]) {
        let ran = Cluster::new().run("validate -f -", &text);
        prop_assert!(ran.code == 0 || !ran.err.is_empty());
    }

    #[test]
    fn any_command_line_is_judged(words in prop::collection::vec("[a-z-]{1,8}|get|node|ippool|-o|yaml|-f|-A", 0..5)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = Cluster::new().run_args(&words, "");
        prop_assert!(ran.code == 0 || !ran.err.is_empty(), "{:?}: {:?}", words, ran);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_patch_leaves_a_good_resource(patches in prop::collection::vec((0..3usize, json()), 1..8)) {
        let cluster = Cluster::new();
        cluster.good("create -f -", &manifest("Tier", "t", "order: 5"));
        for (how, patch) in patches {
            let how = ["strategic", "merge", "json"][how];
            let ran = cluster.run_args(&["patch", "tier", "t", "--type", how, "-p", &patch.to_string()], "");
            prop_assert!(ran.code == 0 || !ran.err.is_empty());
            let yaml = cluster.good("get tier t -o yaml", "");
            cluster.good("validate -f -", &yaml);
        }
    }
}
