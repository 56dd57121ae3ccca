//! A socket to nfnetlink that is never waited for without an end.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};

/// A socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket; the outer error is that the kernel has no such. `room` for what the kernel told and nobody has
    /// read yet, bytes.
    pub(crate) fn open(room: usize) -> Result<Result<Socket, Errno>, Errno> {
        let kind = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, kind, SockProtocol::NetlinkNetFilter)?;
        Ok(bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map(|()| {
            if setsockopt(&fd, sockopt::RcvBufForce, &room).is_err() {
                // Without the privilege the plain buffer has to do.
                let _ = setsockopt(&fd, sockopt::RcvBuf, &room);
            }
            Socket { fd, buffer: vec![0; 64 << 10] }
        }))
    }

    pub(crate) fn send(&self, request: &[u8]) -> Result<(), Errno> {
        send(self.fd.as_raw_fd(), request, MsgFlags::empty()).map(drop)
    }

    /// Waits for something to read, at most this long.
    pub(crate) fn readable(&self, patience: Duration) -> Result<bool, Errno> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let millis = u16::try_from(patience.as_millis()).unwrap_or(u16::MAX);
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// The next datagram. [`Errno::EAGAIN`]: there is none now.
    pub(crate) fn receive(&mut self) -> Result<&[u8], Errno> {
        let len = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
        Ok(&self.buffer[..len])
    }
}
