//! Which of a prefix's paths is best (RFC 4271 section 9.1.2.2, RFC 4456 section 9, RFC 9494 section 4.3).
//!
//! Invariant: the answer depends on the set of paths alone, not on the order in which they came. So MED, which only
//! compares paths of one neighbouring AS, is applied to the whole set at once and never pair by pair.
//! Before all that our own path comes first, unless it yields and there is one of a higher priority, as upstream has it.

use std::cmp::Reverse;

use super::{Path, Source, SourceId};
use crate::attribute::LLGR_STALE;
use crate::policy::priority;

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
    if let Some(at) = left.iter().position(|path| path.source == SourceId::LOCAL) {
        let own = left[at];
        if own.yields && left.iter().any(|path| has_moved(path, own)) {
            left.swap_remove(at);
        } else {
            left = vec![own];
        }
    }
    keep_least(&mut left, |path| path.attributes.has_community(LLGR_STALE));
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

/// Whether a path has a priority, and one above that of our own.
fn has_moved(path: &Path, own: &Path) -> bool {
    let preference = path.attributes.preference();
    let above = preference > own.attributes.preference() && priority(preference).is_some();
    above && !path.attributes.has_community(LLGR_STALE)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::{AsPath, Attributes, Origin};
    use crate::policy::PRIORITY_SUM;
    use proptest::prelude::*;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use tortie_net::AsNumber;

    fn sources(external: &[bool]) -> Vec<Option<Source>> {
        let source = |(at, external): (usize, &bool)| {
            let id = Ipv4Addr::from(at as u32 + 1);
            Some(Source { address: IpAddr::V4(id), router_id: id, external: *external })
        };
        std::iter::once(None).chain(external.iter().enumerate().map(source)).collect()
    }

    fn path(source: u32, attributes: Attributes) -> Path {
        Path { attributes: Arc::new(attributes), source: SourceId(source), stale: false, yields: false }
    }

    fn asns(numbers: &[u32]) -> AsPath {
        AsPath::sequence(&numbers.iter().copied().map(AsNumber).collect::<Vec<_>>())
    }

    /// Each row: what path 2 has better than path 1, whose lower router id would win otherwise.
    #[test]
    fn every_step_decides_in_its_turn() {
        let plain = || Attributes { as_path: asns(&[7, 8]), med: Some(5), ..Attributes::default() };
        let better = [
            Attributes { local_pref: Some(101), as_path: asns(&[7, 8, 9]), ..plain() },
            Attributes { as_path: asns(&[7]), origin: Origin::Incomplete, ..plain() },
            Attributes { med: Some(4), ..plain() },
            Attributes { med: None, ..plain() },
            Attributes { originator_id: Some(Ipv4Addr::UNSPECIFIED), ..plain() },
        ];
        let sources = sources(&[true, true]);
        for attributes in better {
            let paths = [path(1, plain()), path(2, attributes)];
            assert_eq!(best(&paths, &sources).map(|path| path.source), Some(SourceId(2)), "{paths:?}");
        }
        let worse_origin = Attributes { origin: Origin::Egp, ..plain() };
        let paths = [path(1, worse_origin), path(2, plain())];
        assert_eq!(best(&paths, &sources).map(|path| path.source), Some(SourceId(2)));
    }

    #[test]
    fn med_compares_one_neighbour_only_and_equals_share() {
        let with = |first, med| Attributes { as_path: asns(&[first]), med: Some(med), ..Attributes::default() };
        let paths = [path(1, with(7, 9)), path(2, with(8, 1)), path(3, with(7, 3))];
        let left: Vec<u32> = equals(&paths, &sources(&[true; 3])).iter().map(|path| path.source.0).collect();
        assert_eq!(left, [2, 3]);
    }

    #[test]
    fn what_is_stale_for_long_comes_last() {
        let old = Attributes { local_pref: Some(900), communities: [LLGR_STALE].into(), ..Attributes::default() };
        let fresh = Attributes { as_path: asns(&[1, 2, 3]), ..Attributes::default() };
        let paths = [path(1, old), path(2, fresh)];
        assert_eq!(best(&paths, &sources(&[false, true])).map(|path| path.source), Some(SourceId(2)));
    }

    #[test]
    fn our_own_route_comes_first() {
        let strong = Attributes { local_pref: Some(u32::MAX), ..Attributes::default() };
        let own = Attributes { as_path: asns(&[1, 2, 3]), ..Attributes::default() };
        let paths = [path(0, own), path(1, strong)];
        assert_eq!(best(&paths, &sources(&[true])).map(|path| path.source), Some(SourceId::LOCAL));
    }

    #[test]
    fn our_own_route_yields_to_a_higher_priority_if_it_may() {
        let with = |priority: u32| Attributes { local_pref: Some(PRIORITY_SUM - priority), ..Attributes::default() };
        let worse = Attributes { as_path: asns(&[1, 2, 3]), ..with(512) };
        let old = Attributes { communities: [LLGR_STALE].into(), ..with(512) };
        let none = Attributes { local_pref: Some(u32::MAX), ..Attributes::default() };
        for (yields, others, expected) in [
            (true, vec![with(512)], 1),
            (false, vec![with(512)], 0),
            (true, vec![with(1024)], 0),
            (true, vec![with(2048)], 0),
            (true, vec![none], 0),
            (true, vec![old.clone()], 0),
            (true, vec![with(2048), worse.clone(), old], 2),
            (true, vec![worse, with(512)], 2),
        ] {
            let mut paths = vec![Path { yields, ..path(0, with(1024)) }];
            paths.extend(others.into_iter().zip(1..).map(|(attributes, source)| path(source, attributes)));
            for _ in 0..paths.len() {
                let found = best(&paths, &sources(&[true; 3])).map(|path| path.source.0);
                assert_eq!(found, Some(expected), "{paths:?}");
                paths.rotate_left(1);
            }
        }
    }

    proptest! {
        #[test]
        fn order_of_arrival_does_not_matter(
            rows in proptest::collection::vec((0..2_u32, 1..4_usize, 7..9_u32, 0..3_u32, any::<bool>()), 1..8),
            rotate in 0..8_usize,
        ) {
            let external: Vec<bool> = rows.iter().map(|row| row.4).collect();
            let paths: Vec<Path> = rows.iter().enumerate().map(|(at, (pref, hops, first, med, _))| {
                let as_path = asns(&vec![*first; *hops]);
                path(at as u32 + 1, Attributes { local_pref: Some(*pref), as_path, med: Some(*med), ..Attributes::default() })
            }).collect();
            let mut turned = paths.clone();
            turned.rotate_left(rotate % paths.len());
            turned.reverse();
            let sources = sources(&external);
            let ids = |paths: &[Path]| equals(paths, &sources).iter().map(|path| path.source).collect::<Vec<_>>();
            prop_assert_eq!(ids(&paths), ids(&turned));
        }
    }
}
