//! YAML and JSON: one resource as it is, a kind's list as its list object, several as a list.

use serde::Serialize;
use tortie_api::{API_VERSION, Kind, Resource, go_json, push_yaml_item, to_yaml};

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
    indent(&compact(found), 0)
}

/// How a list is written as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

/// A kind's list object, written part by part: the same text as that of the whole list at once.
pub(crate) struct ListText {
    notation: Notation,
    kind: Kind,
    revision: String,
    count: usize,
}

impl ListText {
    /// A list of a kind at a revision.
    pub(crate) fn new(notation: Notation, kind: Kind, revision: String) -> ListText {
        ListText { notation, kind, revision, count: 0 }
    }

    /// The text of some more items.
    pub(crate) fn items(&mut self, items: impl Iterator<Item = Resource>) -> String {
        let mut text = String::new();
        for item in items {
            match (self.notation, self.count) {
                (Notation::Yaml, 0) => text.push_str(&format!("apiVersion: {API_VERSION}\nitems:\n")),
                (Notation::Json, 0) => text.push_str(&self.json_head()),
                (Notation::Yaml, _) => {}
                (Notation::Json, _) => text.push(','),
            }
            match self.notation {
                Notation::Yaml => push_yaml_item(&mut text, &item.to_value()),
                Notation::Json => {
                    text.push_str("\n    ");
                    text.push_str(&indent(&go_json(&item), 2));
                }
            }
            self.count += 1;
        }
        text
    }

    /// The text behind the last item.
    pub(crate) fn end(self) -> String {
        let ListText { notation, kind, revision, count } = &self;
        if *count == 0 {
            let whole = [Found::List { kind: *kind, items: Vec::new(), revision: revision.clone() }];
            return match notation {
                Notation::Yaml => yaml(&whole),
                Notation::Json => json(&whole),
            };
        }
        match notation {
            Notation::Yaml => {
                let tail =
                    serde_json::json!({ "kind": format!("{kind}List"), "metadata": { "resourceVersion": revision } });
                to_yaml(&tail)
            }
            Notation::Json => "\n  ]\n}".to_owned(),
        }
    }

    /// Everything before the first item: what an empty list has before its bracket closes.
    fn json_head(&self) -> String {
        let empty = json(&[Found::List { kind: self.kind, items: Vec::new(), revision: self.revision.clone() }]);
        empty.strip_suffix("]\n}").map(str::to_owned).expect("an empty list ends so")
    }
}

/// Compact JSON with line breaks and two blanks a level, as Go sets it: empty lists and objects stay in one line. The
/// text begins at this depth.
fn indent(compact: &str, mut depth: usize) -> String {
    let mut text = String::with_capacity(compact.len() * 2);
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
        assert_eq!(indent(r#"{"a":[1,"x,\"{y}:"],"b":{},"c":[]}"#, 0), expected);
    }

    #[test]
    fn a_list_in_parts_is_the_same_text_as_at_once() {
        let set = |name: &str| {
            let text = format!(
                r#"{{"kind":"GlobalNetworkSet","apiVersion":"{API_VERSION}","metadata":{{"name":"{name}","labels":{{"a":"<1>","b":"x y"}}}},"spec":{{"nets":["10.0.0.0/8"]}}}}"#
            );
            Resource::from_json(&text).expect("a resource")
        };
        for count in [0, 1, 2, 5] {
            let items: Vec<Resource> = (0..count).map(|n| set(&format!("s{n}"))).collect();
            let kind = Kind::GlobalNetworkSet;
            let whole = [Found::List { kind, items: items.clone(), revision: "7".to_owned() }];
            for (notation, expected) in [(Notation::Yaml, yaml(&whole)), (Notation::Json, json(&whole))] {
                let mut list = ListText::new(notation, kind, "7".to_owned());
                let mut text = String::new();
                for part in items.chunks(2) {
                    text.push_str(&list.items(part.iter().cloned()));
                }
                text.push_str(&list.end());
                assert_eq!(text, expected, "{notation:?} {count}");
            }
        }
    }
}
