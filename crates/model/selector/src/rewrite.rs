//! Selectors over namespaces and service accounts, turned into selectors over what endpoints inherit from them.

use crate::node::Node;

/// Puts `prefix` before every key; `all` and `global` take the place of `all()` and `global()`.
pub(crate) fn rewrite(node: &Node, prefix: &str, all: &Node, global: &Node) -> Node {
    let key = |key: &String| format!("{prefix}{key}");
    let each = |operands: &Vec<Node>| operands.iter().map(|n| rewrite(n, prefix, all, global)).collect();
    match node {
        Node::Compare { key: k, op, value } => Node::Compare { key: key(k), op: *op, value: value.clone() },
        Node::In { key: k, values, negated } => Node::In { key: key(k), values: values.clone(), negated: *negated },
        Node::Has { key: k } => Node::Has { key: key(k) },
        Node::All => all.clone(),
        Node::Global => global.clone(),
        Node::Not(inner) => Node::Not(Box::new(rewrite(inner, prefix, all, global))),
        Node::And(operands) => Node::And(each(operands)),
        Node::Or(operands) => Node::Or(each(operands)),
    }
}
