//! Ends the flows of addresses that workloads gave up.
//!
//! Rules accept what is established before they ask policy, so a flow of an earlier workload would go on with the next
//! one that gets its address. So when an address goes, a thread beside the agent deletes the kernel's entries of all flows
//! from or to it, and the agent gives no route to a new workload of that address before. One list of the kernel's flows
//! serves all addresses that went since the last.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tortie_flow::Connection;
use tortie_flowtap::{Connections, ConntrackError};
use tracing::{debug, warn};

/// After a pass the thread rests for so many times as long as it took, unless somebody waits.
const REST: u32 = 3;
const LONGEST_REST: Duration = Duration::from_secs(2);
/// Until a pass that failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// What is to be done.
#[derive(Debug, Default)]
struct Work {
    /// Addresses whose flows are to go.
    asked: BTreeSet<IpAddr>,
    /// Those that are being worked on.
    begun: BTreeSet<IpAddr>,
    /// Whether somebody waits.
    urgent: bool,
    /// Whether nobody asks any more.
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The handle by which the agent tells of addresses. Dropping it ends the thread.
#[derive(Debug)]
pub struct Forgetter {
    shared: Arc<Shared>,
}

impl Forgetter {
    /// Has the flows of these addresses deleted soon. Never waits.
    pub fn forget(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.shared.work().asked.extend(addresses);
        self.shared.changed.notify_all();
    }

    /// Waits until no flow of these addresses is to be deleted any more, at most for so long; whether that is so.
    pub fn wait(&self, addresses: &BTreeSet<IpAddr>, patience: Duration) -> bool {
        let open = |work: &mut Work| addresses.iter().any(|a| work.asked.contains(a) || work.begun.contains(a));
        let mut work = self.shared.work();
        if !open(&mut work) {
            return true;
        }
        work.urgent = true;
        self.shared.changed.notify_all();
        let waited = self.shared.changed.wait_timeout_while(work, patience, open);
        let (work, result) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        drop(work);
        !result.timed_out()
    }
}

impl Drop for Forgetter {
    fn drop(&mut self) {
        self.shared.work().closed = true;
        self.shared.changed.notify_all();
    }
}

/// Starts the thread; `None`: this kernel tells of no connections.
pub fn start() -> std::io::Result<Option<Forgetter>> {
    let mut connections = match Connections::open() {
        Ok(connections) => connections,
        Err(error @ ConntrackError::Unsupported(_)) => {
            warn!(%error, "flows of an earlier workload go on with the next one of its address");
            return Ok(None);
        }
        Err(error @ (ConntrackError::Silent | ConntrackError::Unavailable(_))) => {
            return Err(std::io::Error::other(error));
        }
    };
    let shared = Arc::new(Shared::default());
    let own = shared.clone();
    let delete = move |addresses: &BTreeSet<IpAddr>| delete(&mut connections, addresses);
    std::thread::Builder::new().name("forget".to_owned()).spawn(move || run(&own, delete))?;
    Ok(Some(Forgetter { shared }))
}

fn run(shared: &Shared, mut delete: impl FnMut(&BTreeSet<IpAddr>) -> Result<usize, ConntrackError>) {
    loop {
        let idle = |work: &mut Work| work.asked.is_empty() && !work.closed;
        let waited = shared.changed.wait_while(shared.work(), idle);
        let mut work = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        if work.closed {
            return;
        }
        work.begun = std::mem::take(&mut work.asked);
        work.urgent = false;
        let addresses = work.begun.clone();
        drop(work);
        let started = Instant::now();
        let result = delete(&addresses);
        let rest = match &result {
            Ok(deleted) => {
                debug!(addresses = addresses.len(), deleted, "flows of addresses that workloads gave up are deleted");
                (started.elapsed() * REST).min(LONGEST_REST)
            }
            Err(error) => {
                warn!(%error, "flows of addresses that workloads gave up can't be deleted; trying again");
                AGAIN
            }
        };
        let mut work = shared.work();
        let begun = std::mem::take(&mut work.begun);
        if result.is_err() {
            work.asked.extend(begun);
            // Nobody helps by waiting.
            work.urgent = false;
        }
        shared.changed.notify_all();
        let rests = |work: &mut Work| !work.urgent && !work.closed;
        drop(shared.changed.wait_timeout_while(work, rest, rests));
    }
}

/// Deletes the flows of these addresses; how many there were.
fn delete(connections: &mut Connections, addresses: &BTreeSet<IpAddr>) -> Result<usize, ConntrackError> {
    let mut theirs = Vec::new();
    connections.list(|tracked| {
        let Connection { original, reply, .. } = tracked.connection;
        if [original.src, original.dst, reply.src, reply.dst].iter().any(|end| addresses.contains(end)) {
            theirs.push(tracked);
        }
    })?;
    for tracked in &theirs {
        connections.delete(tracked)?;
    }
    Ok(theirs.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use std::sync::mpsc::{Receiver, Sender, channel};

    type Pass = (BTreeSet<IpAddr>, Sender<Result<usize, ConntrackError>>);

    fn addresses(last: &[u8]) -> BTreeSet<IpAddr> {
        last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect()
    }

    /// A forgetter whose passes are made by the test.
    fn by_hand() -> (Forgetter, Receiver<Pass>) {
        let shared = Arc::new(Shared::default());
        let (own, (tell, passes)) = (shared.clone(), channel());
        std::thread::spawn(move || {
            run(&own, |addresses| {
                let (answer, answered) = channel();
                tell.send((addresses.clone(), answer)).expect("the test listens");
                answered.recv().expect("the test answers")
            });
        });
        (Forgetter { shared }, passes)
    }

    #[test]
    fn who_gets_an_address_again_waits_for_the_pass_that_covers_it_and_for_no_other() {
        let (forgetter, passes) = by_hand();
        let moment = Duration::from_millis(20);
        assert!(forgetter.wait(&addresses(&[1]), Duration::ZERO), "nobody gave it up");
        forgetter.forget(addresses(&[1]));
        let (first, answer) = passes.recv().expect("a pass");
        assert_eq!(first, addresses(&[1]));
        // It began before these went.
        forgetter.forget(addresses(&[2, 3]));
        assert!(!forgetter.wait(&addresses(&[1]), moment) && !forgetter.wait(&addresses(&[3]), moment));
        assert!(forgetter.wait(&addresses(&[4]), moment));
        answer.send(Ok(0)).expect("it waits");
        let (second, answer) = passes.recv().expect("another pass");
        assert_eq!(second, addresses(&[2, 3]), "one pass for all that went meanwhile");
        assert!(forgetter.wait(&addresses(&[1]), moment) && !forgetter.wait(&addresses(&[2]), moment));
        answer.send(Err(Errno::ENOBUFS.into())).expect("it waits");
        let (third, answer) = passes.recv().expect("a pass again");
        assert_eq!(third, addresses(&[2, 3]), "what failed is done again");
        answer.send(Ok(0)).expect("it waits");
        assert!(forgetter.wait(&addresses(&[2, 3]), Duration::from_secs(10)));
        drop(forgetter);
        assert!(passes.recv().is_err(), "the thread ends");
    }
}
