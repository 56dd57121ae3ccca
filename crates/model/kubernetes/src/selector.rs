//! Label selectors of Kubernetes as selector text.

use tortie_api::{LabelSelector, LabelSelectorOperator, LabelSelectorRequirement};

use crate::error::Wrong;

/// What a pod's endpoint carries and a host endpoint does not.
const PODS: &str = "projectcalico.org/orchestrator == 'k8s'";

/// Pods of these labels; none given means every pod.
pub(crate) fn pods(selector: Option<&LabelSelector>) -> Result<String, Wrong> {
    let mut terms = vec![PODS.to_owned()];
    if let Some(selector) = selector {
        terms.extend(self::terms(selector)?);
    }
    Ok(terms.join(" && "))
}

/// Namespaces of these labels; `all()` if the selector is empty.
pub(crate) fn namespaces(selector: &LabelSelector) -> Result<String, Wrong> {
    let terms = terms(selector)?;
    Ok(if terms.is_empty() { "all()".to_owned() } else { terms.join(" && ") })
}

fn terms(selector: &LabelSelector) -> Result<Vec<String>, Wrong> {
    let LabelSelector { match_labels, match_expressions } = selector;
    let mut out = Vec::new();
    for (key, value) in match_labels {
        check(key, is_key(key), "a label's name").map_err(|wrong| wrong.below("matchLabels"))?;
        check(value, is_value(value), "a label's value").map_err(|wrong| wrong.below("matchLabels"))?;
        out.push(format!("{key} == '{value}'"));
    }
    for (at, requirement) in match_expressions.iter().enumerate() {
        out.push(term(requirement).map_err(|wrong| wrong.below(&format!("matchExpressions[{at}]")))?);
    }
    Ok(out)
}

fn term(requirement: &LabelSelectorRequirement) -> Result<String, Wrong> {
    let LabelSelectorRequirement { key, operator, values } = requirement;
    check(key, is_key(key), "a label's name").map_err(|wrong| wrong.below("key"))?;
    for value in values {
        check(value, is_value(value), "a label's value").map_err(|wrong| wrong.below("values"))?;
    }
    let list = || {
        let found = (!values.is_empty()).then(|| format!("{{ '{}' }}", values.join("', '")));
        found.ok_or_else(|| Wrong::new("values", "none", "at least one value with this operator"))
    };
    let none = |text: String| match values.is_empty() {
        true => Ok(text),
        false => Err(Wrong::new("values", values.join(", "), "no values with this operator")),
    };
    match operator {
        LabelSelectorOperator::In => Ok(format!("{key} in {}", list()?)),
        LabelSelectorOperator::NotIn => Ok(format!("{key} not in {}", list()?)),
        LabelSelectorOperator::Exists => none(format!("has({key})")),
        LabelSelectorOperator::DoesNotExist => none(format!("! has({key})")),
    }
}

fn check(text: &str, good: bool, expected: &str) -> Result<(), Wrong> {
    if good { Ok(()) } else { Err(Wrong::new("", format!("{text:?}"), expected)) }
}

/// Anything else could end the term and begin another.
fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/'))
}

fn is_value(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}
