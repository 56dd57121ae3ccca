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
    let labels = meta.labels.iter().map(|(key, value)| (format!("pcns.{key}"), value.clone()));
    let name = [("pcns.projectcalico.org/name".to_owned(), meta.name.clone())];
    let allow = || vec![Rule { action: Action::Allow, ..Rule::default() }];
    Ok(Converted::of(
        Profile {
            metadata: profile_metadata(
                meta,
                "Namespace",
                namespace_profile_name(&meta.name),
                format!("{}/", meta.resource_version),
            )?,
            spec: ProfileSpec { ingress: allow(), egress: allow(), labels_to_apply: labels.chain(name).collect() },
        },
        Vec::new(),
    ))
}

/// A profile's revision tells out of which object it is made: `NAMESPACE'S/` or `/ACCOUNT'S`.
pub(crate) fn profile_metadata(
    meta: &ObjectMeta,
    kind: &'static str,
    name: String,
    revision: String,
) -> Result<Metadata, ConversionError> {
    let object = Object { kind, namespace: &meta.namespace, name: &meta.name };
    let mut out = Metadata::named(name);
    out.uid = new_uid(&object, &meta.uid)?;
    out.resource_version = revision;
    out.creation_timestamp = meta.creation_timestamp;
    Ok(out)
}

/// The uid of what is made out of the object; empty stays empty.
pub(crate) fn new_uid(object: &Object<'_>, old: &str) -> Result<String, ConversionError> {
    if old.is_empty() {
        return Ok(String::new());
    }
    uid::transformed(old).ok_or_else(|| object.error("metadata.uid", format!("{old:?}"), "a UUID"))
}
