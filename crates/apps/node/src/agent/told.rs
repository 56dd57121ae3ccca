//! What people are told of once: facts that can't be used as they are written, and a datastore in trouble.
//!
//! Invariant: a line of the log comes when something becomes so or stops being so, however often it is looked at.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tortie_facts::{Key, SyncStatus};
use tracing::{info, warn};

/// Lines about facts that one minute may bring; a bad import of thousands must not fill the disk.
const MOST_LINES: usize = 50;

/// What was told so far.
#[derive(Default)]
pub(super) struct Told {
    problems: BTreeMap<Key, Vec<String>>,
    lacking: BTreeMap<String, String>,
    unsupported: BTreeMap<String, String>,
    trouble: Option<String>,
    minute: Option<Instant>,
    lines: usize,
}

impl Told {
    /// Tells of facts that became unusable; those that can be used again are forgotten, and told of if they come back.
    /// Returns how many lines were new.
    pub(super) fn problems(&mut self, now_standing: BTreeMap<Key, Vec<String>>, now: Instant) -> usize {
        let mut new = 0;
        let before = std::mem::take(&mut self.problems);
        for (key, lines) in &now_standing {
            let told = before.get(key).map(Vec::as_slice).unwrap_or_default();
            for line in lines.iter().filter(|line| !told.contains(line)) {
                new += 1;
                self.warn(key, line, now);
            }
        }
        self.problems = now_standing;
        new
    }

    fn warn(&mut self, key: &Key, problem: &str, now: Instant) {
        if self.minute.is_none_or(|start| now.saturating_duration_since(start) >= Duration::from_secs(60)) {
            (self.minute, self.lines) = (Some(now), 0);
        }
        self.lines += 1;
        if self.lines <= MOST_LINES {
            warn!(key = key.path(), problem, "a stored object can't be used as it is written");
        } else if self.lines == MOST_LINES + 1 {
            warn!("more stored objects can't be used as they are written; the node's state lists all");
        }
    }

    /// Facts that can't be used as they are written, with what is wrong.
    pub(super) fn standing(&self) -> &BTreeMap<Key, Vec<String>> {
        &self.problems
    }

    /// Nothing is told yet but what this kernel lacks.
    pub(super) fn lacking(lacking: BTreeMap<String, String>) -> Told {
        Told { lacking, ..Told::default() }
    }

    /// Tells of what the packet filter can't hold, when that is new.
    pub(super) fn unsupported(&mut self, now_standing: BTreeMap<String, String>) {
        for (what, why) in now_standing.iter().filter(|(what, why)| self.unsupported.get(*what) != Some(why)) {
            warn!(what, why, "not supported: this denies everything, all else is in force");
        }
        self.unsupported = now_standing;
    }

    /// What the kernel lacks and the packet filter can't hold, with why.
    pub(super) fn not_supported(&self) -> BTreeMap<&String, &String> {
        self.lacking.iter().chain(&self.unsupported).collect()
    }

    /// Tells when the datastore gets into trouble, into another one, and out of it.
    pub(super) fn datastore(&mut self, status: Option<SyncStatus>, trouble: Option<&str>) {
        if status == Some(SyncStatus::InSync) {
            if self.trouble.take().is_some() {
                info!("the datastore can be used again");
            }
        } else if let Some(trouble) = trouble
            && self.trouble.as_deref() != Some(trouble)
        {
            warn!(trouble, "the datastore is in trouble; the kernel keeps what it holds");
            self.trouble = Some(trouble.to_owned());
        }
    }

    /// The datastore's trouble, if it has one.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_api::Kind;

    fn standing(lines: &[&str]) -> BTreeMap<Key, Vec<String>> {
        let key = Key::resource(Kind::GlobalNetworkPolicy, "", "p");
        BTreeMap::from([(key, lines.iter().map(|line| (*line).to_owned()).collect())])
    }

    #[test]
    fn a_problem_is_told_when_it_comes_and_when_it_comes_back() {
        let mut told = Told::default();
        let now = Instant::now();
        assert_eq!(told.problems(standing(&["a"]), now), 1);
        assert_eq!(told.problems(standing(&["a"]), now), 0);
        assert_eq!(told.problems(standing(&["a", "b"]), now), 1);
        assert_eq!(told.problems(BTreeMap::new(), now), 0);
        assert!(told.standing().is_empty());
        assert_eq!(told.problems(standing(&["a"]), now), 1);
    }

    #[test]
    fn a_datastore_in_trouble_stays_so_until_it_is_in_sync() {
        let mut told = Told::default();
        told.datastore(Some(SyncStatus::WaitForDatastore), Some("locked"));
        told.datastore(None, Some("locked"));
        told.datastore(Some(SyncStatus::Resync), None);
        assert_eq!(told.trouble(), Some("locked"));
        told.datastore(Some(SyncStatus::InSync), None);
        assert_eq!(told.trouble(), None);
    }
}
