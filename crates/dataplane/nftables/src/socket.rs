//! A netlink socket to nf_tables: whole batches out, acknowledgements and dumps in.
//!
//! The kernel works in the sender's context: when a send returns, every answer to it is queued already.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, send, setsockopt,
    socket, sockopt,
};

use tortie_nfnetlink::{Attributes, DONE, ERROR, Message, messages, u32_at};

use crate::uapi::msg;

/// The answer to one message of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) seq: u32,
    /// 0 is an acknowledgement.
    pub(crate) errno: i32,
    pub(crate) detail: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    send_buffer: usize,
    buffer: Vec<u8>,
}

const FLAG_CAPPED: u16 = 0x100;
const FLAG_EXT: u16 = 0x200;
const FLAG_INTERRUPTED: u16 = 0x10;
const EXT_MESSAGE: u16 = 1;
const RECEIVE_BUFFER: usize = 8 << 20;

/// What a dump yielded.
pub(crate) enum Dump {
    Whole,
    /// Something changed meanwhile: what was read may not fit together.
    Interrupted,
}

impl Socket {
    /// A socket in the calling thread's network namespace; `listen` subscribes it to changes by anyone.
    pub(crate) fn open(listen: bool) -> Result<Socket, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | if listen { SockFlag::SOCK_NONBLOCK } else { SockFlag::empty() };
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        let groups = if listen { 1 << (msg::GROUP - 1) } else { 0 };
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        let port = getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        // Without the privilege the plain buffer is tried, and the kernel says what it lacks.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        if !listen {
            netlink_option(&fd, libc::NETLINK_EXT_ACK)?;
            netlink_option(&fd, libc::NETLINK_CAP_ACK)?;
        }
        Ok(Socket { fd, port, send_buffer: 0, buffer: vec![0; 64 << 10] })
    }

    /// The socket's own address; the kernel's name for the owner of a table.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends one datagram, however large, and returns every answer to it.
    pub(crate) fn transact(&mut self, bytes: &[u8]) -> Result<Vec<Answer>, Errno> {
        self.send(bytes)?;
        let mut answers = Vec::new();
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => answers.extend(messages(&self.buffer[..len]).filter_map(|m| answer(&m))),
                Err(Errno::EAGAIN) => return Ok(answers),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Sends a dump request and hands every message of the dump to `each`.
    pub(crate) fn dump(&mut self, request: &[u8], mut each: impl FnMut(&Message<'_>)) -> Result<Dump, Errno> {
        self.send(request)?;
        let mut outcome = Dump::Whole;
        loop {
            let len = match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            for message in messages(&self.buffer[..len]) {
                if message.flags & FLAG_INTERRUPTED != 0 {
                    outcome = Dump::Interrupted;
                }
                match message.kind {
                    DONE => return Ok(outcome),
                    ERROR => match answer(&message).map(|a| a.errno) {
                        Some(0) | None => return Ok(outcome),
                        Some(errno) => return Err(Errno::from_raw(errno)),
                    },
                    _ => each(&message),
                }
            }
        }
    }

    /// The next datagram of a listening socket; `None` if there is none now.
    pub(crate) fn next_event(&mut self) -> Result<Option<&[u8]>, Errno> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => return Ok(Some(&self.buffer[..len])),
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if bytes.len() > self.send_buffer {
            let wanted = (bytes.len() * 2).max(1 << 20);
            if setsockopt(&self.fd, sockopt::SndBufForce, &wanted).is_err() {
                let _ = setsockopt(&self.fd, sockopt::SndBuf, &wanted);
            }
            self.send_buffer = wanted;
        }
        loop {
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

fn netlink_option(fd: &OwnedFd, option: libc::c_int) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("four");
    // SAFETY: the pointer and length describe a live integer, and the descriptor is open.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), len) };
    Errno::result(result).map(drop)
}

fn answer(message: &Message<'_>) -> Option<Answer> {
    if message.kind != ERROR {
        return None;
    }
    let errno = message.errno()?;
    let echoed = if message.flags & FLAG_CAPPED != 0 { 16 } else { u32_at(message.payload, 4)? as usize };
    let detail = (message.flags & FLAG_EXT != 0)
        .then(|| message.payload.get(4 + echoed.next_multiple_of(4)..))
        .flatten()
        .and_then(|rest| Attributes(rest).text(EXT_MESSAGE))
        .map(str::to_owned);
    // The header of the message that is answered follows the code.
    let seq = u32_at(message.payload, 4 + 8)?;
    Some(Answer { seq, errno, detail })
}

impl From<Dump> for bool {
    /// Whether the dump can be trusted.
    fn from(dump: Dump) -> bool {
        matches!(dump, Dump::Whole)
    }
}

/// The error of a call that could not even be sent.
pub(crate) fn unavailable(errno: Errno) -> crate::Error {
    crate::Error::Unavailable(io::Error::from(errno))
}
