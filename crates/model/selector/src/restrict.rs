//! What a selector demands of single labels, for indexing. Conservative: a label set that breaks a
//! restriction never matches; one that keeps them all may still not match.

use std::collections::{BTreeMap, BTreeSet};

use crate::node::{Compare, Node};

/// What must hold for one label before a selector can match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restriction {
    /// The label must be there.
    pub must_be_present: bool,
    /// The label must not be there.
    pub must_be_absent: bool,
    /// If given, the label's value must be one of these; an empty set can never be met.
    pub one_of: Option<BTreeSet<String>>,
}

impl Restriction {
    /// Whether any label set at all can meet this.
    pub fn satisfiable(&self) -> bool {
        !(self.must_be_present && self.must_be_absent) && self.one_of.as_ref().is_none_or(|values| !values.is_empty())
    }

    fn present() -> Restriction {
        Restriction { must_be_present: true, must_be_absent: false, one_of: None }
    }

    fn one_of(values: impl IntoIterator<Item = String>) -> Restriction {
        Restriction { one_of: Some(values.into_iter().collect()), ..Restriction::present() }
    }
}

type Restrictions = BTreeMap<String, Restriction>;

pub(crate) fn restrictions(node: &Node) -> Restrictions {
    let single = |key: &String, restriction| BTreeMap::from([(key.clone(), restriction)]);
    match node {
        Node::Compare { key, op: Compare::Eq, value } => single(key, Restriction::one_of([value.clone()])),
        Node::Compare { key, op: Compare::Contains | Compare::StartsWith | Compare::EndsWith, value: _ } => {
            single(key, Restriction::present())
        }
        Node::In { key, values, negated: false } => single(key, Restriction::one_of(values.iter().cloned())),
        Node::Has { key } => single(key, Restriction::present()),
        Node::Not(inner) => match &**inner {
            Node::Has { key } => single(key, Restriction { must_be_absent: true, ..Restriction::default() }),
            // The negation of a comparison also matches where the label is absent: nothing can be said.
            _ => BTreeMap::new(),
        },
        Node::Compare { op: Compare::Ne, .. } | Node::In { negated: true, .. } | Node::All | Node::Global => {
            BTreeMap::new()
        }
        Node::And(operands) => operands.iter().map(restrictions).fold(BTreeMap::new(), both),
        Node::Or(operands) => operands.iter().map(restrictions).reduce(either).unwrap_or_default(),
    }
}

fn both(mut left: Restrictions, right: Restrictions) -> Restrictions {
    for (key, b) in right {
        let a = left.entry(key).or_default();
        a.must_be_present |= b.must_be_present;
        a.must_be_absent |= b.must_be_absent;
        a.one_of = match (a.one_of.take(), b.one_of) {
            (Some(a), Some(b)) => Some(a.intersection(&b).cloned().collect()),
            (one, other) => one.or(other),
        };
    }
    left
}

fn either(left: Restrictions, mut right: Restrictions) -> Restrictions {
    let mut out = BTreeMap::new();
    for (key, a) in left {
        let Some(b) = right.remove(&key) else { continue };
        let must_be_present = a.must_be_present && b.must_be_present;
        let must_be_absent = a.must_be_absent && b.must_be_absent;
        let one_of = match (a.one_of, b.one_of) {
            (Some(a), Some(b)) if must_be_present => Some(&a | &b),
            _ => None,
        };
        if must_be_present || must_be_absent {
            out.insert(key, Restriction { must_be_present, must_be_absent, one_of });
        }
    }
    out
}
