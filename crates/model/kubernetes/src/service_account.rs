//! ServiceAccount: the profile that its pods take on.

use serde::Deserialize;
use tortie_api::{Profile, ProfileSpec};

use crate::ObjectMeta;
use crate::error::{ConversionError, Converted};
use crate::namespace::profile_metadata;

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
    let labels = meta.labels.iter().map(|(key, value)| (format!("pcsa.{key}"), value.clone()));
    let name = [("pcsa.projectcalico.org/name".to_owned(), meta.name.clone())];
    let profile_name = service_account_profile_name(&meta.namespace, &meta.name);
    let revision = format!("/{}", meta.resource_version);
    Ok(Converted::of(
        Profile {
            metadata: profile_metadata(meta, "ServiceAccount", profile_name, revision)?,
            spec: ProfileSpec { labels_to_apply: labels.chain(name).collect(), ..ProfileSpec::default() },
        },
        Vec::new(),
    ))
}
