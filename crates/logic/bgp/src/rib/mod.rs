//! All routes known: one table of prefixes, each with the paths that sources offer.
//!
//! Invariant: a prefix is in the table only while a source offers it or its change is still to be told, and each source
//! offers at most one path.
//! The table is Adj-RIB-In and Loc-RIB in one: the best path is computed from the paths, never stored.

pub(crate) mod adj_out;
pub(crate) mod best;
mod index;
mod paths;
pub(crate) mod prefixes;
pub(crate) mod raw;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

pub(crate) use paths::{Path, Paths};
use prefixes::{PrefixMap, Then};
use tortie_net::{Family, IpNet};

use crate::attribute::Attributes;

/// Who offers a path: an index into the list of sources. 0 is the speaker itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SourceId(pub(crate) u32);

impl SourceId {
    /// The speaker itself.
    pub(crate) const LOCAL: SourceId = SourceId(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What path selection must know of a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) address: IpAddr,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) external: bool,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Rib {
    table: PrefixMap<Paths>,
    sources: Vec<Option<Source>>,
    /// Prefixes with a path.
    held: usize,
}

impl Rib {
    /// Sets what is known of a source; done at the latest before its first path.
    pub(crate) fn set_source(&mut self, id: SourceId, source: Option<Source>) {
        if self.sources.len() <= id.index() {
            self.sources.resize(id.index() + 1, None);
        }
        self.sources[id.index()] = source;
    }

    /// Adds or replaces a source's path; unless only staleness changed, the change waits to be told. Returns what it
    /// was, and whose path is best then.
    pub(crate) fn announce(
        &mut self,
        source: SourceId,
        prefix: IpNet,
        attributes: &Arc<Attributes>,
    ) -> (Announced, Option<SourceId>) {
        self.put(prefix, Path { attributes: Arc::clone(attributes), source, stale: false, yields: false })
    }

    /// The same for a path of our own. `yields`: a learned one of a higher priority wins over it.
    pub(crate) fn announce_own(&mut self, prefix: IpNet, attributes: &Arc<Attributes>, yields: bool) -> Announced {
        let path = Path { attributes: Arc::clone(attributes), source: SourceId::LOCAL, stale: false, yields };
        self.put(prefix, path).0
    }

    fn put(&mut self, prefix: IpNet, path: Path) -> (Announced, Option<SourceId>) {
        let Rib { table, sources, held } = self;
        let look = |paths: &mut Paths, _| {
            *held += usize::from(paths.as_slice().is_empty());
            let announced = paths.put(path);
            if announced == Announced::Same {
                return ((announced, None), Then::Keep);
            }
            ((announced, best::best(paths.as_slice(), sources).map(|path| path.source)), Then::Mark)
        };
        table.update(prefix, || Paths::None, look).unwrap_or((Announced::Same, None))
    }

    /// Makes looking at each of these next, or changing it, faster.
    pub(crate) fn foresee(&self, prefixes: impl Iterator<Item = IpNet> + Clone) {
        self.table.foresee(prefixes);
    }

    /// Takes a source's path away. Returns whether there was one; then the change waits to be told.
    pub(crate) fn withdraw(&mut self, source: SourceId, prefix: IpNet) -> bool {
        let Rib { table, held, .. } = self;
        let look = |paths: &mut Paths| {
            let had = paths.remove(source);
            *held -= usize::from(had && paths.as_slice().is_empty());
            (had, if had { Then::Mark } else { Then::Keep })
        };
        table.revise(prefix, look).unwrap_or(false)
    }

    /// Has a prefix told again, if it is known; returns whose path is best.
    pub(crate) fn touch(&mut self, prefix: IpNet) -> Option<SourceId> {
        let Rib { table, sources, .. } = self;
        let look = |paths: &mut Paths| (best::best(paths.as_slice(), sources).map(|path| path.source), Then::Mark);
        table.revise(prefix, look)?
    }

    /// Has every prefix told again.
    pub(crate) fn touch_all(&mut self) {
        self.table.mark_all();
    }

    /// The change that has waited longest: a prefix, and where it leads now.
    pub(crate) fn next_change(&mut self) -> Option<(IpNet, Option<Leads>)> {
        let Rib { table, sources, .. } = self;
        table.take_up(|prefix, paths| {
            let then = if paths.as_slice().is_empty() { Then::Remove } else { Then::Keep };
            ((prefix, Leads::of(paths.as_slice(), sources)), then)
        })
    }

    /// Where a prefix leads.
    pub(crate) fn leads(&self, prefix: IpNet) -> Option<Leads> {
        Leads::of(self.table.get(prefix)?.as_slice(), &self.sources)
    }

    /// Marks all paths of a source in a family as stale. Unless `keep_stale`, those that were stale already are
    /// removed and returned (RFC 4724 section 4.2: a second loss before End-of-RIB).
    pub(crate) fn mark_stale(&mut self, source: SourceId, family: Family, keep_stale: bool) -> Vec<IpNet> {
        self.drop_where(source, family, |path| std::mem::replace(&mut path.stale, true) && !keep_stale)
    }

    /// Removes the stale paths of a source in a family; returns their prefixes.
    pub(crate) fn sweep_stale(&mut self, source: SourceId, family: Family) -> Vec<IpNet> {
        self.drop_where(source, family, |path| path.stale)
    }

    /// Removes all paths of a source in a family; returns their prefixes.
    pub(crate) fn drop_family(&mut self, source: SourceId, family: Family) -> Vec<IpNet> {
        self.drop_where(source, family, |_| true)
    }

    fn drop_where(
        &mut self,
        source: SourceId,
        family: Family,
        mut unwanted: impl FnMut(&mut Path) -> bool,
    ) -> Vec<IpNet> {
        let mut dropped = Vec::new();
        for (prefix, paths) in self.table.of_family_mut(family) {
            if paths.get_mut(source).is_some_and(&mut unwanted) {
                dropped.push(prefix);
            }
        }
        for prefix in &dropped {
            self.withdraw(source, *prefix);
        }
        dropped
    }

    /// Every path of a source.
    pub(crate) fn paths_of(&self, source: SourceId) -> impl Iterator<Item = (IpNet, &Path)> {
        self.table.iter().filter_map(move |(prefix, paths)| {
            Some((prefix, paths.as_slice().iter().find(|path| path.source == source)?))
        })
    }

    /// Every path of a prefix.
    pub(crate) fn paths(&self, prefix: IpNet) -> impl Iterator<Item = &Path> {
        self.table.get(prefix).into_iter().flat_map(|paths| paths.as_slice())
    }

    /// A source's path of a prefix.
    pub(crate) fn path_mut(&mut self, source: SourceId, prefix: IpNet) -> Option<&mut Path> {
        self.table.get_mut(prefix)?.get_mut(source)
    }

    /// The best path of a prefix.
    pub(crate) fn best(&self, prefix: IpNet) -> Option<&Path> {
        best::best(self.table.get(prefix)?.as_slice(), &self.sources)
    }

    /// Every prefix with its best path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpNet, &Path)> {
        self.table.iter().filter_map(|(prefix, paths)| Some((prefix, best::best(paths.as_slice(), &self.sources)?)))
    }

    pub(crate) fn source(&self, id: SourceId) -> Option<&Source> {
        self.sources.get(id.index())?.as_ref()
    }

    /// Prefixes that a source offers.
    pub(crate) fn len(&self) -> usize {
        self.held
    }
}

/// Where a prefix leads: the best path, and the next hops of all that are as good up to the tie-breakers, ascending,
/// each once.
#[derive(Debug)]
pub(crate) struct Leads {
    pub(crate) best: Path,
    pub(crate) next_hops: Vec<IpAddr>,
}

impl Leads {
    fn of(paths: &[Path], sources: &[Option<Source>]) -> Option<Leads> {
        if let [only] = paths {
            return Some(Leads { best: only.clone(), next_hops: vec![only.attributes.next_hop] });
        }
        let equals = best::equals(paths, sources);
        let best = (*equals.first()?).clone();
        let mut next_hops: Vec<IpAddr> = equals.iter().map(|path| path.attributes.next_hop).collect();
        next_hops.sort_unstable();
        next_hops.dedup();
        Some(Leads { best, next_hops })
    }
}

/// What an announcement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// The source had no path for the prefix.
    New,
    /// Its path changed.
    Changed,
    /// Its path is as before.
    Same,
}
