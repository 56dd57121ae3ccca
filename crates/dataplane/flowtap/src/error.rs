//! What can go wrong, named by what the caller can do.

use nix::errno::Errno;

/// Why the kernel can't be listened to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process listens to the group. Try again when it is gone.
    #[error("another process listens to NFLOG group {0}")]
    Taken(u16),
    /// The kernel has no NFLOG.
    #[error("this kernel has no NFLOG (nfnetlink_log): {0}")]
    Unsupported(Errno),
    /// The kernel did not answer in time.
    #[error("the kernel did not answer a request on NFLOG group {0} within a second")]
    Silent(u16),
    /// Something else, such as a lack of privilege or memory. Try again later.
    #[error("netlink to NFLOG: {0}")]
    Unavailable(#[from] Errno),
}
