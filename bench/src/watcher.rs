//! Hears the kernel tell what changed in nf_tables, with the time of each message.
//!
//! The kernel sends these messages after a transaction took effect, whoever owns the table. So the time of the message
//! that holds some bytes is an upper bound of when packets met the new rules.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use tortie_netlink::Netns;

/// The multicast group of nf_tables changes: `NFNLGRP_NFTABLES` is the 7th, a bit each.
const GROUP: u32 = 1 << (7 - 1);

/// A listener in a namespace.
pub struct Watcher {
    needle: Arc<Mutex<Option<Vec<u8>>>>,
    seen: Receiver<Instant>,
}

impl Watcher {
    /// Listens in a host's namespace.
    pub fn start(host: &Netns) -> Result<Watcher> {
        let socket = host.run(open)?.context("listen to nf_tables")?;
        let needle = Arc::new(Mutex::new(None));
        let (tell, seen) = channel();
        let looked_for = needle.clone();
        // It ends with the process: nothing wakes it from its wait.
        std::thread::Builder::new().name("watcher".to_owned()).spawn(move || listen(&socket, &looked_for, &tell))?;
        Ok(Watcher { needle, seen })
    }

    /// Does something and waits for the message with these bytes: its time, and when the doing returned. `None`: it did
    /// not come within that time.
    pub fn after(
        &self,
        bytes: &[u8],
        patience: Duration,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<Option<(Duration, Duration)>> {
        while self.seen.try_recv().is_ok() {}
        *self.needle.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes.to_vec());
        let begun = Instant::now();
        work()?;
        let returned = begun.elapsed();
        let seen = self.seen.recv_timeout(patience).ok();
        *self.needle.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(seen.map(|at| (at.saturating_duration_since(begun), returned)))
    }
}

fn open() -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
    setsockopt(&fd, sockopt::RcvBufForce, &(64 << 20))?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
    Ok(fd)
}

fn listen(socket: &OwnedFd, needle: &Mutex<Option<Vec<u8>>>, tell: &Sender<Instant>) {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                let at = Instant::now();
                let mut wanted = needle.lock().unwrap_or_else(PoisonError::into_inner);
                let found =
                    wanted.as_ref().is_some_and(|bytes| buffer[..length].windows(bytes.len()).any(|w| w == &bytes[..]));
                if found {
                    *wanted = None;
                    if tell.send(at).is_err() {
                        return;
                    }
                }
            }
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::ENOBUFS) => {}
            Err(_) => return,
        }
    }
}
