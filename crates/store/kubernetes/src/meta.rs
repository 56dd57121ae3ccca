//! The metadata of a v3 resource in an object of the older group, `crd.projectcalico.org/v1`.
//!
//! The object's own metadata holds name, namespace, revision and what is spelt with our domain; everything else is
//! JSON in one annotation. Reading and writing are inverse, but for what the API server owns.

use serde_json::{Map, Value, json};
use tortie_api::Kind;

use crate::names;

/// The annotation that holds a resource's own metadata.
const METADATA: &str = "projectcalico.org/metadata";
const V1: &str = "crd.projectcalico.org/v1";
const V3: &str = "projectcalico.org/v3";

type Members = Map<String, Value>;

fn members(value: Option<&Value>) -> Members {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

fn text<'a>(of: &'a Members, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Kinds whose name stands in the annotation: that of the object may carry the tier.
fn keeps_name(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::NetworkPolicy | Kind::GlobalNetworkPolicy | Kind::StagedNetworkPolicy | Kind::StagedGlobalNetworkPolicy
    )
}

/// Labels and annotations that stay visible on the object.
fn ours(name: &str) -> bool {
    name.contains("projectcalico.org/") || name.contains("operator.tigera.io/")
}

/// The metadata of the resource that an object stands for; `tier` is the one that its specification names.
pub(crate) fn from_object(kind: Kind, object: &Members, tier: &str) -> Result<Members, String> {
    let mut outer = object.clone();
    let mut annotations = members(outer.get("annotations"));
    let inner = annotations.remove(METADATA);
    let uid = names::turn_uid(text(&outer, "uid"));
    if !uid.is_empty() {
        outer.insert("uid".into(), uid.into());
    }
    let Some(inner) = inner else {
        // The object was not made by a client of the v3 API.
        let name = if keeps_name(kind) { names::of_policy(text(&outer, "name"), tier) } else { text(&outer, "name") };
        let name = name.to_owned();
        outer.insert("name".into(), name.into());
        return Ok(outer);
    };
    let inner = inner.as_str().unwrap_or_default();
    let mut meta: Members =
        serde_json::from_str(inner).map_err(|error| format!("metadata.annotations[{METADATA}]: {error}"))?;
    turn_owners(&mut meta, &[V1, V3], V3);
    for (field, outside) in [("labels", members(outer.get("labels"))), ("annotations", annotations)] {
        let mut all = outside;
        all.extend(members(meta.get(field)));
        meta.remove(field);
        if !all.is_empty() {
            meta.insert(field.into(), all.into());
        }
    }
    if text(&meta, "name").is_empty() {
        let name = if keeps_name(kind) { names::of_policy(text(&outer, "name"), tier) } else { text(&outer, "name") };
        meta.insert("name".into(), name.into());
    }
    for field in ["namespace", "resourceVersion", "uid"] {
        meta.remove(field);
        if let Some(value) = outer.get(field) {
            meta.insert(field.into(), value.clone());
        }
    }
    if meta.get("creationTimestamp").is_none_or(Value::is_null)
        && let Some(created) = outer.get("creationTimestamp")
    {
        meta.insert("creationTimestamp".into(), created.clone());
    }
    Ok(meta)
}

/// The metadata of the object that stands for a resource. Identity and revision are the API server's.
pub(crate) fn to_object(kind: Kind, meta: &Members) -> Members {
    let mut inner = meta.clone();
    for field in ["namespace", "resourceVersion", "uid", "managedFields", "selfLink"] {
        inner.remove(field);
    }
    if !keeps_name(kind) {
        inner.remove("name");
    }
    turn_owners(&mut inner, &[V3], V1);
    // Go's encoder of upstream writes the time also where there is none.
    inner.entry("creationTimestamp").or_insert(Value::Null);

    let visible = |field: &str| -> Members { members(meta.get(field)).into_iter().filter(|(k, _)| ours(k)).collect() };
    let mut annotations = visible("annotations");
    annotations.insert(METADATA.into(), Value::Object(inner).to_string().into());
    let mut object = Members::new();
    for field in ["name", "namespace"] {
        if let Some(value) = meta.get(field) {
            object.insert(field.into(), value.clone());
        }
    }
    object.insert("annotations".into(), annotations.into());
    let labels = visible("labels");
    if !labels.is_empty() {
        object.insert("labels".into(), labels.into());
    }
    object
}

/// Owners that are resources of ours have another group and another identity on the other side.
fn turn_owners(meta: &mut Members, from: &[&str], to: &str) {
    let owners = meta.get_mut("ownerReferences").and_then(Value::as_array_mut);
    for owner in owners.into_iter().flatten() {
        if owner["apiVersion"].as_str().is_some_and(|version| from.contains(&version)) {
            let uid = names::turn_uid(owner["uid"].as_str().unwrap_or_default());
            owner["apiVersion"] = json!(to);
            owner["uid"] = json!(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "30316465-6365-4463-ad63-3564622d3638";
    const TURNED: &str = "0c8c26a6-c6a6-44c6-adc6-ac2646b46c1c";

    fn object(value: Value) -> Members {
        members(Some(&value))
    }

    #[test]
    fn written_metadata_reads_back() {
        let meta = object(json!({
            "name": "web", "namespace": "prod", "uid": TURNED, "resourceVersion": "7",
            "creationTimestamp": "2026-01-02T03:04:05Z", "newer": [1],
            "labels": {"a": "b", "projectcalico.org/tier": "default"},
            "annotations": {"note": "x", "projectcalico.org/y": "z"},
            "ownerReferences": [
                {"apiVersion": V3, "kind": "Tier", "name": "t", "uid": TURNED},
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": UID},
            ],
        }));
        let mut stored = to_object(Kind::NetworkPolicy, &meta);
        assert_eq!(stored["labels"], json!({"projectcalico.org/tier": "default"}));
        assert_eq!(stored["annotations"]["projectcalico.org/y"], "z");
        let inner: Value = serde_json::from_str(stored["annotations"][METADATA].as_str().expect("text")).expect("JSON");
        assert_eq!(inner["name"], "web");
        assert_eq!((&inner["uid"], &inner["namespace"]), (&Value::Null, &Value::Null));
        assert_eq!(inner["ownerReferences"][0], json!({"apiVersion": V1, "kind": "Tier", "name": "t", "uid": UID}));
        assert_eq!(inner["ownerReferences"][1]["uid"], UID);
        stored.extend(object(json!({"uid": UID, "resourceVersion": "7", "creationTimestamp": "2026-02-02T00:00:00Z"})));
        assert_eq!(from_object(Kind::NetworkPolicy, &stored, "default"), Ok(meta));
    }

    #[test]
    fn objects_of_other_writers_are_taken_as_they_are() {
        let stored =
            object(json!({"name": "default.web", "uid": UID, "labels": {"a": "b"}, "annotations": {"n": "x"}}));
        let meta = from_object(Kind::NetworkPolicy, &stored, "").expect("good");
        assert_eq!((&meta["name"], &meta["uid"]), (&json!("web"), &json!(TURNED)));
        assert_eq!((&meta["labels"], &meta["annotations"]), (&json!({"a": "b"}), &json!({"n": "x"})));
        let meta = from_object(Kind::IpPool, &object(json!({"name": "default.x"})), "").expect("good");
        assert_eq!(meta["name"], "default.x");
    }

    #[test]
    fn only_policies_keep_their_name_inside() {
        let stored = to_object(Kind::IpPool, &object(json!({"name": "pool"})));
        assert_eq!(stored, object(json!({"name": "pool", "annotations": {METADATA: r#"{"creationTimestamp":null}"#}})));
    }

    #[test]
    fn a_broken_annotation_is_an_error_that_names_it() {
        let stored = object(json!({"name": "x", "annotations": {METADATA: "{half"}}));
        let error = from_object(Kind::IpPool, &stored, "").expect_err("not JSON");
        assert!(error.contains(METADATA), "{error}");
    }
}
