//! ServiceAccount: the profile that its pods take on.

use serde::Deserialize;
use tortie_api::{Metadata, Profile, ProfileSpec};

use crate::ObjectMeta;
use crate::error::{ConversionError, Converted, Object};
use crate::namespace::new_uid;

/// A ServiceAccount of `v1`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceAccount {
    /// Its metadata.
    pub metadata: ObjectMeta,
}

/// The name of a service account's profile.
pub fn service_account_profile_name(namespace: &str, account: &str) -> String {
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    format!("ksa.{namespace}.{account}")
}

/// The profile `ksa.NAMESPACE.NAME`: it has no rules, and lends the account's labels as `pcsa.*`.
pub fn service_account(from: &ServiceAccount) -> Result<Converted, ConversionError> {
    let meta = &from.metadata;
    let mut problems = Vec::new();
    let labels = meta.labels.iter().map(|(key, value)| (format!("pcsa.{key}"), value));
    let name = [("pcsa.projectcalico.org/name".to_owned(), meta.name.as_str())];
    let object = Object { kind: "ServiceAccount", namespace: &meta.namespace, name: &meta.name };
    let mut metadata = Metadata::named(service_account_profile_name(&meta.namespace, &meta.name));
    metadata.uid = new_uid(&object, &meta.uid, &mut problems);
    metadata.resource_version = format!("/{}", meta.resource_version);
    metadata.creation_timestamp = meta.creation_timestamp;
    let spec = ProfileSpec { labels_to_apply: labels.chain(name).collect(), ..ProfileSpec::default() };
    Ok(Converted::of(Profile { metadata, spec }, problems))
}
