//! `calicoctl get`: reads resources and prints them.

use anyhow::{Result, bail};
use tortie_api::{Kind, Resource};
use tortie_facts::{Filter, Revision};
use tortie_store::{Listing, Reader, Store};

use super::delete::targets;
use crate::cli::Select;
use crate::print::{self, Format, Found};
use crate::select::{Scope, Target};
use crate::session::Session;
use crate::write::with_nearest;

pub(crate) fn get(
    session: &mut Session<'_, '_>,
    select: &Select,
    output: &str,
    all_namespaces: bool,
    export: bool,
) -> Result<()> {
    let scope = Scope::of(select.namespace.as_deref(), all_namespaces)?;
    let format = Format::parse(output)?;
    let targets = targets(session, select, scope)?;
    let store = session.store()?;
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for target in &targets {
        match read(&*store, target, session)? {
            Ok(one) => found.push(one),
            Err(problem) => problems.push(problem),
        }
    }
    if export && !select.names.is_empty() {
        found.iter_mut().for_each(strip);
    }
    let with_namespace = scope != Scope::Unsaid;
    if found.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    let text = print::render(&format, &found, with_namespace, &|| print::as_number(&*store))?;
    session.say(&text)?;
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// A resource as it is shown: complete, with its revision.
pub(super) fn shown(resource: &Resource, revision: Revision) -> Resource {
    let mut resource = resource.clone();
    if completed_when_read(resource.kind()) {
        resource.apply_defaults();
    }
    resource.metadata_mut().resource_version = revision.to_string();
    resource
}

/// Kinds that upstream completes when it reads them, since old versions stored less.
fn completed_when_read(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::IpPool
            | Kind::Tier
            | Kind::NetworkPolicy
            | Kind::GlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
    )
}

fn read(store: &dyn Store, target: &Target, session: &mut Session<'_, '_>) -> Result<Result<Found, String>> {
    if target.name.is_empty() {
        return list(store, target, session).map(Ok);
    }
    let Some(entry) = Reader::get(store, &target.key())? else {
        return Ok(Err(with_nearest(store, target.kind, &target.namespace, &target.name)));
    };
    match entry.value.as_resource() {
        Some(resource) => Ok(Ok(Found::One(shown(resource, entry.revision)))),
        None => Ok(Err(format!("{} holds no resource", entry.key))),
    }
}

fn list(store: &dyn Store, target: &Target, session: &mut Session<'_, '_>) -> Result<Found> {
    let filter = match target.namespace.as_str() {
        "" => Filter::Kind(target.kind),
        namespace => Filter::Namespace(target.kind, namespace.to_owned()),
    };
    let Listing { entries, invalid, revision } = store.list(&filter)?;
    for one in invalid {
        session.warn(&format!("left out, since it can't be read: {}", one.reason));
    }
    let items =
        entries.iter().filter_map(|entry| Some(shown(entry.value.as_resource()?, entry.revision))).collect::<Vec<_>>();
    Ok(Found::List { kind: target.kind, items, revision: revision.to_string() })
}

/// Takes away what means nothing in another cluster.
fn strip(found: &mut Found) {
    if let Found::One(resource) = found {
        let metadata = resource.metadata_mut();
        metadata.namespace.clear();
        metadata.uid.clear();
        metadata.resource_version.clear();
        metadata.creation_timestamp = None;
        metadata.deletion_timestamp = None;
        metadata.deletion_grace_period_seconds = None;
    }
}
