//! `calicoctl delete`.

use anyhow::{Result, bail};

use super::write::single_kind;
use crate::cli::Select;
use crate::files::{self, Sources};
use crate::old;
use crate::select::{self, Scope, Target};
use crate::session::Session;
use crate::write::{self, Removal};

/// The resources that a command line means, by kind and names or by file.
pub(super) fn targets(session: &mut Session<'_, '_>, select: &Select, scope: Scope<'_>) -> Result<Vec<Target>> {
    let Select { kind, names, filename, recursive, skip_empty, namespace: _ } = select;
    if let Some(kind) = kind {
        return Target::named(select::kind(kind)?, names, scope);
    }
    let sources = Sources { names: filename, recursive: *recursive, skip_empty: *skip_empty, checked: false };
    let mut loaded = files::load(sources, session.io.stdin)?;
    old::settle(session, &mut loaded)?;
    let mut resources = loaded.resources;
    scope.place(&mut resources)?;
    let targets: Vec<Target> = resources.iter().map(Target::of).collect();
    if let Some(nameless) = targets.iter().find(|target| target.name.is_empty()) {
        bail!("{}: metadata.name: expected a name; it is missing", nameless.kind);
    }
    Ok(targets)
}

pub(crate) fn delete(session: &mut Session<'_, '_>, select: &Select, skip_not_exists: bool) -> Result<()> {
    if select.kind.is_some() && select.names.is_empty() {
        bail!("resource name may not be empty: expected one or more names");
    }
    let scope = Scope::of(select.namespace.as_deref(), false)?;
    let targets = targets(session, select, scope)?;
    if targets.is_empty() {
        return session.say("No resources specified\n");
    }
    let kind = single_kind(targets.iter().map(|target| target.kind));
    let named = kind.map(|kind| format!("'{kind}' ")).unwrap_or_default();
    let store = session.store()?;
    let Removal { handled, problems, warnings } = write::remove(&*store, &targets, skip_not_exists)?;
    warnings.iter().for_each(|warning| session.warn(warning));
    if handled > 0 {
        session.say(&format!("Successfully deleted {handled} {named}resource(s)\n"))?;
    }
    if !problems.is_empty() {
        let lines: Vec<String> =
            problems.iter().map(|problem| format!("Failed to delete {named}resource: {problem}")).collect();
        bail!("{}", lines.join("\n"));
    }
    Ok(())
}
