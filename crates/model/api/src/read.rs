//! Strict reading: unknown fields, wrong types and wrong words are errors that name the nearest right one.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{FieldError, ReadError, nearest};

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
