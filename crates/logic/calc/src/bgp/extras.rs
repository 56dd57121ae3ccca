//! What upstream has no field for: annotations of BGPPeers, and of the BGPConfiguration for the mesh.
//!
//! Upstream's programs ignore them, so a cluster of both works.

use std::collections::BTreeMap;

use tortie_desired::BgpBfd;
use tortie_net::IpNet;

/// A BGPPeer without an address whose neighbours are all hosts of this prefix that connect.
const RANGE: &str = "bgp.tortie/listen-range";
/// `on`, or `INTERVALms*MULTIPLIER`.
const BFD: &str = "bgp.tortie/bfd";
/// Most prefixes that a neighbour may send.
const MAX_PREFIXES: &str = "bgp.tortie/max-prefixes";
/// Seconds that routes are kept after the restart time.
const LONG_LIVED: &str = "bgp.tortie/long-lived-secs";

/// `auto`: above [`super::reflectors::MOST_MESHED`] nodes, elected ones reflect. On the BGPConfiguration alone.
const REFLECTORS: &str = "bgp.tortie/reflectors";

/// Noticed within 150 ms.
const USUAL_BFD: BgpBfd = BgpBfd { interval_ms: 50, multiplier: 3 };

/// The annotations, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extras {
    pub(super) range: Option<IpNet>,
    pub(super) bfd: Option<BgpBfd>,
    pub(super) max_prefixes: Option<u32>,
    pub(super) long_lived_secs: u32,
    pub(super) elects: bool,
}

impl Extras {
    pub(super) fn of(annotations: &BTreeMap<String, String>, problems: &mut Vec<String>) -> Extras {
        let mut wrong = |key: &str, expected: &str| {
            if let Some(text) = annotations.get(key) {
                problems.push(format!("metadata.annotations[{key}]: {text:?}, expected {expected}"));
            }
        };
        let text = |key: &str| annotations.get(key).map(|text| text.trim());
        let range = text(RANGE).and_then(|text| text.parse::<IpNet>().ok()).map(|net| net.trunc());
        if range.is_none() {
            wrong(RANGE, "a prefix such as 10.0.0.0/24");
        }
        let bfd = text(BFD).and_then(bfd);
        if bfd.is_none() && text(BFD) != Some("off") {
            wrong(BFD, "on, off or INTERVALms*MULTIPLIER such as 50ms*3, of 10 to 60000 ms and 1 to 255");
        }
        let max_prefixes = text(MAX_PREFIXES).and_then(|text| text.parse().ok());
        if max_prefixes.is_none() {
            wrong(MAX_PREFIXES, "a number");
        }
        let long_lived = text(LONG_LIVED).and_then(|text| text.parse().ok()).filter(|secs| *secs <= 0x00ff_ffff);
        if long_lived.is_none() {
            wrong(LONG_LIVED, "seconds, at most 16777215");
        }
        let elects = text(REFLECTORS) == Some("auto");
        if !elects && text(REFLECTORS) != Some("off") {
            wrong(REFLECTORS, "auto or off");
        }
        Extras { range, bfd, max_prefixes, long_lived_secs: long_lived.unwrap_or(0), elects }
    }
}

fn bfd(text: &str) -> Option<BgpBfd> {
    if text == "on" {
        return Some(USUAL_BFD);
    }
    let (interval, multiplier) = text.split_once("ms*")?;
    let (interval_ms, multiplier) = (interval.parse().ok()?, multiplier.parse().ok()?);
    ((10..=60_000).contains(&interval_ms) && multiplier > 0).then_some(BgpBfd { interval_ms, multiplier })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_read_and_wrong_ones_told() {
        let of = |pairs: &[(&str, &str)]| {
            let mut problems = Vec::new();
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            (Extras::of(&pairs, &mut problems), problems.len())
        };
        assert_eq!(of(&[("other", "x")]), (Extras::default(), 0));
        let (read, wrong) = of(&[(RANGE, "10.0.0.9/24"), (BFD, "100ms*5"), (MAX_PREFIXES, "7"), (LONG_LIVED, "3600")]);
        assert_eq!((read.range.map(|net| net.to_string()).as_deref(), wrong), (Some("10.0.0.0/24"), 0));
        assert_eq!(read.bfd, Some(BgpBfd { interval_ms: 100, multiplier: 5 }));
        assert_eq!((read.max_prefixes, read.long_lived_secs), (Some(7), 3600));
        assert_eq!(of(&[(BFD, "on")]).0.bfd, Some(USUAL_BFD));
        assert_eq!(of(&[(BFD, "off")]), (Extras::default(), 0));
        assert_eq!(
            of(&[(RANGE, "10"), (BFD, "5ms*3"), (MAX_PREFIXES, "-1"), (LONG_LIVED, "99999999")]),
            (Extras::default(), 4)
        );
        assert!(of(&[(REFLECTORS, "auto")]).0.elects);
        assert_eq!(of(&[(REFLECTORS, "on")]), (Extras::default(), 1));
    }
}
