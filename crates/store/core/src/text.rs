//! Between typed facts and the text that a store keeps: what is written can be read back, what can't be read is told.

use tortie_facts::{Key, Revision, Value};

use crate::policy_name;
use crate::{Entry, Event, Expect, InvalidEntry, Write, WriteError};

/// A write as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextWrite {
    /// The key for messages.
    pub name: String,
    /// The key's text.
    pub path: String,
    /// What must be there.
    pub expect: Expect,
    /// The value's text; `None` deletes.
    pub value: Option<String>,
}

/// Whether this value belongs under this key.
fn fits(key: &Key, value: &Value) -> bool {
    match (key, value) {
        (Key::Resource { kind, namespace: _, name: _ }, Value::Resource(resource)) => resource.kind() == *kind,
        (Key::Block(_), Value::Block(_))
        | (Key::Affinity(_), Value::Affinity(_))
        | (Key::Handle(_), Value::Handle(_))
        | (Key::IpamConfig, Value::IpamConfig(_))
        | (Key::Status(_) | Key::Foreign(_), Value::Status(_)) => true,
        (
            Key::Resource { .. }
            | Key::Block(_)
            | Key::Affinity(_)
            | Key::Handle(_)
            | Key::IpamConfig
            | Key::Status(_)
            | Key::Foreign(_),
            Value::Resource(_)
            | Value::Block(_)
            | Value::Affinity(_)
            | Value::Handle(_)
            | Value::IpamConfig(_)
            | Value::Status(_),
        ) => false,
    }
}

/// Checks that a reader would find the same key and kind of value again; the key's text.
pub(crate) fn check(write: &Write) -> Result<String, WriteError> {
    let Write { key, expect: _, value } = write;
    let path = key.path();
    match Key::from_path(&path) {
        Ok(read) if read == *key => {}
        Ok(read) => return Err(WriteError::Invalid(format!("{key} can't be stored: it would be read as {read}"))),
        Err(error) => return Err(WriteError::Invalid(format!("{key} can't be stored: {error}"))),
    }
    match value {
        Some(value) if !fits(key, value) => {
            Err(WriteError::Invalid(format!("{key} can't be stored: the value is of another kind")))
        }
        Some(_) | None => Ok(path),
    }
}

/// A write as text; refuses what could not be read back.
pub fn encode(write: &Write) -> Result<TextWrite, WriteError> {
    let path = check(write)?;
    let Write { key, expect, value } = write;
    Ok(TextWrite {
        name: key.to_string(),
        path,
        expect: *expect,
        value: value.as_ref().map(|value| policy_name::to_json(key, value)),
    })
}

/// Reads what a store holds.
pub fn decode(path: &str, text: &str, revision: Revision) -> Result<Entry, InvalidEntry> {
    let invalid = |reason| InvalidEntry { path: path.to_owned(), reason, revision };
    let key = Key::from_path(path).map_err(|error| invalid(error.to_string()))?;
    match Value::from_json(&key, text) {
        Ok(value) => match policy_name::read(value) {
            Ok(value) => Ok(Entry { key, value, revision }),
            Err(reason) => Err(invalid(format!("the value of {key} can't be read: {reason}"))),
        },
        Err(error) => Err(invalid(error.to_string())),
    }
}

/// Reads a change; `None` for the deletion of something whose key was never readable.
pub fn decode_event(path: &str, text: Option<&str>, revision: Revision) -> Option<Event> {
    match text {
        Some(text) => Some(decode(path, text, revision).map_or_else(Event::Invalid, Event::Put)),
        None => Key::from_path(path).ok().map(|key| Event::Deleted { key, revision }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tortie_api::Kind;

    #[test]
    fn what_could_not_be_read_back_is_refused() {
        let status = || Some(Value::Status(Arc::from("{}")));
        for (key, value) in [
            (Key::resource(Kind::NetworkPolicy, "ns", "a/b"), None),
            (Key::resource(Kind::NetworkPolicy, "", "a"), None),
            (Key::resource(Kind::Node, "", ""), None),
            (Key::Handle("h".into()), status()),
            (Key::IpamConfig, status()),
        ] {
            let write = Write { key, expect: Expect::Any, value };
            assert!(matches!(encode(&write), Err(WriteError::Invalid(_))), "{write:?}");
        }
    }

    #[test]
    fn unreadable_text_says_why() {
        let entry = decode("/calico/ipam/v2/handle/h", "{", Revision(3)).expect_err("half an object");
        assert_eq!((entry.path.as_str(), entry.revision), ("/calico/ipam/v2/handle/h", Revision(3)));
        assert!(entry.reason.contains("handle h"), "{}", entry.reason);
        assert!(decode("/elsewhere", "{}", Revision(1)).is_err());
        assert_eq!(decode_event("/elsewhere", None, Revision(1)), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(path in ".{0,40}", tail in ".{0,40}", text in ".{0,60}") {
            let _ = decode(&path, &text, Revision(1));
            for stem in ["/calico/ipam/v2/", "/calico/ipam/v2/handle/", "/calico/resources/v3/projectcalico.org/"] {
                let _ = decode(&format!("{stem}{tail}"), &text, Revision(1));
            }
        }
    }
}
