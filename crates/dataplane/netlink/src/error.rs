//! Errors named by what the caller can do.

use std::io;

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why the kernel, or the file system that names namespaces and sysctls, did not do what was asked.
///
/// `doing` says what was asked; `detail` holds the kernel's own explanation when it gave one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thing is not there (any more): a delete is done, a change must wait until it appears.
    #[error("{doing}: not found{}", brackets(detail))]
    NotFound {
        /// What was asked.
        doing: String,
        /// The kernel's words.
        detail: String,
    },
    /// Something with the same key is there already: look at it, replace it or choose another key.
    #[error("{doing}: exists already{}", brackets(detail))]
    Exists {
        /// What was asked.
        doing: String,
        /// The kernel's words.
        detail: String,
    },
    /// The thing is in use: try again later.
    #[error("{doing}: busy{}", brackets(detail))]
    Busy {
        /// What was asked.
        doing: String,
        /// The kernel's words.
        detail: String,
    },
    /// This kernel can't do it: report it, don't retry.
    #[error("{doing}: this kernel does not support it{}", brackets(detail))]
    Unsupported {
        /// What was asked.
        doing: String,
        /// The kernel's words.
        detail: String,
    },
    /// The process lacks the right: run it as root, or with CAP_NET_ADMIN (and CAP_SYS_ADMIN for namespaces).
    #[error("{doing}: not permitted (needs CAP_NET_ADMIN; CAP_SYS_ADMIN for namespaces){}", brackets(detail))]
    Permission {
        /// What was asked.
        doing: String,
        /// The kernel's words.
        detail: String,
    },
    /// The gateway or destination can't be reached from here: not on link, or the interface is down.
    #[error("{doing}: unreachable{}", brackets(detail))]
    Unreachable {
        /// What was asked.
        doing: String,
        /// The kernel's words.
        detail: String,
    },
    /// The request is wrong: correct it.
    #[error("{doing}: invalid{}", brackets(detail))]
    Invalid {
        /// What was asked.
        doing: String,
        /// The kernel's words, or what was expected.
        detail: String,
    },
    /// The kernel gave no answer in time; whether it did the work is not known.
    #[error("{doing}: no answer from the kernel within {waited_ms} ms")]
    Timeout {
        /// What was asked.
        doing: String,
        /// How long the answer was waited for, milliseconds.
        waited_ms: u64,
    },
    /// Any other failure of the system.
    #[error("{doing}: {source}{}", brackets(detail))]
    Io {
        /// What was asked.
        doing: String,
        /// The kernel's words.
        detail: String,
        /// The system's error.
        source: io::Error,
    },
}

fn brackets(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

impl Error {
    /// The error for an errno (positive), what was being done and the kernel's explanation.
    pub fn from_errno(errno: i32, doing: impl Into<String>, detail: impl Into<String>) -> Error {
        let (doing, detail) = (doing.into(), detail.into());
        match errno {
            libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENXIO => {
                Error::NotFound { doing, detail }
            }
            libc::EEXIST => Error::Exists { doing, detail },
            libc::EBUSY | libc::EAGAIN => Error::Busy { doing, detail },
            libc::EOPNOTSUPP | libc::ENOSYS | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT => {
                Error::Unsupported { doing, detail }
            }
            libc::EPERM | libc::EACCES => Error::Permission { doing, detail },
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN => Error::Unreachable { doing, detail },
            libc::EINVAL | libc::ERANGE => Error::Invalid { doing, detail },
            other => Error::Io { doing, detail, source: io::Error::from_raw_os_error(other) },
        }
    }

    /// The error for a failed system call.
    pub fn from_io(source: io::Error, doing: impl Into<String>) -> Error {
        match source.raw_os_error() {
            Some(errno) => Error::from_errno(errno, doing, ""),
            None => Error::Io { doing: doing.into(), detail: String::new(), source },
        }
    }

    /// An error about input that was found wrong before asking the kernel.
    pub(crate) fn invalid(doing: impl Into<String>, detail: impl Into<String>) -> Error {
        Error::Invalid { doing: doing.into(), detail: detail.into() }
    }

    /// Whether the thing is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Error::NotFound { .. })
    }

    /// Whether something with that key is there already.
    pub fn is_exists(&self) -> bool {
        matches!(self, Error::Exists { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_becomes_what_the_caller_can_do_and_keeps_the_kernels_words() {
        let error = Error::from_errno(libc::ENETUNREACH, "add route 10.0.0.0/8", "Nexthop has invalid gateway");
        assert_eq!(error.to_string(), "add route 10.0.0.0/8: unreachable (Nexthop has invalid gateway)");
        assert!(Error::from_errno(libc::ESRCH, "", "").is_not_found());
        assert!(Error::from_errno(libc::EEXIST, "", "").is_exists());
        assert!(matches!(Error::from_errno(libc::ENOBUFS, "", ""), Error::Io { .. }));
    }
}
