//! Namespace: the profile that its pods take on.

use serde::Deserialize;
use tortie_api::{Action, Metadata, Profile, ProfileSpec, Rule};

use crate::error::{ConversionError, Converted, Object};
use crate::{ObjectMeta, uid};

/// A Namespace of `v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// Its metadata.
    pub metadata: ObjectMeta,
}

/// The name of a namespace's profile.
pub fn namespace_profile_name(namespace: &str) -> String {
    format!("kns.{namespace}")
}

/// The profile `kns.NAME`: it allows everything that no policy decides, and lends the namespace's labels as `pcns.*`.
pub fn namespace(from: &Namespace) -> Result<Converted, ConversionError> {
    let meta = &from.metadata;
    let mut problems = Vec::new();
    let labels = meta.labels.iter().map(|(key, value)| (format!("pcns.{key}"), value));
    let name = [("pcns.projectcalico.org/name".to_owned(), meta.name.as_str())];
    let allow = || vec![Rule { action: Action::Allow, ..Rule::default() }];
    let object = Object { kind: "Namespace", namespace: "", name: &meta.name };
    let mut metadata = Metadata::named(namespace_profile_name(&meta.name));
    metadata.uid = new_uid(&object, &meta.uid, &mut problems);
    // A profile's revision tells out of which object it is made: NAMESPACE'S/ or /ACCOUNT'S.
    metadata.resource_version = format!("{}/", meta.resource_version);
    metadata.creation_timestamp = meta.creation_timestamp;
    let spec = ProfileSpec { ingress: allow(), egress: allow(), labels_to_apply: labels.chain(name).collect() };
    Ok(Converted::of(Profile { metadata, spec }, problems))
}

/// The uid of what is made out of the object; empty stays empty, and what is no UUID is told and left out.
pub(crate) fn new_uid(object: &Object<'_>, old: &str, problems: &mut Vec<ConversionError>) -> String {
    if old.is_empty() {
        return String::new();
    }
    uid::transformed(old).unwrap_or_else(|| {
        problems.push(object.error("metadata.uid", format!("{old:?}"), "a UUID"));
        String::new()
    })
}
