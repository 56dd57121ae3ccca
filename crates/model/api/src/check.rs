//! Reading strictly, and the checks that kinds share.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{FieldError, ReadError, nearest};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::path::Path;

/// What a kind fills in and what it refuses.
pub(crate) trait Checked {
    /// Fills in what upstream fills in before storing.
    fn apply_defaults(&mut self) {}
    /// Reports every wrong value.
    fn check(&self, out: &mut Findings);
}

/// The wrong values found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<FieldError>);

impl Findings {
    pub(crate) fn wrong(&mut self, path: &Path<'_>, value: impl ToString, expected: impl Into<String>) {
        self.0.push(FieldError {
            path: path.to_string(),
            value: value.to_string(),
            expected: expected.into(),
            nearest: None,
        });
    }

    pub(crate) fn into_result(self) -> Result<(), Vec<FieldError>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

/// Reads one kind from JSON. Members that are null count as absent, as they do for Go.
pub(crate) fn read<T: DeserializeOwned>(mut value: Value) -> Result<T, ReadError> {
    strip_nulls(&mut value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        ReadError::Field(explain(if path == "." { "" } else { &path }, &error.into_inner().to_string()))
    })
}

fn strip_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(strip_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Turns serde's sentence into a field error with the nearest choice.
fn explain(path: &str, message: &str) -> FieldError {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown_field = message.starts_with("unknown field");
    if unknown_field || message.starts_with("unknown variant") {
        let (found, choices) = quoted.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
        let what = if unknown_field { "one of the fields " } else { "one of " };
        return FieldError {
            path: path.to_owned(),
            value: format!("{found:?}"),
            expected: format!("{what}{}", choices.join(", ")),
            nearest: nearest(found, choices.iter().copied()).map(str::to_owned),
        };
    }
    if let (Some(field), true) = (quoted.first(), message.starts_with("missing field")) {
        let path = if path.is_empty() { (*field).to_owned() } else { format!("{path}.{field}") };
        return FieldError { path, value: String::new(), expected: "a value; it is missing".to_owned(), nearest: None };
    }
    let (value, expected) = message.split_once(", expected ").unwrap_or(("", message));
    FieldError { path: path.to_owned(), value: value.to_owned(), expected: expected.to_owned(), nearest: None }
}

/// What holds for the metadata of every kind.
pub(crate) fn metadata(kind: Kind, metadata: &Metadata, out: &mut Findings) {
    let path = Path::root("metadata");
    if metadata.name.is_empty() && metadata.generate_name.is_empty() {
        out.wrong(&path.field("name"), "", "a name; it is missing");
    }
    if !kind.namespaced() && !metadata.namespace.is_empty() {
        out.wrong(&path.field("namespace"), &metadata.namespace, format!("none: {kind} is not namespaced"));
    }
}
