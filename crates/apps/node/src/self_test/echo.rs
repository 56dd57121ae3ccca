//! Datagrams that come back as they are, and must not be cut in pieces on the way.
//!
//! Invariant: only nodes of the cluster are answered, with no more bytes than they sent.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tortie_net::Family;

/// Where nodes answer, UDP.
pub(super) const PORT: u16 = 9097;
/// The smallest packet that is sent, bytes with its IP header.
pub(super) const SMALL: u32 = 128;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(300);
/// What is lost so often does not arrive.
const TRIES: usize = 3;

const QUESTION: [u8; 8] = *b"tortie?1";
const ANSWER: [u8; 8] = *b"tortie!1";
/// A header and a number.
const LEAST: usize = 16;
/// `IP_PMTUDISC_PROBE`, and IPv6's the same: never in pieces, whatever is known of the path.
const NEVER_CUT: libc::c_int = 3;

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It came back.
    Answered,
    /// It, or its answer, was lost.
    Lost,
    /// This host did not send it: it is larger than the way out, or there is none.
    NotSent,
}

/// Bytes of the IP and UDP headers.
fn headers(family: Family) -> u32 {
    match family {
        Family::V4 => 28,
        Family::V6 => 48,
    }
}

fn socket(family: Family, port: u16) -> io::Result<UdpSocket> {
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    // One of the standard library takes IPv6 alone only if the system's default says so.
    let socket = match family {
        Family::V4 => UdpSocket::bind(SocketAddr::new(any, port))?,
        Family::V6 => only_v6(port)?,
    };
    let (level, option) = match family {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    let value = NEVER_CUT;
    // SAFETY: `value` is live during the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

fn only_v6(port: u16) -> io::Result<UdpSocket> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn6, bind, setsockopt, socket, sockopt};
    let fd = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    bind(fd.as_raw_fd(), &SockaddrIn6::from(std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0)))?;
    Ok(fd.into())
}

/// Whom to answer.
pub(super) type Known = Arc<RwLock<BTreeSet<IpAddr>>>;

/// Answers until `stop`.
pub(super) fn answer(family: Family, known: &Known, stop: &AtomicBool) -> io::Result<()> {
    let socket = socket(family, PORT)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut bytes = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
        let ours = known.read().unwrap_or_else(PoisonError::into_inner).contains(&from.ip());
        if ours && length >= LEAST && bytes.starts_with(&QUESTION) {
            bytes[..ANSWER.len()].copy_from_slice(&ANSWER);
            // Who asked asks again.
            let _ = socket.send_to(&bytes[..length], from);
        }
    }
    Ok(())
}

/// Who asks, in one family.
pub(super) struct Asker {
    family: Family,
    socket: UdpSocket,
    buffer: Vec<u8>,
}

impl Asker {
    pub(super) fn new(family: Family) -> io::Result<Asker> {
        Ok(Asker { family, socket: socket(family, 0)?, buffer: vec![0; 1 << 16] })
    }

    /// Asks with a packet of so many bytes.
    pub(super) fn ask(&mut self, to: IpAddr, size: u32) -> Fate {
        self.ask_port(SocketAddr::new(to, PORT), size)
    }

    fn ask_port(&mut self, to: SocketAddr, size: u32) -> Fate {
        for _ in 0..TRIES {
            match self.once(to, size) {
                Ok(true) => return Fate::Answered,
                Ok(false) => {}
                Err(_) => return Fate::NotSent,
            }
        }
        Fate::Lost
    }

    fn once(&mut self, to: SocketAddr, size: u32) -> io::Result<bool> {
        let length = size.saturating_sub(headers(self.family)).max(LEAST as u32) as usize;
        let number = RandomState::new().hash_one(0).to_be_bytes();
        // Neither all zeros nor all ones, which some checksums take for each other.
        let question: Vec<u8> =
            QUESTION.into_iter().chain(number).chain((0..=250).cycle()).take(length.max(LEAST)).collect();
        let expected: Vec<u8> = ANSWER.into_iter().chain(question[ANSWER.len()..].iter().copied()).collect();
        match self.socket.send_to(&question, to) {
            Ok(_) => {}
            // That of an earlier packet: the port is closed there.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(false),
            Err(error) => return Err(error),
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.socket.set_read_timeout(Some(left))?;
            if let Ok((length, _)) = self.socket.recv_from(&mut self.buffer)
                && self.buffer[..length] == expected
            {
                return Ok(true);
            }
        }
    }

    /// The largest packet that comes back, of those above `passes`, which does, and below `lost`, which does not.
    pub(super) fn largest(&mut self, to: IpAddr, passes: u32, lost: u32) -> u32 {
        let (mut low, mut high) = (passes, lost);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.ask(to, middle) == Fate::Answered {
                low = middle;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_come_back_and_strangers_are_not_answered() {
        let known: Known = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let listener = socket(Family::V4, 0).expect("a socket");
        let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listener.local_addr().expect("bound").port());
        drop(listener);
        let mut asker = Asker::new(Family::V4).expect("a socket");
        assert_eq!(asker.ask_port(at, SMALL), Fate::Lost, "nobody is there");
        assert_eq!(asker.ask_port(at, 1 << 17), Fate::NotSent, "more than a packet holds");
        // Loopback passes everything, so any answerer will do; a stranger gets nothing.
        let (known2, stop2) = (known.clone(), stop.clone());
        let thread = std::thread::spawn(move || answer(Family::V4, &known2, &stop2));
        std::thread::sleep(Duration::from_millis(100));
        if !thread.is_finished() {
            let here: IpAddr = Ipv4Addr::LOCALHOST.into();
            assert_eq!(asker.ask(here, SMALL), Fate::Lost, "a stranger");
            known.write().expect("unpoisoned").insert(here);
            assert_eq!(asker.ask(here, SMALL), Fate::Answered);
            assert_eq!(asker.ask(here, 9000), Fate::Answered);
            assert_eq!(asker.largest(here, SMALL, 9000), 8999);
        }
        stop.store(true, Ordering::Relaxed);
        let _ = thread.join().expect("no panic");
    }
}
