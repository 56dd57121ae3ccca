//! The public value: a parsed selector with its canonical text.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha224};

use crate::canonical;
use crate::labels::Labels;
use crate::node::Node;
use crate::parse::{self, SelectorError};
use crate::restrict::{self, Restriction};
use crate::rewrite::rewrite;

const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

/// A parsed selector. Cheap to clone; equal and ordered by canonical text.
#[derive(Clone)]
pub struct Selector {
    inner: Arc<Inner>,
}

struct Inner {
    root: Node,
    canonical: String,
}

impl Selector {
    /// Reads a selector; empty text means `all()`.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        parse::parse(text).map(Selector::of)
    }

    /// The selector that matches everything.
    pub fn all() -> Selector {
        Selector::of(Node::All)
    }

    /// The selector that matches what both match. `all()` adds nothing and is left out.
    pub fn and(a: &Selector, b: &Selector) -> Selector {
        match (a.is_all(), b.is_all()) {
            (true, _) => b.clone(),
            (_, true) => a.clone(),
            (false, false) => Selector::of(Node::And(vec![a.inner.root.clone(), b.inner.root.clone()])),
        }
    }

    /// The selector `key == "value"`, or None if the text of either cannot be written in the language.
    pub fn equals(key: &str, value: &str) -> Option<Selector> {
        let quote = if value.contains('"') { '\'' } else { '"' };
        Selector::parse(&format!("{key} == {quote}{value}{quote}")).ok()
    }

    /// Whether this is exactly `all()`.
    pub fn is_all(&self) -> bool {
        self.inner.root == Node::All
    }

    /// The normalised text, byte for byte as upstream prints it.
    pub fn canonical(&self) -> &str {
        &self.inner.canonical
    }

    /// How deep parentheses are nested in the canonical text.
    pub fn depth(&self) -> usize {
        self.inner.root.depth()
    }

    /// `s:` and the base64url text, without padding, of SHA-224 over `s:` and the canonical text.
    pub fn id(&self) -> String {
        let mut hash = Sha224::new();
        hash.update(b"s:");
        hash.update(self.inner.canonical.as_bytes());
        format!("s:{}", URL_SAFE_NO_PAD.encode(hash.finalize()))
    }

    /// Whether these labels match.
    pub fn matches(&self, labels: &impl Labels) -> bool {
        self.inner.root.matches(labels)
    }

    /// Whether this holds for any of the keys whose labels the selector asks for. Nothing else decides what matches.
    pub fn any_key(&self, holds: impl Fn(&str) -> bool) -> bool {
        self.inner.root.any_key(&holds)
    }

    /// What the selector demands of single labels, sorted by key, each key once: labels that break one of these never
    /// match.
    pub fn restrictions(&self) -> Vec<(&str, Restriction<'_>)> {
        restrict::restrictions(&self.inner.root)
    }

    /// A namespace selector as one over endpoints: keys get the prefix under which endpoints inherit their
    /// namespace's labels, `all()` means "is in a namespace", `global()` means "is in none".
    pub fn rewrite_for_namespace(&self) -> Selector {
        self.rewrite("pcns.", NAMESPACE_LABEL)
    }

    /// A service account selector as one over endpoints, by the rules of [`Selector::rewrite_for_namespace`].
    pub fn rewrite_for_service_account(&self) -> Selector {
        self.rewrite("pcsa.", SERVICE_ACCOUNT_LABEL)
    }

    fn rewrite(&self, prefix: &str, label: &str) -> Selector {
        let has = Node::Has { key: label.to_owned() };
        let has_not = Node::Not(Box::new(has.clone()));
        Selector::of(rewrite(&self.inner.root, prefix, &has, &has_not))
    }

    fn of(root: Node) -> Selector {
        let canonical = canonical::text(&root);
        Selector { inner: Arc::new(Inner { root, canonical }) }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Selector::parse(text)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.canonical())
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({})", self.canonical())
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl Eq for Selector {}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.canonical().cmp(other.canonical())
    }
}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}
