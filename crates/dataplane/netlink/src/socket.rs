//! A blocking rtnetlink socket: batches of requests with one answer each, and dumps.
//!
//! Invariant: after every call the receive queue holds nothing that a later call could mistake for its own answer;
//! sequence numbers tell late answers apart.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket,
    sockopt,
};

use crate::wire::{Refusal, Request, frames, status};
use crate::{Error, Result};

/// How long an answer may take: the kernel answers at once, but a busy machine holds its lock for seconds.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Requests and bytes that go to the kernel in one send: enough to hide the cost of the system call.
const BATCH_REQUESTS: usize = 256;
const BATCH_BYTES: usize = 128 * 1024;
/// Buffers: every acknowledgement of a full batch must fit.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// The kernel never sends a datagram longer than 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
/// A dump that raced with a change is repeated this many times before its last result is taken as it is.
const DUMP_ATTEMPTS: usize = 8;

const SOL_NETLINK: libc::c_int = 270;
const NETLINK_CAP_ACK: libc::c_int = 10;
const NETLINK_EXT_ACK: libc::c_int = 11;
const NETLINK_GET_STRICT_CHK: libc::c_int = 12;

/// One rtnetlink socket of one network namespace.
pub(crate) struct Socket {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace, subscribed to a mask of multicast groups.
    pub(crate) fn open(groups: u32) -> Result<Socket> {
        Socket::open_protocol(groups, SockProtocol::NetlinkRoute)
    }

    /// The same of another protocol of netlink.
    pub(crate) fn open_protocol(groups: u32, protocol: SockProtocol) -> Result<Socket> {
        let fail = |e: Errno| Error::from_errno(e as i32, "open a netlink socket", "");
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).map_err(fail)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(fail)?;
        // Larger buffers than the system's limit need a privilege; without it the limit must do.
        if setsockopt(&fd, sockopt::RcvBufForce, &BUFFER_BYTES).is_err() {
            let _ = setsockopt(&fd, sockopt::RcvBuf, &BUFFER_BYTES);
        }
        if setsockopt(&fd, sockopt::SndBufForce, &BUFFER_BYTES).is_err() {
            let _ = setsockopt(&fd, sockopt::SndBuf, &BUFFER_BYTES);
        }
        for option in [NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK] {
            set_netlink_option(fd.as_fd(), option)?;
        }
        Ok(Socket { fd, seq: 0, buffer: vec![0; RECEIVE_BYTES] })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends all requests, many per system call, and returns one answer for each, in order. The kernel does them one after
    /// the other and always tells of what failed; that all are done it says with the last of each send.
    pub(crate) fn transact(&mut self, requests: &[Request]) -> Result<Vec<std::result::Result<(), Refusal>>> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut rest = requests;
        while !rest.is_empty() {
            let mut length = 0;
            let fits = |request: &&Request| {
                length += request.framed_len();
                length <= BATCH_BYTES
            };
            let count = rest.iter().take(BATCH_REQUESTS).take_while(fits).count().max(1);
            let mut bytes = Vec::with_capacity(length);
            for (at, request) in rest[..count].iter().enumerate() {
                let seq = self.seq.wrapping_add(1).wrapping_add(u32::try_from(at).expect("at most a batch"));
                let answer = if at + 1 == count { NLM_F_ACK } else { 0 };
                request.frame(seq, NLM_F_REQUEST | answer, &mut bytes);
            }
            let first = self.seq.wrapping_add(1);
            self.seq = self.seq.wrapping_add(u32::try_from(count).expect("at most a batch"));
            self.send(&bytes)?;
            self.collect(first, count, &mut answers)?;
            rest = &rest[count..];
        }
        Ok(answers)
    }

    fn collect(&mut self, first: u32, count: usize, answers: &mut Vec<std::result::Result<(), Refusal>>) -> Result<()> {
        let start = answers.len();
        answers.resize(start + count, Ok(()));
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let mut done = false;
        while !done {
            let len = self.receive(deadline)?;
            for frame in frames(&self.buffer[..len]).filter(|frame| frame.kind == NLMSG_ERROR) {
                let at = frame.seq.wrapping_sub(first) as usize;
                if at < count {
                    answers[start + at] = status(&frame, true);
                    done |= at + 1 == count;
                }
            }
        }
        Ok(())
    }

    /// Asks for a dump and gives each message's body to `take`; repeats when a change made it inconsistent, in which
    /// case `take` gets `None` first, to start anew.
    pub(crate) fn dump(
        &mut self,
        request: &Request,
        mut take: impl FnMut(Option<&[u8]>),
    ) -> Result<std::result::Result<(), Refusal>> {
        for _ in 0..DUMP_ATTEMPTS {
            take(None);
            let (end, interrupted) = self.dump_once(request, &mut take)?;
            if end.is_err() || !interrupted {
                return Ok(end);
            }
        }
        Ok(Ok(()))
    }

    fn dump_once(
        &mut self,
        request: &Request,
        take: &mut impl FnMut(Option<&[u8]>),
    ) -> Result<(std::result::Result<(), Refusal>, bool)> {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        let mut bytes = Vec::new();
        request.frame(seq, NLM_F_REQUEST | NLM_F_DUMP, &mut bytes);
        self.send(&bytes)?;
        let mut interrupted = false;
        loop {
            let len = self.receive(Instant::now() + ANSWER_DEADLINE)?;
            for frame in frames(&self.buffer[..len]).filter(|f| f.seq == seq) {
                interrupted |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.kind {
                    NLMSG_ERROR => return Ok((status(&frame, true), interrupted)),
                    NLMSG_DONE => return Ok((status(&frame, false), interrupted)),
                    NLMSG_NOOP | NLMSG_OVERRUN => {}
                    _ => take(Some(frame.body)),
                }
            }
        }
    }

    /// Asks for one thing and returns the body of the answer.
    pub(crate) fn query(&mut self, request: &Request) -> Result<std::result::Result<Vec<u8>, Refusal>> {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        let mut bytes = Vec::new();
        request.frame(seq, NLM_F_REQUEST, &mut bytes);
        self.send(&bytes)?;
        let deadline = Instant::now() + ANSWER_DEADLINE;
        loop {
            let len = self.receive(deadline)?;
            for frame in frames(&self.buffer[..len]).filter(|f| f.seq == seq) {
                if frame.kind != NLMSG_ERROR {
                    return Ok(Ok(frame.body.to_vec()));
                }
                if let Err(refusal) = status(&frame, true) {
                    return Ok(Err(refusal));
                }
            }
        }
    }

    /// What multicast groups delivered since the last call, without waiting. `Err(())` in the item means that the
    /// kernel dropped some.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(std::result::Result<(u16, &[u8]), ()>)) -> Result<()> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Ok(()),
                Ok(len) => {
                    for frame in frames(&self.buffer[..len]) {
                        take(if frame.kind == NLMSG_OVERRUN { Err(()) } else { Ok((frame.kind, frame.body)) });
                    }
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => take(Err(())),
                Err(e) => return Err(Error::from_errno(e as i32, "receive netlink events", "")),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        loop {
            match send(self.fd.as_raw_fd(), bytes, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(Error::from_errno(e as i32, "send to the kernel", "")),
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<usize> {
        loop {
            // The answer is mostly there when the request was sent.
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => return Ok(len),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(e) => return Err(Error::from_errno(e as i32, "receive from the kernel", "")),
            }
            if !wait_readable(self.fd.as_fd(), deadline.saturating_duration_since(Instant::now()))? {
                let waited_ms = u64::try_from(ANSWER_DEADLINE.as_millis()).expect("seconds");
                return Err(Error::Timeout { doing: "wait for the kernel's answer".to_owned(), waited_ms });
            }
        }
    }
}

/// Waits until the descriptor has something to read; `false` when the time ran out.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> Result<bool> {
    let millis = timeout.as_millis().saturating_add(u128::from(!timeout.subsec_nanos().is_multiple_of(1_000_000)));
    let timeout = PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(true),
        Err(e) => Err(Error::from_errno(e as i32, "wait for netlink", "")),
    }
}

fn set_netlink_option(fd: BorrowedFd<'_>, option: libc::c_int) -> Result<()> {
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of_val(&on)).expect("four bytes");
    // SAFETY: the descriptor is open, and the pointer and length describe one live c_int that the kernel only reads.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), SOL_NETLINK, option, (&raw const on).cast(), len) };
    match result {
        0 => Ok(()),
        _ => Err(Error::from_io(io::Error::last_os_error(), format!("set netlink option {option}"))),
    }
}
