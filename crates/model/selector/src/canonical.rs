//! The normalised text of a selector, as upstream prints it: identifiers are hashes of it.

use crate::node::{Compare, Node};

pub(crate) fn text(node: &Node) -> String {
    let mut out = String::with_capacity(64);
    write(node, &mut out);
    // Selectors are kept for long.
    out.shrink_to_fit();
    out
}

fn write(node: &Node, out: &mut String) {
    match node {
        Node::Compare { key, op, value } => {
            out.push_str(key);
            out.push_str(match op {
                Compare::Eq => " == ",
                Compare::Ne => " != ",
                Compare::Contains => " contains ",
                Compare::StartsWith => " starts with ",
                Compare::EndsWith => " ends with ",
            });
            quote(value, out);
        }
        Node::In { key, values, negated } => {
            out.push_str(key);
            out.push_str(if *negated { " not in {" } else { " in {" });
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                quote(value, out);
            }
            out.push('}');
        }
        Node::Has { key } => {
            out.push_str("has(");
            out.push_str(key);
            out.push(')');
        }
        Node::All => out.push_str("all()"),
        Node::Global => out.push_str("global()"),
        Node::Not(inner) => {
            out.push('!');
            write(inner, out);
        }
        Node::And(operands) => group(operands, " && ", out),
        Node::Or(operands) => group(operands, " || ", out),
    }
}

fn group(operands: &[Node], joiner: &str, out: &mut String) {
    out.push('(');
    for (i, operand) in operands.iter().enumerate() {
        if i > 0 {
            out.push_str(joiner);
        }
        write(operand, out);
    }
    out.push(')');
}

fn quote(value: &str, out: &mut String) {
    let mark = if value.contains('"') { '\'' } else { '"' };
    out.push(mark);
    out.push_str(value);
    out.push(mark);
}
