//! Which of a prefix's paths is best (RFC 4271 section 9.1.2.2, RFC 4456 section 9).
//!
//! Invariant: the answer depends on the set of paths alone, not on the order in which they came. So MED, which only
//! compares paths of one neighbouring AS, is applied to the whole set at once and never pair by pair.

use std::cmp::Reverse;

use super::{Path, Source, SourceId};

/// The best path. `None` only for no path.
pub(crate) fn best<'a>(paths: &'a [Path], sources: &[Option<Source>]) -> Option<&'a Path> {
    match paths {
        [] => None,
        [only] => Some(only),
        _ => equals(paths, sources).into_iter().next(),
    }
}

/// The best path and all that tie with it up to the comparison of router ids, best first.
pub(crate) fn equals<'a>(paths: &'a [Path], sources: &[Option<Source>]) -> Vec<&'a Path> {
    let source = |path: &Path| sources.get(path.source.index()).and_then(Option::as_ref);
    let mut left: Vec<&Path> = paths.iter().collect();
    keep_least(&mut left, |path| path.source != SourceId::LOCAL);
    keep_least(&mut left, |path| Reverse(path.attributes.preference()));
    keep_least(&mut left, |path| path.attributes.as_path.hops());
    keep_least(&mut left, |path| path.attributes.origin);
    keep_least_med(&mut left);
    keep_least(&mut left, |path| !source(path).is_some_and(|source| source.external));
    left.sort_by_cached_key(|path| {
        let source = source(path);
        let router_id = path.attributes.originator_id.or(source.map(|source| source.router_id));
        (router_id, path.attributes.cluster_list.len(), source.map(|source| source.address), path.source)
    });
    left
}

fn keep_least<K: Ord>(paths: &mut Vec<&Path>, key: impl Fn(&Path) -> K) {
    if paths.len() > 1
        && let Some(least) = paths.iter().map(|path| key(path)).min()
    {
        paths.retain(|path| key(path) == least);
    }
}

fn keep_least_med(paths: &mut Vec<&Path>) {
    if paths.len() > 1 {
        let med = |path: &Path| path.attributes.med.unwrap_or(0);
        let all = paths.clone();
        paths.retain(|path| {
            let neighbor = path.attributes.as_path.neighbor();
            !all.iter().any(|other| other.attributes.as_path.neighbor() == neighbor && med(other) < med(path))
        });
    }
}
