//! What this version does not know stays: a change that was made to the part that it knows, applied to the whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

/// The document that a newer version stored, kept with the resource that was read from it, so that writing the resource
/// back loses nothing. Empty for a resource that is known as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Newer(Option<Arc<Value>>);

impl Newer {
    pub(crate) fn of(document: Value) -> Newer {
        Newer(Some(Arc::new(document)))
    }

    pub(crate) fn document(&self) -> Option<&Value> {
        self.0.as_deref()
    }
}

/// A rule with a field that is not known may be meant for less than it says: where it lets packets on, it then matches
/// nothing. One that denies stays as it is.
pub(crate) fn close(document: &mut Value, unknown: &[String]) {
    for (direction, end) in [("ingress", "source"), ("egress", "destination")] {
        let index = |path: &String| {
            let rest = path.strip_prefix("spec.")?.strip_prefix(direction)?.strip_prefix('[')?;
            rest.split_once(']')?.0.parse().ok()
        };
        let places: BTreeSet<usize> = unknown.iter().filter_map(index).collect();
        let rules = document.get_mut("spec").and_then(|spec| spec.get_mut(direction)).and_then(Value::as_array_mut);
        let Some(rules) = rules else { continue };
        for (_, rule) in rules.iter_mut().enumerate().filter(|(at, _)| places.contains(at)) {
            if rule["action"] == "Allow" || rule["action"] == "Pass" {
                *rule = json!({ "action": rule["action"], end: { "selector": "!all()" } });
            }
        }
    }
}

/// The `stored` document with the change from `known` to `wanted` made to it, where `known` is the part of `stored`
/// that this version understands. Members that only `stored` has survive wherever their parent does.
pub fn keep_unknown(stored: &Value, known: &Value, wanted: Value) -> Value {
    if *known == wanted {
        return stored.clone();
    }
    match (stored, known, wanted) {
        (Value::Object(stored), Value::Object(known), Value::Object(mut wanted)) => {
            for (name, theirs) in stored {
                match (known.get(name), wanted.get_mut(name)) {
                    (Some(known), Some(ours)) => *ours = keep_unknown(theirs, known, ours.take()),
                    (None, None) => {
                        wanted.insert(name.clone(), theirs.clone());
                    }
                    (Some(_), None) | (None, Some(_)) => {}
                }
            }
            Value::Object(wanted)
        }
        // Items of lists have no names: only a list that kept its length is taken to hold the same items.
        (Value::Array(stored), Value::Array(known), Value::Array(wanted))
            if stored.len() == known.len() && known.len() == wanted.len() =>
        {
            let items = stored.iter().zip(known).zip(wanted);
            Value::Array(items.map(|((stored, known), wanted)| keep_unknown(stored, known, wanted)).collect())
        }
        (_, _, wanted) => wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_members_survive_changes_beside_them() {
        let stored = json!({"new": 1, "spec": {"a": 1, "new": {"x": [1]}, "gone": 1, "list": [{"a": 1, "new": 2}]}});
        let known = json!({"spec": {"a": 1, "gone": 1, "list": [{"a": 1}]}});
        let wanted = json!({"spec": {"a": 2, "added": 1, "list": [{"a": 5}]}});
        assert_eq!(
            keep_unknown(&stored, &known, wanted),
            json!({"new": 1, "spec": {"a": 2, "new": {"x": [1]}, "added": 1, "list": [{"a": 5, "new": 2}]}})
        );
    }

    #[test]
    fn what_did_not_change_stays_as_it_was_written() {
        let stored = json!({"spec": {"order": 100.0, "null": null}});
        let known = json!({"spec": {"order": 100.0}});
        assert_eq!(keep_unknown(&stored, &known, known.clone()), stored);
    }

    #[test]
    fn a_list_of_another_length_is_replaced() {
        let stored = json!([{"a": 1, "new": 1}, {"a": 2}]);
        let known = json!([{"a": 1}, {"a": 2}]);
        assert_eq!(keep_unknown(&stored, &known, json!([{"a": 2}])), json!([{"a": 2}]));
    }

    fn tree() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..4_u8).prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]", inner, 0..3).prop_map(|m| m.into_iter().collect::<Value>()),
            ]
        })
    }

    proptest::proptest! {
        #[test]
        fn with_nothing_unknown_the_result_is_what_was_wanted(stored in tree(), wanted in tree()) {
            proptest::prop_assert_eq!(keep_unknown(&stored, &stored, wanted.clone()), wanted);
        }
    }
}
