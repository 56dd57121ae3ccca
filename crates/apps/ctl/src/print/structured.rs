//! YAML and JSON: one resource as it is, a kind's list as its list object, several as a list.

use serde::Serialize;
use tortie_api::{API_VERSION, Resource, go_json, to_yaml};

use super::Found;

#[derive(Serialize)]
#[serde(untagged)]
enum Written<'a> {
    One(&'a Resource),
    List(ListObject<'a>),
}

/// A list as upstream's program writes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListObject<'a> {
    kind: String,
    api_version: &'static str,
    metadata: ListMetadata<'a>,
    items: &'a [Resource],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata<'a> {
    resource_version: &'a str,
}

fn written(found: &Found) -> Written<'_> {
    match found {
        Found::One(resource) => Written::One(resource),
        Found::List { kind, items, revision } => Written::List(ListObject {
            kind: format!("{kind}List"),
            api_version: API_VERSION,
            metadata: ListMetadata { resource_version: revision },
            items,
        }),
    }
}

/// Compact JSON of everything.
fn compact(found: &[Found]) -> String {
    let all: Vec<Written<'_>> = found.iter().map(written).collect();
    match all.as_slice() {
        [one] => go_json(one),
        many => go_json(&many),
    }
}

pub(super) fn yaml(found: &[Found]) -> String {
    let value = serde_json::from_str(&compact(found)).expect("it was just written");
    to_yaml(&value)
}

pub(super) fn json(found: &[Found]) -> String {
    indent(&compact(found))
}

/// Compact JSON with line breaks and two blanks a level, as Go sets it: empty lists and objects stay in one line.
fn indent(compact: &str) -> String {
    let mut text = String::with_capacity(compact.len() * 2);
    let mut depth = 0;
    let mut quoted = false;
    let mut chars = compact.chars().peekable();
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                quoted = !quoted;
                text.push(c);
            }
            '\\' if quoted => {
                text.push(c);
                text.extend(chars.next());
            }
            _ if quoted => text.push(c),
            '{' | '[' => {
                text.push(c);
                if let Some(close) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(close);
                } else {
                    depth += 1;
                    line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_as_go_does() {
        let expected = "{\n  \"a\": [\n    1,\n    \"x,\\\"{y}:\"\n  ],\n  \"b\": {},\n  \"c\": []\n}";
        assert_eq!(indent(r#"{"a":[1,"x,\"{y}:"],"b":{},"c":[]}"#), expected);
    }
}
