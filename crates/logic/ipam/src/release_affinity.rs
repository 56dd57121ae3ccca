//! Taking blocks from their owners: those of one range, of one owner, or all in a pool.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_facts::{AffinityKey, OwnerKind};

use crate::affinity::{GivenUp, give_up};
use crate::block::{self, Now};
use crate::machine::{CasWrite, Outcome, Pause, Plan};
use crate::settings::Settings;
use crate::view::View;
use crate::{IpamError, Owner};

/// Whose affinities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The owner's, for the blocks within a range. The range must lie in a pool and hold whole blocks.
    Range(Owner, IpNet),
    /// The owner's, for this block, whether a pool holds it or not.
    Block(Owner, IpNet),
    /// All of the owner's.
    Owner(Owner),
    /// Everybody's, for the blocks of a pool's range.
    Pool(IpNet),
}

/// The operation: release affinities. Returns the blocks that lost their owner.
///
/// An empty block is deleted; one with addresses in use stays without owner, or keeps it if all must be empty.
#[derive(Clone, Debug)]
pub struct ReleaseAffinities {
    scope: Scope,
    must_be_empty: bool,
    settings: Arc<Settings>,
    now: Now,
    todo: Option<BTreeSet<AffinityKey>>,
    released: Vec<IpNet>,
}

impl ReleaseAffinities {
    /// The operation.
    pub fn new(scope: Scope, must_be_empty: bool, settings: Arc<Settings>, now: Now) -> ReleaseAffinities {
        ReleaseAffinities { scope, must_be_empty, settings, now, todo: None, released: Vec::new() }
    }

    fn check_range(&self, cidr: IpNet) -> Result<(), IpamError> {
        let bad = |reason: String| Err(IpamError::BadRange { cidr, reason });
        match self.settings.pool_of(cidr.network()) {
            None => bad("it is not within a pool".to_owned()),
            Some(pool) if cidr.prefix_len() > pool.block_size => {
                bad(format!("it is smaller than a block of pool {} (/{})", pool.name, pool.block_size))
            }
            Some(_) => Ok(()),
        }
    }

    fn find(&self, view: &View) -> Result<BTreeSet<AffinityKey>, Pause> {
        let mut keys = BTreeSet::new();
        let mut owned = |owner: &Owner, within: Option<IpNet>| -> Result<(), Pause> {
            let inside = |cidr: &IpNet| within.is_none_or(|range| range.contains(cidr));
            keys.extend(view.affinities_of(owner)?.into_iter().filter(inside).map(|cidr| owner.affinity_key(cidr)));
            // A crash may have left blocks whose affinity is gone.
            let blocks = view.all_blocks()?.into_iter();
            let mine = blocks.filter(|(_, held)| block::owner(&held.value).as_ref() == Some(owner));
            keys.extend(mine.map(|(cidr, _)| cidr).filter(inside).map(|cidr| owner.affinity_key(cidr)));
            Ok(())
        };
        match &self.scope {
            Scope::Block(owner, cidr) => drop(keys.insert(owner.affinity_key(*cidr))),
            Scope::Owner(owner) => owned(owner, None)?,
            Scope::Range(owner, cidr) => {
                self.check_range(*cidr)?;
                owned(owner, Some(*cidr))?;
            }
            Scope::Pool(range) => {
                for kind in [OwnerKind::Host, OwnerKind::Virtual] {
                    keys.extend(view.all_affinities(kind)?.into_iter().map(|(key, _)| key));
                }
                for (cidr, held) in view.all_blocks()? {
                    keys.extend(block::owner(&held.value).map(|owner| owner.affinity_key(cidr)));
                }
                keys.retain(|key| range.contains(&key.cidr));
            }
        }
        Ok(keys)
    }
}

impl Plan for ReleaseAffinities {
    type Output = Vec<IpNet>;

    fn plan(&mut self, view: &mut View) -> Result<Vec<IpNet>, Pause> {
        view.only_fresh()?;
        if self.todo.is_none() {
            self.todo = Some(self.find(view)?);
        }
        while let Some(key) = self.todo.as_ref().and_then(|todo| todo.first()).cloned() {
            let owner = Owner { kind: key.kind, name: key.owner.clone() };
            let settings = (self.now, self.settings.config.ip_cooldown_seconds);
            match give_up(view, &owner, key.cidr, self.must_be_empty, settings)? {
                GivenUp::Done => self.released.push(key.cidr),
                GivenUp::NotEmpty { .. } => {}
            }
            self.todo.as_mut().expect("it was filled above").remove(&key);
        }
        Ok(self.released.clone())
    }

    fn wrote(&mut self, _writes: &[CasWrite], _outcomes: &[Outcome]) {}
}
