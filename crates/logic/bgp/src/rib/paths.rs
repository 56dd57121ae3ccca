//! The paths of one prefix, small because there are many prefixes and nearly all have one path.
//!
//! Invariant: no two paths have the same source; `Many` holds them in order of their sources.

use std::sync::Arc;

use super::{Announced, SourceId};
use crate::attribute::Attributes;

/// One way to reach a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) attributes: Arc<Attributes>,
    pub(crate) source: SourceId,
    /// Kept from before the source's restart, not heard again yet.
    pub(crate) stale: bool,
    /// Our own, and a learned one of a higher priority wins over it.
    pub(crate) yields: bool,
}

/// The paths of a prefix: 16 bytes in the common case.
#[derive(Debug)]
pub(crate) enum Paths {
    None,
    One(Path),
    #[allow(clippy::box_collection, reason = "a bare Vec would double the size of every prefix with one path")]
    Many(Box<Vec<Path>>),
}

impl Paths {
    pub(crate) fn as_slice(&self) -> &[Path] {
        match self {
            Paths::None => &[],
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }

    pub(crate) fn get_mut(&mut self, source: SourceId) -> Option<&mut Path> {
        let paths = match self {
            Paths::None => return None,
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(paths) => paths.as_mut_slice(),
        };
        paths.iter_mut().find(|path| path.source == source)
    }

    pub(crate) fn put(&mut self, new: Path) -> Announced {
        if let Some(old) = self.get_mut(new.source) {
            old.stale = false;
            if Arc::ptr_eq(&old.attributes, &new.attributes) && old.yields == new.yields {
                return Announced::Same;
            }
            *old = new;
            return Announced::Changed;
        }
        match self {
            Paths::None => *self = Paths::One(new),
            Paths::One(old) => {
                let mut paths = vec![old.clone(), new];
                paths.sort_unstable_by_key(|path| path.source);
                *self = Paths::Many(Box::new(paths));
            }
            Paths::Many(paths) => {
                let at = paths.partition_point(|path| path.source < new.source);
                paths.insert(at, new);
            }
        }
        Announced::New
    }

    /// Removes a source's path; the list may be empty afterwards.
    pub(crate) fn remove(&mut self, source: SourceId) -> bool {
        match self {
            Paths::None => false,
            Paths::One(path) => {
                let had = path.source == source;
                if had {
                    *self = Paths::None;
                }
                had
            }
            Paths::Many(paths) => {
                let before = paths.len();
                paths.retain(|path| path.source != source);
                let had = paths.len() < before;
                if paths.len() == 1
                    && let Some(last) = paths.pop()
                {
                    *self = Paths::One(last);
                }
                had
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_takes_sixteen_bytes() {
        assert_eq!(size_of::<Paths>(), 16);
    }
}
