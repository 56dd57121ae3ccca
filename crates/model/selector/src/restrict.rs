//! What a selector demands of single labels, for indexing. Conservative: a label set that breaks a
//! restriction never matches; one that keeps them all may still not match.

use crate::node::{Compare, Node};

/// What must hold for one label before a selector can match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restriction<'a> {
    /// The label must be there.
    pub must_be_present: bool,
    /// The label must not be there.
    pub must_be_absent: bool,
    /// If given, the label's value must be one of these, sorted and without repeats; of none it can never be.
    pub one_of: Option<Vec<&'a str>>,
}

impl<'a> Restriction<'a> {
    /// Whether any label set at all can meet this.
    pub fn satisfiable(&self) -> bool {
        !(self.must_be_present && self.must_be_absent) && self.one_of.as_ref().is_none_or(|values| !values.is_empty())
    }

    fn present() -> Restriction<'a> {
        Restriction { must_be_present: true, must_be_absent: false, one_of: None }
    }

    fn one_of(values: Vec<&'a str>) -> Restriction<'a> {
        Restriction { one_of: Some(values), ..Restriction::present() }
    }
}

/// By key, sorted, each key once. Nearly all selectors have one or two.
pub(crate) type Restrictions<'a> = Vec<(&'a str, Restriction<'a>)>;

pub(crate) fn restrictions(node: &Node) -> Restrictions<'_> {
    fn single<'a>(key: &'a str, restriction: Restriction<'a>) -> Restrictions<'a> {
        vec![(key, restriction)]
    }
    match node {
        Node::Compare { key, op: Compare::Eq, value } => single(key, Restriction::one_of(vec![value])),
        Node::Compare { key, op: Compare::Contains | Compare::StartsWith | Compare::EndsWith, value: _ } => {
            single(key, Restriction::present())
        }
        Node::In { key, values, negated: false } => {
            single(key, Restriction::one_of(values.iter().map(String::as_str).collect()))
        }
        Node::Has { key } => single(key, Restriction::present()),
        Node::Not(inner) => match &**inner {
            Node::Has { key } => single(key, Restriction { must_be_absent: true, ..Restriction::default() }),
            // The negation of a comparison also matches where the label is absent: nothing can be said.
            _ => Vec::new(),
        },
        Node::Compare { op: Compare::Ne, .. } | Node::In { negated: true, .. } | Node::All | Node::Global => Vec::new(),
        Node::And(operands) => operands.iter().map(restrictions).reduce(both).unwrap_or_default(),
        Node::Or(operands) => operands.iter().map(restrictions).reduce(either).unwrap_or_default(),
    }
}

fn both<'a>(mut left: Restrictions<'a>, right: Restrictions<'a>) -> Restrictions<'a> {
    for (key, b) in right {
        match left.binary_search_by_key(&key, |(known, _)| *known) {
            Err(at) => left.insert(at, (key, b)),
            Ok(at) => {
                let a = &mut left[at].1;
                a.must_be_present |= b.must_be_present;
                a.must_be_absent |= b.must_be_absent;
                a.one_of = match (a.one_of.take(), b.one_of) {
                    (Some(mut a), Some(b)) => {
                        a.retain(|value| b.binary_search(value).is_ok());
                        Some(a)
                    }
                    (one, other) => one.or(other),
                };
            }
        }
    }
    left
}

fn either<'a>(left: Restrictions<'a>, right: Restrictions<'a>) -> Restrictions<'a> {
    let joined = |(key, a): (&'a str, Restriction<'a>)| {
        let at = right.binary_search_by_key(&key, |(known, _)| *known).ok()?;
        let b = &right[at].1;
        let must_be_present = a.must_be_present && b.must_be_present;
        let must_be_absent = a.must_be_absent && b.must_be_absent;
        let one_of = match (a.one_of, &b.one_of) {
            (Some(mut values), Some(others)) if must_be_present => {
                values.extend(others);
                values.sort_unstable();
                values.dedup();
                Some(values)
            }
            _ => None,
        };
        let said = must_be_present || must_be_absent;
        said.then_some((key, Restriction { must_be_present, must_be_absent, one_of }))
    };
    left.into_iter().filter_map(joined).collect()
}
