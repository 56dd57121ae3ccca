//! Keeping the heap small: a large listing needs, for a moment, a multiple of what is kept of it.

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
