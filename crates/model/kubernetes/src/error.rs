//! What could not be converted, and what came of it.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tortie_api::Resource;

/// A part of a Kubernetes object that is not understood or not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {name}: {field}: {value}: expected {expected}")]
pub struct ConversionError {
    /// The object's kind, such as `Pod`.
    pub kind: &'static str,
    /// The object's name, with its namespace if it has one.
    pub name: String,
    /// The path of the part, such as `spec.ingress[0].from[1].ipBlock.cidr`.
    pub field: String,
    /// What was found, or what happened to it.
    pub value: String,
    /// What would have been right.
    pub expected: String,
}

/// An object as a resource, and what of it was left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The resource. Its metadata carries name, namespace, uid, time of creation and the object's revision.
    pub resource: Resource,
    /// Parts that were not understood. Nothing of them opens a path.
    pub problems: Vec<ConversionError>,
}

impl Converted {
    pub(crate) fn of(resource: impl Into<Resource>, problems: Vec<ConversionError>) -> Converted {
        Converted { resource: resource.into(), problems }
    }
}

/// Names an object in its errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object<'a> {
    pub(crate) kind: &'static str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

impl Object<'_> {
    pub(crate) fn error(
        &self,
        field: impl Into<String>,
        value: impl Into<String>,
        expected: impl Into<String>,
    ) -> ConversionError {
        let Object { kind, namespace, name } = self;
        let name = if namespace.is_empty() { (*name).to_owned() } else { format!("{namespace}/{name}") };
        ConversionError { kind, name, field: field.into(), value: value.into(), expected: expected.into() }
    }

    /// The error of a part.
    pub(crate) fn wrong(&self, Wrong { field, value, expected }: Wrong) -> ConversionError {
        self.error(field, value, expected)
    }
}

/// A wrong part, before it is known of which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) field: String,
    pub(crate) value: String,
    pub(crate) expected: String,
}

impl Wrong {
    pub(crate) fn new(field: &str, value: impl ToString, expected: &str) -> Wrong {
        Wrong { field: field.to_owned(), value: value.to_string(), expected: expected.to_owned() }
    }

    /// The same below another field.
    pub(crate) fn below(self, parent: &str) -> Wrong {
        let dot = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        Wrong { field: format!("{parent}{dot}{}", self.field), ..self }
    }
}

/// Reads a part strictly: a field that is not known is an error, as it could narrow what is allowed. Members that are
/// null count as absent, as they do for Go.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Wrong> {
    serde_path_to_error::deserialize(without_nulls(value)).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "" } else { &path };
        Wrong::new(path, error.inner(), "a part of this shape, with no other fields")
    })
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.iter().filter(|(_, member)| !member.is_null());
            Value::Object(kept.map(|(key, member)| (key.clone(), without_nulls(member))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
