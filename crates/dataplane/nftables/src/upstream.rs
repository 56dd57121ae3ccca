//! Upstream's own tables, for a node that takes over from it, and whether any policy stands in nf_tables.

use crate::backend::TABLE;
use crate::error::Error;
use crate::observe::tables;
use crate::socket::{Socket, unavailable};
use crate::transaction::Transaction;
use crate::uapi::INET;

const IPV4: u8 = 2;
const ARP: u8 = 3;
const IPV6: u8 = 10;

/// The tables of upstream's nftables mode.
const UPSTREAM: [(u8, &str); 3] = [(IPV4, "calico"), (IPV6, "calico"), (ARP, "calico-arp")];

fn found(socket: &mut Socket, wanted: &[(u8, &'static str)]) -> Result<Vec<(u8, &'static str)>, Error> {
    let there = tables(socket)?;
    Ok(wanted.iter().filter(|(family, name)| there.iter().any(|(f, n)| f == family && n == name)).copied().collect())
}

/// Whether nf_tables of the calling thread's network namespace holds policy: ours, or upstream's.
pub fn holds_policy() -> Result<bool, Error> {
    let mut socket = Socket::open(false).map_err(unavailable)?;
    let wanted = [&UPSTREAM[..], &[(INET, TABLE)]].concat();
    Ok(!found(&mut socket, &wanted)?.is_empty())
}

/// Removes what upstream's nftables mode left behind, in one transaction; how many tables.
pub fn remove_upstream() -> Result<usize, Error> {
    let mut socket = Socket::open(false).map_err(unavailable)?;
    let there = found(&mut socket, &UPSTREAM)?;
    let mut transaction = Transaction::new("", None);
    there.iter().for_each(|(family, name)| transaction.delete_other_table(*family, name));
    transaction.commit(&mut socket)?;
    Ok(there.len())
}
