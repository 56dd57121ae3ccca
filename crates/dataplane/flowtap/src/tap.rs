//! The socket that listens to NFLOG groups.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tortie_nfnetlink::{ERROR, messages};

use crate::error::Error;
use crate::nflog::{self, Told};
use crate::socket::Socket;

/// Room for what the kernel told and nobody has read yet, bytes.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long the kernel may take to answer a request; it does so at once.
const PATIENCE: Duration = Duration::from_secs(1);
/// At most so many datagrams are read in one call.
const MOST_DATAGRAMS: usize = 256;

/// Listens to groups in the network namespace of the thread that opened it. The groups are free again when it is
/// dropped.
#[derive(Debug)]
pub struct Tap {
    socket: Socket,
    /// The next number of each group.
    expected: BTreeMap<u16, u32>,
}

/// What was heard.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Packets in order.
    pub packets: Vec<Told>,
    /// How many packets the kernel could not hand over.
    pub lost: u64,
}

impl Tap {
    /// Becomes the listener of these groups.
    pub fn open(groups: &[u16]) -> Result<Tap, Error> {
        let socket = Socket::open(RECEIVE_BUFFER).map_err(Error::Unsupported)??;
        let mut tap = Tap { socket, expected: BTreeMap::new() };
        for (seq, group) in (1u32..).step_by(2).zip(groups.iter().copied()) {
            tap.ask(group, seq, &nflog::bind(group, seq)).map_err(|error| match error {
                Error::Unavailable(Errno::EBUSY) => Error::Taken(group),
                Error::Unavailable(errno @ (Errno::EINVAL | Errno::EOPNOTSUPP)) => Error::Unsupported(errno),
                other => other,
            })?;
            tap.ask(group, seq + 1, &nflog::configure(group, seq + 1))?;
        }
        Ok(tap)
    }

    fn ask(&mut self, group: u16, seq: u32, request: &[u8]) -> Result<(), Error> {
        self.socket.send(request)?;
        let until = Instant::now() + PATIENCE;
        while self.socket.readable(until.saturating_duration_since(Instant::now()))? {
            let datagram = match self.socket.receive() {
                Ok(datagram) => datagram,
                Err(Errno::EINTR | Errno::EAGAIN) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let answer = messages(datagram).find(|message| message.kind == ERROR && message.seq == seq);
            match answer.and_then(|message| message.errno()) {
                Some(0) => return Ok(()),
                Some(errno) => return Err(Errno::from_raw(errno).into()),
                // A packet of a group that is listened to already; it is counted as lost by its number.
                None => {}
            }
        }
        Err(Error::Silent(group))
    }

    /// Waits for packets, at most this long, and returns what there is.
    pub fn listen(&mut self, patience: Duration) -> Result<Heard, Error> {
        let mut heard = Heard::default();
        if !self.socket.readable(patience)? {
            return Ok(heard);
        }
        for _ in 0..MOST_DATAGRAMS {
            match self.socket.receive() {
                Ok(datagram) => heard.packets.extend(nflog::parse(datagram)),
                Err(Errno::EAGAIN) => break,
                // What did not fit shows as a gap in the numbers.
                Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        for told in &heard.packets {
            heard.lost += gap(&mut self.expected, told.group, told.sequence);
        }
        Ok(heard)
    }
}

/// How many numbers of a group were left out before this one.
fn gap(expected: &mut BTreeMap<u16, u32>, group: u16, sequence: Option<u32>) -> u64 {
    let Some(sequence) = sequence else { return 0 };
    let next = expected.entry(group).or_insert(0);
    let missing = sequence.wrapping_sub(*next);
    *next = sequence.wrapping_add(1);
    u64::from(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_in_the_numbers_are_what_was_lost() {
        let mut expected = BTreeMap::new();
        let mut lost = |group, sequence| gap(&mut expected, group, Some(sequence));
        assert_eq!([lost(1, 0), lost(2, 0), lost(1, 1), lost(1, 5), lost(2, 1)], [0, 0, 0, 3, 0]);
        assert_eq!([lost(1, u32::MAX), lost(1, 0)], [u64::from(u32::MAX - 6), 0]);
        assert_eq!(gap(&mut expected, 9, None), 0);
    }
}
