//! What nf_tables tells of changes in the tables of iptables-nft.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};
use tortie_dataplane::ForeignChange;
use tortie_nfnetlink::{Message, messages};

use crate::content::{Table, builtins};
use crate::programs::is_own;
use crate::save::is_ours;

/// `linux/netfilter/nf_tables.h`: message types.
mod msg {
    const SUBSYSTEM: u16 = 10 << 8;
    pub(super) const DEL_TABLE: u16 = SUBSYSTEM | 2;
    pub(super) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
    pub(super) const DEL_CHAIN: u16 = SUBSYSTEM | 5;
    pub(super) const NEW_RULE: u16 = SUBSYSTEM | 6;
    pub(super) const DEL_RULE: u16 = SUBSYSTEM | 8;
    pub(super) const NEW_GENERATION: u16 = SUBSYSTEM | 15;
    /// The multicast group that hears of every change.
    pub(super) const GROUP: u32 = 7;
}

/// Attributes.
mod attribute {
    /// Of every kind of object.
    pub(super) const TABLE: u16 = 1;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const PROCESS_ID: u16 = 2;
    pub(super) const PROCESS_NAME: u16 = 3;
}

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const FAMILIES: [u8; 2] = [2, 10];
const RECEIVE_BUFFER: usize = 8 << 20;

/// A socket that hears of every change, and what it heard of the transaction that is being told of.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    buffer: Vec<u8>,
    gatherer: Gatherer,
    /// Changes by others that were heard of beside our own.
    heard: Vec<ForeignChange>,
    /// Whether the kernel's numbers of processes are those that this process sees.
    knows_processes: bool,
}

/// The first PID namespace, in whose numbers the kernel tells of processes (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";
/// The names of the programs that change our rules, as the kernel cuts them.
const OWN_PROGRAMS: [&str; 2] = ["iptables-nft-re", "ip6tables-nft-r"];

impl Listener {
    pub(super) fn open() -> Result<Listener, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        // Without the privilege the plain buffer has to do: what does not fit counts as a change.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1 << (msg::GROUP - 1)))?;
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let knows_processes = namespace.as_os_str() == FIRST_NAMESPACE;
        let (buffer, gatherer) = (vec![0; 64 << 10], Gatherer::default());
        Ok(Listener { fd, buffer, gatherer, heard: Vec::new(), knows_processes })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What just changed was us. In a container the kernel's numbers of processes say nothing, so there a change counts as
    /// ours by the name of its program.
    pub(super) fn forget_own(&mut self) {
        let mut changes = self.drain();
        if !self.knows_processes {
            changes.retain(|change| !by_our_program(change));
        }
        self.heard = changes;
    }

    /// Reads everything that waits. What the kernel could not tell counts as a change by nobody known.
    pub(super) fn drain(&mut self) -> Vec<ForeignChange> {
        let mut changes = std::mem::take(&mut self.heard);
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => {
                    let (gatherer, known) = (&mut self.gatherer, self.knows_processes);
                    let own = |id| known && is_own(id);
                    changes.extend(messages(&self.buffer[..len]).filter_map(|message| gatherer.take(&message, own)));
                }
                Err(Errno::EAGAIN) => return changes,
                Err(Errno::EINTR) => {}
                Err(_) => {
                    self.gatherer = Gatherer::default();
                    let lost = ForeignChange { process_id: None, process_name: None, objects: 0, table_removed: false };
                    if changes.last() == Some(&lost) {
                        return changes;
                    }
                    changes.push(lost);
                }
            }
        }
    }
}

fn by_our_program(change: &ForeignChange) -> bool {
    change.process_name.as_deref().is_some_and(|name| OWN_PROGRAMS.contains(&name))
}

/// Gathers messages into transactions.
#[derive(Debug, Default)]
struct Gatherer {
    objects: usize,
    table_removed: bool,
}

impl Gatherer {
    /// Takes one message in. A transaction ends with its new generation; then a change comes out if it touched chains of
    /// ours, or one of the kernel's that enters ours, and another process made it.
    fn take(&mut self, message: &Message<'_>, is_own: impl Fn(u32) -> bool) -> Option<ForeignChange> {
        let attributes = message.attributes();
        if message.kind == msg::NEW_GENERATION {
            let Gatherer { objects, table_removed } = std::mem::take(self);
            let process_id = attributes.be32(attribute::PROCESS_ID);
            let foreign = objects > 0 && !process_id.is_some_and(is_own);
            return foreign.then(|| ForeignChange {
                process_id,
                process_name: attributes.text(attribute::PROCESS_NAME).map(str::to_owned),
                objects,
                table_removed,
            });
        }
        let ours = message.family().is_some_and(|family| FAMILIES.contains(&family));
        let table = attributes.text(attribute::TABLE)?;
        if !ours || !Table::ALL.into_iter().any(|known| known.word() == table) {
            return None;
        }
        let chain = match message.kind {
            msg::NEW_CHAIN | msg::DEL_CHAIN => attributes.text(attribute::CHAIN_NAME),
            msg::NEW_RULE | msg::DEL_RULE => attributes.text(attribute::RULE_CHAIN),
            _ => None,
        };
        self.table_removed |= message.kind == msg::DEL_TABLE;
        let concerns = chain.is_some_and(|chain| is_ours(chain) || builtins().any(|builtin| builtin == chain));
        self.objects += usize::from(concerns || message.kind == msg::DEL_TABLE);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tortie_net::Family;
    use tortie_nfnetlink::Head;

    use crate::content::Flavour;

    fn told(kind: u16, family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        tortie_nfnetlink::message(Head { kind, flags: 0, seq: 0, family, resource: 0 }, attributes)
    }

    fn changes(bytes: &[u8]) -> Vec<ForeignChange> {
        let mut gatherer = Gatherer::default();
        messages(bytes).filter_map(|message| gatherer.take(&message, |id| id == 7)).collect()
    }

    #[test]
    fn others_count_when_they_touch_what_is_ours() {
        let rule = |family, table: &[u8], chain: &[u8]| told(msg::DEL_RULE, family, &[(1, table), (2, chain)]);
        let end = |process: u32| told(msg::NEW_GENERATION, 0, &[(2, &process.to_be_bytes()), (3, b"iptables\0")]);
        let ours = rule(2, b"filter\0", b"cali-FORWARD\0");
        let found = changes(&[ours.clone(), end(9)].concat());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].process_id, found[0].objects, found[0].table_removed), (Some(9), 1, false));
        assert!(changes(&[ours, end(7)].concat()).is_empty(), "our own program");
        for others in [
            rule(2, b"filter\0", b"KUBE-FORWARD\0"),
            rule(1, b"filter\0", b"cali-FORWARD\0"),
            rule(2, b"calico\0", b"cali-FORWARD\0"),
        ] {
            assert!(changes(&[others, end(9)].concat()).is_empty());
        }
        for touched in [rule(10, b"raw\0", b"PREROUTING\0"), told(msg::DEL_TABLE, 2, &[(1, b"nat\0")])] {
            assert_eq!(changes(&[touched, end(9)].concat()).len(), 1);
        }
    }

    #[test]
    fn in_a_container_our_programs_are_known_by_their_names() {
        let by = |name: &str| ForeignChange {
            process_id: Some(9),
            process_name: Some(name.to_owned()),
            objects: 1,
            table_removed: false,
        };
        for family in Family::ALL {
            let program = Flavour::Nft.program(family, "restore");
            assert!(by_our_program(&by(&program[..15])), "{program}");
        }
        assert!(!by_our_program(&by("iptables-restor")) && !by_our_program(&by("nft")));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = changes(&bytes);
        }
    }
}
