//! `calicoctl patch`, and the change of one stored resource that labels need as well.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use tortie_api::{FieldError, ReadError, Resource};
use tortie_store::{Reader, Store};

use crate::cli::PatchType;
use crate::merge;
use crate::select::{self, Scope, Target};
use crate::session::Session;
use crate::write::{self, Done, Verb, with_nearest};

/// How often the change is made anew when others were faster.
const ATTEMPTS: usize = 5;

/// The resource that is meant.
pub(super) fn target(kind: &str, name: &str, namespace: Option<&str>) -> Result<Target> {
    let scope = Scope::of(namespace, false)?;
    let targets = Target::named(select::kind(kind)?, &[name.to_owned()], scope)?;
    targets.into_iter().next().ok_or_else(|| anyhow!("resource name may not be empty"))
}

/// Changes one stored resource and writes it back, checked, if nobody else has changed it since; else starts over.
pub(super) fn edit(
    store: &dyn Store,
    target: &Target,
    mut change: impl FnMut(&Resource) -> Result<Resource>,
) -> Result<()> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let Some(entry) = Reader::get(store, &target.key())? else {
            bail!("{}", with_nearest(store, target.kind, &target.namespace, &target.name));
        };
        let stored = entry.value.as_resource().ok_or_else(|| anyhow!("{} holds no resource", entry.key))?;
        let mut changed = change(stored)?;
        same_identity(target, &changed)?;
        // The revision that the change is made for, where it names one.
        let given = changed.metadata().resource_version.as_str();
        if !given.is_empty() && given != stored.metadata().resource_version && given != entry.revision.to_string() {
            bail!("{}", write::stale(&target.key(), given, entry.revision));
        }
        changed.apply_defaults();
        changed.validate().map_err(|errors| anyhow!("{}: {}", target.key(), all(&errors)))?;
        changed.metadata_mut().resource_version = entry.revision.to_string();
        let Done { handled: _, wrote: _, problems, conflict } = write::write(store, Verb::Replace, vec![changed])?;
        match problems.into_iter().next() {
            None => return Ok(()),
            Some(problem) if conflict => last = problem,
            Some(problem) => bail!("{problem}"),
        }
    }
    bail!("{last}")
}

fn all(errors: &[FieldError]) -> String {
    errors.iter().map(FieldError::to_string).collect::<Vec<_>>().join("\n")
}

fn same_identity(target: &Target, changed: &Resource) -> Result<()> {
    let Target { kind, namespace, name, version: _ } = Target::of(changed);
    if (kind, &namespace, &name) != (target.kind, &target.namespace, &target.name) {
        bail!("{}: kind, metadata.name and metadata.namespace cannot be changed", target.key());
    }
    Ok(())
}

pub(crate) fn patch(
    session: &mut Session<'_, '_>,
    kind: &str,
    name: &str,
    namespace: Option<&str>,
    text: &str,
    how: PatchType,
) -> Result<()> {
    let target = target(kind, name, namespace)?;
    let patch: Value = match serde_json::from_str(text) {
        Ok(patch) => patch,
        Err(_) => serde_saphyr::from_str(text).context("--patch: expected valid JSON or YAML")?,
    };
    if how != PatchType::Json && !patch.is_object() {
        bail!("--patch: {patch}: expected a mapping, such as {{\"spec\": {{}}}}");
    }
    let store = session.store()?;
    let changed = edit(&*store, &target, |resource| {
        let mut value = resource.to_value();
        match how {
            PatchType::Strategic => merge::strategic(&mut value, patch.clone()).context("--patch")?,
            PatchType::Merge => merge::merge(&mut value, patch.clone()),
            PatchType::Json => merge::operations(&mut value, &patch).context("--patch")?,
        }
        let mut marked = value.clone();
        if how != PatchType::Json {
            merge::mark_removed(&mut marked, &patch);
        }
        let unknown = match Resource::from_value(marked) {
            Err(ReadError::Field(error)) if error.is_unknown_field() => Err(ReadError::Field(error)),
            Ok(_) | Err(_) => Ok(()),
        };
        unknown.and_then(|()| Resource::from_value(value)).with_context(|| format!("--patch: {}", target.key()))
    });
    match changed {
        Ok(()) => session.say(&format!("Successfully patched 1 '{}' resource\n", target.kind)),
        Err(error) => bail!("Failed to patch '{}' resource: {error:#}", target.kind),
    }
}
