//! The last records, and numbers of all.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::record::Record;

/// Causes whose suppressed packets are told apart; those of more are counted together.
const MOST_CAUSES: usize = 4096;
/// Where the suppressed packets of more causes than that are counted.
const OTHERS: &str = "others";

/// Numbers since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Records, by the word of their cause.
    pub recorded: BTreeMap<String, u64>,
    /// Packets that ended above the rate of records, by the text of their cause.
    pub suppressed: BTreeMap<String, u64>,
    /// Records that the kernel could not hand over in time.
    pub lost: u64,
}

/// The last records.
#[derive(Debug)]
pub struct Ring {
    records: VecDeque<Record>,
    capacity: usize,
    last: u64,
    counts: Counts,
}

impl Ring {
    /// Room for this many records, at least one.
    pub fn new(capacity: usize) -> Ring {
        Ring { records: VecDeque::new(), capacity: capacity.max(1), last: 0, counts: Counts::default() }
    }

    /// Numbers a record and keeps it; the oldest goes if there is no room.
    pub fn push(&mut self, mut record: Record) {
        self.last += 1;
        record.number = self.last;
        *self.counts.recorded.entry(record.cause.clone()).or_default() += 1;
        if self.records.len() == self.capacity {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    /// Packets of a cause ended without a record.
    pub fn suppressed(&mut self, prefix: &str, packets: u64) {
        if packets == 0 {
            return;
        }
        let known = self.counts.suppressed.contains_key(prefix) || self.counts.suppressed.len() < MOST_CAUSES;
        let name = if known { prefix } else { OTHERS };
        *self.counts.suppressed.entry(name.to_owned()).or_default() += packets;
    }

    /// Records were lost before they came here.
    pub fn lost(&mut self, records: u64) {
        self.counts.lost += records;
    }

    /// Numbers since the start.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The records after a number in order, at most so many.
    pub fn after(&self, number: u64, most: usize) -> impl Iterator<Item = &Record> {
        let start = self.records.partition_point(|record| record.number <= number);
        self.records.iter().skip(start).take(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(cause: &str) -> Record {
        Record { cause: cause.to_owned(), ..Record::default() }
    }

    #[test]
    fn the_last_records_are_kept_and_all_are_counted() {
        let mut ring = Ring::new(3);
        (0..5).for_each(|_| ring.push(record("rule")));
        ring.push(record("spoofed"));
        let numbers = |after, most| ring.after(after, most).map(|record| record.number).collect::<Vec<_>>();
        assert_eq!(numbers(0, 10), [4, 5, 6]);
        assert_eq!(numbers(4, 1), [5]);
        assert_eq!(numbers(6, 10), [0u64; 0]);
        assert_eq!(ring.counts().recorded, [("rule".to_owned(), 5), ("spoofed".to_owned(), 1)].into());
    }

    #[test]
    fn what_is_suppressed_is_counted_by_cause_within_bounds() {
        let mut ring = Ring::new(1);
        for n in 0..MOST_CAUSES + 10 {
            ring.suppressed(&format!("DPI{n}|np/x"), 2);
        }
        ring.suppressed("DPI0|np/x", 5);
        ring.suppressed("DPI1|np/x", 0);
        let counts = ring.counts();
        assert_eq!(counts.suppressed.len(), MOST_CAUSES + 1);
        assert_eq!((counts.suppressed["DPI0|np/x"], counts.suppressed[OTHERS]), (7, 20));
    }
}
