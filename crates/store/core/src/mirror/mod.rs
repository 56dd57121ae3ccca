//! Follows a store: list, watch, list again when the history is gone; gives facts as merged batches of updates.
//!
//! The decisions are in [`Follower`] (no clock, no thread), the merging in [`Mailbox`], whose size is bounded by the
//! number of keys; [`Mirror`] is the thread that joins them to a [`Reader`].

mod follower;
mod known;
mod mailbox;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tortie_facts::Filter;

pub use follower::{Backoff, Follower, Told, Want};
pub use mailbox::{Batch, Mailbox};

use crate::{Reader, StoreError, Watch, WatchError};

/// How long one wait for changes lasts: the longest that a dropped [`Mirror`]'s thread lives on.
const TICK: Duration = Duration::from_millis(250);

/// How long the parts of one listing wait, all together, for those before them to be used up. Then memory is spent
/// rather than time: the store may keep things for this listing.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a [`Mirror`] behaves.
pub struct Options {
    /// Pauses between attempts while the store can't be reached.
    pub backoff: Backoff,
    /// Gives numbers from 0 to 1 that spread the attempts of many followers.
    pub jitter: Box<dyn FnMut() -> f64 + Send>,
    /// Called, on the mirror's thread, each time that an empty mailbox gets something.
    pub wake: Box<dyn Fn() + Send + Sync>,
}

impl Default for Options {
    fn default() -> Options {
        Options { backoff: Backoff::default(), jitter: Box::new(random_jitter()), wake: Box::new(|| {}) }
    }
}

/// Numbers from 0 to 1, different in each process.
pub fn random_jitter() -> impl FnMut() -> f64 + Send {
    let seed = RandomState::new();
    let mut count = 0_u64;
    move || {
        count += 1;
        f64::from((seed.hash_one(count) >> 32) as u32) / f64::from(u32::MAX)
    }
}

/// A thread that follows a store. It ends soon after the mirror is dropped.
pub struct Mirror {
    mailbox: Arc<Mailbox>,
    stop: Arc<AtomicBool>,
}

impl Mirror {
    /// Starts to follow what the filter covers.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn spawn(reader: Arc<dyn Reader>, filter: Filter, options: Options) -> std::io::Result<Mirror> {
        let Options { backoff, jitter, wake } = options;
        let mailbox = Arc::new(Mailbox::new(wake));
        let stop = Arc::new(AtomicBool::new(false));
        let mut task = Task {
            reader,
            filter,
            jitter,
            mailbox: Arc::clone(&mailbox),
            stop: Arc::clone(&stop),
            follower: Follower::new(backoff),
            watch: None,
        };
        std::thread::Builder::new().name("store-mirror".to_owned()).spawn(move || task.run())?;
        Ok(Mirror { mailbox, stop })
    }

    /// Everything that happened since the last call; empty if nothing did.
    pub fn take(&self) -> Batch {
        self.mailbox.take()
    }

    /// As [`Mirror::take`], but waits for something up to `timeout`.
    pub fn wait(&self, timeout: Duration) -> Batch {
        self.mailbox.wait(timeout)
    }

    /// What was taken is used up: the next part of a first listing may come. [`Mirror::take`] and [`Mirror::wait`] say so
    /// too, for those who come back at once.
    pub fn done(&self) {
        self.mailbox.done();
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Task {
    reader: Arc<dyn Reader>,
    filter: Filter,
    jitter: Box<dyn FnMut() -> f64 + Send>,
    mailbox: Arc<Mailbox>,
    stop: Arc<AtomicBool>,
    follower: Follower,
    watch: Option<Box<dyn Watch>>,
}

impl Task {
    fn run(&mut self) {
        self.mailbox.push(self.follower.start());
        while !self.stop.load(Ordering::Relaxed) {
            let told = self.step();
            self.mailbox.push(told);
        }
    }

    fn step(&mut self) -> Vec<Told> {
        match self.follower.want() {
            Want::Pause(pause) => {
                self.pause(pause);
                self.follower.paused();
                Vec::new()
            }
            Want::List => {
                self.watch = None;
                let (mut told, end) = self.list();
                told.extend(self.follower.listed(end, (self.jitter)()));
                told
            }
            Want::Watch(from) => match self.reader.watch(&self.filter, from) {
                Ok(watch) => {
                    self.watch = Some(watch);
                    self.follower.watching()
                }
                Err(error) => self.follower.lost(error, (self.jitter)()),
            },
            Want::Changes => {
                let next = match &mut self.watch {
                    Some(watch) => watch.next(TICK),
                    None => Err(WatchError::Gone),
                };
                match next {
                    Ok(events) => self.follower.changed(events),
                    Err(error) => self.follower.lost(error, (self.jitter)()),
                }
            }
        }
    }

    /// Reads what there is: what is still to be told of it, and whether it is whole. While nobody has acted on the
    /// picture it is told in parts, and the next is read once the one before is used up: no more than one is in memory,
    /// and the two threads, which share one heap, do not wait for each other at each text.
    fn list(&mut self) -> (Vec<Told>, Result<(), StoreError>) {
        let Task { reader, filter, jitter: _, mailbox, stop, follower, watch: _ } = self;
        if !follower.takes_parts() {
            return match reader.list(filter) {
                Ok(whole) => (follower.part(whole), Ok(())),
                Err(error) => (Vec::new(), Err(error)),
            };
        }
        let mut patience = PATIENCE;
        let end = reader.list_in_parts(filter, &mut |part| {
            mailbox.push(follower.part(part));
            let begun = Instant::now();
            let left = || patience.saturating_sub(begun.elapsed());
            while !mailbox.wait_idle(left().min(TICK)) && !left().is_zero() && !stop.load(Ordering::Relaxed) {}
            patience = left();
        });
        (Vec::new(), end)
    }

    fn pause(&self, mut left: Duration) {
        while !left.is_zero() && !self.stop.load(Ordering::Relaxed) {
            let nap = left.min(TICK);
            std::thread::sleep(nap);
            left -= nap;
        }
    }
}
