//! The parsed form, and whether labels match it.

use crate::labels::Labels;

/// How a label's value is compared with the text of the selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Compare {
        key: String,
        op: Compare,
        value: String,
    },
    /// `values` is sorted and free of repeats.
    In {
        key: String,
        values: Vec<String>,
        negated: bool,
    },
    Has {
        key: String,
    },
    All,
    Global,
    Not(Box<Node>),
    /// Two operands or more.
    And(Vec<Node>),
    /// Two operands or more.
    Or(Vec<Node>),
}

impl Node {
    /// How deep parentheses are nested in the canonical text.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Node::Compare { .. } | Node::In { .. } | Node::Has { .. } | Node::All | Node::Global => 0,
            Node::Not(inner) => inner.depth(),
            Node::And(operands) | Node::Or(operands) => 1 + operands.iter().map(Node::depth).max().unwrap_or(0),
        }
    }

    /// Whether this holds for the key of any condition.
    pub(crate) fn any_key(&self, holds: &impl Fn(&str) -> bool) -> bool {
        match self {
            Node::Compare { key, op: _, value: _ } | Node::In { key, values: _, negated: _ } | Node::Has { key } => {
                holds(key)
            }
            Node::All | Node::Global => false,
            Node::Not(inner) => inner.any_key(holds),
            Node::And(operands) | Node::Or(operands) => operands.iter().any(|operand| operand.any_key(holds)),
        }
    }

    pub(crate) fn matches(&self, labels: &impl Labels) -> bool {
        match self {
            Node::Compare { key, op, value } => match op {
                Compare::Eq => labels.is(key, value),
                Compare::Ne => !labels.is(key, value),
                Compare::Contains => labels.get(key).is_some_and(|found| found.contains(value.as_str())),
                Compare::StartsWith => labels.get(key).is_some_and(|found| found.starts_with(value.as_str())),
                Compare::EndsWith => labels.get(key).is_some_and(|found| found.ends_with(value.as_str())),
            },
            Node::In { key, values, negated } => {
                let within =
                    labels.get(key).is_some_and(|found| values.binary_search_by(|v| v.as_str().cmp(found)).is_ok());
                within != *negated
            }
            Node::Has { key } => labels.has(key),
            Node::All | Node::Global => true,
            Node::Not(inner) => !inner.matches(labels),
            Node::And(operands) => operands.iter().all(|n| n.matches(labels)),
            Node::Or(operands) => operands.iter().any(|n| n.matches(labels)),
        }
    }
}
