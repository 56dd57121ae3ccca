//! YAML text to trees that know their lines. Repeated keys are errors; aliases are copied within a bound.

use std::collections::BTreeMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Value};

use crate::yaml::Scalar;

/// Most nodes that aliases may add; without them, a tree is no larger than its text.
const MAX_ALIASED: usize = 1_000_000;

/// A value and the line on which it begins, from 1.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: NodeValue,
}

#[derive(Clone, Debug)]
pub(crate) enum NodeValue {
    /// Anything that has no members.
    Leaf(Value),
    List(Vec<Node>),
    /// Keys, their lines, values; in the order of the text.
    Map(Vec<(String, usize, Node)>),
}

/// Text that is no YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeError {
    /// From 1.
    pub(crate) document: usize,
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl Node {
    /// The member of this name, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            NodeValue::Map(members) => members.iter().find(|(k, ..)| k == key).map(|(.., node)| node),
            NodeValue::Leaf(_) | NodeValue::List(_) => None,
        }
    }

    /// The text, if this is text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            NodeValue::Leaf(Value::String(text)) => Some(text),
            NodeValue::Leaf(_) | NodeValue::List(_) | NodeValue::Map(_) => None,
        }
    }

    /// The tree without its lines.
    pub(crate) fn to_value(&self) -> Value {
        match &self.value {
            NodeValue::Leaf(value) => value.clone(),
            NodeValue::List(items) => Value::Array(items.iter().map(Node::to_value).collect()),
            NodeValue::Map(members) => Value::Object(
                members.iter().map(|(key, _, node)| (key.clone(), node.to_value())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// The line of what a path such as `spec.ingress[0].action` leads to, or of the last step of it that is there.
    pub(crate) fn line_of(&self, path: &str) -> usize {
        let mut node = self;
        let mut line = self.line;
        let mut rest = path;
        while !rest.is_empty() {
            if let Some((index, tail)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
                let (NodeValue::List(items), Ok(index)) = (&node.value, index.parse::<usize>()) else { break };
                let Some(item) = items.get(index) else { break };
                (node, line, rest) = (item, item.line, tail);
                continue;
            }
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let NodeValue::Map(members) = &node.value else { break };
            // A key may itself hold dots, so the longest one that the path continues with is taken.
            let fits =
                |key: &str| rest.strip_prefix(key).is_some_and(|tail| tail.is_empty() || tail.starts_with(['.', '[']));
            let found = members.iter().filter(|(key, ..)| fits(key)).max_by_key(|(key, ..)| key.len());
            let Some((key, key_line, member)) = found else { break };
            (node, line, rest) = (member, *key_line, &rest[key.len()..]);
        }
        line
    }

    fn size(&self) -> usize {
        match &self.value {
            NodeValue::Leaf(_) => 1,
            NodeValue::List(items) => 1 + items.iter().map(Node::size).sum::<usize>(),
            NodeValue::Map(members) => 1 + members.iter().map(|(.., node)| node.size()).sum::<usize>(),
        }
    }

    fn is_null(&self) -> bool {
        matches!(self.value, NodeValue::Leaf(Value::Null))
    }
}

/// The documents of a text with their numbers, from 1; those without content are left out. After an error there is no
/// more.
pub(crate) struct Documents<'a> {
    builder: Builder<'a>,
    seen: usize,
    ended: bool,
}

impl<'a> Documents<'a> {
    pub(crate) fn of(text: &'a str) -> Documents<'a> {
        let parser = Parser::new_from_str(text);
        let builder = Builder { parser, document: 1, anchors: BTreeMap::new(), aliased: 0 };
        Documents { builder, seen: 0, ended: false }
    }

    fn step(&mut self) -> Result<Option<(usize, Node)>, TreeError> {
        while let Some((event, span)) = self.builder.next()? {
            match event {
                Event::DocumentStart(..) => {
                    self.seen += 1;
                    self.builder.document = self.seen;
                    self.builder.anchors.clear();
                }
                Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                other => {
                    let node = self.builder.node(other, span)?;
                    if !node.is_null() {
                        return Ok(Some((self.seen, node)));
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for Documents<'_> {
    type Item = Result<(usize, Node), TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step();
        self.ended = !matches!(step, Ok(Some(_)));
        step.transpose()
    }
}

struct Builder<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    document: usize,
    anchors: BTreeMap<usize, Node>,
    aliased: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, TreeError> {
        match self.parser.next() {
            None => Ok(None),
            Some(Ok(pair)) => Ok(Some(pair)),
            Some(Err(error)) => Err(self.wrong(error.marker().line(), error.info().clone())),
        }
    }

    /// The next event of a collection, which must have one.
    fn inside(&mut self, line: usize) -> Result<(Event<'a>, Span), TreeError> {
        self.next()?.ok_or_else(|| self.wrong(line, "the text ends within this value"))
    }

    fn wrong(&self, line: usize, message: impl Into<String>) -> TreeError {
        TreeError { document: self.document, line, message: message.into() }
    }

    /// The parser bounds how deep collections nest, and with it this recursion.
    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, TreeError> {
        let line = span.start.line();
        let (value, anchor) = match event {
            Event::Alias(id) => {
                let size = self.anchors.get(&id).map(Node::size);
                self.count_aliased(size.ok_or_else(|| self.wrong(line, "an alias within itself"))?, line)?;
                return Ok(self.anchors[&id].clone());
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let as_text = tag.as_ref().is_none_or(|tag| tag.core_suffix() == Some("str"));
                if !plain && !as_text {
                    return Err(self.wrong(line, "a tag: expected a value without one"));
                }
                let meaning = if plain { Scalar::of(&text) } else { Scalar::Text };
                let value =
                    meaning.value(&text).ok_or_else(|| self.wrong(line, format!("{text} is no finite number")))?;
                (NodeValue::Leaf(value), anchor)
            }
            Event::SequenceStart(_, anchor, _) => (NodeValue::List(self.list(line)?), anchor),
            Event::MappingStart(_, anchor, _) => (NodeValue::Map(self.map(line)?), anchor),
            _ => return Err(self.wrong(line, "expected a value")),
        };
        let node = Node { line, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count_aliased(&mut self, nodes: usize, line: usize) -> Result<(), TreeError> {
        self.aliased = self.aliased.saturating_add(nodes);
        if self.aliased > MAX_ALIASED {
            return Err(self.wrong(line, format!("aliases that stand for more than {MAX_ALIASED} values")));
        }
        Ok(())
    }

    fn list(&mut self, line: usize) -> Result<Vec<Node>, TreeError> {
        let mut items = Vec::new();
        loop {
            match self.inside(line)? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span)?),
            }
        }
    }

    fn map(&mut self, line: usize) -> Result<Vec<(String, usize, Node)>, TreeError> {
        let mut members: Vec<(String, usize, Node)> = Vec::new();
        let mut seen = BTreeMap::new();
        let mut merged = Vec::new();
        loop {
            let (key, span) = match self.inside(line)? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(text, style, ..), span) => ((text, style), span),
                (_, span) => return Err(self.wrong(span.start.line(), "a key: expected plain text")),
            };
            let key_line = span.start.line();
            let (event, span) = self.inside(key_line)?;
            let node = self.node(event, span)?;
            let (key, style) = key;
            if style == ScalarStyle::Plain && key == "<<" {
                merged.push((key_line, node));
                continue;
            }
            let key = key.into_owned();
            if let Some(first) = seen.insert(key.clone(), key_line) {
                return Err(self.wrong(key_line, format!("the key {key:?} again; it first stands on line {first}")));
            }
            members.push((key, key_line, node));
        }
        for (key_line, node) in merged {
            self.merge(&mut members, node, key_line)?;
        }
        Ok(members)
    }

    /// Members that are there already win over merged ones.
    fn merge(&self, into: &mut Vec<(String, usize, Node)>, from: Node, line: usize) -> Result<(), TreeError> {
        match from.value {
            NodeValue::Map(members) => {
                for member in members {
                    if !into.iter().any(|(key, ..)| *key == member.0) {
                        into.push(member);
                    }
                }
                Ok(())
            }
            NodeValue::List(items) => items.into_iter().try_for_each(|item| self.merge(into, item, line)),
            NodeValue::Leaf(_) => Err(self.wrong(line, "a merge: expected a mapping or a list of mappings")),
        }
    }
}
