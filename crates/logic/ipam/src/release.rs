//! Releasing addresses: by address with evidence, or all of a handle.
//!
//! Invariant: the handle is read before the block is written, and written after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::ipam::Block;
use tortie_facts::{Key, Revision};

use crate::IpamError;
use crate::block::{self, Claimed, Freed, Now, handle_text};
use crate::books::{Books, touch};
use crate::machine::{Ask, CasWrite, Outcome, Pause, Plan};
use crate::settings::Settings;
use crate::view::{Held, View, delete_block, put_block, put_handle};

fn rest(cidr: IpNet, seen: &Held<Block>, left: Block) -> CasWrite {
    if block::owner(&left).is_none() && block::is_empty(&left) {
        delete_block(cidr, seen)
    } else {
        put_block(cidr, Some(seen), left)
    }
}

/// What a release did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Addresses that were held and are free, or cool down.
    pub released: Vec<IpAddr>,
    /// Addresses that nobody held.
    pub idle: Vec<IpAddr>,
}

/// The operation: release addresses, each only if the evidence given with it still fits.
#[derive(Clone, Debug)]
pub struct Release {
    claimed: Vec<Claimed>,
    settings: Arc<Settings>,
    now: Now,
    done: BTreeMap<IpNet, Freed>,
    freeing: Option<(IpNet, Freed)>,
    books: Books,
    result: Option<Result<Released, IpamError>>,
}

impl Release {
    /// The operation. Pools, closed ones too, only speed it up: an address in no pool is looked for in all blocks.
    pub fn new(claimed: Vec<Claimed>, settings: Arc<Settings>, now: Now) -> Release {
        Release { claimed, settings, now, done: BTreeMap::new(), freeing: None, books: Books::default(), result: None }
    }

    fn by_block(&self, view: &View) -> Result<(BTreeMap<IpNet, Vec<Claimed>>, Vec<IpAddr>), Pause> {
        let mut blocks: BTreeMap<IpNet, Vec<Claimed>> = BTreeMap::new();
        let mut nowhere = Vec::new();
        for one in &self.claimed {
            let cidr = match self.settings.pool_of(one.address).and_then(|pool| pool.block_of(one.address)) {
                Some(cidr) => Some(cidr),
                None => match self.done.keys().find(|cidr| cidr.contains(&one.address)) {
                    Some(cidr) => Some(*cidr),
                    None => view.all_blocks()?.into_iter().map(|(cidr, _)| cidr).find(|c| c.contains(&one.address)),
                },
            };
            match cidr {
                Some(cidr) => blocks.entry(cidr).or_default().push(one.clone()),
                None => nowhere.push(one.address),
            }
        }
        Ok((blocks, nowhere))
    }

    fn body(&mut self, view: &mut View) -> Result<Released, Pause> {
        let (blocks, nowhere) = self.by_block(view)?;
        view.need_blocks(blocks.keys().copied().filter(|cidr| !self.done.contains_key(cidr) && !view.broken(*cidr)))?;
        for (cidr, claimed) in &blocks {
            if self.done.contains_key(cidr) {
                continue;
            }
            let found = view.block(*cidr)?;
            let mut freed = Freed::default();
            let mut writes = Vec::new();
            match found {
                None => freed.idle.extend(claimed.iter().map(|one| one.address)),
                Some(held) => {
                    let mut left = Block::clone(&held.value);
                    let cooldown = self.settings.config.ip_cooldown_seconds;
                    block::thaw(&mut left, self.now, cooldown);
                    freed = block::release(*cidr, &mut left, claimed, self.now, cooldown)?;
                    let counts = block::counts(&left);
                    let mut handles = Vec::new();
                    for id in &freed.handles {
                        if let Some(handle) = view.handle(id)? {
                            let count = counts.get(id).copied().unwrap_or(0);
                            handles.push(Books::lower(id, &handle, *cidr, count));
                        }
                    }
                    writes.push(rest(*cidr, &held, left));
                    writes.extend(handles);
                }
            }
            if freed.released.is_empty() {
                view.only_fresh()?;
                self.done.insert(*cidr, freed);
                continue;
            }
            self.freeing = Some((*cidr, freed));
            return Err(Pause::Ask(Ask::Write(writes)));
        }
        let mut all = Released { released: Vec::new(), idle: nowhere };
        for freed in self.done.values() {
            all.released.extend(&freed.released);
            all.idle.extend(&freed.idle);
        }
        Ok(all)
    }
}

impl Plan for Release {
    type Output = Released;

    fn plan(&mut self, view: &mut View) -> Result<Released, Pause> {
        let mut books = std::mem::take(&mut self.books);
        let mut result = self.result.take();
        let done = books.finish(view, &mut result, |_, view| self.body(view));
        self.books = books;
        self.result = result;
        done
    }

    fn wrote(&mut self, writes: &[CasWrite], outcomes: &[Outcome]) {
        self.books.wrote(writes, outcomes);
        let Some((cidr, freed)) = self.freeing.take() else { return };
        if !matches!(outcomes.first(), Some(Outcome::Done(_))) {
            return;
        }
        let lowered: BTreeSet<&Key> = writes
            .iter()
            .zip(outcomes)
            .filter(|(_, outcome)| matches!(outcome, Outcome::Done(_)))
            .map(|(write, _)| &write.key)
            .collect();
        for id in &freed.handles {
            if !lowered.contains(&Key::Handle(id.clone())) {
                self.books.doubt(id, cidr);
            }
        }
        self.done.insert(cidr, freed);
    }
}

/// The operation: release all addresses of a handle, and the handle.
#[derive(Clone, Debug)]
pub struct ReleaseHandle {
    id: String,
    cooldown_secs: i64,
    now: Now,
    released: Vec<IpAddr>,
    freeing: Vec<(IpNet, Vec<IpAddr>)>,
    seen: Option<Revision>,
    defeated: BTreeSet<IpNet>,
    started: bool,
    finished: bool,
}

impl ReleaseHandle {
    /// The operation. A handle that does not exist gives [`IpamError::UnknownHandle`], which a repeated release takes
    /// for success.
    pub fn new(id: &str, cooldown_secs: i64, now: Now) -> ReleaseHandle {
        ReleaseHandle {
            id: handle_text(id).to_owned(),
            cooldown_secs,
            now,
            released: Vec::new(),
            freeing: Vec::new(),
            seen: None,
            defeated: BTreeSet::new(),
            started: false,
            finished: false,
        }
    }
}

impl Plan for ReleaseHandle {
    type Output = Released;

    fn plan(&mut self, view: &mut View) -> Result<Released, Pause> {
        if self.finished {
            return Ok(Released { released: self.released.clone(), idle: Vec::new() });
        }
        let Some(handle) = view.handle(&self.id)? else {
            view.only_fresh()?;
            if self.started {
                return Ok(Released { released: self.released.clone(), idle: Vec::new() });
            }
            return Err(IpamError::UnknownHandle(self.id.clone()).into());
        };
        if self.seen != Some(handle.revision) {
            // Assignments that wrote the handle since may still be on their way to these blocks.
            self.seen = Some(handle.revision);
            self.defeated.clear();
        }
        let cidrs: Vec<IpNet> = handle.value.block.keys().filter_map(|text| text.parse().ok()).collect();
        view.need_blocks(cidrs.iter().copied().filter(|cidr| !view.broken(*cidr)))?;
        let mut writes = Vec::new();
        self.freeing.clear();
        let mut kept = tortie_api::ipam::Handle::default();
        for cidr in cidrs {
            if view.broken(cidr) {
                kept.block.extend(handle.value.block.get_key_value(&cidr.to_string()).map(|(k, v)| (k.clone(), *v)));
                continue;
            }
            if self.defeated.contains(&cidr) {
                continue;
            }
            let Some(held) = view.block(cidr)? else { continue };
            let mut left = Block::clone(&held.value);
            let addrs = block::release_handle(cidr, &mut left, &self.id, self.now, self.cooldown_secs);
            writes.push(if addrs.is_empty() { touch(cidr, &held) } else { rest(cidr, &held, left) });
            self.freeing.push((cidr, addrs));
        }
        if writes.is_empty() && kept.block.len() == handle.value.block.len() && !kept.block.is_empty() {
            let (text, _) = kept.block.first_key_value().expect("it is not empty");
            let cidr = text.parse().expect("it was parsed above");
            return view.block(cidr).map(|_| Released { released: self.released.clone(), idle: Vec::new() });
        }
        writes.push(put_handle(&self.id, Some(&handle), kept));
        self.started = true;
        Err(Pause::Ask(Ask::Write(writes)))
    }

    fn wrote(&mut self, writes: &[CasWrite], outcomes: &[Outcome]) {
        for (cidr, addrs) in std::mem::take(&mut self.freeing) {
            let at = writes.iter().position(|write| write.key == Key::Block(cidr));
            if at.and_then(|at| outcomes.get(at)).is_some_and(|outcome| matches!(outcome, Outcome::Done(_))) {
                self.released.extend(addrs);
                self.defeated.insert(cidr);
            }
        }
        let deleted = writes.last().is_some_and(|write| write.value.is_none());
        self.finished = deleted && matches!(outcomes.last(), Some(Outcome::Done(_)));
    }
}
