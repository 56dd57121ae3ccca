//! Any object of the API -> facts.

use std::sync::Arc;

use serde::Deserialize;
use tortie_facts::{Key, Revision};
use tortie_kubernetes::PodCidrs;
use tortie_store::{Entry, Event, InvalidEntry};

use crate::custom::{self, Told};
use crate::interest::{Faces, Interest};
use crate::types::Type;
use crate::{Group, derived};

/// How objects are to be read.
#[derive(Clone, Debug)]
pub(crate) struct Lens {
    /// The group of the custom resources.
    pub(crate) group: Group,
    /// Where tunnel addresses come from.
    pub(crate) pod_cidrs: PodCidrs,
    /// What the host's side of a pod's interface is called at the beginning.
    pub(crate) interface_prefix: Arc<str>,
}

/// What every object has.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Envelope {
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    resource_version: String,
}

/// The revision that an object has; `None` if it says none that is a number.
pub(crate) fn revision(text: &str) -> Option<u64> {
    let Envelope { metadata: Metadata { resource_version } } = serde_json::from_str(text).ok()?;
    resource_version.parse().ok().filter(|revision| *revision > 0)
}

/// What an object says.
pub(crate) fn read(lens: &Lens, ty: Type, text: &str, faces: Faces) -> Vec<Told> {
    let Type::Custom(kind) = ty else { return derived::read(lens, ty, text) };
    match serde_json::from_str(text) {
        Ok(object) => custom::read(kind, lens.group, &object, faces),
        Err(error) => vec![Told::Invalid { path: Key::resource(kind, "", "").path(), reason: error.to_string() }],
    }
}

/// What an object of a listing says: facts and what can't be read.
pub(crate) fn listed(told: Vec<Told>, revision: Revision, entries: &mut Vec<Entry>, invalid: &mut Vec<InvalidEntry>) {
    for one in told {
        match one {
            Told::Put(key, value) => entries.push(Entry { key, value, revision }),
            Told::Invalid { path, reason } => invalid.push(InvalidEntry { path, reason, revision }),
            Told::Marked(_) => {}
        }
    }
}

/// What the change of an object says, restricted to what was asked for.
pub(crate) fn changed(told: Vec<Told>, revision: Revision, deleted: bool, interest: &Interest) -> Vec<Event> {
    let event = |one| match (one, deleted) {
        (Told::Put(key, value), false) => Some(Event::Put(Entry { key, value, revision })),
        (Told::Invalid { path, reason }, false) => Some(Event::Invalid(InvalidEntry { path, reason, revision })),
        (Told::Marked(key), false) | (Told::Put(key, _), true) => Some(Event::Deleted { key, revision }),
        (Told::Invalid { path, reason: _ }, true) => {
            Key::from_path(&path).ok().map(|key| Event::Deleted { key, revision })
        }
        // It was told when it was marked.
        (Told::Marked(_), true) => None,
    };
    let covered = |event: &Event| match event {
        Event::Put(entry) => interest.covers(&entry.key.path()),
        Event::Deleted { key, revision: _ } => interest.covers(&key.path()),
        Event::Invalid(invalid) => interest.covers(&invalid.path),
    };
    told.into_iter().filter_map(event).filter(covered).collect()
}
