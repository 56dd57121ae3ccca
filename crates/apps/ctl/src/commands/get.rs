//! `calicoctl get`: reads resources and prints them.

use std::sync::Arc;

use anyhow::{Result, bail};
use tortie_api::{Kind, Resource};
use tortie_facts::{Filter, Revision, Value};
use tortie_store::{Entry, InvalidEntry, Listing, Reader, Store};

use super::delete::targets;
use crate::cli::Select;
use crate::print::{self, Format, Found, ListText, Notation};
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
    if let ([target], Some(notation)) = (targets.as_slice(), format.notation())
        && target.name.is_empty()
    {
        return list_in_parts(&*store, target, notation, session);
    }
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
pub(super) fn shown(resource: Arc<Resource>, revision: Revision) -> Resource {
    let mut resource = Arc::unwrap_or_clone(resource);
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
    match entry.value {
        Value::Resource(resource) => Ok(Ok(Found::One(shown(resource, entry.revision)))),
        Value::Block(_) | Value::Affinity(_) | Value::Handle(_) | Value::IpamConfig(_) | Value::Status(_) => {
            Ok(Err(format!("{} holds no resource", entry.key)))
        }
    }
}

fn filter(target: &Target) -> Filter {
    match target.namespace.as_str() {
        "" => Filter::Kind(target.kind),
        namespace => Filter::Namespace(target.kind, namespace.to_owned()),
    }
}

fn list(store: &dyn Store, target: &Target, session: &mut Session<'_, '_>) -> Result<Found> {
    let Listing { entries, invalid, revision } = store.list(&filter(target))?;
    left_out(&invalid, session);
    Ok(Found::List { kind: target.kind, items: resources(entries).collect(), revision: revision.to_string() })
}

/// The resources among entries, as they are shown.
fn resources(entries: Vec<Entry>) -> impl Iterator<Item = Resource> {
    entries.into_iter().filter_map(|Entry { key: _, value, revision }| {
        if let Value::Resource(resource) = value { Some(shown(resource, revision)) } else { None }
    })
}

fn left_out(invalid: &[InvalidEntry], session: &mut Session<'_, '_>) {
    for one in invalid {
        session.warn(&format!("left out, since it can't be read: {}", one.reason));
    }
}

/// Writes a list while it is read, so that no more than a part of it is in memory.
fn list_in_parts(store: &dyn Store, target: &Target, notation: Notation, session: &mut Session<'_, '_>) -> Result<()> {
    let mut list: Option<ListText> = None;
    let mut said = Ok(());
    store.list_in_parts(&filter(target), &mut |Listing { entries, invalid, revision }| {
        left_out(&invalid, session);
        let list = list.get_or_insert_with(|| ListText::new(notation, target.kind, revision.to_string()));
        if said.is_ok() {
            said = session.say(&list.items(resources(entries)));
        }
    })?;
    said?;
    list.map_or(Ok(()), |list| session.say(&list.end()))
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
