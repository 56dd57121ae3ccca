//! Changes to a JSON document: merges (RFC 7386, and Kubernetes' directives) and lists of operations (RFC 6902).

use anyhow::{Result, bail};
use serde_json::{Map, Value};

/// Merges a patch: members of objects one by one, null removes, anything else replaces (RFC 7386).
pub(crate) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(members) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(object) = target else { return };
    for (name, member) in members {
        if member.is_null() {
            object.remove(&name);
        } else {
            merge(object.entry(name).or_insert(Value::Null), member);
        }
    }
}

/// Puts null where a patch took a member away, so that whoever reads the result is told of a name that is no field.
pub(crate) fn mark_removed(target: &mut Value, patch: &Value) {
    let (Value::Object(object), Value::Object(members)) = (target, patch) else { return };
    for (name, member) in members.iter().filter(|(name, _)| !name.starts_with('$')) {
        if member.is_null() {
            object.entry(name).or_insert(Value::Null);
        } else if let Some(inner) = object.get_mut(name) {
            mark_removed(inner, member);
        }
    }
}

/// Merges a patch with directives: `$patch: replace` or `delete` in an object, `$retainKeys`,
/// `$deleteFromPrimitiveList/NAME`. No list of these resources has a merge key, so lists are replaced, except
/// `metadata.finalizers` (joined) and `metadata.ownerReferences` (by uid).
pub(crate) fn strategic(target: &mut Value, patch: Value) -> Result<()> {
    strategic_at(target, patch, "")
}

fn strategic_at(target: &mut Value, patch: Value, path: &str) -> Result<()> {
    let mut members = match patch {
        Value::Object(members) => members,
        other => {
            *target = other;
            return Ok(());
        }
    };
    match members.remove("$patch").as_ref().map(|word| word.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => {
            *target = Value::Object(members);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Null;
            return Ok(());
        }
        Some(other) => bail!("{path}$patch: {other:?}: expected one of merge, replace, delete"),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(object) = target else { return Ok(()) };
    if let Some(Value::Array(kept)) = members.remove("$retainKeys") {
        object.retain(|name, _| kept.iter().any(|key| key.as_str() == Some(name)));
    }
    for (name, member) in members {
        let at = format!("{path}{name}");
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let (Value::Array(gone), Some(Value::Array(items))) = (&member, object.get_mut(list)) else { continue };
            items.retain(|item| !gone.contains(item));
        } else if name.starts_with("$setElementOrder/") {
            // It orders lists with merge keys, of which there are none.
        } else if member.is_null() {
            object.remove(&name);
        } else {
            let old = object.entry(name).or_insert(Value::Null);
            match (at.as_str(), member) {
                ("metadata.finalizers", Value::Array(items)) => join(old, items, |a, b| a == b),
                ("metadata.ownerReferences", Value::Array(items)) => join(old, items, |a, b| a["uid"] == b["uid"]),
                (_, member) => strategic_at(old, member, &format!("{at}."))?,
            }
            if old.is_null() {
                let name = at.rsplit('.').next().unwrap_or_default().to_owned();
                object.remove(&name);
            }
        }
    }
    Ok(())
}

/// Adds items to a list; one that is the same as an old one replaces it.
fn join(old: &mut Value, items: Vec<Value>, same: impl Fn(&Value, &Value) -> bool) {
    if !old.is_array() {
        *old = Value::Array(Vec::new());
    }
    let Value::Array(list) = old else { return };
    for item in items {
        match list.iter_mut().find(|known| same(known, &item)) {
            Some(known) => *known = item,
            None => list.push(item),
        }
    }
}

/// Does the operations of RFC 6902 in order.
pub(crate) fn operations(target: &mut Value, patch: &Value) -> Result<()> {
    let Value::Array(steps) = patch else { bail!("expected a list of operations (RFC 6902)") };
    for (i, step) in steps.iter().enumerate() {
        if let Err(error) = operation(target, step) {
            bail!("operation {i}: {error}");
        }
    }
    Ok(())
}

fn operation(target: &mut Value, step: &Value) -> Result<()> {
    const WORDS: [&str; 6] = ["add", "remove", "replace", "move", "copy", "test"];
    let text = |field: &str| match step[field].as_str() {
        Some(text) => Ok(text),
        None => bail!("{field}: {}: expected text", step[field]),
    };
    let value = || match step.get("value") {
        Some(value) => Ok(value.clone()),
        None => bail!("value: expected a value; it is missing"),
    };
    let path = text("path")?;
    match text("op")? {
        "add" => add(target, path, value()?),
        "remove" => remove(target, path).map(drop),
        "replace" => {
            *find(target, path)? = value()?;
            Ok(())
        }
        "move" => {
            let moved = remove(target, text("from")?)?;
            add(target, path, moved)
        }
        "copy" => {
            let copied = find(target, text("from")?)?.clone();
            add(target, path, copied)
        }
        "test" => {
            let (found, wanted) = (find(target, path)?.clone(), value()?);
            if found != wanted {
                bail!("test: {path} is {found}, not {wanted}");
            }
            Ok(())
        }
        other => bail!("op: {other:?}: expected one of {}{}", WORDS.join(", "), crate::settings::hint(other, WORDS)),
    }
}

fn tokens(path: &str) -> Result<Vec<String>> {
    match path.strip_prefix('/') {
        Some(rest) => Ok(rest.split('/').map(|token| token.replace("~1", "/").replace("~0", "~")).collect()),
        None if path.is_empty() => Ok(Vec::new()),
        None => bail!("path: {path:?}: expected it to begin with '/'"),
    }
}

fn index(token: &str, length: usize) -> Option<usize> {
    let plain = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|index| plain && *index < length)
}

fn step_into<'a>(value: &'a mut Value, token: &str, path: &str) -> Result<&'a mut Value> {
    let found = match value {
        Value::Object(members) => members.get_mut(token),
        Value::Array(items) => index(token, items.len()).and_then(|index| items.get_mut(index)),
        _ => None,
    };
    match found {
        Some(found) => Ok(found),
        None => bail!("path: {path:?}: there is no {token:?}"),
    }
}

fn find<'a>(target: &'a mut Value, path: &str) -> Result<&'a mut Value> {
    tokens(path)?.iter().try_fold(target, |value, token| step_into(value, token, path))
}

/// The object or list that holds what the path means, and the path's last word.
fn parent<'a>(target: &'a mut Value, path: &str) -> Result<(&'a mut Value, String)> {
    let mut words = tokens(path)?;
    let Some(last) = words.pop() else { bail!("path: expected a member; the whole can't be meant here") };
    let holder = words.iter().try_fold(target, |value, token| step_into(value, token, path))?;
    Ok((holder, last))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<()> {
    match parent(target, path)? {
        (Value::Object(members), name) => drop(members.insert(name, value)),
        (Value::Array(items), last) if last == "-" => items.push(value),
        (Value::Array(items), last) => match index(&last, items.len() + 1) {
            Some(index) => items.insert(index, value),
            None => bail!("path: {path:?}: {last:?} is no place in a list of {}", items.len()),
        },
        _ => bail!("path: {path:?}: neither an object nor a list"),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value> {
    let removed = match parent(target, path)? {
        (Value::Object(members), name) => members.remove(&name),
        (Value::Array(items), last) => index(&last, items.len()).map(|index| items.remove(index)),
        _ => None,
    };
    match removed {
        Some(removed) => Ok(removed),
        None => bail!("path: {path:?}: there is nothing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merges_follow_rfc_7386() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut value = target;
            merge(&mut value, patch);
            assert_eq!(value, result);
        }
    }

    #[test]
    fn directives_are_followed() {
        let mut value = json!({"a": {"b": 1, "c": 2}, "l": [1, 2, 3], "metadata": {"finalizers": ["x"]}});
        let patch = json!({
            "a": {"$patch": "replace", "d": 4},
            "$deleteFromPrimitiveList/l": [2],
            "metadata": {"finalizers": ["y"]},
        });
        strategic(&mut value, patch).expect("good");
        assert_eq!(value, json!({"a": {"d": 4}, "l": [1, 3], "metadata": {"finalizers": ["x", "y"]}}));
        strategic(&mut value, json!({"a": {"$patch": "delete"}, "l": null})).expect("good");
        assert_eq!(value, json!({"metadata": {"finalizers": ["x", "y"]}}));
        assert!(strategic(&mut value, json!({"$patch": "x"})).is_err());
    }

    #[test]
    fn operations_follow_rfc_6902() {
        let mut value = json!({"a/b": 1, "l": [1, 2], "o": {"x": 1}});
        let patch = json!([
            {"op": "test", "path": "/a~1b", "value": 1},
            {"op": "add", "path": "/l/1", "value": 9},
            {"op": "add", "path": "/l/-", "value": 3},
            {"op": "remove", "path": "/l/0"},
            {"op": "replace", "path": "/o/x", "value": 2},
            {"op": "copy", "from": "/o", "path": "/p"},
            {"op": "move", "from": "/a~1b", "path": "/q"},
        ]);
        operations(&mut value, &patch).expect("good");
        assert_eq!(value, json!({"l": [9, 2, 3], "o": {"x": 2}, "p": {"x": 2}, "q": 1}));
        for (step, part) in [
            (json!({"op": "ad", "path": "/x", "value": 1}), "did you mean \"add\"?"),
            (json!({"op": "test", "path": "/q", "value": 2}), "/q is 1, not 2"),
            (json!({"op": "remove", "path": "/l/01"}), "there is nothing"),
            (json!({"op": "replace", "path": "/none/x", "value": 1}), "there is no \"none\""),
            (json!({"op": "add", "path": "/x"}), "value"),
        ] {
            let error = operations(&mut value, &json!([step])).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
