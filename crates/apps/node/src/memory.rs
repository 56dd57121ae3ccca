//! Keeping the heap small: a large listing, or a burst of messages, needs for a moment a multiple of what is kept of it.

use std::time::{Duration, Instant};

/// So many facts at once leave gaps worth giving back.
pub const MANY: usize = 1_000;

/// Keeps all threads in one heap. By default the C library gives threads heaps of their own, and what one frees in
/// another's stays there as gaps: half as much memory again. Large buffers are given back at once. Call before other
/// threads are started.
pub fn one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets numbers in the C library's allocator, before any other thread uses it. If they are refused, nothing
    // but the size of the process is different.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // Fixed, as the library would raise it after the first large buffer: then the next ones would leave gaps.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 18);
    }
}

/// Gives back what is free. Takes a few milliseconds for tens of MiB.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the allocator's own call, allowed on any thread at any time; it moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A burst of messages: what it left free is given back once it is over.
#[derive(Debug, Default)]
pub struct Burst {
    bytes: usize,
    over_at: Option<Instant>,
}

/// So many bytes leave gaps worth giving back.
const MANY_BYTES: usize = 64 << 10;
/// After so long without so many more, a burst is over.
const QUIET: Duration = Duration::from_millis(200);

impl Burst {
    /// Bytes came or went.
    pub fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// When to call [`Burst::end_if_due`] at the latest.
    pub fn over_at(&self) -> Option<Instant> {
        self.over_at
    }

    /// To be called now and then, at least after every [`Burst::add`].
    pub fn end_if_due(&mut self, now: Instant) {
        if self.bytes >= MANY_BYTES {
            (self.bytes, self.over_at) = (0, Some(now + QUIET));
        }
        if self.over_at.is_some_and(|at| at <= now) {
            self.over_at = None;
            give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_ends_once_and_a_trickle_is_none() {
        let (mut burst, now) = (Burst::default(), Instant::now());
        burst.add(MANY_BYTES - 1);
        burst.end_if_due(now);
        assert_eq!(burst.over_at(), None);
        burst.add(1);
        burst.end_if_due(now);
        assert_eq!(burst.over_at(), Some(now + QUIET));
        burst.add(MANY_BYTES);
        burst.end_if_due(now + QUIET / 2);
        assert_eq!(burst.over_at(), Some(now + QUIET / 2 + QUIET), "it goes on");
        burst.end_if_due(now + QUIET * 2);
        assert_eq!(burst.over_at(), None);
    }
}
