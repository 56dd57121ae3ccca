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

    /// The largest packet that comes back, of those from `passes`, which does, and below `lost`, which does not. `None` if
    /// that does not hold when it is asked again: meanwhile nobody answered, or the way changed.
    pub(super) fn largest(&mut self, to: IpAddr, passes: u32, lost: u32) -> Option<u32> {
        self.largest_port(SocketAddr::new(to, PORT), passes, lost)
    }

    fn largest_port(&mut self, to: SocketAddr, passes: u32, lost: u32) -> Option<u32> {
        let (mut low, mut high) = (passes, lost);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.ask_port(to, middle) == Fate::Answered {
                low = middle;
            } else {
                high = middle;
            }
        }
        let mut comes_back = |size| self.ask_port(to, size) == Fate::Answered;
        let holds = comes_back(passes) && comes_back(low) && !comes_back(high) && comes_back(low);
        holds.then_some(low)
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
            assert_eq!(asker.largest(here, SMALL, 9000), None, "all come back, whatever was lost before");
        }
        stop.store(true, Ordering::Relaxed);
        let _ = thread.join().expect("no panic");
    }

    /// What a peer finds of which packets, by their size and the count of those before, come back.
    fn search(comes_back: impl Fn(u32, u32) -> bool + Send + 'static) -> Option<u32> {
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let at = peer.local_addr().expect("bound");
        peer.set_read_timeout(Some(Duration::from_secs(10))).expect("a duration");
        std::thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            for before in 0.. {
                let Ok((length, from)) = peer.recv_from(&mut bytes) else { return };
                bytes[..ANSWER.len()].copy_from_slice(&ANSWER);
                if comes_back(length as u32 + headers(Family::V4), before) {
                    let _ = peer.send_to(&bytes[..length], from);
                }
            }
        });
        let mut asker = Asker::new(Family::V4).expect("a socket");
        assert_eq!(asker.ask_port(at, SMALL), Fate::Answered);
        asker.largest_port(at, SMALL, SMALL + 4)
    }

    #[test]
    fn a_search_finds_nothing_of_who_falls_silent() {
        assert_eq!(search(|size, _| size <= SMALL + 1), Some(SMALL + 1));
        assert_eq!(search(|size, _| size <= SMALL), Some(SMALL));
        assert_eq!(search(|_, before| before == 0), None, "silent from then on");
        let tries = u32::try_from(TRIES).expect("few");
        assert_eq!(search(move |_, before| before == 0 || before > 2 * tries), None, "silent during the search");
    }
}
