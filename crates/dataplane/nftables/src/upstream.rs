//! Tables of others: upstream's own, for a node that takes over from it, and those of iptables' nft flavour, which it
//! leaves when the last rule is gone. And whether any policy stands in nf_tables.

use nix::errno::Errno;
use tortie_net::Family;

use crate::backend::TABLE;
use crate::error::Error;
use crate::observe::{chains, tables};
use crate::socket::{Socket, unavailable};
use crate::transaction::Transaction;
use crate::uapi::INET;

const IPV4: u8 = 2;
const ARP: u8 = 3;
const IPV6: u8 = 10;

/// The tables of upstream's nftables mode.
const UPSTREAM: [(u8, &str); 3] = [(IPV4, "calico"), (IPV6, "calico"), (ARP, "calico-arp")];

/// Chains that iptables makes with a table.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

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

/// Removes a table of iptables' nft flavour if nothing is in it but chains of its own without rules; whether it did. The
/// kernel judges that as it removes it, so what others put there meanwhile stays.
pub fn remove_empty(family: Family, table: &str) -> Result<bool, Error> {
    let number = match family {
        Family::V4 => IPV4,
        Family::V6 => IPV6,
    };
    let mut socket = Socket::open(false).map_err(unavailable)?;
    if !tables(&mut socket)?.iter().any(|(family, name)| *family == number && name == table) {
        return Ok(false);
    }
    let chains = chains(&mut socket, number, table)?;
    // iptables writes the names of its own in capitals; chains of users are not removed.
    if !chains.iter().all(|chain| BUILT_IN.contains(&&**chain)) {
        return Ok(false);
    }
    let mut transaction = Transaction::new("", None);
    transaction.delete_empty_table(number, table, &chains);
    match transaction.commit(&mut socket) {
        Ok(_) => Ok(true),
        Err(Error::Refused { errno: Errno::EBUSY | Errno::ENOENT, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
