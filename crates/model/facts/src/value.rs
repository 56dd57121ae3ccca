//! The value of a fact, and its text form: the JSON that upstream keeps under the key.

use std::sync::Arc;

use tortie_api::Resource;
use tortie_api::ipam::{Affinity, Block, Handle, IpamConfig};

use crate::Key;

/// The value of a fact. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A resource.
    Resource(Arc<Resource>),
    /// An IPAM block.
    Block(Arc<Block>),
    /// An affinity.
    Affinity(Affinity),
    /// A handle.
    Handle(Arc<Handle>),
    /// The settings of IPAM.
    IpamConfig(IpamConfig),
    /// A text that is kept as it is: a reported status, or what another program keeps.
    Status(Arc<str>),
}

/// Text that is no value of its key's kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value of {key} can't be read: {reason}")]
pub struct ValueError {
    /// The key.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

impl Value {
    /// A resource as a value.
    pub fn resource(resource: Resource) -> Value {
        Value::Resource(Arc::new(resource))
    }

    /// The resource, if it is one.
    pub fn as_resource(&self) -> Option<&Arc<Resource>> {
        if let Value::Resource(resource) = self { Some(resource) } else { None }
    }

    /// The block, if it is one.
    pub fn as_block(&self) -> Option<&Arc<Block>> {
        if let Value::Block(block) = self { Some(block) } else { None }
    }

    /// The affinity, if it is one.
    pub fn as_affinity(&self) -> Option<&Affinity> {
        if let Value::Affinity(affinity) = self { Some(affinity) } else { None }
    }

    /// The handle, if it is one.
    pub fn as_handle(&self) -> Option<&Arc<Handle>> {
        if let Value::Handle(handle) = self { Some(handle) } else { None }
    }

    /// The JSON text that upstream keeps under the key, with what a newer version had stored in a resource.
    pub fn to_json(&self) -> String {
        let json = match self {
            Value::Resource(resource) => return resource.to_stored_json(),
            Value::Status(text) => return text.to_string(),
            Value::Block(block) => serde_json::to_string(&**block),
            Value::Affinity(affinity) => serde_json::to_string(affinity),
            Value::Handle(handle) => serde_json::to_string(&**handle),
            Value::IpamConfig(config) => serde_json::to_string(config),
        };
        json.expect("plain structs with text keys always serialise")
    }

    /// Reads the JSON text under a key. Upstream's empty affinity value means confirmed. Fields of a resource that only a
    /// newer version knows are kept for [`Value::to_json`].
    pub fn from_json(key: &Key, json: &str) -> Result<Value, ValueError> {
        let wrong = |reason: String| ValueError { key: key.to_string(), reason };
        // Serde reads structs out of lists as well.
        if !matches!(key, Key::Status(_) | Key::Foreign(_)) && !json.is_empty() && !json.trim_start().starts_with('{') {
            return Err(wrong("expected a JSON object".to_owned()));
        }
        let bad = |error: serde_json::Error| wrong(error.to_string());
        Ok(match key {
            Key::Resource { kind, namespace: _, name: _ } => {
                let (resource, _) = Resource::from_stored_json(json).map_err(|error| wrong(error.to_string()))?;
                if resource.kind() != *kind {
                    return Err(wrong(format!("it holds a {}", resource.kind().name())));
                }
                Value::resource(resource)
            }
            Key::Block(_) => Value::Block(Arc::new(serde_json::from_str(json).map_err(bad)?)),
            Key::Affinity(_) if json.is_empty() => Value::Affinity(Affinity::default()),
            Key::Affinity(_) => Value::Affinity(serde_json::from_str(json).map_err(bad)?),
            Key::Handle(_) => Value::Handle(Arc::new(serde_json::from_str(json).map_err(bad)?)),
            Key::IpamConfig => Value::IpamConfig(serde_json::from_str(json).map_err(bad)?),
            Key::Status(_) => Value::Status(Arc::from(json)),
            Key::Foreign(foreign) => match foreign.wrong(json) {
                None => Value::Status(Arc::from(json)),
                Some(reason) => return Err(wrong(reason)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;

    #[test]
    fn only_objects_are_values_of_ipam() {
        let cidr: IpNet = "10.0.0.0/26".parse().expect("a literal");
        let keys = [Key::Block(cidr), Key::host_affinity("n", cidr), Key::Handle("h".into()), Key::IpamConfig];
        for key in &keys {
            for json in ["[]", " [\"confirmed\",false]", "null", "1", "\"x\""] {
                let error = Value::from_json(key, json).expect_err(json);
                assert!(error.reason.contains("JSON object"), "{key}: {error}");
            }
        }
        assert_eq!(
            Value::from_json(&keys[1], "").expect("upstream's empty value"),
            Value::Affinity(Affinity::default())
        );
        assert!(Value::from_json(&keys[1], " {}").is_ok());
        assert!(Value::from_json(&keys[2], "").is_err());
    }
}
