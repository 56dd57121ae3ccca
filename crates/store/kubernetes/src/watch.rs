//! Watching: one stream for each type, joined in one watch.
//!
//! Changes of one type come in the order of their revisions; between types only each type's own order holds. So a
//! watch knows a place in each stream. A stream that breaks is opened again at its place; when that fails for too long
//! the watch ends, and the store remembers its places for the follower that comes back with the last revision it saw.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tortie_facts::{Filter, Revision};
use tortie_store::{Event, Watch, WatchError};

use crate::Group;
use crate::interest::Interest;
use crate::store::Shared;
use crate::stream::{Message, Stream};
use crate::types::Type;

/// Where each type's stream stands.
pub(crate) type Positions = BTreeMap<Type, u64>;

/// What waits for a reader that is slow.
const QUEUE: usize = 256;
/// How many messages one call hands over at most.
const BATCH: usize = 1000;

/// A watch over several types.
pub(crate) struct KubernetesWatch {
    shared: Arc<Shared>,
    group: Group,
    messages: mpsc::Receiver<(Type, Message)>,
    /// What came while other streams were still opening.
    early: VecDeque<(Type, Message)>,
    positions: Positions,
    /// The newest revision that its reader knows.
    seen: u64,
    /// Why it ended.
    ended: Option<WatchError>,
    /// Keeps the queue open when there is no stream.
    _sender: mpsc::Sender<(Type, Message)>,
    /// The streams, which end with it.
    _streams: JoinSet<()>,
}

/// Opens a watch; each of its streams is open when this returns.
pub(crate) fn open(shared: Arc<Shared>, filter: &Filter, from: Revision) -> Result<KubernetesWatch, WatchError> {
    if from == Revision(0) {
        // To the API, zero means any moment at all.
        return Err(WatchError::Gone);
    }
    let interest = Arc::new(Interest::of(filter));
    let lens = shared.api.lens();
    let lens = shared.runtime().block_on(lens).map_err(|fault| fault.of_watch(Type::Namespace, Group::V1))?;
    let group = lens.group;
    let remembered = shared.recall(from.0);
    let (sender, mut messages) = mpsc::channel(QUEUE);
    let (mut streams, mut positions, mut early) = (JoinSet::new(), Positions::new(), VecDeque::new());
    for (ty, scope) in &interest.types {
        let at = remembered.get(ty).copied().unwrap_or(from.0);
        positions.insert(*ty, at);
        let stream = Stream {
            api: Arc::clone(&shared.api),
            lens: lens.clone(),
            ty: *ty,
            scope: scope.clone(),
            interest: Arc::clone(&interest),
            at,
            out: sender.clone(),
        };
        streams.spawn_on(stream.run(), shared.runtime().handle());
    }
    let mut opening = positions.len();
    while opening > 0 {
        match shared.runtime().block_on(messages.recv()) {
            Some((_, Message::Opened)) => opening -= 1,
            Some(moved @ (_, Message::Moved(_, _))) => early.push_back(moved),
            Some((ty, Message::Lost(fault))) => {
                shared.remember(from.0, positions);
                return Err(fault.of_watch(ty, group));
            }
            None => break,
        }
    }
    let seen = from.0;
    Ok(KubernetesWatch {
        shared,
        group,
        messages,
        early,
        positions,
        seen,
        ended: None,
        _sender: sender,
        _streams: streams,
    })
}

impl KubernetesWatch {
    /// Takes in one message.
    fn take(&mut self, (ty, message): (Type, Message), events: &mut Vec<Event>) {
        match message {
            Message::Opened => {}
            Message::Moved(at, changes) => {
                self.positions.insert(ty, at);
                events.extend(changes);
            }
            Message::Lost(fault) => self.ended = Some(fault.of_watch(ty, self.group)),
        }
    }

    /// What is there without waiting.
    fn drain(&mut self, events: &mut Vec<Event>) {
        for _ in 0..BATCH {
            if self.ended.is_some() {
                return;
            }
            let next = self.early.pop_front().or_else(|| self.messages.try_recv().ok());
            match next {
                Some(message) => self.take(message, events),
                None => return,
            }
        }
    }
}

fn revision(event: &Event) -> u64 {
    match event {
        Event::Put(entry) => entry.revision.0,
        Event::Deleted { key: _, revision } => revision.0,
        Event::Invalid(invalid) => invalid.revision.0,
    }
}

impl Watch for KubernetesWatch {
    fn next(&mut self, wait: Duration) -> Result<Vec<Event>, WatchError> {
        let deadline = Instant::now() + wait;
        let mut events = Vec::new();
        loop {
            self.drain(&mut events);
            if !events.is_empty() {
                events.sort_by_key(revision);
                self.seen = events.last().map_or(self.seen, revision).max(self.seen);
                return Ok(events);
            }
            if let Some(error) = &self.ended {
                let error = error.clone();
                if error != WatchError::Gone {
                    self.shared.remember(self.seen, self.positions.clone());
                }
                return Err(error);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(events);
            }
            let runtime = Arc::clone(&self.shared);
            let message = runtime.runtime().block_on(async { timeout(left, self.messages.recv()).await });
            if let Ok(Some(message)) = message {
                self.take(message, &mut events);
            }
        }
    }
}
