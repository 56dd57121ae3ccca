//! Who leads: a record in the datastore, a Lease of Kubernetes, or a lock on a file beside the embedded store.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value as Json, json};
use tortie_control::{Election, RENEW, Record, Step};
use tortie_facts::{Key, Revision, Value};
use tortie_store::{Expect, Reader, Store, StoreError, Write, WriteError};
use tortie_store_kubernetes::{KubernetesStore, Lease};

/// The name of the Lease, and of the record.
const NAME: &str = "calico-kube-controllers";

/// How long the end of the process waits for a step of the election.
const TICK: Duration = Duration::from_millis(100);

/// Where the record is kept.
pub trait Register: Send {
    /// The record, with what a write over it must name.
    ///
    /// # Errors
    /// If it can't be read.
    fn read(&mut self) -> Result<Option<(Record, u64)>>;

    /// Writes the record over what was read; `false`: somebody else was faster.
    ///
    /// # Errors
    /// If it can't be written.
    fn write(&mut self, record: &Record, seen: Option<u64>) -> Result<bool>;
}

/// The record in a datastore that compares and swaps.
pub struct StoreRegister(Arc<dyn Store>);

impl StoreRegister {
    /// In this datastore.
    pub fn new(store: Arc<dyn Store>) -> StoreRegister {
        StoreRegister(store)
    }

    fn key() -> Key {
        Key::Status(format!("controllers/{NAME}"))
    }
}

impl Register for StoreRegister {
    fn read(&mut self) -> Result<Option<(Record, u64)>> {
        let Some(entry) = Reader::get(&*self.0, &StoreRegister::key())? else { return Ok(None) };
        let Value::Status(text) = &entry.value else { return Ok(None) };
        let json: Json = serde_json::from_str(text).unwrap_or_default();
        let record = Record {
            holder: json["holder"].as_str().unwrap_or_default().to_owned(),
            renewed: json["renewed"].as_u64().unwrap_or_default(),
            transitions: json["transitions"].as_u64().unwrap_or_default(),
        };
        Ok(Some((record, entry.revision.0)))
    }

    fn write(&mut self, record: &Record, seen: Option<u64>) -> Result<bool> {
        let Record { holder, renewed, transitions } = record;
        let text = json!({"holder": holder, "renewed": renewed, "transitions": transitions}).to_string();
        let expect = seen.map_or(Expect::Absent, |revision| Expect::Revision(Revision(revision)));
        let value = Some(Value::Status(Arc::from(text)));
        match self.0.write_one(Write { key: StoreRegister::key(), expect, value }) {
            Ok(_) => Ok(true),
            Err(WriteError::Conflict { .. } | WriteError::Missing(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The record as a Lease of Kubernetes.
pub struct KubernetesRegister {
    store: Arc<KubernetesStore>,
    namespace: String,
}

impl KubernetesRegister {
    /// A Lease in this namespace.
    pub fn new(store: Arc<KubernetesStore>, namespace: &str) -> KubernetesRegister {
        KubernetesRegister { store, namespace: namespace.to_owned() }
    }

    fn explained(&self, error: StoreError) -> anyhow::Error {
        anyhow::anyhow!("the Lease {}/{NAME}: {error}", self.namespace)
    }
}

impl Register for KubernetesRegister {
    fn read(&mut self) -> Result<Option<(Record, u64)>> {
        let found = self.store.lease(&self.namespace, NAME).map_err(|error| self.explained(error))?;
        Ok(found.map(|Lease { holder, transitions, revision }| {
            // Whoever renews it gives it another revision.
            (Record { holder, renewed: revision, transitions }, revision)
        }))
    }

    fn write(&mut self, record: &Record, seen: Option<u64>) -> Result<bool> {
        let Record { holder, renewed: _, transitions } = record;
        let revision = seen.unwrap_or_default();
        let lease = Lease { holder: holder.clone(), transitions: *transitions, revision };
        let seconds = tortie_control::LEASE.as_secs();
        self.store.put_lease(&self.namespace, NAME, &lease, seconds).map_err(|error| self.explained(error))
    }
}

/// A lock on a file, which ends with the process that holds it.
pub struct FileSeat {
    path: PathBuf,
    held: Option<File>,
}

impl FileSeat {
    /// A lock on this file.
    pub fn new(path: PathBuf) -> FileSeat {
        FileSeat { path, held: None }
    }

    /// Tries to hold the lock; whether it is held.
    ///
    /// # Errors
    /// If the file can't be made.
    pub fn hold(&mut self) -> Result<bool> {
        if self.held.is_none() {
            let open = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path);
            let file = open.with_context(|| format!("{}: the controllers' lock", self.path.display()))?;
            if file.try_lock().is_ok() {
                self.held = Some(file);
            }
        }
        Ok(self.held.is_some())
    }
}

/// How it is decided who leads.
pub enum Seat {
    /// By a lock.
    Lock(FileSeat),
    /// By a record.
    Elected(Box<dyn Register>, Election),
}

impl Seat {
    /// By a record in a register, as a candidate of this name.
    pub fn elected(register: impl Register + 'static, me: String) -> Seat {
        Seat::Elected(Box::new(register), Election::new(me))
    }

    fn step(&mut self, at: Duration) -> Result<()> {
        match self {
            Seat::Lock(file) => file.hold().map(drop),
            Seat::Elected(register, election) => {
                let found = register.read()?;
                let Step::Write(record) = election.read(found.as_ref().map(|(record, _)| record), at) else {
                    return Ok(());
                };
                if register.write(&record, found.map(|(_, revision)| revision))? {
                    election.wrote(record, at);
                }
                Ok(())
            }
        }
    }

    /// Until when it is held; zero if it is not.
    fn until(&self) -> Duration {
        match self {
            Seat::Lock(FileSeat { path: _, held: Some(_) }) => Duration::MAX,
            Seat::Lock(FileSeat { path: _, held: None }) => Duration::ZERO,
            Seat::Elected(_, election) => election.leads_until().unwrap_or_default(),
        }
    }

    fn resign(&mut self) -> Result<()> {
        match self {
            Seat::Lock(file) => file.held = None,
            Seat::Elected(register, election) => {
                if let Some(record) = election.resign() {
                    let seen = register.read()?.map(|(_, revision)| revision);
                    register.write(&record, seen)?;
                }
            }
        }
        Ok(())
    }
}

/// A thread that keeps the seat, so that a long write of the others never costs it.
pub(crate) struct Keeper {
    started: Instant,
    /// Until when the seat is held, in milliseconds since the start.
    until: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Keeper {
    pub(crate) fn start(seat: Seat) -> Result<Keeper> {
        let (until, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let started = Instant::now();
        let thread = std::thread::Builder::new().name("seat".to_owned()).spawn({
            let (until, stop) = (Arc::clone(&until), Arc::clone(&stop));
            move || keep(seat, started, &until, &stop)
        })?;
        Ok(Keeper { started, until, stop, thread: Some(thread) })
    }

    /// Whether this process leads now.
    pub(crate) fn leads(&self) -> bool {
        self.started.elapsed().as_millis() < u128::from(self.until.load(Ordering::Relaxed))
    }
}

fn keep(mut seat: Seat, started: Instant, until: &AtomicU64, stop: &AtomicBool) {
    let mut led = false;
    while !stop.load(Ordering::Relaxed) {
        // A write counts from before it was sent: whoever reads it later sees it younger than it is here.
        let at = started.elapsed();
        if let Err(error) = seat.step(at) {
            tracing::warn!("who leads can't be settled: {error:#}");
        }
        let held = u64::try_from(seat.until().as_millis()).unwrap_or(u64::MAX);
        until.store(held, Ordering::Relaxed);
        let leads = started.elapsed() < seat.until();
        if leads != led {
            tracing::info!("{}", if leads { "this process leads" } else { "this process stands by" });
            led = leads;
        }
        let next = Instant::now() + RENEW;
        while Instant::now() < next && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(TICK);
        }
    }
    if let Err(error) = seat.resign() {
        tracing::debug!("the seat was not given up: {error:#}");
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_store::MemoryStore;

    fn elected(store: &MemoryStore, name: &str) -> Seat {
        Seat::elected(StoreRegister::new(Arc::new(store.clone())), name.to_owned())
    }

    #[test]
    fn one_leads_and_another_follows_when_it_gives_up() {
        let store = MemoryStore::new();
        let (mut a, mut b) = (elected(&store, "a"), elected(&store, "b"));
        let at = Duration::from_secs(1);
        a.step(at).expect("a step");
        b.step(at).expect("a step");
        assert!(a.until() > at && b.until().is_zero());
        a.resign().expect("given up");
        b.step(at).expect("a step");
        assert!(a.until().is_zero() && b.until() > at);
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let path = std::env::temp_dir().join(format!("tortie-controllers-{}", std::process::id()));
        let (mut a, mut b) = (FileSeat::new(path.clone()), FileSeat::new(path.clone()));
        assert!(a.hold().expect("made"));
        assert!(!b.hold().expect("there"));
        drop(a);
        assert!(b.hold().expect("there"));
        std::fs::remove_file(path).expect("it was made");
    }
}
