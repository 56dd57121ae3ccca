//! Repairing what crashes leave: raised handle counts, half-made and stale affinities, cold and empty blocks.
//!
//! Invariant: safe at any time beside any other operation; a running one at worst meets a conflict and goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::ipam::{AffinityState, Block};
use tortie_facts::{Key, OwnerKind};
use tortie_net::Family;

use crate::affinity::{Claim, Claiming, give_up};
use crate::block::{self, Now};
use crate::books::Books;
use crate::machine::{Ask, CasWrite, Outcome, Pause, Plan};
use crate::settings::Settings;
use crate::view::{View, delete_block, put_block};
use crate::{IpamError, Owner};

/// How long a block stays before it may be taken for unused: one minute.
const UNUSED_SECS: i64 = 60;

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blocks whose cooled addresses became free.
    pub thawed: usize,
    /// Blocks that were deleted.
    pub blocks: usize,
    /// Affinities that were deleted.
    pub affinities: usize,
    /// Handles that were corrected or deleted.
    pub handles: usize,
}

/// The operation: collect garbage. Addresses of owners that are gone are not its matter: find those with
/// [`crate::check`] and release them with their sequence numbers.
#[derive(Clone, Debug)]
pub struct Collect {
    settings: Arc<Settings>,
    now: Now,
    gone: BTreeSet<String>,
    spare: Option<usize>,
    done: Collected,
    books: Books,
    doubted: bool,
    left: BTreeSet<(Owner, IpNet)>,
    claiming: Claiming,
    restoring: Option<(Owner, IpNet)>,
    result: Option<Result<Collected, IpamError>>,
}

impl Collect {
    /// The operation. `gone`: nodes that are no more; their blocks lose their owner, with addresses in use or without.
    /// A node that is not named keeps what it has, so one that joins meanwhile loses nothing. `spare`: how many empty
    /// blocks a node keeps per family; `None`: all.
    pub fn new(settings: Arc<Settings>, now: Now, gone: BTreeSet<String>, spare: Option<usize>) -> Collect {
        Collect {
            settings,
            now,
            gone,
            spare,
            done: Collected::default(),
            books: Books::default(),
            doubted: false,
            left: BTreeSet::new(),
            claiming: Claiming::default(),
            restoring: None,
            result: None,
        }
    }

    fn cooldown(&self) -> i64 {
        self.settings.config.ip_cooldown_seconds
    }

    fn give_up(&mut self, view: &View, owner: Owner, cidr: IpNet, must_be_empty: bool) -> Result<(), Pause> {
        if self.left.contains(&(owner.clone(), cidr)) {
            return Ok(());
        }
        give_up(view, &owner, cidr, must_be_empty, (self.now, self.cooldown()))?;
        self.left.insert((owner, cidr));
        Ok(())
    }

    /// Blocks: end cooldowns, delete what is empty and nobody's.
    fn blocks(&mut self, view: &View) -> Result<(), Pause> {
        for (cidr, held) in view.all_blocks()? {
            let mut next = Block::clone(&held.value);
            let changed = block::thaw(&mut next, self.now, self.cooldown());
            if block::owner(&next).is_none() && block::is_empty(&next) {
                return Err(Pause::Ask(Ask::Write(vec![delete_block(cidr, &held)])));
            }
            if changed {
                return Err(Pause::Ask(Ask::Write(vec![put_block(cidr, Some(&held), next)])));
            }
        }
        Ok(())
    }

    /// Affinities: those without a block of theirs, of nodes that are gone, and half-deleted ones.
    fn affinities(&mut self, view: &View) -> Result<(), Pause> {
        for kind in [OwnerKind::Host, OwnerKind::Virtual] {
            for (key, held) in view.all_affinities(kind)? {
                let owner = Owner { kind, name: key.owner.clone() };
                let gone = kind == OwnerKind::Host && self.gone.contains(&key.owner);
                let mine = match view.broken(key.cidr) {
                    true => false,
                    false => view.block(key.cidr)?.and_then(|held| block::owner(&held.value)).as_ref() == Some(&owner),
                };
                let leaving = held.value.state == AffinityState::PendingDeletion;
                if gone || !mine || leaving {
                    self.give_up(view, owner, key.cidr, !gone)?;
                }
            }
        }
        for (cidr, held) in view.all_blocks()? {
            let Some(owner) = block::owner(&held.value) else { continue };
            let gone = owner.kind == OwnerKind::Host && self.gone.contains(&owner.name);
            let orphan = view.affinity(&owner.affinity_key(cidr))?.is_none();
            if gone || (orphan && block::is_empty(&held.value)) {
                self.give_up(view, owner, cidr, !gone)?;
            } else if orphan {
                self.restoring = Some((owner, cidr));
                self.restore(view)?;
            }
        }
        Ok(())
    }

    /// Goes on with giving an owner back the affinity that its block says it has.
    fn restore(&mut self, view: &View) -> Result<(), Pause> {
        let Some((owner, cidr)) = &self.restoring else { return Ok(()) };
        if let Claim::Mine { block: _, confirm: Some(confirm) } = self.claiming.claim(view, owner, *cidr, self.now)? {
            return Err(Pause::Ask(Ask::Write(vec![confirm])));
        }
        self.restoring = None;
        Ok(())
    }

    /// Empty blocks beyond those that each owner may keep.
    fn spares(&mut self, view: &View) -> Result<(), Pause> {
        let Some(spare) = self.spare else { return Ok(()) };
        let mut kept: BTreeMap<(Owner, Family), usize> = BTreeMap::new();
        for (cidr, held) in view.all_blocks()? {
            let Some(owner) = block::owner(&held.value) else { continue };
            let now = self.now.timestamp().unix_seconds();
            let fresh = held.value.affinity_claim_time.is_some_and(|at| now - at.unix_seconds() < UNUSED_SECS);
            if !block::is_empty(&held.value) || fresh || self.left.contains(&(owner.clone(), cidr)) {
                continue;
            }
            let kept = kept.entry((owner.clone(), Family::of_net(cidr))).or_default();
            *kept += 1;
            if *kept > spare {
                self.give_up(view, owner, cidr, true)?;
            }
        }
        Ok(())
    }

    /// Handles whose counts are not what the blocks hold.
    fn handles(&mut self, books: &mut Books, view: &View) -> Result<(), Pause> {
        if self.doubted {
            return Ok(());
        }
        let mut counts: BTreeMap<(String, IpNet), (u32, u32)> = BTreeMap::new();
        for (id, held) in view.all_handles()? {
            for (text, count) in &held.value.block {
                if let Ok(cidr) = text.parse() {
                    counts.entry((id.clone(), cidr)).or_default().0 = *count;
                }
            }
        }
        for (cidr, held) in view.all_blocks()? {
            for (id, count) in block::counts(&held.value) {
                counts.entry((id, cidr)).or_default().1 = count;
            }
        }
        for ((id, cidr), (recorded, held)) in counts {
            if recorded != held && !view.broken(cidr) {
                books.doubt(&id, cidr);
            }
        }
        self.doubted = true;
        Ok(())
    }

    fn body(&mut self, books: &mut Books, view: &mut View) -> Result<Collected, Pause> {
        view.only_fresh()?;
        self.restore(view)?;
        self.blocks(view)?;
        self.affinities(view)?;
        self.spares(view)?;
        self.handles(books, view)?;
        Ok(self.done.clone())
    }
}

impl Plan for Collect {
    type Output = Collected;

    fn plan(&mut self, view: &mut View) -> Result<Collected, Pause> {
        let mut books = std::mem::take(&mut self.books);
        let mut result = self.result.take();
        let done = books.finish(view, &mut result, |books, view| self.body(books, view));
        self.books = books;
        self.result = result;
        done.map(|_| self.done.clone())
    }

    fn wrote(&mut self, writes: &[CasWrite], outcomes: &[Outcome]) {
        self.books.wrote(writes, outcomes);
        self.claiming.wrote(writes, outcomes);
        let done = writes.iter().zip(outcomes).filter(|(_, outcome)| matches!(outcome, Outcome::Done(_)));
        for (write, _) in done {
            match (&write.key, &write.value) {
                (Key::Block(_), None) => self.done.blocks += 1,
                (Key::Block(_), Some(_)) if writes.len() == 1 => self.done.thawed += 1,
                (Key::Affinity(_), None) => self.done.affinities += 1,
                (Key::Handle(_), _) => self.done.handles += 1,
                _ => {}
            }
        }
    }
}
