//! Packets that ended on this node: heard from the kernel, given names, kept for whoever asks.
//!
//! One thread of its own reads NFLOG, so that neither the agent nor packets wait for it. Invariant: memory is bounded;
//! what is suppressed by the rules' limit or lost by the kernel is counted.

mod counts;
mod listen;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tortie_desired::Batch;
use tortie_flow::{Counts, Directory, Record, Ring, Seen};

pub use counts::CountedBy;
pub use listen::start;

/// Records that are kept.
const KEPT: usize = 10_000;
/// Records in one answer.
const MOST_TOLD: usize = 1_000;

/// See the module.
#[derive(Debug)]
pub struct Drops {
    directory: Mutex<Directory>,
    ring: Mutex<Ring>,
}

impl Default for Drops {
    fn default() -> Self {
        Drops { directory: Mutex::default(), ring: Mutex::new(Ring::new(KEPT)) }
    }
}

impl Drops {
    /// Follows the tables. To be called before the kernel gets what changed.
    pub fn apply(&self, batch: &Batch) {
        lock(&self.directory).apply(batch);
    }

    /// Records packets that were heard of now.
    fn take(&self, packets: &[Seen], lost: u64, time_ms: u64) {
        let directory = lock(&self.directory);
        let records: Vec<Record> = packets.iter().filter_map(|seen| directory.record(seen, time_ms)).collect();
        drop(directory);
        let mut ring = lock(&self.ring);
        ring.lost(lost);
        records.into_iter().for_each(|record| ring.push(record));
    }

    fn suppressed(&self, prefix: &str, packets: u64) {
        lock(&self.ring).suppressed(prefix, packets);
    }

    /// The records after the number `AFTER`, all that are kept without it, and the numbers of all.
    pub fn answer(&self, args: &BTreeMap<String, String>) -> Value {
        let after = args.get("AFTER").and_then(|text| text.parse().ok()).unwrap_or(0);
        let ring = lock(&self.ring);
        let records: Vec<&Record> = ring.after(after, MOST_TOLD).collect();
        json!({ "records": records, "counts": ring.counts() })
    }

    /// The numbers as lines for `/metrics`.
    pub fn metrics(&self) -> String {
        let counts = lock(&self.ring).counts().clone();
        let Counts { recorded, suppressed, lost } = counts;
        let mut text = String::new();
        let mut head = |name: &str, help: &str, lines: &[(String, u64)]| {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n"));
            lines.iter().for_each(|(labels, value)| text.push_str(&format!("{name}{labels} {value}\n")));
        };
        let by_cause: Vec<(String, u64)> =
            recorded.iter().map(|(cause, number)| (format!("{{cause=\"{cause}\"}}"), *number)).collect();
        head("tortie_drop_records_total", "Recorded packets that ended, by cause.", &by_cause);
        let all = suppressed.values().sum();
        head("tortie_drops_suppressed_total", "Packets that ended without a record.", &[(String::new(), all)]);
        head("tortie_drop_records_lost_total", "Records that the kernel lost.", &[(String::new(), lost)]);
        text
    }
}

/// What a panic left is still a whole record or none.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_flow::Hook;

    #[test]
    fn what_is_taken_is_told_and_counted() {
        let drops = Drops::default();
        let seen = |prefix: &str| Seen {
            prefix: prefix.to_owned(),
            hook: Hook::Forward,
            input: Some("cali9".to_owned()),
            output: None,
            flow: None,
        };
        drops.take(&[seen("DXE|unknown-interface"), seen("another tool's"), seen("DRI")], 2, 7);
        drops.suppressed("DRI", 40);
        let told = drops.answer(&BTreeMap::from([("AFTER".to_owned(), "1".to_owned())]));
        assert_eq!(told["records"][0]["cause"], "nothing-matched");
        assert_eq!(told["records"].as_array().map(Vec::len), Some(1));
        assert_eq!(told["counts"]["suppressed"]["DRI"], 40);
        let text = drops.metrics();
        assert!(text.contains("\ntortie_drop_records_total{cause=\"unknown-interface\"} 1\n"), "{text}");
        assert!(text.contains("\ntortie_drops_suppressed_total 40\n"), "{text}");
        assert!(text.contains("\ntortie_drop_records_lost_total 2\n"), "{text}");
    }
}
