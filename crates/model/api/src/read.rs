//! Strict reading: unknown fields, wrong types and wrong words are errors that name the nearest right one.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{FieldError, ReadError, nearest};
use crate::walk::Walk;

/// How exactly types must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typing {
    /// As JSON: text is text.
    Exact,
    /// As Go reads YAML: where text is expected, numbers and truth values count as the text that they print as.
    Loose,
}

/// Reads one kind. As for Go, a known field that is null counts as absent, and an entry of a map as empty text.
pub(crate) fn read<T: DeserializeOwned>(value: Value, typing: Typing) -> Result<T, ReadError> {
    T::deserialize(Walk { value, typing }).map_err(|fault| ReadError::Field(explain(&fault.path(), &fault.message)))
}

/// Takes away what a path of this module's errors names; none if it names nothing.
pub(crate) fn remove(value: &mut Value, path: &str) -> Option<Value> {
    match value {
        Value::Object(members) => {
            if let Some(removed) = members.remove(path) {
                return Some(removed);
            }
            let fits = |key: &str| path.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']));
            let key = members.keys().filter(|key| fits(key)).max_by_key(|key| key.len()).cloned()?;
            let rest = &path[key.len()..];
            remove(members.get_mut(&key)?, rest.strip_prefix('.').unwrap_or(rest))
        }
        Value::Array(items) => {
            let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
            let item = items.get_mut(index.parse::<usize>().ok()?)?;
            remove(item, rest.strip_prefix('.').unwrap_or(rest))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// Turns serde's sentence into a field error with the nearest choice.
fn explain(path: &str, message: &str) -> FieldError {
    let field = |path: String, value: String, expected: String, nearest: Option<&str>| FieldError {
        path,
        value,
        expected,
        nearest: nearest.map(str::to_owned),
    };
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let (found, choices) = choices(rest);
        // The path already ends in the unknown field where the reader had got that far.
        let at = match path {
            "" => found.to_owned(),
            path if path == found || path.ends_with(&format!(".{found}")) => path.to_owned(),
            path => format!("{path}.{found}"),
        };
        // A wall of names hides the one that is meant.
        let expected = match choices.len() {
            0..=20 => format!("one of the fields {}", choices.join(", ")),
            many => format!("one of the {many} fields of this part"),
        };
        return field(at, FieldError::UNKNOWN_FIELD.to_owned(), expected, nearest(found, choices.iter().copied()));
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let (found, choices) = choices(rest);
        let expected = format!("one of {}", choices.join(", "));
        return field(path.to_owned(), format!("{found:?}"), expected, nearest(found, choices.iter().copied()));
    }
    if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        let at = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        return field(at, String::new(), "a value; it is missing".to_owned(), None);
    }
    match message.rsplit_once(", expected ") {
        Some((found, expected)) => field(path.to_owned(), in_words(found), in_plain(expected), None),
        None => field(path.to_owned(), String::new(), message.to_owned(), None),
    }
}

/// The word and the choices of "WORD`, expected one of `A`, `B`".
fn choices(rest: &str) -> (&str, Vec<&str>) {
    let (found, list) =
        rest.rsplit_once("`, expected ").unwrap_or((rest.trim_end_matches("`, there are no fields"), ""));
    (found, list.split('`').skip(1).step_by(2).collect())
}

/// What was found, without serde's own terms.
fn in_words(found: &str) -> String {
    let found = found.strip_prefix("invalid type: ").or_else(|| found.strip_prefix("invalid value: ")).unwrap_or(found);
    let bare = found
        .strip_prefix("string ")
        .or_else(|| found.strip_prefix("integer "))
        .or_else(|| found.strip_prefix("floating point "))
        .or_else(|| found.strip_prefix("boolean "))
        .map(|value| value.trim_matches('`'));
    match found {
        "map" => "a mapping".to_owned(),
        "sequence" => "a list".to_owned(),
        "unit value" => "null".to_owned(),
        _ => bare.unwrap_or(found).to_owned(),
    }
}

/// What was expected, without Rust's own terms.
fn in_plain(expected: &str) -> String {
    let plain = match expected {
        "a sequence" => "a list",
        "a map" => "a mapping",
        "a boolean" => "true or false",
        "a string" | "a borrowed string" => "text",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "u64" | "usize" => "a whole number from 0",
        "i64" => "a whole number",
        "f64" => "a number",
        _ if expected.starts_with("struct ") => "a mapping",
        _ => expected,
    };
    plain.to_owned()
}
