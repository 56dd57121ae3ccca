//! Writing resources: create, apply, replace, and what must hold between several of them.
//!
//! Invariant: everything is read and judged first; then all writes go to the store in one call. A fault that is not
//! about one resource alone (overlapping pools, a missing tier) stops all of them before anything is written.

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
use tortie_facts::{Key, Value};
use tortie_store::{Store, Write, WriteError, resource as stored};

pub(crate) use initial::ensure_initialized;
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
}

impl Planned {
    /// What is written.
    fn wanted(&self) -> &Resource {
        let resource = self.write.value.as_ref().and_then(Value::as_resource);
        resource.expect("only resources are planned")
    }
}

/// Writes resources, whose namespaces are set. An error means that nothing was written.
pub(crate) fn write(store: &dyn Store, verb: Verb, resources: Vec<Resource>) -> Result<Done> {
    let mut done = Done::default();
    for wave in waves(resources) {
        let Done { handled, problems, conflict } = write_wave(store, verb, wave)?;
        done.conflict |= conflict;
        done.handled += handled;
        done.problems.extend(problems);
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

fn write_wave(store: &dyn Store, verb: Verb, mut resources: Vec<Resource>) -> Result<Done> {
    for resource in &mut resources {
        resource.apply_defaults();
    }
    let mut written: BTreeSet<Key> = BTreeSet::new();
    for attempt in 0.. {
        let known = Known::read(store, resources.iter().map(stored::resource_key))?;
        let mut done = Done { handled: written.len(), ..Done::default() };
        let mut planned = Vec::new();
        for resource in resources.iter().filter(|resource| !written.contains(&stored::resource_key(resource))) {
            match plan(verb, resource, &known)? {
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
        if planned.is_empty() {
            return Ok(done);
        }
        // A policy must not be there before its tier, wherever they stand in the file.
        planned.sort_by_key(|one| one.wanted().kind() != Kind::Tier);
        let mut writes: Vec<Write> = Vec::with_capacity(planned.len());
        for one in &planned {
            writes.push(one.write.clone());
            writes.extend(ipam_config::also(store, one.wanted())?);
        }
        let results = store.write(&writes);
        for (write, result) in writes.iter().zip(&results) {
            if result.is_ok() && matches!(write.key, Key::Resource { .. }) {
                written.insert(write.key.clone());
            }
        }
        match results.into_iter().filter_map(Result::err).find(|error| *error != WriteError::NotTried) {
            None => {
                done.handled += planned.len();
                return Ok(done);
            }
            Some(WriteError::Conflict { .. } | WriteError::Missing(_)) if attempt + 1 < ATTEMPTS => {
                pause(attempt);
            }
            Some(error) => bail!("{error}"),
        }
    }
    unreachable!("the last attempt returns")
}

fn plan(verb: Verb, resource: &Resource, known: &Known) -> Result<Step> {
    let key = stored::resource_key(resource);
    if let Some(reason) = refusal(verb.word(), resource.kind(), &resource.metadata().name) {
        return Ok(Step::Problem(format!("operation {} is not supported on {key}: {reason}", verb.word())));
    }
    let entry = match known.get(&key) {
        Ok(entry) => entry,
        Err(unreadable) => return Ok(Step::Problem(unreadable)),
    };
    let given = resource.metadata().resource_version.as_str();
    Ok(match (verb, entry) {
        (Verb::Create { skip_exists: true }, Some(_)) => Step::Nothing,
        (Verb::Create { skip_exists: false }, Some(_)) => Step::Problem(format!("resource already exists: {key}")),
        (Verb::Create { .. }, None) if !given.is_empty() => Step::Problem(format!(
            "{key}: metadata.resourceVersion: {given:?}: expected none: what is created has no revision yet"
        )),
        (Verb::Create { .. } | Verb::Apply, None) => {
            Step::Write(Box::new(Planned { write: stored::create(fresh(resource)), old: None }))
        }
        (Verb::Replace, None) => Step::Problem(format!("resource does not exist: {key}")),
        (Verb::Apply | Verb::Replace, Some((_, revision))) if !given.is_empty() && given != revision.to_string() => {
            Step::Conflict(format!(
                "update conflict: {key}: metadata.resourceVersion: {given:?}: expected \"{revision}\", which is \
                 stored now: read the resource again and redo the change"
            ))
        }
        (Verb::Apply | Verb::Replace, Some((old, revision))) => {
            let new = over(resource, old);
            if new == **old {
                Step::Nothing
            } else {
                let write = stored::replace(new, old, revision);
                Step::Write(Box::new(Planned { write, old: Some(old.clone()) }))
            }
        }
    })
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
fn fresh(resource: &Resource) -> Resource {
    let mut new = resource.clone();
    let given = std::mem::take(new.metadata_mut());
    let metadata = new.metadata_mut();
    *metadata = Metadata::in_namespace(given.namespace, given.name);
    metadata.labels = given.labels;
    metadata.annotations = given.annotations;
    new
}

/// A resource as it replaces another: of the metadata, only labels and annotations change.
fn over(resource: &Resource, old: &Resource) -> Resource {
    let mut new = resource.clone();
    let metadata = new.metadata_mut();
    let (labels, annotations) = (std::mem::take(&mut metadata.labels), std::mem::take(&mut metadata.annotations));
    *metadata = old.metadata().clone();
    metadata.labels = labels;
    metadata.annotations = annotations;
    metadata.resource_version.clear();
    new
}
