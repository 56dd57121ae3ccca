//! Files of resources: YAML or JSON, one or many documents, single resources or lists.
//!
//! Everything that is wrong is reported at once, each with file, line, document, resource and path.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{FieldError, ReadError, nearest};
use crate::read::{self, Typing};
use crate::yaml::{Documents, Node, NodeValue};
use crate::{API_VERSION, Kind, Resource};

pub use crate::yaml::{push_yaml_item, to_yaml};

/// A file that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The file's name, or `stdin`.
    pub file: String,
    /// Everything that is wrong with it, in the order of the text; at least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The document within the file, from 1.
    pub document: usize,
    /// The line within the file, from 1.
    pub line: usize,
    /// Kind and name of the resource, such as `NetworkPolicy prod/web`; empty where they are not known.
    pub resource: String,
    /// What is wrong.
    pub error: FieldError,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ManifestError { file, problems } = self;
        for (i, Problem { document, line, resource, error }) in problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{file}:{line}: document {document}")?;
            if !resource.is_empty() {
                write!(f, ", {resource}")?;
            }
            write!(f, ": {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestError {}

/// Reads the resources of a file and checks their values, as they would be once defaults are filled in. `source` is the
/// file's name or `stdin`. The resources come back as written, without defaults.
pub fn parse(source: &str, text: &str) -> Result<Vec<Resource>, ManifestError> {
    parse_with(source, text, true, &mut |_| None)
}

/// As [`parse`], but checks fields and types only: for commands that need no more than names, such as delete.
pub fn parse_unchecked(source: &str, text: &str) -> Result<Vec<Resource>, ManifestError> {
    parse_with(source, text, false, &mut |_| None)
}

/// Reads what is no resource of this version: `None` if it is not its business, else the resources that stand for it.
pub type Translate<'a> = dyn FnMut(&Value) -> Option<Result<Vec<Resource>, FieldError>> + 'a;

/// As [`parse`] or, unless `check`, [`parse_unchecked`]. `translate` is asked about what has another apiVersion.
pub fn parse_with(
    source: &str,
    text: &str,
    check: bool,
    translate: &mut Translate<'_>,
) -> Result<Vec<Resource>, ManifestError> {
    let mut reader = Reader { document: 0, check, translate, resources: Vec::new(), problems: Vec::new() };
    // One document after the other, so that only resources of a large file are in memory as a whole.
    for document in Documents::of(text) {
        match document {
            Ok((document, node)) => {
                reader.document = document;
                reader.document(&node);
            }
            Err(error) => {
                let what = problem("", error.message, "valid YAML or JSON");
                let syntax =
                    Problem { document: error.document, line: error.line, resource: String::new(), error: what };
                reader.problems = vec![syntax];
            }
        }
    }
    let Reader { resources, problems, document: _, check: _, translate: _ } = reader;
    if problems.is_empty() { Ok(resources) } else { Err(ManifestError { file: source.to_owned(), problems }) }
}

/// Reads the fields of any form as strictly as those of a resource, but types as YAML writers use them.
pub fn read_fields<T: DeserializeOwned>(value: Value) -> Result<T, FieldError> {
    read::read(value, Typing::Loose).map_err(|error| match error {
        ReadError::Field(error) => error,
        ReadError::Syntax(_) | ReadError::Kind(_) => problem("", error.to_string(), "a mapping"),
    })
}

struct Reader<'a, 'b> {
    document: usize,
    check: bool,
    translate: &'a mut Translate<'b>,
    resources: Vec<Resource>,
    problems: Vec<Problem>,
}

/// What a list says about its items.
#[derive(Clone, Copy)]
struct Implied {
    /// The kind of items that name none.
    kind: Option<Kind>,
}

impl Reader<'_, '_> {
    fn wrong(&mut self, line: usize, resource: &str, error: FieldError) {
        self.problems.push(Problem { document: self.document, line, resource: resource.to_owned(), error });
    }

    fn document(&mut self, node: &Node) {
        match &node.value {
            NodeValue::List(items) => self.items(items, "", Implied { kind: None }),
            NodeValue::Map(_) => self.object(node, "", Implied { kind: None }),
            NodeValue::Leaf(value) => {
                let error = problem("", value.to_string(), "a resource or a list of resources");
                self.wrong(node.line, "", error);
            }
        }
    }

    fn items(&mut self, items: &[Node], prefix: &str, implied: Implied) {
        for (i, item) in items.iter().enumerate() {
            let prefix = format!("{prefix}[{i}]");
            match &item.value {
                NodeValue::Map(_) => self.object(item, &prefix, implied),
                NodeValue::Leaf(_) | NodeValue::List(_) => {
                    let error = problem(&prefix, item.to_value().to_string(), "a resource");
                    self.wrong(item.line, "", error);
                }
            }
        }
    }

    fn object(&mut self, node: &Node, prefix: &str, implied: Implied) {
        let at = |field: &str| if prefix.is_empty() { field.to_owned() } else { format!("{prefix}.{field}") };
        let found = |field: &str| node.get(field).map(Node::to_value).unwrap_or(Value::Null);
        let (kind, version) = (found("kind"), found("apiVersion"));
        if is_old(&version)
            && let Some(translated) = (self.translate)(&node.to_value())
        {
            return self.translated(node, prefix, kind.as_str().unwrap_or_default(), translated);
        }
        if let Some(listed) = list_kind(&kind) {
            return self.list(node, &at("items"), &kind, &version, listed, &at("apiVersion"));
        }
        let kind = match (kind.as_str().map(Kind::from_name), implied.kind) {
            (Some(Ok(kind)), _) => kind,
            (None, Some(kind)) if kind_is_absent(&kind_value(node)) => kind,
            (Some(Err(unknown)), _) => {
                let error = unknown_kind(&at("kind"), &unknown.word, unknown.nearest, &version);
                return self.wrong(node.line_of("kind"), "", error);
            }
            (None, _) => {
                let value = if kind.is_null() { String::new() } else { kind.to_string() };
                return self.wrong(node.line_of("kind"), "", problem(&at("kind"), value, "the name of a kind"));
            }
        };
        let name = title(kind, node);
        if let Some(error) = wrong_version(&version, &at("apiVersion"), implied.kind.is_some()) {
            return self.wrong(node.line_of("apiVersion"), &name, error);
        }
        self.resource(node, kind, &name, prefix);
    }

    fn list(&mut self, node: &Node, at: &str, kind: &Value, version: &Value, listed: Option<Kind>, version_at: &str) {
        // Kubernetes' own List is of version v1.
        if !(listed.is_none() && version.as_str() == Some("v1"))
            && let Some(error) = wrong_version(version, version_at, false)
        {
            return self.wrong(node.line_of("apiVersion"), kind.as_str().unwrap_or_default(), error);
        }
        match node.get("items").map(|items| &items.value) {
            Some(NodeValue::List(items)) => self.items(items, at, Implied { kind: listed }),
            None | Some(NodeValue::Leaf(Value::Null)) => {}
            Some(_) => self.wrong(node.line_of("items"), "", problem(at, "no list", "a list of resources")),
        }
    }

    fn translated(&mut self, node: &Node, prefix: &str, kind: &str, translated: Result<Vec<Resource>, FieldError>) {
        match translated {
            Err(error) => self.located(node, kind, prefix, error),
            Ok(resources) => {
                for resource in resources {
                    let name = format!("{kind}, as {} {}", resource.kind(), resource.metadata().name);
                    self.take(node, &name, prefix, resource);
                }
            }
        }
    }

    fn located(&mut self, node: &Node, name: &str, prefix: &str, mut error: FieldError) {
        let line = node.line_of(&error.path);
        if !prefix.is_empty() {
            let path = std::mem::take(&mut error.path);
            error.path = if path.is_empty() { prefix.to_owned() } else { format!("{prefix}.{path}") };
        }
        self.wrong(line, name, error);
    }

    fn resource(&mut self, node: &Node, kind: Kind, name: &str, prefix: &str) {
        match Resource::read(kind, node.to_value(), Typing::Loose) {
            Err(ReadError::Field(error)) => self.located(node, name, prefix, error),
            Err(error @ (ReadError::Syntax(_) | ReadError::Kind(_))) => {
                self.located(node, name, prefix, problem("", error.to_string(), "a resource"));
            }
            Ok(resource) => self.take(node, name, prefix, resource),
        }
    }

    fn take(&mut self, node: &Node, name: &str, prefix: &str, resource: Resource) {
        if self.check {
            let mut complete = resource.clone();
            complete.apply_defaults();
            let errors = complete.validate().err().into_iter().flatten();
            errors.for_each(|error| self.located(node, name, prefix, error));
        }
        self.resources.push(resource);
    }
}

fn problem(path: &str, value: impl Into<String>, expected: &str) -> FieldError {
    FieldError { path: path.to_owned(), value: value.into(), expected: expected.to_owned(), nearest: None }
}

fn kind_value(node: &Node) -> Value {
    node.get("kind").map(Node::to_value).unwrap_or(Value::Null)
}

fn kind_is_absent(kind: &Value) -> bool {
    kind.is_null()
}

/// The kind of a list's items; Some(None) for a list of any kinds, None if this is no list.
fn list_kind(kind: &Value) -> Option<Option<Kind>> {
    let item = kind.as_str()?.strip_suffix("List")?;
    if item.is_empty() { Some(None) } else { Kind::from_name(item).ok().map(Some) }
}

fn unknown_kind(path: &str, word: &str, near: Option<&str>, version: &Value) -> FieldError {
    let lists = Kind::ALL.iter().map(|kind| format!("{kind}List")).collect::<Vec<_>>();
    let near = near.or_else(|| nearest(word, lists.iter().map(String::as_str)));
    let old = if is_old(version) { "; resources of the old apiVersion v1 have to be converted first" } else { "" };
    FieldError {
        path: path.to_owned(),
        value: format!("{word:?}"),
        expected: format!("a kind of {API_VERSION}{old}"),
        nearest: near.map(str::to_owned),
    }
}

fn is_old(version: &Value) -> bool {
    version.as_str() == Some("v1")
}

fn wrong_version(version: &Value, path: &str, may_be_absent: bool) -> Option<FieldError> {
    match version {
        Value::String(text) if text == API_VERSION => None,
        Value::Null if may_be_absent => None,
        Value::Null => Some(problem(path, "", &format!("{API_VERSION:?}; it is missing"))),
        Value::String(text) if is_old(version) => Some(problem(
            path,
            format!("{text:?}"),
            &format!("{API_VERSION:?}; resources of the old apiVersion v1 have to be converted first"),
        )),
        Value::String(text) => Some(FieldError {
            path: path.to_owned(),
            value: format!("{text:?}"),
            expected: format!("{API_VERSION:?}"),
            nearest: nearest(text, [API_VERSION]).map(str::to_owned),
        }),
        other => Some(problem(path, other.to_string(), &format!("{API_VERSION:?}"))),
    }
}

/// `KIND NAME` or `KIND NAMESPACE/NAME`, as far as they are known.
fn title(kind: Kind, node: &Node) -> String {
    let metadata = node.get("metadata");
    let text = |field: &str| metadata.and_then(|m| m.get(field)).and_then(Node::text);
    match (text("namespace"), text("name")) {
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) => format!("{kind} {name}"),
        (_, None) => kind.name().to_owned(),
    }
}
