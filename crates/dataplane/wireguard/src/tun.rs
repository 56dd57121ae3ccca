//! TUN devices: packets of the kernel's routes, in and out of a file (`linux/if_tun.h`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use tortie_netlink::{Error, Result};

/// Where TUN devices are made.
pub(crate) const CLONE: &str = "/dev/net/tun";

/// Makes a TUN device of that name in this thread's network namespace, or takes up the one that is there; it stays when
/// the file is closed. Reads don't wait. [`Error::Busy`]: another process has it; [`Error::Unsupported`]: the kernel has
/// no such devices.
pub(crate) fn open(name: &str) -> Result<File> {
    let doing = || format!("make TUN device {name}");
    let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(CLONE);
    let file = open.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            Error::Unsupported { doing: doing(), detail: format!("{CLONE}: {error}") }
        }
        _ => Error::from_io(error, format!("open {CLONE}")),
    })?;
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    let flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).expect("small flags");
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the descriptor is open, and the kernel reads and writes one live `ifreq`.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if set != 0 {
        return Err(Error::from_io(io::Error::last_os_error(), doing()));
    }
    // SAFETY: the descriptor is open; the argument is a number.
    let kept = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST, 1) };
    if kept != 0 {
        return Err(Error::from_io(io::Error::last_os_error(), format!("keep TUN device {name}")));
    }
    Ok(file)
}
