//! What an operation knows of the blocks, affinities and handles in the store.
//!
//! Invariant: nothing here is trusted without a compare-and-swap; "absent" and every failure are only concluded from
//! what this operation has read itself, never from a hint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::ipam::{Affinity, Block, Handle};
use tortie_facts::{AffinityKey, Filter, Key, OwnerKind, Revision, Value};

use crate::machine::{Ask, CasWrite, Expect, Fact, Pause};
use crate::{IpamError, Owner, block};

#[derive(Clone, Debug)]
enum Known<T> {
    Unknown,
    /// There, but not fit for use: never written, never taken for absent.
    Broken(String),
    Absent {
        hint: bool,
    },
    Here {
        held: Held<T>,
        hint: bool,
    },
}

/// A value with the revision at which it was read or written.
#[derive(Debug)]
pub struct Held<T> {
    /// The value.
    pub value: Arc<T>,
    /// Its revision.
    pub revision: Revision,
}

impl<T> Clone for Held<T> {
    fn clone(&self) -> Self {
        Held { value: Arc::clone(&self.value), revision: self.revision }
    }
}

/// Everything known; starts empty, or with hints from a caller who watches the store.
#[derive(Clone, Debug, Default)]
pub struct View {
    blocks: BTreeMap<IpNet, Known<Block>>,
    affinities: BTreeMap<AffinityKey, Known<Affinity>>,
    handles: BTreeMap<String, Known<Handle>>,
    all_blocks: bool,
    all_handles: bool,
    all_affinities: BTreeSet<OwnerKind>,
    owners: BTreeSet<Owner>,
    hinted_owners: BTreeSet<Owner>,
    hints: bool,
}

impl View {
    /// Supplies a fact that the caller saw some time ago. Facts that are not of IPAM are passed over.
    pub fn hint(&mut self, fact: Fact) {
        self.hints = true;
        self.put(fact.key, Some((fact.value, fact.revision)), true);
    }

    /// Supposes that a handle does not exist, as that of a new container.
    pub fn hint_no_handle(&mut self, handle: &str) {
        self.hints = true;
        self.handles.entry(handle.to_owned()).or_insert(Known::Absent { hint: true });
    }

    /// Says that all affinities of the owner were supplied as hints.
    pub fn hint_all_affinities(&mut self, owner: &Owner) {
        self.hints = true;
        self.hinted_owners.insert(owner.clone());
    }

    /// Whether anything known came from the caller.
    pub fn hinted(&self) -> bool {
        self.hints
    }

    /// Forgets what came from the caller.
    pub fn drop_hints(&mut self) {
        if !self.hints {
            return;
        }
        self.hints = false;
        fn drop<K: Ord, T>(map: &mut BTreeMap<K, Known<T>>) {
            map.retain(|_, known| !matches!(known, Known::Absent { hint: true } | Known::Here { hint: true, .. }));
        }
        drop(&mut self.blocks);
        drop(&mut self.affinities);
        drop(&mut self.handles);
        self.hinted_owners.clear();
    }

    /// Stops with [`Pause::Again`] if anything known came from the caller: call before a conclusion that no
    /// compare-and-swap guards.
    pub fn only_fresh(&self) -> Result<(), Pause> {
        if self.hints { Err(Pause::Again) } else { Ok(()) }
    }

    pub(crate) fn got(&mut self, key: Key, found: Option<(Value, Revision)>) {
        if let Key::Handle(_) = key {
            // An absent block stays absent only from the handle's point in time on if it is read after the handle.
            self.blocks.retain(|_, known| !matches!(known, Known::Absent { .. }));
            self.all_blocks = false;
        }
        self.put(key, found, false);
    }

    pub(crate) fn wrote(&mut self, key: &Key, now: Option<(Value, Revision)>) {
        self.put(key.clone(), now, false);
    }

    fn put(&mut self, key: Key, found: Option<(Value, Revision)>, hint: bool) {
        fn known<T>(found: Option<(Arc<T>, Revision)>, hint: bool) -> Known<T> {
            match found {
                Some((value, revision)) => Known::Here { held: Held { value, revision }, hint },
                None => Known::Absent { hint },
            }
        }
        match key {
            Key::Block(cidr) => {
                let found = found.and_then(|(value, revision)| Some((value.as_block()?.clone(), revision)));
                let found = found.filter(|(block, _)| !block.deleted);
                let fault = found.as_ref().and_then(|(block, _)| block::fault(cidr, block));
                self.blocks.insert(cidr, fault.map_or_else(|| known(found, hint), Known::Broken));
            }
            Key::Affinity(key) => {
                let found =
                    found.and_then(|(value, revision)| Some((Arc::new(value.as_affinity()?.clone()), revision)));
                self.affinities.insert(key, known(found.filter(|(affinity, _)| !affinity.deleted), hint));
            }
            Key::Handle(id) => {
                let found = found.and_then(|(value, revision)| Some((value.as_handle()?.clone(), revision)));
                self.handles.insert(id, known(found.filter(|(handle, _)| !handle.deleted), hint));
            }
            Key::Resource { .. } | Key::IpamConfig | Key::Status(_) | Key::Foreign(_) => {}
        }
    }

    pub(crate) fn listed(&mut self, filter: &Filter, facts: Vec<Fact>) {
        match filter {
            Filter::Blocks => {
                self.blocks.clear();
                self.all_blocks = true;
            }
            Filter::Handles => {
                self.handles.clear();
                self.all_handles = true;
            }
            Filter::Affinities(kind, owner) => {
                self.affinities.retain(|key, _| key.kind != *kind || key.owner != *owner);
                self.owners.insert(Owner { kind: *kind, name: owner.clone() });
            }
            Filter::AllAffinities(kind) => {
                self.affinities.retain(|key, _| key.kind != *kind);
                self.all_affinities.insert(*kind);
            }
            Filter::Any(filters) => {
                for filter in filters {
                    self.listed(filter, Vec::new());
                }
            }
            Filter::All
            | Filter::Kind(_)
            | Filter::Namespace(_, _)
            | Filter::IpamConfig
            | Filter::Statuses(_)
            | Filter::Foreign
            | Filter::NodeAgent(_) => {}
        }
        for Fact { key, value, revision } in facts {
            self.put(key, Some((value, revision)), false);
        }
    }

    pub(crate) fn forget(&mut self, key: &Key) {
        match key {
            Key::Block(cidr) => {
                self.blocks.insert(*cidr, Known::Unknown);
            }
            Key::Affinity(key) => {
                self.affinities.insert(key.clone(), Known::Unknown);
            }
            Key::Handle(id) => {
                self.handles.insert(id.clone(), Known::Unknown);
            }
            Key::Resource { .. } | Key::IpamConfig | Key::Status(_) | Key::Foreign(_) => {}
        }
    }

    fn lists(&self, owner: &Owner) -> bool {
        self.all_affinities.contains(&owner.kind) || self.owners.contains(owner) || self.hinted_owners.contains(owner)
    }

    fn look<T>(known: Option<&Known<T>>, complete: bool, key: impl FnOnce() -> Key) -> Result<Option<Held<T>>, Pause> {
        match known {
            Some(Known::Here { held, .. }) => Ok(Some(held.clone())),
            Some(Known::Absent { .. }) => Ok(None),
            Some(Known::Broken(reason)) => Err(IpamError::Broken { key: key(), reason: reason.clone() }.into()),
            None if complete => Ok(None),
            None | Some(Known::Unknown) => Err(Pause::Ask(Ask::Get(vec![key()]))),
        }
    }

    pub(crate) fn block(&self, cidr: IpNet) -> Result<Option<Held<Block>>, Pause> {
        View::look(self.blocks.get(&cidr), self.all_blocks, || Key::Block(cidr))
    }

    pub(crate) fn affinity(&self, key: &AffinityKey) -> Result<Option<Held<Affinity>>, Pause> {
        let owner = Owner { kind: key.kind, name: key.owner.clone() };
        View::look(self.affinities.get(key), self.lists(&owner), || Key::Affinity(key.clone()))
    }

    pub(crate) fn handle(&self, id: &str) -> Result<Option<Held<Handle>>, Pause> {
        View::look(self.handles.get(id), self.all_handles, || Key::Handle(id.to_owned()))
    }

    /// A handle and a block of it, with the block read after the handle if either has to be read.
    pub(crate) fn handle_then_block(
        &mut self,
        id: &str,
        cidr: IpNet,
    ) -> Result<(Option<Held<Handle>>, Option<Held<Block>>), Pause> {
        match (self.handle(id), self.block(cidr)) {
            (Ok(handle), Ok(block)) => Ok((handle, block)),
            _ => Err(Pause::Ask(Ask::Get(vec![Key::Handle(id.to_owned()), Key::Block(cidr)]))),
        }
    }

    /// Asks for those of the blocks that are not known, in one read.
    pub(crate) fn need_blocks(&self, cidrs: impl Iterator<Item = IpNet>) -> Result<(), Pause> {
        let missing: Vec<Key> = cidrs.filter(|cidr| self.block(*cidr).is_err()).map(Key::Block).collect();
        if missing.is_empty() { Ok(()) } else { Err(Pause::Ask(Ask::Get(missing))) }
    }

    /// All blocks, by a listing if there was none yet.
    pub(crate) fn all_blocks(&self) -> Result<Vec<(IpNet, Held<Block>)>, Pause> {
        if !self.all_blocks {
            return Err(Pause::Ask(Ask::List(Filter::Blocks)));
        }
        let mut found = Vec::with_capacity(self.blocks.len());
        for (cidr, known) in &self.blocks {
            match known {
                Known::Here { held, .. } => found.push((*cidr, held.clone())),
                Known::Absent { .. } | Known::Broken(_) => {}
                Known::Unknown => return Err(Pause::Ask(Ask::Get(vec![Key::Block(*cidr)]))),
            }
        }
        Ok(found)
    }

    /// Whether something may be stored under the block's key, as far as a listing and later writes told.
    pub(crate) fn occupied(&self, cidr: IpNet) -> bool {
        match self.blocks.get(&cidr) {
            Some(Known::Here { .. } | Known::Broken(_) | Known::Unknown) => true,
            Some(Known::Absent { .. }) | None => false,
        }
    }

    /// Whether the block is there but can't be used.
    pub(crate) fn broken(&self, cidr: IpNet) -> bool {
        matches!(self.blocks.get(&cidr), Some(Known::Broken(_)))
    }

    /// The blocks that an owner has affinities for, whatever their state.
    pub(crate) fn affinities_of(&self, owner: &Owner) -> Result<Vec<IpNet>, Pause> {
        if !self.lists(owner) {
            return Err(Pause::Ask(Ask::List(Filter::Affinities(owner.kind, owner.name.clone()))));
        }
        let mine = self.affinities.iter().filter(|(key, _)| key.kind == owner.kind && key.owner == owner.name);
        let mut found = Vec::new();
        for (key, known) in mine {
            match known {
                Known::Here { .. } => found.push(key.cidr),
                Known::Absent { .. } | Known::Broken(_) => {}
                Known::Unknown => return Err(Pause::Ask(Ask::Get(vec![Key::Affinity(key.clone())]))),
            }
        }
        Ok(found)
    }

    /// All affinities of a kind of owner.
    pub(crate) fn all_affinities(&self, kind: OwnerKind) -> Result<Vec<(AffinityKey, Held<Affinity>)>, Pause> {
        if !self.all_affinities.contains(&kind) {
            return Err(Pause::Ask(Ask::List(Filter::AllAffinities(kind))));
        }
        let mut found = Vec::new();
        for (key, known) in self.affinities.iter().filter(|(key, _)| key.kind == kind) {
            match known {
                Known::Here { held, .. } => found.push((key.clone(), held.clone())),
                Known::Absent { .. } | Known::Broken(_) => {}
                Known::Unknown => return Err(Pause::Ask(Ask::Get(vec![Key::Affinity(key.clone())]))),
            }
        }
        Ok(found)
    }

    /// All handles.
    pub(crate) fn all_handles(&self) -> Result<Vec<(String, Held<Handle>)>, Pause> {
        if !self.all_handles {
            return Err(Pause::Ask(Ask::List(Filter::Handles)));
        }
        let mut found = Vec::new();
        for (id, known) in &self.handles {
            match known {
                Known::Here { held, .. } => found.push((id.clone(), held.clone())),
                Known::Absent { .. } | Known::Broken(_) => {}
                Known::Unknown => return Err(Pause::Ask(Ask::Get(vec![Key::Handle(id.clone())]))),
            }
        }
        Ok(found)
    }
}

fn expect<T>(held: Option<&Held<T>>) -> Expect {
    held.map_or(Expect::Absent, |held| Expect::Revision(held.revision))
}

/// A write of a block over what was seen. Every write of a block goes through here: the sequence number goes up.
pub(crate) fn put_block(cidr: IpNet, seen: Option<&Held<Block>>, mut value: Block) -> CasWrite {
    if seen.is_some() {
        block::bump(&mut value);
    }
    CasWrite { key: Key::Block(cidr), expect: expect(seen), value: Some(Value::Block(Arc::new(value))) }
}

pub(crate) fn delete_block(cidr: IpNet, seen: &Held<Block>) -> CasWrite {
    CasWrite { key: Key::Block(cidr), expect: Expect::Revision(seen.revision), value: None }
}

pub(crate) fn put_affinity(key: &AffinityKey, seen: Option<&Held<Affinity>>, mut value: Option<Affinity>) -> CasWrite {
    if let (Some(value), Some(seen)) = (&mut value, seen) {
        value.newer.clone_from(&seen.value.newer);
    }
    CasWrite { key: Key::Affinity(key.clone()), expect: expect(seen), value: value.map(Value::Affinity) }
}

/// A write of a handle; one without blocks is deleted.
pub(crate) fn put_handle(id: &str, seen: Option<&Held<Handle>>, value: Handle) -> CasWrite {
    let value = (!value.block.is_empty()).then(|| Value::Handle(Arc::new(value)));
    CasWrite { key: Key::Handle(id.to_owned()), expect: expect(seen), value }
}
