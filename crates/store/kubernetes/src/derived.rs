//! Facts that are not custom resources: what Kubernetes' own objects say, and what may be written to them.

use tortie_facts::Revision;
use tortie_store::{Write, WriteError};

use crate::Group;
use crate::api::Api;
use crate::types::Type;

/// Writes to an object of Kubernetes.
pub(crate) async fn write(_api: &Api, group: Group, ty: Type, write: &Write) -> Result<Revision, WriteError> {
    Err(WriteError::Invalid(format!(
        "{} comes from {} here and can't be written",
        write.key,
        ty.full_name(group)
    )))
}
