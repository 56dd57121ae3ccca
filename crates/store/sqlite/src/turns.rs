//! Turns of writing among processes: first come, first served, given back by the kernel when a process dies.
//!
//! Two byte locks on `FILE.lock`: who holds the gate is next for the turn, so nobody who gives the turn back can take it
//! again past one who waits. It is fairness only: SQLite's own lock keeps writers apart, also from foreign programs.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::bell::side_file;
use crate::fault::Fault;

/// The byte that the next in line holds.
const GATE: libc::off_t = 0;
/// The byte that the writer holds.
const TURN: libc::off_t = 1;

fn byte(kind: libc::c_int, at: libc::off_t) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at,
        l_len: 1,
        l_pid: 0,
    }
}

/// Takes a lock if it is free.
fn try_lock(file: &File, at: libc::off_t) -> Result<bool, Errno> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&byte(libc::F_WRLCK, at))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits for a lock. Taking what one has is harmless.
fn lock(file: &File, at: libc::off_t) -> Result<(), Errno> {
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLKW(&byte(libc::F_WRLCK, at))) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn unlock(file: &File, at: libc::off_t) {
    // Unlocking can't fail for an open file; if it did, closing the file would do it.
    let _ = fcntl(file, FcntlArg::F_OFD_SETLK(&byte(libc::F_UNLCK, at)));
}

#[derive(Default)]
struct State {
    /// The waiting thread exists.
    started: bool,
    /// Somebody in this process waits for the turn.
    wanted: bool,
    /// The waiting thread is inside the kernel.
    waiting: bool,
    /// The waiting thread took the turn for who wanted it.
    held: bool,
    /// The store was closed.
    closed: bool,
}

struct Line {
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The waiting thread: a wait in the kernel has no deadline, so whoever has one waits for this thread instead.
    fn wait_for_turns(&self) {
        let mut state = self.state();
        loop {
            while !(state.wanted && !state.held || state.closed) {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed {
                return;
            }
            state.waiting = true;
            drop(state);
            let result = lock(&self.file, GATE).and_then(|()| lock(&self.file, TURN));
            unlock(&self.file, GATE);
            state = self.state();
            state.waiting = false;
            // Without locks there is no order, but SQLite still keeps writers apart.
            state.held = state.wanted;
            if !state.held && result.is_ok() {
                unlock(&self.file, TURN);
            }
            self.changed.notify_all();
        }
    }
}

/// The turns of writing one file.
pub(crate) struct Turns {
    path: PathBuf,
    line: OnceLock<Arc<Line>>,
    /// Keeps the threads of this process apart: the kernel's locks belong to the open file.
    inside: Mutex<()>,
}

/// The right to write, until dropped.
pub(crate) struct Turn<'a> {
    line: &'a Line,
    _inside: MutexGuard<'a, ()>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.line.state();
        unlock(&self.line.file, TURN);
        state.held = false;
        state.wanted = false;
    }
}

impl Turns {
    /// Turns by a file at this path, which is made when the first is taken.
    pub(crate) fn new(path: PathBuf) -> Turns {
        Turns { path, line: OnceLock::new(), inside: Mutex::new(()) }
    }

    fn line(&self) -> Result<&Arc<Line>, Fault> {
        if let Some(line) = self.line.get() {
            return Ok(line);
        }
        let file = side_file(&self.path)?;
        Ok(self.line.get_or_init(|| Arc::new(Line { file, state: Mutex::default(), changed: Condvar::new() })))
    }

    /// Waits for the turn, at most as long as given.
    pub(crate) fn take(&self, patience: Duration) -> Result<Turn<'_>, Fault> {
        let deadline = Instant::now() + patience;
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let line = self.line()?;
        let mut state = line.state();
        if !state.waiting {
            // The gate is kept if the turn is not free: the waiting thread goes on from there.
            let free =
                try_lock(&line.file, GATE).and_then(|gate| if gate { try_lock(&line.file, TURN) } else { Ok(false) });
            if let Err(error) = free {
                tracing::debug!(%error, path = %self.path.display(), "no turns among processes");
            }
            if free != Ok(false) {
                unlock(&line.file, GATE);
                return Ok(Turn { line, _inside: inside });
            }
        }
        state.wanted = true;
        if !state.started {
            let helper = Arc::clone(line);
            let thread = std::thread::Builder::new().name("store-turns".to_owned());
            if let Err(error) = thread.spawn(move || helper.wait_for_turns()) {
                state.wanted = false;
                unlock(&line.file, GATE);
                return Err(Fault::Unavailable(format!("no thread to wait for other writers: {error}")));
            }
            state.started = true;
        }
        line.changed.notify_all();
        while !state.held {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The waiting thread gives the turn back when it gets it.
                state.wanted = false;
                let text = format!("{}: another process has been writing for {patience:?}", self.path.display());
                return Err(Fault::Unavailable(text));
            }
            state = line.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        Ok(Turn { line, _inside: inside })
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        if let Some(line) = self.line.get() {
            line.state().closed = true;
            line.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_given_in_order_and_a_wait_has_an_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lock");
        let (first, second, third) = (Turns::new(path.clone()), Turns::new(path.clone()), Turns::new(path));
        let turn = first.take(Duration::ZERO).expect("it is free");
        assert!(second.take(Duration::from_millis(10)).is_err());
        let order = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for (n, turns) in [(2, &second), (3, &third)] {
                let order = &order;
                scope.spawn(move || {
                    let turn = turns.take(Duration::from_secs(20)).expect("it gets free");
                    order.lock().expect("no panic").push(n);
                    drop(turn);
                });
                std::thread::sleep(Duration::from_millis(50));
            }
            drop(turn);
            // Whoever gave the turn back comes behind those who wait.
            let again = first.take(Duration::from_secs(20)).expect("it gets free");
            order.lock().expect("no panic").push(1);
            drop(again);
        });
        let order = order.into_inner().expect("no panic");
        assert_eq!(order[0], 2, "{order:?}");
        assert_eq!(order.len(), 3);
        drop(second.take(Duration::ZERO).expect("an abandoned wait leaves nothing behind"));
    }

    #[test]
    fn never_two_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lock");
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (turns, inside) = (Turns::new(path.clone()), &inside);
                scope.spawn(move || {
                    for _ in 0..300 {
                        let turn = turns.take(Duration::from_secs(20)).expect("it gets free");
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        assert_eq!(inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst), 1);
                        drop(turn);
                    }
                });
            }
        });
    }
}
