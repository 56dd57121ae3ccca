//! The ranges of key text that a filter covers: sorted, apart from each other, so that a listing needs no sort.

use tortie_facts::Filter;

/// A half-open range of key text, compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The prefix, or the only text: the first that it may hold.
    pub start: String,
    /// The first text behind it.
    pub end: String,
}

impl Span {
    /// Whether this text lies inside.
    pub fn covers(&self, path: &str) -> bool {
        path.starts_with(&self.start) && *path < *self.end
    }
}

/// The filter as ranges, in order, with no overlap.
pub fn spans(filter: &Filter) -> Vec<Span> {
    let mut prefixes = filter.prefixes();
    prefixes.sort();
    let mut spans: Vec<Span> = Vec::with_capacity(prefixes.len());
    for start in prefixes {
        if spans.last().is_some_and(|last| last.covers(&start)) {
            continue;
        }
        let end = match start.strip_suffix('/') {
            // '0' is the byte after '/'.
            Some(stem) => format!("{stem}0"),
            // A whole key, and nothing that comes after it.
            None => format!("{start}\0"),
        };
        spans.push(Span { start, end });
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_facts::OwnerKind;

    #[test]
    fn overlaps_fall_together() {
        let filter = Filter::Any(vec![
            Filter::Affinities(OwnerKind::Host, "b".into()),
            Filter::AllAffinities(OwnerKind::Host),
            Filter::Handles,
            Filter::Affinities(OwnerKind::Host, "a".into()),
            Filter::Handles,
        ]);
        let texts: Vec<_> = spans(&filter).into_iter().map(|span| (span.start, span.end)).collect();
        assert_eq!(
            texts,
            [
                ("/calico/ipam/v2/handle/".to_owned(), "/calico/ipam/v2/handle0".to_owned()),
                ("/calico/ipam/v2/host/".to_owned(), "/calico/ipam/v2/host0".to_owned()),
            ]
        );
    }

    #[test]
    fn the_range_and_the_prefix_agree() {
        let span = spans(&Filter::Handles).remove(0);
        for tail in ["", "a", "\u{10ffff}", "/", "0"] {
            let path = format!("{}{tail}", span.start);
            assert!(span.covers(&path) && path >= span.start && path < span.end, "{path:?}");
        }
        for path in ["/calico/ipam/v2/handle", "/calico/ipam/v2/handle0", "/calico/ipam/v2/handlex"] {
            assert!(!span.covers(path) && (path < &*span.start || path >= &*span.end), "{path:?}");
        }
    }

    #[test]
    fn a_whole_key_is_a_range_of_one() {
        let spans = spans(&Filter::NodeAgent("n".into()));
        let apart = spans.windows(2).all(|two| two[0].end <= two[1].start);
        assert!(apart, "{spans:?}");
        let config = "/calico/ipam/v2/config";
        let of = spans.iter().find(|span| span.start == config).expect("IPAM's settings");
        for (path, inside) in [(config, true), ("/calico/ipam/v2/config/x", false), ("/calico/ipam/v2/configs", false)]
        {
            assert_eq!(of.covers(path), inside, "{path:?}");
            assert_eq!(path >= &*of.start && path < &*of.end, inside, "{path:?}");
        }
    }

    #[test]
    fn nothing_filtered_is_no_range() {
        assert_eq!(spans(&Filter::Any(Vec::new())), []);
    }
}
