//! The names of policies as upstream stores them.
//!
//! A policy's name stands in an annotation of the stored object, and is taken out when it is read. Up to 3.31 upstream
//! kept a policy of the default tier under `default.NAME`, in the key and in the object; up to 3.29 without the
//! annotation. Such a policy's name is NAME all the same, and it keeps its key and its form when it is written.

use std::sync::Arc;

use serde_json::Value as Json;
use tortie_api::{Kind, Resource};
use tortie_facts::{Key, Value};

const ANNOTATION: &str = "projectcalico.org/metadata";
/// What older versions put before the names of policies of the default tier.
const PREFIX: &str = "default.";
/// Names that older versions left as they are.
const LEFT_ALONE: [&str; 4] = ["knp.", "kanp.adminnetworkpolicy.", "kbanp.baselineadminnetworkpolicy.", "ossg."];

fn is_policy(kind: Kind) -> bool {
    [Kind::NetworkPolicy, Kind::GlobalNetworkPolicy, Kind::StagedNetworkPolicy, Kind::StagedGlobalNetworkPolicy]
        .contains(&kind)
}

/// The key under which versions up to 3.31 kept the policy of this key, if it is in the default tier; `None` for what
/// never had another one.
pub fn older_key(key: &Key) -> Option<Key> {
    match key {
        Key::Resource { kind, namespace, name } if is_policy(*kind) => {
            let plain = !name.starts_with(PREFIX) && !LEFT_ALONE.iter().any(|prefix| name.starts_with(prefix));
            plain.then(|| Key::resource(*kind, namespace, &format!("{PREFIX}{name}")))
        }
        Key::Resource { .. }
        | Key::Block(_)
        | Key::Affinity(_)
        | Key::Handle(_)
        | Key::IpamConfig
        | Key::Status(_)
        | Key::Foreign(_) => None,
    }
}

/// The text to store under a key.
pub(crate) fn to_json(key: &Key, value: &Value) -> String {
    let Some(policy) = value.as_resource().filter(|resource| is_policy(resource.kind())) else {
        return value.to_json();
    };
    let mut stored = Resource::clone(policy);
    let metadata = stored.metadata_mut();
    let name = format!(r#"{{"name":"{}"}}"#, metadata.name);
    metadata.annotations.insert(ANNOTATION.to_owned(), name);
    if let Key::Resource { name: kept, .. } = key
        && kept.strip_prefix(PREFIX) == Some(&metadata.name)
    {
        metadata.name.clone_from(kept);
    }
    stored.to_stored_json()
}

/// The value without what is only there for storing, by the name that it has for users.
pub(crate) fn read(value: Value) -> Result<Value, String> {
    let Value::Resource(mut policy) = value else { return Ok(value) };
    if !is_policy(policy.kind()) {
        return Ok(Value::Resource(policy));
    }
    let metadata = policy.metadata();
    let noted = metadata.annotations.get(ANNOTATION).filter(|text| !text.is_empty());
    let noted = noted.map(|text| name_in(text)).transpose()?.flatten();
    let name = match noted {
        Some(name) => name,
        None if in_default_tier(&policy) => metadata.name.strip_prefix(PREFIX).unwrap_or(&metadata.name).to_owned(),
        None => metadata.name.clone(),
    };
    if name != metadata.name || metadata.annotations.contains_key(ANNOTATION) {
        let metadata = Arc::make_mut(&mut policy).metadata_mut();
        metadata.name = name;
        metadata.annotations.remove(ANNOTATION);
    }
    Ok(Value::Resource(policy))
}

/// The name that an annotation holds, if it holds one.
fn name_in(annotation: &str) -> Result<Option<String>, String> {
    let wrong = |what: String| format!("metadata.annotations[{ANNOTATION:?}]: {what}: expected {{\"name\":\"NAME\"}}");
    let document: Json = serde_json::from_str(annotation).map_err(|error| wrong(error.to_string()))?;
    match document.get("name") {
        _ if !document.is_object() => Err(wrong(document.to_string())),
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(name)) => Ok(Some(name.clone()).filter(|name| !name.is_empty())),
        Some(other) => Err(wrong(format!("name: {other}"))),
    }
}

fn in_default_tier(policy: &Resource) -> bool {
    let tier = match policy {
        Resource::NetworkPolicy(policy) => &policy.spec.tier,
        Resource::GlobalNetworkPolicy(policy) => &policy.spec.tier,
        Resource::StagedNetworkPolicy(policy) => &policy.spec.tier,
        Resource::StagedGlobalNetworkPolicy(policy) => &policy.spec.tier,
        _ => return false,
    };
    tier.is_empty() || tier == "default"
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_facts::Key;

    #[test]
    fn a_policy_is_stored_with_its_name_and_read_without() {
        let key = Key::resource(Kind::NetworkPolicy, "ns", "allow");
        let text = r#"{"apiVersion":"projectcalico.org/v3","kind":"NetworkPolicy","metadata":{"name":"allow","namespace":"ns"},"spec":{}}"#;
        let value = Value::from_json(&key, text).expect("a policy");
        let stored = to_json(&key, &value);
        assert!(stored.contains(r#""annotations":{"projectcalico.org/metadata":"{\"name\":\"allow\"}"}"#), "{stored}");
        assert_eq!(read(Value::from_json(&key, &stored).expect("the same")), Ok(value));
    }

    #[test]
    fn what_is_no_policy_is_left_alone() {
        let key = Key::resource(Kind::Tier, "", "t");
        let text = r#"{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"t","annotations":{"projectcalico.org/metadata":"x"}},"spec":{}}"#;
        let value = Value::from_json(&key, text).expect("a tier");
        assert_eq!(to_json(&key, &value), value.to_json());
        assert_eq!(read(value.clone()), Ok(value));
    }
    /// What a version stored under `default.web`, and the name that it has now.
    #[test]
    fn names_of_every_version_are_read() {
        let old = Key::resource(Kind::NetworkPolicy, "ns", "default.web");
        let read_of = |metadata: &str, spec: &str| {
            let text = format!(
                r#"{{"apiVersion":"projectcalico.org/v3","kind":"NetworkPolicy","metadata":{{{metadata}}},"spec":{{{spec}}}}}"#
            );
            let value = read(Value::from_json(&old, &text).expect("a policy"))?;
            Ok::<_, String>(value.as_resource().expect("a policy").metadata().name.clone())
        };
        let noted = |name: &str| {
            format!(r#""name":"default.web","annotations":{{"projectcalico.org/metadata":"{{\"name\":\"{name}\"}}"}}"#)
        };
        // 3.28 and 3.29; 3.30 and 3.31; a policy that 3.32 was told to name so; one of another tier.
        assert_eq!(read_of(r#""name":"default.web""#, ""), Ok("web".to_owned()));
        assert_eq!(read_of(r#""name":"default.web""#, r#""tier":"default""#), Ok("web".to_owned()));
        assert_eq!(read_of(&noted("web"), r#""tier":"default""#), Ok("web".to_owned()));
        assert_eq!(read_of(&noted("default.web"), ""), Ok("default.web".to_owned()));
        assert_eq!(read_of(r#""name":"default.web""#, r#""tier":"other""#), Ok("default.web".to_owned()));
        for bad in ["nonsense", "[]", r#"{\"name\":7}"#] {
            let metadata = format!(r#""name":"default.web","annotations":{{"projectcalico.org/metadata":"{bad}"}}"#);
            let error = read_of(&metadata, "").expect_err(bad);
            assert!(error.contains("projectcalico.org/metadata"), "{error}");
        }
    }

    #[test]
    fn an_older_key_keeps_its_form() {
        let new = Key::resource(Kind::GlobalNetworkPolicy, "", "web");
        let old = older_key(&new).expect("a policy has one");
        assert_eq!(old, Key::resource(Kind::GlobalNetworkPolicy, "", "default.web"));
        for (kind, name) in [
            (Kind::GlobalNetworkPolicy, "default.web"),
            (Kind::NetworkPolicy, "knp.default.web"),
            (Kind::NetworkPolicy, "ossg.default.1"),
            (Kind::Tier, "web"),
        ] {
            assert_eq!(older_key(&Key::resource(kind, "", name)), None, "{name}");
        }
        let text = r#"{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"web"}}"#;
        let value = Value::from_json(&new, text).expect("a policy");
        let stored = to_json(&old, &value);
        assert!(stored.contains(r#""name":"default.web""#) && stored.contains(r#""{\"name\":\"web\"}""#), "{stored}");
        assert_eq!(read(Value::from_json(&old, &stored).expect("the same")), Ok(value));
    }
}
