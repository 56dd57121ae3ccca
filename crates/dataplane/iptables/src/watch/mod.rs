//! Changes of our rules by others, found soon: nf_tables tells of them; for the kernel's own tables a small number is
//! looked at every second, and the table when it changed.

mod legacy;
mod nft;

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use tortie_dataplane::ForeignChange;
use tortie_net::Family;

use crate::content::{Content, Flavour, Table};

/// See the module.
#[derive(Debug)]
pub(crate) enum Watch {
    Nft(nft::Listener),
    Legacy(legacy::Lookout),
}

impl Watch {
    /// Watches from now on; `None` if the kernel does not let us.
    pub(crate) fn open(flavour: Flavour) -> Option<Watch> {
        let opened = match flavour {
            Flavour::Nft => nft::Listener::open().map(Watch::Nft),
            Flavour::Legacy => legacy::Lookout::open().map(Watch::Legacy),
        };
        opened
            .inspect_err(
                |errno| tracing::warn!(%errno, "changes of rules by others are only found by reading all back"),
            )
            .ok()
    }

    /// Becomes readable when rules change.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Watch::Nft(listener) => Some(listener.fd()),
            Watch::Legacy(_) => None,
        }
    }

    /// What the tables hold of ours from now on. To be called right after they changed so.
    pub(crate) fn expect(&mut self, contents: &BTreeMap<(Family, Table), Content>) {
        match self {
            Watch::Nft(listener) => listener.forget_own(),
            Watch::Legacy(lookout) => lookout.expect(contents),
        }
    }

    /// Changes by others since the last call.
    pub(crate) fn drain(&mut self) -> Vec<ForeignChange> {
        match self {
            Watch::Nft(listener) => listener.drain(),
            Watch::Legacy(lookout) => lookout.look(),
        }
    }
}
