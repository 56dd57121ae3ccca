//! JSON Schema into the structural form that Kubernetes wants (apiextensions, "Specifying a structural schema").
//!
//! Unknown fields are pruned rather than refused, a value of several types is a number or text, and nothing is given
//! a default but what `definition` says. `null` is good in lists alone: everywhere else a field is left out.

use serde_json::{Map, Value, json};

/// The structural form of a schema.
pub(crate) fn structural(schema: &Value) -> Value {
    convert(schema, false)
}

fn convert(schema: &Value, in_list: bool) -> Value {
    let Value::Object(fields) = schema else {
        // `true`: anything goes.
        return json!({ "x-kubernetes-preserve-unknown-fields": true });
    };
    if let Some(choices) = ["anyOf", "oneOf"].iter().find_map(|key| fields.get(*key)).and_then(Value::as_array) {
        return choice(fields, choices, in_list);
    }
    let mut out = Map::new();
    let (kind, nullable) = kind_of(fields.get("type"));
    for (key, value) in fields {
        match key.as_str() {
            "properties" => {
                let converted =
                    value.as_object().into_iter().flatten().map(|(name, inner)| (name.clone(), convert(inner, false)));
                out.insert(key.clone(), Value::Object(converted.collect()));
            }
            "items" => drop(out.insert(key.clone(), convert(value, true))),
            "additionalProperties" if value.is_object() => drop(out.insert(key.clone(), convert(value, false))),
            "enum" => {
                let words = value.as_array().into_iter().flatten().filter(|word| !word.is_null());
                out.insert(key.clone(), words.cloned().collect());
            }
            "description" | "pattern" | "required" | "minLength" | "maxLength" | "minItems" | "maxItems" => {
                out.insert(key.clone(), value.clone());
            }
            "minimum" | "maximum" if fits(value) => drop(out.insert(key.clone(), value.clone())),
            "format" if matches!(value.as_str(), Some("date-time" | "int64")) => {
                out.insert(key.clone(), value.clone());
            }
            "format" if value == "uint64" => drop(out.insert(key.clone(), json!("int64"))),
            _ => {}
        }
    }
    if let Some(kind) = kind {
        out.insert("type".to_owned(), json!(kind));
    }
    if kind == Some("object") && !out.contains_key("properties") && !out.contains_key("additionalProperties") {
        out.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
    }
    if nullable && in_list {
        out.insert("nullable".to_owned(), json!(true));
    }
    describe(&mut out);
    Value::Object(out)
}

/// One of several: something or nothing, or a number or text.
fn choice(fields: &Map<String, Value>, choices: &[Value], in_list: bool) -> Value {
    let described = |mut value: Value| {
        if let (Some(text), Some(out)) = (fields.get("description"), value.as_object_mut()) {
            out.insert("description".to_owned(), text.clone());
            describe(out);
        }
        value
    };
    let something: Vec<&Value> = choices.iter().filter(|choice| choice["type"] != "null").collect();
    if let [one] = something[..] {
        let mut value = convert(one, in_list);
        if in_list && something.len() < choices.len() {
            value["nullable"] = json!(true);
        }
        return described(value);
    }
    if something.iter().any(|inner| inner.get("anyOf").is_some()) {
        unreachable!("a choice of choices is not made by any type: {fields:?}");
    }
    described(json!({
        "anyOf": [{ "type": "integer" }, { "type": "string" }],
        "x-kubernetes-int-or-string": true,
    }))
}

/// The one type and whether `null` is another.
fn kind_of(value: Option<&Value>) -> (Option<&str>, bool) {
    match value {
        Some(Value::String(kind)) => (Some(kind), false),
        Some(Value::Array(kinds)) => {
            let kind = kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null");
            (kind, kinds.iter().any(|kind| kind == "null"))
        }
        _ => (None, false),
    }
}

/// Whether a bound is one that a 64-bit integer can pass; the largest of an unsigned one is no bound.
fn fits(bound: &Value) -> bool {
    bound.as_i64().is_some()
}

/// Brings a description onto one line, as lines are wrapped where it is written.
fn describe(out: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = out.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('`', "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_kubernetes_refuses() {
        let schema = json!({
            "$schema": "x", "title": "T", "type": "object", "additionalProperties": false, "default": {},
            "properties": {
                "a": { "type": ["integer", "null"], "format": "uint8", "minimum": 0, "maximum": 255, "default": null, "enum": [1, null] },
                "b": { "anyOf": [{ "type": "string", "pattern": "^x$" }, { "type": "null" }], "description": "one\ntwo" },
                "c": { "anyOf": [{ "type": "integer" }, { "type": "string" }] },
                "d": { "type": "array", "items": { "type": ["integer", "null"], "format": "uint" } },
                "e": { "type": "object", "additionalProperties": { "type": "integer", "format": "uint64" } },
            },
        });
        assert_eq!(
            structural(&schema),
            json!({
                "type": "object",
                "properties": {
                    "a": { "type": "integer", "minimum": 0, "maximum": 255, "enum": [1] },
                    "b": { "type": "string", "pattern": "^x$", "description": "one two" },
                    "c": { "anyOf": [{ "type": "integer" }, { "type": "string" }], "x-kubernetes-int-or-string": true },
                    "d": { "type": "array", "items": { "type": "integer", "nullable": true } },
                    "e": { "type": "object", "additionalProperties": { "type": "integer", "format": "int64" } },
                },
            })
        );
    }
}
