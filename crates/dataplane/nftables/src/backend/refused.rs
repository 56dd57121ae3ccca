//! Going on without what the kernel refuses: the policy whose rule it is denies everything and is named, the rest is in
//! force.

use std::collections::BTreeMap;

use nix::errno::Errno;
use tortie_desired::{Batch, Tables};
use tortie_ruleset::{CauseOwner, owner_of};

use super::{MAX_NAME_LEN, Nftables};
use crate::error::{Error, Object};

/// Policies and profiles that are left out, each after another try, before a refusal is final.
const MOST_REFUSED: usize = 16;

/// What may go well another time is no reason to close a policy.
const PASSING: [Errno; 7] =
    [Errno::ENOMEM, Errno::ENOBUFS, Errno::EINTR, Errno::EAGAIN, Errno::EPERM, Errno::ERESTART, Errno::EBUSY];

impl Nftables {
    /// Finds out whose rule an error is about; whether it is one to go on without.
    pub(super) fn leave_out(&mut self, tables: &Tables, error: &Error) -> bool {
        let Error::Refused { object: Object::Rule(chain, _), errno, detail: _ } = error else { return false };
        if PASSING.contains(errno) || self.refused.len() >= MOST_REFUSED {
            return false;
        }
        let Some((owner, _)) = owner_of(tables, chain, MAX_NAME_LEN) else { return false };
        tracing::warn!(%owner, %error, "this is refused: it denies everything, the rest goes on");
        self.refused.insert(owner, error.to_string()).is_none()
    }

    /// Whether a batch changes something that was refused, so that it may be taken now.
    pub(super) fn changes_refused(&self, batch: &Batch) -> bool {
        let changed = |owner: &CauseOwner| match owner {
            CauseOwner::Policy(id) => batch.policies.contains_key(id),
            CauseOwner::Profile(name) => batch.profiles.contains_key(name),
        };
        self.refused.keys().any(|owner| changed(owner) || batch.settings.is_some())
    }

    /// What was refused, by its name, and why.
    pub(super) fn unsupported(&self) -> BTreeMap<String, String> {
        self.refused.iter().map(|(owner, why)| (owner.to_string(), why.clone())).collect()
    }
}
