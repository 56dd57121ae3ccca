//! Upstream writes a policy's name into an annotation of the stored object, and takes it out when it reads: the stored
//! name was another one in versions that put the tier before it.

use std::sync::Arc;

use tortie_api::{Kind, Resource};
use tortie_facts::Value;

const ANNOTATION: &str = "projectcalico.org/metadata";

fn is_policy(kind: Kind) -> bool {
    [Kind::NetworkPolicy, Kind::GlobalNetworkPolicy, Kind::StagedNetworkPolicy, Kind::StagedGlobalNetworkPolicy]
        .contains(&kind)
}

/// The text to store.
pub(crate) fn to_json(value: &Value) -> String {
    let Some(policy) = value.as_resource().filter(|resource| is_policy(resource.kind())) else {
        return value.to_json();
    };
    let mut stored = Resource::clone(policy);
    let metadata = stored.metadata_mut();
    let name = format!(r#"{{"name":"{}"}}"#, metadata.name);
    metadata.annotations.insert(ANNOTATION.to_owned(), name);
    stored.to_stored_json()
}

/// The value without what is only there for storing.
pub(crate) fn read(value: Value) -> Value {
    match value {
        Value::Resource(mut policy)
            if is_policy(policy.kind()) && policy.metadata().annotations.contains_key(ANNOTATION) =>
        {
            Arc::make_mut(&mut policy).metadata_mut().annotations.remove(ANNOTATION);
            Value::Resource(policy)
        }
        other => other,
    }
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
        let stored = to_json(&value);
        assert!(stored.contains(r#""annotations":{"projectcalico.org/metadata":"{\"name\":\"allow\"}"}"#), "{stored}");
        assert_eq!(read(Value::from_json(&key, &stored).expect("the same")), value);
    }

    #[test]
    fn what_is_no_policy_is_left_alone() {
        let key = Key::resource(Kind::Tier, "", "t");
        let text = r#"{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"t","annotations":{"projectcalico.org/metadata":"x"}},"spec":{}}"#;
        let value = Value::from_json(&key, text).expect("a tier");
        assert_eq!(to_json(&value), value.to_json());
        assert_eq!(read(value.clone()), value);
    }
}
