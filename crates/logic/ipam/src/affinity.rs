//! How a block gets an owner and loses it.
//!
//! | affinity          | block        | claim                                       | give up                          |
//! |-------------------|--------------|---------------------------------------------|----------------------------------|
//! | absent            | absent       | affinity pending, create block              | done                             |
//! | absent            | the owner's  | affinity pending, touch block               | affinity pendingDeletion, block  |
//! | any               | another's    | delete affinity, taken                      | delete affinity                  |
//! | any               | absent       | affinity pending, create block              | delete affinity                  |
//! | pending, deletion | the owner's  | affinity pending, touch block; then confirm | affinity pendingDeletion, block  |
//! | confirmed         | the owner's  | done                                        | affinity pendingDeletion, block  |
//!
//! Invariant: an affinity is confirmed only by who wrote it pending and then wrote the block, with no write between; a
//! block loses its owner only after its affinity was written, after the block was read.

use ipnet::IpNet;
use tortie_api::ipam::{Affinity, AffinityState, Block};
use tortie_facts::{Key, Revision};

use crate::Owner;
use crate::block::{self, Now};
use crate::books::touch;
use crate::machine::{Ask, CasWrite, Outcome, Pause};
use crate::view::{Held, View, delete_block, put_affinity, put_block};

fn state(state: AffinityState) -> Option<Affinity> {
    Some(Affinity { state, ..Affinity::default() })
}

/// The claim of an operation that is under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claiming {
    trying: Option<(Key, Key)>,
    proof: Option<(Key, Revision)>,
}

/// What came of a claim.
pub(crate) enum Claim {
    /// The block is the owner's. If `confirm` is there it has to be written before, or with, the first use.
    Mine { block: Held<Block>, confirm: Option<CasWrite> },
    /// The block is somebody else's, or can't be used.
    Taken,
}

impl Claiming {
    /// Goes on with the claim of a block until it is the owner's or taken.
    pub(crate) fn claim(&mut self, view: &View, owner: &Owner, cidr: IpNet, now: Now) -> Result<Claim, Pause> {
        if view.broken(cidr) {
            return Ok(Claim::Taken);
        }
        let key = owner.affinity_key(cidr);
        let affinity = view.affinity(&key)?;
        let found = view.block(cidr)?;
        let pending = || put_affinity(&key, affinity.as_ref(), state(AffinityState::Pending));
        let second = match &found {
            Some(held) if block::owner(&held.value).as_ref() != Some(owner) => {
                let Some(affinity) = &affinity else { return Ok(Claim::Taken) };
                return Err(Pause::Ask(Ask::Write(vec![put_affinity(&key, Some(affinity), None)])));
            }
            None => put_block(cidr, None, block::new(cidr, Some(owner), now)),
            Some(held) => {
                let confirm = match &affinity {
                    Some(affinity) if affinity.value.state == AffinityState::Confirmed => Some(None),
                    Some(affinity) if self.proves(&key.clone().into_key(), affinity.revision) => {
                        Some(Some(put_affinity(&key, Some(affinity), state(AffinityState::Confirmed))))
                    }
                    Some(_) | None => None,
                };
                if let Some(confirm) = confirm {
                    return Ok(Claim::Mine { block: held.clone(), confirm });
                }
                touch(cidr, held)
            }
        };
        self.trying = Some((key.clone().into_key(), Key::Block(cidr)));
        Err(Pause::Ask(Ask::Write(vec![pending(), second])))
    }

    fn proves(&self, key: &Key, revision: Revision) -> bool {
        self.proof.as_ref().is_some_and(|(proven, at)| proven == key && *at == revision)
    }

    /// Told of every write of the operation.
    pub(crate) fn wrote(&mut self, writes: &[CasWrite], outcomes: &[Outcome]) {
        let Some((affinity, block)) = self.trying.take() else { return };
        if let ([first, second], [Outcome::Done(revision), Outcome::Done(_)]) = (writes, outcomes)
            && first.key == affinity
            && second.key == block
        {
            self.proof = Some((affinity, *revision));
        }
    }
}

trait IntoKey {
    fn into_key(self) -> Key;
}

impl IntoKey for tortie_facts::AffinityKey {
    fn into_key(self) -> Key {
        Key::Affinity(self)
    }
}

/// What came of giving a block up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GivenUp {
    /// The owner has neither affinity nor block.
    Done,
    /// It keeps both, since addresses are in use.
    NotEmpty { used: usize },
}

/// Goes on with taking a block from its owner until that is done.
pub(crate) fn give_up(
    view: &View,
    owner: &Owner,
    cidr: IpNet,
    must_be_empty: bool,
    settings: (Now, i64),
) -> Result<GivenUp, Pause> {
    let key = owner.affinity_key(cidr);
    let affinity = view.affinity(&key)?;
    let mine = if view.broken(cidr) {
        None
    } else {
        view.block(cidr)?.filter(|held| block::owner(&held.value).as_ref() == Some(owner))
    };
    let Some(held) = mine else {
        let Some(affinity) = affinity else { return Ok(GivenUp::Done) };
        return Err(Pause::Ask(Ask::Write(vec![put_affinity(&key, Some(&affinity), None)])));
    };
    let mut left = Block::clone(&held.value);
    block::thaw(&mut left, settings.0, settings.1);
    let empty = block::is_empty(&left);
    if must_be_empty && !empty {
        return Ok(GivenUp::NotEmpty { used: left.allocations.iter().flatten().count() });
    }
    let second = if empty {
        delete_block(cidr, &held)
    } else {
        block::disown(&mut left);
        put_block(cidr, Some(&held), left)
    };
    let deleting = put_affinity(&key, affinity.as_ref(), state(AffinityState::PendingDeletion));
    Err(Pause::Ask(Ask::Write(vec![deleting, second])))
}
