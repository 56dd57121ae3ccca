//! Keeping the process small: a large listing, or a burst of messages, needs for a moment a multiple of what is kept of it,
//! and the start of a program reads what nobody asks for again.

use std::time::{Duration, Instant};

/// So many facts at once leave gaps worth giving back.
pub const MANY: usize = 1_000;

/// Keeps all threads in one heap. By default the C library gives threads heaps of their own, and what one frees in
/// another's stays there as gaps: half as much memory again. Large buffers are given back at once, and what only the
/// start of the program needed now. Call before other threads are started.
pub fn one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets numbers in the C library's allocator, before any other thread uses it. If they are refused, nothing
    // but the size of the process is different.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // Fixed, as the library would raise it after the first large buffer: then the next ones would leave gaps.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 18);
    }
    forget_loading();
}

/// Gives back what the loader alone read of the program: the list of what it had to put right for the place where the
/// program is, a tenth and more of all that is resident of a small process. What is needed of these pages after all comes
/// back from the file, as they are never written to.
fn forget_loading() {
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    for (start, length) in read_only_segments() {
        // SAFETY: the range is mapped from the program's file, and no page of it is ever written to, so that giving the
        // pages back loses nothing. A refusal leaves them where they are.
        unsafe {
            libc::madvise(std::ptr::without_provenance_mut(start), length, libc::MADV_DONTNEED);
        }
    }
}

/// The whole pages of the program's segments that may be read, not written and not run.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn read_only_segments() -> Vec<(usize, usize)> {
    // SAFETY: the kernel tells of the program's headers by address and number, and the loader keeps them as they are. Both
    // are zero where it tells of none.
    let headers: &[libc::Elf64_Phdr] = unsafe {
        let (at, number) = (libc::getauxval(libc::AT_PHDR), libc::getauxval(libc::AT_PHNUM));
        let Some(at) = std::ptr::NonNull::new(std::ptr::with_exposed_provenance_mut(at as usize)) else {
            return Vec::new();
        };
        std::slice::from_raw_parts(at.as_ptr(), number as usize)
    };
    // SAFETY: asks for a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let Some(own) = headers.iter().find(|header| header.p_type == libc::PT_PHDR) else { return Vec::new() };
    let base = headers.as_ptr().addr().wrapping_sub(own.p_vaddr as usize);
    let read_only = headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags == libc::PF_R);
    read_only
        .map(|header| {
            let start = base.wrapping_add(header.p_vaddr as usize);
            let end = start.wrapping_add(header.p_filesz as usize) & !(page - 1);
            (start & !(page - 1), end.saturating_sub(start & !(page - 1)))
        })
        .collect()
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

    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    #[test]
    fn what_the_loader_read_is_given_back_and_can_be_read_again() {
        // Text that lies in such a segment, and how much of all such segments of the program is resident, KiB.
        let text = include_str!("memory.rs");
        let resident = || {
            let maps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
            let segments = read_only_segments();
            let mut inside = false;
            let mut sum = 0;
            for line in maps.lines() {
                let start = line.split_once('-').and_then(|(start, _)| usize::from_str_radix(start, 16).ok());
                if let Some(start) = start {
                    inside = segments.iter().any(|(at, length)| (*at..at + length).contains(&start));
                } else if let Some(size) = line.strip_prefix("Rss:").filter(|_| inside) {
                    sum += size.trim().trim_end_matches(" kB").parse::<usize>().expect("a size");
                }
            }
            sum
        };
        let before = (resident(), text.len(), text.bytes().map(u64::from).sum::<u64>());
        forget_loading();
        let after = resident();
        assert!(after < before.0 / 2, "{after} KiB of {} are left", before.0);
        assert_eq!((text.len(), text.bytes().map(u64::from).sum::<u64>()), (before.1, before.2));
    }

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
