//! Handles that are written after ADD's answer, where each write is a request of its own.
//!
//! Nobody needs a handle before DEL, and DEL, GC and the collection of addresses find an address without one in its
//! block. So ADD does not wait for it, once a handle could be written and as long as the last one could: what the node
//! may not do, or can't, is ADD's error as before. Which handles are still to come is kept in a file, and the next run
//! of the node writes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tortie_api::ipam::Handle;
use tortie_facts::{Key, Value};
use tortie_ipam::{CasWrite, block};
use tortie_net::IpNet;
use tortie_store::{Entry, Expect, Reader, Store, Write, WriteError};
use tracing::warn;

/// Most handles that wait; whoever comes then waits for its own.
const MOST: usize = 1024;

/// How often a handle is read and written anew when others are faster.
const ATTEMPTS: u32 = 10;

/// Pauses between attempts at handles that could not be written: they double.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long to wait for a handle that is being written: longer than a request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Name of the file, in the state directory.
const FILE: &str = "handles-to-come.json";

/// What a handle will count: blocks' ranges with the number of addresses.
type Blocks = BTreeMap<String, u32>;

/// A handle that is to be written.
#[derive(Clone)]
struct Job {
    blocks: Blocks,
    /// Whether nobody can have taken the addresses away yet, nor this handle be there.
    fresh: bool,
}

/// Writes handles soon. When it is dropped, those that wait are tried once.
pub(super) struct Later {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<String, Job>,
    /// The one that is being written, until it is in the store or among those that wait again.
    writing: Option<(String, Job)>,
    /// Whether the last handle could be written.
    proven: bool,
    /// The handle of `writing` is not wanted any more if that fails.
    forgotten: bool,
    stopping: bool,
    file: Option<PathBuf>,
}

impl Later {
    pub(super) fn new(store: Arc<dyn Store>) -> Later {
        let shared = Shared { store, state: Mutex::default(), changed: Condvar::new() };
        Later { shared: Arc::new(shared), thread: Mutex::default() }
    }

    /// Keeps what is still to come in this directory, and takes over what an earlier run left there.
    pub(super) fn keep_in(&self, directory: &Path) {
        let file = directory.join(FILE);
        let left: BTreeMap<String, Blocks> = match std::fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(_) => BTreeMap::new(),
        };
        let some = !left.is_empty();
        let mut state = self.shared.state();
        state.waiting.extend(left.into_iter().map(|(handle, blocks)| (handle, Job { blocks, fresh: false })));
        state.file = Some(file);
        drop(state);
        if some {
            self.start();
        }
    }

    /// Whether ADD may leave its handle to this.
    pub(super) fn takes(&self) -> bool {
        let state = self.shared.state();
        state.proven && state.waiting.len() < MOST
    }

    /// A handle could be written, or could not.
    pub(super) fn learn(&self, written: bool) {
        self.shared.state().proven = written;
    }

    /// Writes a handle soon.
    pub(super) fn take(&self, handle: &CasWrite) {
        let (Key::Handle(name), Some(Value::Handle(value))) = (&handle.key, &handle.value) else { return };
        let mut state = self.shared.state();
        state.waiting.insert(name.clone(), Job { blocks: value.block.clone(), fresh: true });
        state.save();
        drop(state);
        self.start();
        self.shared.changed.notify_all();
    }

    /// Whether a handle is still to come.
    pub(super) fn has(&self, handle: &str) -> bool {
        let state = self.shared.state();
        state.waiting.contains_key(handle) || state.writing.as_ref().is_some_and(|(name, _)| name == handle)
    }

    /// Does not write a handle any more. If it is being written, waits for the end of that.
    pub(super) fn forget(&self, handle: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.state();
        if state.waiting.remove(handle).is_some() {
            state.save();
        }
        while state.writing.as_ref().is_some_and(|(name, _)| name == handle) {
            state.forgotten = true;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn start(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_some() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let named = std::thread::Builder::new().name("cni-handles".to_owned()).stack_size(256 * 1024);
        match named.spawn(move || shared.run()) {
            Ok(started) => *thread = Some(started),
            Err(error) => {
                warn!(%error, "handles of addresses can't be written now; the next pod's handle tries again");
                self.learn(false);
            }
        }
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        self.shared.state().stopping = true;
        self.shared.changed.notify_all();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl State {
    /// What was being written is there, or waits again.
    fn wrote(&mut self, fault: Option<&WriteError>) {
        let Some((handle, job)) = self.writing.take() else { return };
        let forgotten = std::mem::take(&mut self.forgotten);
        self.proven = fault.is_none();
        if let Some(error) = fault {
            warn!(handle, %error, "the handle of a pod's addresses can't be written; it is tried again");
            if !forgotten {
                self.waiting.insert(handle, Job { fresh: false, ..job });
            }
        }
        self.save();
    }

    /// Without the file, a node that dies in the next moments leaves addresses whose handles nobody writes: collection
    /// finds them all the same.
    fn save(&self) {
        let Some(file) = &self.file else { return };
        let jobs = self.waiting.iter().chain(self.writing.as_ref().map(|(handle, job)| (handle, job)));
        let all: BTreeMap<&String, &Blocks> = jobs.map(|(handle, job)| (handle, &job.blocks)).collect();
        let new = file.with_extension("new");
        let saved = if all.is_empty() {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        } else {
            let text = serde_json::to_vec(&all).map_err(std::io::Error::from);
            text.and_then(|text| std::fs::write(&new, text)).and_then(|()| std::fs::rename(&new, file))
        };
        if let Err(error) = saved {
            warn!(path = %file.display(), %error, "which handles are still to be written can't be kept");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut pause = PAUSES.0;
        let mut state = self.state();
        loop {
            let Some((handle, job)) = state.waiting.pop_first() else {
                if state.stopping {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.writing = Some((handle.clone(), job.clone()));
            drop(state);
            let written = ensure(&*self.store, &handle, &job);
            state = self.state();
            state.wrote(written.as_ref().err());
            self.changed.notify_all();
            if written.is_ok() {
                pause = PAUSES.0;
                continue;
            }
            // Those that are left come with the next run.
            if state.stopping {
                return;
            }
            let waited = self.changed.wait_timeout_while(state, pause, |state| !state.stopping);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

/// Makes a handle count what these blocks hold for it, whatever it counted before.
pub(super) fn recount(store: &dyn Store, handle: &str, blocks: &Blocks) -> Result<(), WriteError> {
    ensure(store, handle, &Job { blocks: blocks.clone(), fresh: false })
}

/// Makes a handle count what its blocks hold for it: nothing is counted twice, and what was given back meanwhile is not
/// counted.
fn ensure(store: &dyn Store, handle: &str, Job { blocks, fresh }: &Job) -> Result<(), WriteError> {
    let key = Key::Handle(handle.to_owned());
    let mut last = WriteError::NotTried;
    if *fresh {
        let first = Handle { block: blocks.clone(), ..Handle::default() };
        let write = Write { key: key.clone(), expect: Expect::Absent, value: Some(Value::Handle(first.into())) };
        match store.write_one(write) {
            Ok(_) => return Ok(()),
            Err(error @ (WriteError::Conflict { .. } | WriteError::Missing(_))) => last = error,
            Err(error) => return Err(error),
        }
    }
    for _ in 0..ATTEMPTS {
        let there = get(store, &key)?;
        let expect = there.as_ref().map_or(Expect::Absent, |entry| Expect::Revision(entry.revision));
        let old = match there {
            Some(Entry { value: Value::Handle(handle), .. }) => Handle::clone(&handle),
            _ => Handle::default(),
        };
        let mut new = old.clone();
        for cidr in blocks.keys() {
            match held(store, cidr, handle)? {
                0 => drop(new.block.remove(cidr)),
                count => drop(new.block.insert(cidr.clone(), count)),
            }
        }
        if new == old {
            return Ok(());
        }
        match store.write_one(Write { key: key.clone(), expect, value: Some(Value::Handle(new.into())) }) {
            Ok(_) => return Ok(()),
            Err(error @ (WriteError::Conflict { .. } | WriteError::Missing(_))) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// How many addresses a block holds for a handle.
fn held(store: &dyn Store, cidr: &str, handle: &str) -> Result<u32, WriteError> {
    let Ok(net) = cidr.parse::<IpNet>() else { return Ok(0) };
    let entry = get(store, &Key::Block(net))?;
    let count = entry.as_ref().and_then(|entry| entry.value.as_block()).map(|held| block::ordinals_of(held, handle));
    Ok(u32::try_from(count.map_or(0, |ordinals| ordinals.len())).unwrap_or(u32::MAX))
}

fn get(store: &dyn Store, key: &Key) -> Result<Option<Entry>, WriteError> {
    Reader::get(store, key).map_err(|error| WriteError::Unavailable(error.to_string()))
}
