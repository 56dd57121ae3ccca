//! What can go wrong, named by what the caller can do.

use std::fmt;
use std::io;

use tortie_ruleset::Name;

/// An object in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// The transaction as a whole: its frame, or the commit.
    Transaction,
    /// Our table.
    Table,
    /// A chain.
    Chain(Name),
    /// A rule, by its chain and its place in it, counted from 0.
    Rule(Name, usize),
    /// A set or map.
    Set(Name),
    /// Elements of a set or map.
    Elements(Name),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Transaction => f.write_str("the transaction"),
            Object::Table => f.write_str("the table"),
            Object::Chain(name) => write!(f, "chain {name:?}"),
            Object::Rule(chain, index) => write!(f, "rule {index} of chain {chain:?}"),
            Object::Set(name) => write!(f, "set {name:?}"),
            Object::Elements(name) => write!(f, "elements of set {name:?}"),
        }
    }
}

/// Why the rules could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a transaction; nothing of it was done. The same input will be refused again.
    #[error("the kernel refused {object}: {errno}{}", detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Refused {
        /// The first object that it refused.
        object: Object,
        /// Its reason.
        errno: nix::errno::Errno,
        /// Its own words, if it gave any.
        detail: Option<String>,
    },
    /// Another running process owns the table. Nothing was done; try again when that process is gone.
    #[error("table inet {table} belongs to a running process (netlink port {port}): is another node agent running?")]
    Owned {
        /// The table.
        table: String,
        /// The netlink port of its owner, mostly its process id.
        port: u32,
    },
    /// The kernel could not be asked (permission, memory, no nf_tables). Nothing was done; try again later.
    #[error("netlink to nf_tables: {0}")]
    Unavailable(#[from] io::Error),
    /// Rules kept changing while they were read. Nothing was done; try again.
    #[error("the rules changed again and again while they were read")]
    Unsettled,
}

impl From<nix::errno::Errno> for Error {
    fn from(errno: nix::errno::Errno) -> Error {
        Error::Unavailable(errno.into())
    }
}
