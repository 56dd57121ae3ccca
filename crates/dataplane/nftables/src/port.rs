//! nf_tables as the packet filter of a node.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use tortie_dataplane::{Cause, ForeignChange, PolicyBackend, PolicyReport};
use tortie_desired::{Batch, Tables};
use tortie_ruleset::Name;

use crate::backend::{CommitReport, Nftables, RepairReport};
use crate::error::Error;
use crate::transaction::Written;

impl PolicyBackend for Nftables {
    fn name(&self) -> &'static str {
        "nftables"
    }

    fn commit(&mut self, tables: &Tables, batch: &Batch) -> Result<PolicyReport, Cause> {
        let CommitReport { written, resynced: _, unsupported } = Nftables::commit(self, tables, batch)?;
        Ok(PolicyReport { wrote: written != Written::default(), unsupported, ..PolicyReport::default() })
    }

    fn resync(&mut self, tables: &Tables) -> Result<PolicyReport, Cause> {
        let report = Nftables::resync(self, tables)?;
        let RepairReport { written, repaired, foreign, replaced, owned: _, unsupported } = report;
        let names = |names: Vec<Name>| names.iter().map(ToString::to_string).collect();
        Ok(PolicyReport {
            wrote: written != Written::default(),
            repaired: names(repaired),
            foreign: names(foreign),
            replaced,
            unsupported,
        })
    }

    fn remove_all(&mut self) -> Result<(), Cause> {
        Ok(Nftables::remove_all(self)?)
    }

    fn is_owned(&self) -> bool {
        Nftables::is_owned(self)
    }

    fn monitor_fd(&self) -> Option<BorrowedFd<'_>> {
        Nftables::monitor_fd(self)
    }

    fn drain_events(&mut self) -> Vec<ForeignChange> {
        Nftables::drain_events(self)
    }
}

impl From<Error> for Cause {
    fn from(error: Error) -> Cause {
        let text = error.to_string();
        match error {
            // The kernel knows no such expression or chain type.
            Error::Refused { object: _, errno: Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT, detail: _ } => {
                Cause::Unsupported(text)
            }
            Error::Owned { table: _, port: _ } => Cause::Conflict(text),
            Error::Refused { object: _, errno: _, detail: _ } | Error::Unavailable(_) | Error::Unsettled => {
                Cause::Failed(text)
            }
        }
    }
}
