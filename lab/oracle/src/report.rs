//! A fault for people: the world as YAML, the packet, and who says what.

use std::fmt::Write as _;

use tortie_facts::Value;

use crate::generate::Facts;
use crate::trial::Disagreement;

/// The resources as YAML documents, and below them the flow.
pub fn report(facts: &Facts, found: &Disagreement) -> String {
    let mut out = String::new();
    for resource in facts.values().filter_map(Value::as_resource) {
        out.push_str(&tortie_api::to_yaml(&resource.to_value()));
        out.push_str("---\n");
    }
    write!(out, "{found}").expect("writing to a string never fails");
    out
}
