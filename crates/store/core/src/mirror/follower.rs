//! What a follower of a store does next, and what it tells. A state machine: no clock, no thread, no randomness.
//!
//! state + input -> told, next state:
//! List + part -> updates; List. List + its end -> deletions of what vanished, `InSync`; Watch.
//! List + error -> `WaitForDatastore`; List after a pause.
//! Watch + opened -> `InSync`; Follow. Follow + events -> updates; Follow.
//! Watch or Follow + Gone -> `Resync`; List. Watch or Follow + error -> `WaitForDatastore`; Watch after a pause.

use std::time::Duration;

use tortie_facts::{Key, Revision, SyncStatus, Update};

use super::known::{Known, Short};
use crate::{Entry, Event, InvalidEntry, Listing, StoreError, WatchError};

/// Pauses between attempts: they double from `first` to `max`, each shortened by up to a half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { first: Duration::from_millis(50), max: Duration::from_secs(5) }
    }
}

impl Backoff {
    /// The pause before attempt `attempt` (0: the first repetition). `jitter` from 0 to 1: how much of the half stays.
    pub fn pause(&self, attempt: u32, jitter: f64) -> Duration {
        let Backoff { first, max } = *self;
        let whole = first.saturating_mul(2_u32.saturating_pow(attempt)).min(max);
        whole.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

/// What a follower tells, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// A fact changed.
    Update(Update),
    /// Something can't be read. If something that can was told under its key, that one's deletion was told before.
    Invalid(InvalidEntry),
    /// How far the picture is.
    Status(SyncStatus),
    /// Why the store can't be followed at the moment.
    Trouble(String),
}

/// What a follower needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// To wait; then [`Follower::paused`].
    Pause(Duration),
    /// A listing, in parts if [`Follower::takes_parts`]; then [`Follower::part`] for each of them and
    /// [`Follower::listed`].
    List,
    /// A watch from this revision; then [`Follower::watching`] or [`Follower::lost`].
    Watch(Revision),
    /// The watch's next changes; then [`Follower::changed`] or [`Follower::lost`].
    Changes,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    List,
    Watch,
    Follow,
}

/// The state of following one store.
pub struct Follower {
    state: State,
    status: Option<SyncStatus>,
    known: Known,
    /// The keys that the listing has told so far. A list, as it becomes a set only once.
    listed: Vec<Short>,
    /// Whether the picture was whole once, so that users act on it.
    was_whole: bool,
    seen: Revision,
    attempt: u32,
    pause: Option<Duration>,
    backoff: Backoff,
}

impl Follower {
    /// A follower that knows nothing yet.
    pub fn new(backoff: Backoff) -> Follower {
        Follower {
            state: State::List,
            status: None,
            known: Known::default(),
            listed: Vec::new(),
            was_whole: false,
            seen: Revision(0),
            attempt: 0,
            pause: None,
            backoff,
        }
    }

    /// What is told before anything was asked.
    pub fn start(&mut self) -> Vec<Told> {
        self.status(SyncStatus::Resync)
    }

    /// What it needs next.
    pub fn want(&self) -> Want {
        match (self.pause, self.state) {
            (Some(pause), _) => Want::Pause(pause),
            (None, State::List) => Want::List,
            (None, State::Watch) => Want::Watch(self.seen),
            (None, State::Follow) => Want::Changes,
        }
    }

    /// The pause is over.
    pub fn paused(&mut self) {
        self.pause = None;
    }

    /// Whether a listing may be told in parts. Later on it is one part: users act on the picture that they have, and must
    /// not see one that never was.
    pub fn takes_parts(&self) -> bool {
        !self.was_whole
    }

    /// A part of the answer to [`Want::List`], or all of it.
    pub fn part(&mut self, part: Listing) -> Vec<Told> {
        let Listing { entries, invalid, revision } = part;
        self.seen = revision;
        let mut told = Vec::with_capacity(entries.len() + invalid.len());
        for Entry { key, value, revision } in entries {
            self.listed.push(Short::of(&key));
            told.push(Told::Update(Update { key, value: Some(value), revision }));
        }
        for one in invalid {
            told.extend(self.unreadable(one));
        }
        told
    }

    /// The answer to [`Want::List`] is whole, or broke off: what parts told of it until then is as good as any state
    /// that is not whole yet.
    pub fn listed(&mut self, end: Result<(), StoreError>, jitter: f64) -> Vec<Told> {
        let listed = std::mem::take(&mut self.listed);
        if let Err(error) = end {
            self.known.extend(listed);
            self.back_off(jitter);
            return self.trouble(error.to_string());
        }
        let revision = self.seen;
        let vanished = self.known.replace(listed);
        let mut told: Vec<Told> = vanished.map(|key| Told::Update(Update { key, value: None, revision })).collect();
        self.was_whole = true;
        self.state = State::Watch;
        told.extend(self.status(SyncStatus::InSync));
        told
    }

    /// The watch of [`Want::Watch`] is open.
    pub fn watching(&mut self) -> Vec<Told> {
        self.state = State::Follow;
        self.status(SyncStatus::InSync)
    }

    /// The answer to [`Want::Changes`].
    pub fn changed(&mut self, events: Vec<Event>) -> Vec<Told> {
        self.attempt = 0;
        let mut told = Vec::with_capacity(events.len());
        for event in events {
            let revision = match event {
                Event::Put(Entry { key, value, revision }) => {
                    self.known.insert(&key);
                    told.push(Told::Update(Update { key, value: Some(value), revision }));
                    revision
                }
                Event::Deleted { key, revision } => {
                    self.known.remove(&key);
                    told.push(Told::Update(Update { key, value: None, revision }));
                    revision
                }
                Event::Invalid(invalid) => {
                    let revision = invalid.revision;
                    told.extend(self.unreadable(invalid));
                    revision
                }
            };
            self.seen = self.seen.max(revision);
        }
        told
    }

    /// Something that can't be read: what was there before is no more.
    fn unreadable(&mut self, invalid: InvalidEntry) -> Vec<Told> {
        let mut told = Vec::new();
        if let Ok(key) = Key::from_path(&invalid.path)
            && self.known.remove(&key)
        {
            told.push(Told::Update(Update { key, value: None, revision: invalid.revision }));
        }
        told.push(Told::Invalid(invalid));
        told
    }

    /// The watch could not be opened, or ended.
    pub fn lost(&mut self, error: WatchError, jitter: f64) -> Vec<Told> {
        match error {
            WatchError::Gone => {
                self.state = State::List;
                // The first is a matter of course; a history that is always gone must not make a busy loop.
                if self.attempt > 0 {
                    self.back_off(jitter);
                } else {
                    self.attempt = 1;
                }
                self.status(SyncStatus::Resync)
            }
            WatchError::Unavailable(_) => {
                self.state = State::Watch;
                self.back_off(jitter);
                self.trouble(error.to_string())
            }
        }
    }

    fn back_off(&mut self, jitter: f64) {
        self.pause = Some(self.backoff.pause(self.attempt, jitter));
        self.attempt = self.attempt.saturating_add(1);
    }

    fn trouble(&mut self, text: String) -> Vec<Told> {
        let mut told = vec![Told::Trouble(text)];
        told.extend(self.status(SyncStatus::WaitForDatastore));
        told
    }

    fn status(&mut self, status: SyncStatus) -> Vec<Told> {
        if self.status == Some(status) {
            return Vec::new();
        }
        self.status = Some(status);
        vec![Told::Status(status)]
    }
}
