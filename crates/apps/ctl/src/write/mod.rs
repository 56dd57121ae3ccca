//! Writing resources: create, apply, replace, and what must hold between several of them.
//!
//! Invariant: everything is read and judged first; then the writes go to the store, many in one call. A fault that is
//! not about one resource alone (overlapping pools, a missing tier) stops all of them before anything is written.
//! Where a resource is given twice, the second is judged after the first is written.

mod guard;
mod initial;
mod ipam_config;
mod known;
mod remove;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, bail};
use tortie_api::{Kind, Metadata, Resource};
use tortie_facts::{Key, Revision, Value};
use tortie_store::{Store, Write, WriteError, resource as stored};

pub(crate) use guard::tier_of;
pub(crate) use initial::{ensure_initialized, is_protected};
pub(crate) use ipam_config::{configure, settings as ipam_settings};
pub(crate) use known::{Known, with_nearest};
pub(crate) use remove::{Removal, remove, tunnel_addresses};

/// How often a write is planned anew when others were faster.
const ATTEMPTS: usize = 10;

/// Waits before another attempt, longer every time.
fn pause(attempt: usize) {
    sleep(Duration::from_millis(10 << attempt.min(5)));
}

/// What to do with resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// They must not exist.
    Create {
        /// Those that exist are passed over.
        skip_exists: bool,
    },
    /// Whether they exist or not.
    Apply,
    /// They must exist.
    Replace,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Create { .. } => "create",
            Verb::Apply => "apply",
            Verb::Replace => "replace",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Resources that are now as wanted.
    pub(crate) handled: usize,
    /// Whether one of them was written, and not as wanted before.
    pub(crate) wrote: bool,
    /// What kept each of the others from it.
    pub(crate) problems: Vec<String>,
    /// Whether one of them is that the resource has another revision than the one given.
    pub(crate) conflict: bool,
}

/// What a resource needs.
enum Step {
    Write(Box<Planned>),
    Nothing,
    Problem(String),
    Conflict(String),
}

/// A write of a resource, with what it replaces.
pub(crate) struct Planned {
    write: Write,
    /// What is stored, if anything.
    old: Option<Arc<Resource>>,
    /// The revision that was given for it.
    given: String,
}

impl Planned {
    /// What is written.
    fn wanted(&self) -> &Resource {
        let resource = self.write.value.as_ref().and_then(Value::as_resource);
        resource.expect("only resources are planned")
    }

    /// What was given, to be planned anew.
    fn again(&self) -> Resource {
        let mut resource = self.wanted().clone();
        resource.metadata_mut().resource_version.clone_from(&self.given);
        resource
    }
}

/// Writes that go to the store in one call. More are split, so that no call is larger than a store takes, and so that
/// it can be told how far they are.
pub(crate) const BATCH: usize = 1000;

/// Writes resources, whose namespaces are set. An error means that nothing was written.
pub(crate) fn write(store: &dyn Store, verb: Verb, resources: Vec<Resource>) -> Result<Done> {
    write_telling(store, verb, resources, &mut |_| {})
}

/// As [`write`]; `progress` is told how many are as wanted, again and again.
pub(crate) fn write_telling(
    store: &dyn Store,
    verb: Verb,
    mut resources: Vec<Resource>,
    progress: &mut dyn FnMut(usize),
) -> Result<Done> {
    let mut done = Done::default();
    if verb == (Verb::Create { skip_exists: false }) {
        let mut seen = BTreeSet::new();
        resources.retain(|resource| {
            let key = stored::resource_key(resource);
            let first = seen.insert(key.clone());
            if !first {
                done.problems.push(format!("{key} is given more than once: create takes each resource once"));
            }
            first
        });
    }
    for wave in waves(resources) {
        match write_wave(store, verb, wave, &mut done, progress) {
            Ok(()) => {}
            Err(error) if done.wrote => {
                done.problems.push(format!("{error:#}"));
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Splits resources so that none is twice in one part; the later of two that are the same goes into a later part.
fn waves(resources: Vec<Resource>) -> Vec<Vec<Resource>> {
    let mut waves: Vec<(BTreeSet<Key>, Vec<Resource>)> = Vec::new();
    for resource in resources {
        let key = stored::resource_key(&resource);
        let at = waves.iter().position(|(keys, _)| !keys.contains(&key)).unwrap_or(waves.len());
        if at == waves.len() {
            waves.push(Default::default());
        }
        waves[at].0.insert(key);
        waves[at].1.push(resource);
    }
    waves.into_iter().map(|(_, resources)| resources).collect()
}

/// A resource that waits for its turn: many are kept as text, which takes a fraction of the memory, while the stored
/// ones that they are compared with are read.
enum Waiting {
    Plain(Resource),
    Packed(String),
}

impl Waiting {
    fn all(resources: Vec<Resource>) -> Vec<Waiting> {
        let many = resources.len() > BATCH;
        let wait =
            |resource: Resource| if many { Waiting::Packed(resource.to_json()) } else { Waiting::Plain(resource) };
        resources.into_iter().map(wait).collect()
    }

    fn unpacked(self) -> Result<Resource> {
        match self {
            Waiting::Plain(resource) => Ok(resource),
            Waiting::Packed(text) => Ok(Resource::from_json(&text)?),
        }
    }
}

/// What resources come to: writes, and what is done or refused without one.
fn plan_all(store: &dyn Store, verb: Verb, resources: Vec<Resource>, done: &mut Done) -> Result<Vec<Planned>> {
    let keys: Vec<Key> = resources.iter().map(stored::resource_key).collect();
    let waiting = Waiting::all(resources);
    let mut known = Known::read(store, keys.into_iter())?;
    let mut planned = Vec::new();
    for one in waiting {
        match plan(verb, one.unpacked()?, &mut known)? {
            Step::Write(write) => planned.push(*write),
            Step::Nothing => done.handled += 1,
            Step::Problem(text) => done.problems.push(text),
            Step::Conflict(text) => {
                done.conflict = true;
                done.problems.push(text);
            }
        }
    }
    guard::check(store, &planned)?;
    // A policy must not be there before its tier, wherever they stand in the file.
    planned.sort_by_key(|one| one.wanted().kind() != Kind::Tier);
    Ok(planned)
}

/// Writes resources of which none is given twice. An error leaves in `done` what was written before it.
fn write_wave(
    store: &dyn Store,
    verb: Verb,
    mut resources: Vec<Resource>,
    done: &mut Done,
    progress: &mut dyn FnMut(usize),
) -> Result<()> {
    resources.iter_mut().for_each(Resource::apply_defaults);
    for attempt in 0.. {
        let planned = plan_all(store, verb, resources, done)?;
        let (left, error) = write_planned(store, planned, done, progress)?;
        match error {
            None => return Ok(()),
            Some(WriteError::Conflict { .. } | WriteError::Missing(_)) if attempt + 1 < ATTEMPTS => pause(attempt),
            Some(error) if done.handled == 0 => bail!("{error}"),
            Some(error) => {
                done.problems.push(error.to_string());
                return Ok(());
            }
        }
        resources = left.iter().map(Planned::again).collect();
    }
    unreachable!("the last attempt returns")
}

/// Writes in batches up to the first fault; what is not written, and the fault.
fn write_planned(
    store: &dyn Store,
    planned: Vec<Planned>,
    done: &mut Done,
    progress: &mut dyn FnMut(usize),
) -> Result<(Vec<Planned>, Option<WriteError>)> {
    let mut rest = planned.into_iter();
    loop {
        let batch: Vec<Planned> = rest.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            return Ok((Vec::new(), None));
        }
        let mut writes: Vec<Write> = Vec::with_capacity(batch.len());
        for one in &batch {
            writes.push(one.write.clone());
            writes.extend(ipam_config::also(store, one.wanted())?);
        }
        let results = store.write(&writes);
        let mut written: BTreeSet<&Key> = BTreeSet::new();
        for (write, result) in writes.iter().zip(&results) {
            if result.is_ok() && matches!(write.key, Key::Resource { .. }) {
                written.insert(&write.key);
            }
        }
        done.handled += written.len();
        done.wrote |= !written.is_empty();
        progress(done.handled);
        if let Some(error) = results.into_iter().filter_map(Result::err).find(|error| *error != WriteError::NotTried) {
            let unwritten = batch.into_iter().filter(|one| !written.contains(&one.write.key));
            return Ok((unwritten.chain(rest).collect(), Some(error)));
        }
    }
}

fn plan(verb: Verb, resource: Resource, known: &mut Known) -> Result<Step> {
    let key = stored::resource_key(&resource);
    if let Some(reason) = refusal(verb.word(), resource.kind(), &resource.metadata().name) {
        return Ok(Step::Problem(format!("operation {} is not supported on {key}: {reason}", verb.word())));
    }
    let entry = match known.take(&key) {
        Ok(entry) => entry,
        Err(unreadable) => return Ok(Step::Problem(unreadable)),
    };
    let given = resource.metadata().resource_version.clone();
    Ok(match (verb, entry) {
        (Verb::Create { skip_exists: true }, Some(_)) => Step::Nothing,
        (Verb::Create { skip_exists: false }, Some(_)) => Step::Problem(format!("resource already exists: {key}")),
        (Verb::Create { .. }, None) if !given.is_empty() => Step::Problem(format!(
            "{key}: metadata.resourceVersion: {given:?}: expected none: what is created has no revision yet"
        )),
        (Verb::Create { .. } | Verb::Apply, None) => {
            Step::Write(Box::new(Planned { write: stored::create(fresh(resource)), old: None, given }))
        }
        (Verb::Replace, None) => Step::Problem(format!("resource does not exist: {key}")),
        (Verb::Apply | Verb::Replace, Some((_, revision))) if !given.is_empty() && given != revision.to_string() => {
            Step::Conflict(stale(&key, &given, revision))
        }
        (Verb::Apply | Verb::Replace, Some((old, revision))) => {
            let new = over(resource, &old);
            if new == *old {
                Step::Nothing
            } else {
                let write = stored::replace(new, &old, revision);
                Step::Write(Box::new(Planned { write, old: Some(old), given }))
            }
        }
    })
}

/// What is told of a revision that is no longer stored.
pub(crate) fn stale(key: &Key, given: &str, revision: Revision) -> String {
    format!(
        "update conflict: {key}: metadata.resourceVersion: {given:?}: expected \"{revision}\", which is stored now: read \
         the resource again and redo the change"
    )
}

/// Why a resource may not be written or deleted by hand, if so.
pub(crate) fn refusal(verb: &str, kind: Kind, name: &str) -> Option<String> {
    match kind {
        Kind::ClusterInformation => Some("resource is readonly".to_owned()),
        Kind::Profile if name == "projectcalico-default-allow" => {
            Some(format!("the profile is built in; there is no need to {verb} it"))
        }
        Kind::NetworkPolicy if name.starts_with("knp.default.") => {
            Some("kubernetes network policies must be managed through the kubernetes API".to_owned())
        }
        _ => None,
    }
}

/// A resource as it is created: of the metadata, what a user says.
fn fresh(mut new: Resource) -> Resource {
    let given = std::mem::take(new.metadata_mut());
    let metadata = new.metadata_mut();
    *metadata = Metadata::in_namespace(given.namespace, given.name);
    metadata.labels = given.labels;
    metadata.annotations = given.annotations;
    new
}

/// A resource as it replaces another: of the metadata, only labels and annotations change.
fn over(mut new: Resource, old: &Resource) -> Resource {
    let metadata = new.metadata_mut();
    let (labels, annotations) = (std::mem::take(&mut metadata.labels), std::mem::take(&mut metadata.annotations));
    *metadata = old.metadata().clone();
    metadata.labels = labels;
    metadata.annotations = annotations;
    metadata.resource_version.clear();
    new
}
