//! Whether the device makes checksums (`ethtool -K DEVICE tx on|off`).

use std::io;
use std::os::fd::AsRawFd;

/// `ETHTOOL_STXCSUM` of the kernel's `linux/ethtool.h`.
const SET_TX_CHECKSUM: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Lets the device leave checksums to whatever sends the outer packet, or not.
pub(super) fn set(device: &str, on: bool) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    let mut value = Value { command: SET_TX_CHECKSUM, data: u32::from(on) };
    // SAFETY: an `ifreq` of zero bytes is valid: a name of no bytes.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request names a device and points to a value of the command's shape; both live during the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
