//! What is wrong with a resource, in the words that its writer needs.

use std::fmt;

/// One wrong value: where it stands, what it is, what was expected and, if something comes close, that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// For example `spec.ingress[0].action`.
    pub path: String,
    /// The value as written; empty if it is missing.
    pub value: String,
    /// What would have been right.
    pub expected: String,
    /// The valid choice closest to the value, if one is close.
    pub nearest: Option<String>,
}

impl FieldError {
    pub(crate) const UNKNOWN_FIELD: &str = "unknown field";

    /// Whether the path names a field that does not exist.
    pub fn is_unknown_field(&self) -> bool {
        self.value == FieldError::UNKNOWN_FIELD
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FieldError { path, value, expected, nearest } = self;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        if value.is_empty() {
            write!(f, "expected {expected}")?
        } else {
            write!(f, "{value}: expected {expected}")?
        }
        match nearest {
            Some(nearest) => write!(f, "; did you mean {nearest:?}?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for FieldError {}

/// JSON that is no resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The text is not JSON at all.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// `kind` is missing or names no kind.
    #[error("kind: {0}")]
    Kind(#[from] crate::UnknownKind),
    /// A field is unknown, of the wrong type or of a wrong value.
    #[error("{0}")]
    Field(#[from] FieldError),
}

/// The candidate that a misspelt word most likely means: few edits away for its length, whatever its case. Of several,
/// the one whose case fits better, then the shortest.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let length = word.chars().count();
    let limit = if length <= 3 { 1 } else { 1 + length / 4 };
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, candidate)| {
            (*distance, strsim::damerau_levenshtein(word, candidate), candidate.chars().count())
        })
        .map(|(_, candidate)| candidate)
}
