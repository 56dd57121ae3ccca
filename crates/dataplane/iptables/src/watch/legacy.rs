//! Looking at the kernel's own tables without a program: one system call a table says how large it is, another one reads
//! it (`linux/netfilter_ipv4/ip_tables.h`). Our rules are known there by the hashes in their comments.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use tortie_dataplane::ForeignChange;
use tortie_net::Family;

use crate::content::{COMMENT, Content, HASH_LEN, Table, all_hashes};

/// How often the sizes are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Each look that finds a change after the last one did is so many times later, so that what can't be mended is not
/// read all the time.
const MOST_DOUBLINGS: u32 = 6;

/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`; those of IPv6 are the same.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// `struct ipt_getinfo`: the name, hooks, their entries and policies, how many entries, and their size.
const INFO_LEN: usize = 32 + 4 + 20 + 20 + 4 + 4;
/// `struct ipt_get_entries`: the name, the size, and padding before the entries.
const HEAD_LEN: usize = 40;
const NAME_LEN: usize = 32;
/// `struct xt_entry_match` before a comment: the match's name, and its revision.
const MATCH: &[u8] = b"comment\0";
const MATCH_LEN: usize = 30;

type Info = [u8; INFO_LEN];

/// See the module.
#[derive(Debug)]
pub(crate) struct Lookout {
    sockets: BTreeMap<Family, OwnedFd>,
    /// The sum of our rules that each table should hold, of those that hold any.
    expected: BTreeMap<(Family, Table), u128>,
    /// What the kernel said of tables that were as they should be.
    good: BTreeMap<(Family, Table), Info>,
    next: Option<Instant>,
    doubts: u32,
}

impl Lookout {
    pub(super) fn open() -> Result<Lookout, Errno> {
        let mut sockets = BTreeMap::from([(Family::V4, raw_socket(libc::AF_INET)?)]);
        // Without IPv6 there is nothing to look at.
        sockets.extend(raw_socket(libc::AF_INET6).ok().map(|fd| (Family::V6, fd)));
        Ok(Lookout { sockets, expected: BTreeMap::new(), good: BTreeMap::new(), next: None, doubts: 0 })
    }

    pub(super) fn expect(&mut self, contents: &BTreeMap<(Family, Table), Content>) {
        let sums = contents.iter().map(|(place, content)| {
            (*place, all_hashes(content).fold(0, |sum: u128, hash| sum.wrapping_add(number(hash.as_bytes()))))
        });
        self.expected = sums.filter(|(_, sum)| *sum != 0).collect();
        self.good.clear();
    }

    pub(super) fn look(&mut self) -> Vec<ForeignChange> {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) {
            return vec![];
        }
        let changed = self.expected.iter().filter(|((family, table), sum)| {
            let Some(fd) = self.sockets.get(family) else { return false };
            is_changed(fd, (*family, *table), **sum, &mut self.good)
        });
        let objects = changed.count();
        self.doubts = if objects == 0 { 0 } else { (self.doubts + 1).min(MOST_DOUBLINGS) };
        self.next = Some(now + EVERY * (1 << self.doubts.saturating_sub(1)));
        if objects == 0 {
            return vec![];
        }
        vec![ForeignChange { process_id: None, process_name: None, objects, table_removed: false }]
    }
}

/// Whether our rules in a table are others than they should be. What can't be read now is looked at the next time.
fn is_changed(
    fd: &OwnedFd,
    place: (Family, Table),
    expected: u128,
    good: &mut BTreeMap<(Family, Table), Info>,
) -> bool {
    let mut info: Info = [0; INFO_LEN];
    if ask(fd, place, GET_INFO, &mut info).is_err() || good.get(&place) == Some(&info) {
        return false;
    }
    let size: [u8; 4] = info[INFO_LEN - 4..].try_into().expect("four bytes");
    let mut entries = vec![0; HEAD_LEN + u32::from_ne_bytes(size) as usize];
    entries[NAME_LEN..NAME_LEN + 4].copy_from_slice(&size);
    if ask(fd, place, GET_ENTRIES, &mut entries).is_err() {
        return false;
    }
    let same = sum(&entries) == expected;
    if same {
        good.insert(place, info);
    }
    !same
}

/// The sum of the hashes in all comments of ours, in any order.
fn sum(entries: &[u8]) -> u128 {
    let comment = COMMENT.as_bytes();
    let starts = entries.windows(comment.len()).enumerate().filter(|(_, window)| *window == comment);
    let hashes = starts.filter_map(|(at, _)| {
        let before = entries.get(at.checked_sub(MATCH_LEN)?..at)?;
        let hash = entries.get(at + comment.len()..at + comment.len() + HASH_LEN)?;
        before.starts_with(MATCH).then(|| number(hash))
    });
    hashes.fold(0, u128::wrapping_add)
}

fn number(hash: &[u8]) -> u128 {
    hash.try_into().map(u128::from_be_bytes).unwrap_or_default()
}

fn raw_socket(family: libc::c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes numbers alone.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    // SAFETY: the descriptor was just opened and nobody else has it.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks about a table; the name goes to the start of the buffer, which the answer fills.
fn ask(fd: &OwnedFd, (family, table): (Family, Table), what: libc::c_int, buffer: &mut [u8]) -> Result<(), Errno> {
    let level = match family {
        Family::V4 => libc::IPPROTO_IP,
        Family::V6 => libc::IPPROTO_IPV6,
    };
    let name = table.word().as_bytes();
    buffer[..name.len()].copy_from_slice(name);
    let mut len = libc::socklen_t::try_from(buffer.len()).map_err(|_| Errno::E2BIG)?;
    // SAFETY: the pointer and length describe the live buffer, the kernel writes no more than that, and the descriptor
    // is open.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, what, buffer.as_mut_ptr().cast(), &raw mut len) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 7];
        let mut name = [0; MATCH_LEN];
        name[..MATCH.len()].copy_from_slice(MATCH);
        bytes.extend_from_slice(&name);
        bytes.extend_from_slice(text);
        bytes.push(0);
        bytes
    }

    #[test]
    fn our_comments_count_in_any_order_and_nothing_else() {
        let (a, b) = (entry(b"cali:0123456789abcdef"), entry(b"cali:fedcba9876543210"));
        let both = sum(&[a.clone(), b.clone()].concat());
        assert_eq!(both, sum(&[b.clone(), entry(b"another's"), a.clone()].concat()));
        assert_ne!(both, sum(&a));
        assert_ne!(both, sum(&[a.clone(), b, a].concat()));
        assert_eq!(sum(b"a log's prefix, which is no comment: cali:0123456789abcdef"), 0);
        assert_eq!(sum(&entry(b"cali:")), 0);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), at in 0usize..100) {
            sum(&bytes);
            let mut ours = entry(b"cali:0123456789abcdef");
            ours.truncate(at);
            sum(&[bytes, ours].concat());
        }
    }
}
