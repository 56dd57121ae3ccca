//! `calicoctl label`.

use anyhow::{Context, Result, bail};
use tortie_api::Resource;

use super::patch::{edit, target};
use crate::session::Session;

/// What to do with the labels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    /// `KEY=VALUE`, or `KEY` to remove it.
    pub(crate) labels: &'a [String],
    /// Whether values may change.
    pub(crate) overwrite: bool,
    /// Whether labels are removed.
    pub(crate) remove: bool,
}

pub(crate) fn label(
    session: &mut Session<'_, '_>,
    kind: &str,
    name: &str,
    namespace: Option<&str>,
    change: Change<'_>,
) -> Result<()> {
    let target = target(kind, name, namespace)?;
    let store = session.store()?;
    let mut said = Vec::new();
    edit(&*store, &target, |resource| {
        said.clear();
        let mut resource = resource.clone();
        for label in change.labels {
            said.push(one(&mut resource, label, change, kind, name)?);
        }
        Ok(resource)
    })
    .with_context(|| format!("{kind} {name}: labels not changed"))?;
    said.iter().try_for_each(|line| session.say(line))
}

fn one(resource: &mut Resource, label: &str, change: Change<'_>, kind: &str, name: &str) -> Result<String> {
    let labels = &mut resource.metadata_mut().labels;
    if change.remove {
        let Some(_) = labels.remove(label) else {
            bail!("cannot remove label of {kind} {name}, key {label} does not exist");
        };
        return Ok(format!("Successfully removed label {label} from {kind} {name}\n"));
    }
    let Some((key, value)) = label.split_once('=') else {
        bail!("invalid label {label}: expected KEY=VALUE");
    };
    match labels.insert(key, value) {
        None => Ok(format!("Successfully set label {key} on {kind} {name}\n")),
        Some(old) if change.overwrite || old == value => {
            Ok(format!("Successfully updated label {key} on {kind} {name}\n"))
        }
        Some(old) => bail!(
            "failed to update label of {kind} {name}, key {key} is already present with the value {old:?}. please use '--overwrite' to set a new value"
        ),
    }
}
