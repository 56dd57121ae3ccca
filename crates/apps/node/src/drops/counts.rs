//! How many packets ended without being told of, as the rules count them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tortie_flow::Seen;
use tortie_iptables::Flavour;
use tortie_nftables::{Counters, TABLE};
use tortie_ruleset::drop_chain;
use tracing::debug;

use super::Drops;

/// Causes whose counters are looked at; a node with more denying rules than that counts those of the first ones.
const MOST_COUNTED: usize = 4096;

/// Where the counters are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedBy {
    /// In our table; each is read by itself.
    Nftables,
    /// In iptables' tables, which are read whole.
    Iptables(Flavour),
}

impl CountedBy {
    /// How often they are read.
    fn every(self) -> Duration {
        match self {
            CountedBy::Nftables => Duration::from_secs(1),
            CountedBy::Iptables(_) => Duration::from_secs(5),
        }
    }

    fn max_name_len(self) -> usize {
        match self {
            CountedBy::Nftables => tortie_nftables::MAX_NAME_LEN,
            CountedBy::Iptables(_) => tortie_iptables::MAX_NAME_LEN,
        }
    }
}

/// Reads how many packets ended without being told of, for the causes that were heard of lately: before a packet is
/// suppressed, others of its cause were told.
pub(super) struct Suppressed {
    counts: CountedBy,
    counters: Option<Counters>,
    /// The last reading of each cause, and whether to read again.
    causes: BTreeMap<String, (u64, bool)>,
    next: Option<Instant>,
}

impl Suppressed {
    pub(super) fn new(counts: CountedBy) -> Suppressed {
        Suppressed { counts, counters: None, causes: BTreeMap::new(), next: None }
    }

    pub(super) fn heard(&mut self, packets: &[Seen]) {
        for seen in packets {
            if let Some((_, again)) = self.causes.get_mut(&seen.prefix) {
                *again = true;
            } else if self.causes.len() < MOST_COUNTED {
                self.causes.insert(seen.prefix.clone(), (0, true));
            }
        }
    }

    pub(super) fn count(&mut self, drops: &Drops) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now < next) || !self.causes.values().any(|(_, again)| *again) {
            return;
        }
        self.next = Some(now + self.counts.every());
        let Some(read) = self.read() else { return };
        for (prefix, packets) in read {
            let Some((last, again)) = self.causes.get_mut(&prefix) else { continue };
            let more = since(*last, packets);
            drops.suppressed(&prefix, more);
            (*last, *again) = (packets, more > 0);
        }
    }

    /// The counters of the causes that are to be read again; `None`: they can't be read now.
    fn read(&mut self) -> Option<Vec<(String, u64)>> {
        let max_name_len = self.counts.max_name_len();
        let due = self.causes.iter().filter(|(_, (_, again))| *again).map(|(prefix, _)| prefix.clone());
        let due: Vec<String> = due.collect();
        match self.counts {
            CountedBy::Nftables => {
                if self.counters.is_none() {
                    self.counters = Counters::open(TABLE).ok();
                }
                let counters = self.counters.as_mut()?;
                let mut read = Vec::new();
                for prefix in due {
                    let sum = drop_chain(&prefix, max_name_len).iter().try_fold(0, |sum: u64, chain| {
                        counters.packets(chain).map(|packets| sum.saturating_add(packets.unwrap_or(0)))
                    });
                    match sum {
                        Ok(packets) => read.push((prefix, packets)),
                        Err(error) => debug!(%error, prefix, "a counter can't be read"),
                    }
                }
                Some(read)
            }
            CountedBy::Iptables(flavour) => {
                let counted = tortie_iptables::first_rules(flavour)
                    .inspect_err(|error| debug!(%error, "the counters can't be read"))
                    .ok()?;
                let packets = |prefix: &str| {
                    let chains = drop_chain(prefix, max_name_len);
                    chains
                        .iter()
                        .filter_map(|chain| counted.get(&**chain))
                        .fold(0, |sum: u64, n| sum.saturating_add(*n))
                };
                let with_packets = |prefix: String| {
                    let packets = packets(&prefix);
                    (prefix, packets)
                };
                Some(due.into_iter().map(with_packets).collect())
            }
        }
    }
}

/// How much was counted since the last reading. A chain that was made anew counts from nothing.
fn since(last: u64, now: u64) -> u64 {
    now.checked_sub(last).unwrap_or(now)
}
