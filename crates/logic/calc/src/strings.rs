//! One copy of each name, however many facts carry it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashSet;

/// The name of a tier: shared twice, as every policy has one, and a shared text alone is twice as large.
pub(crate) type TierName = Arc<Arc<str>>;

/// Shared texts. What nobody holds any more is dropped each time the collection has doubled.
#[derive(Debug, Default)]
pub(crate) struct Strings {
    known: HashSet<Arc<str>>,
    /// Most policies of all namespaces ask for it.
    empty: Arc<str>,
    sweep_at: usize,
    tiers: BTreeMap<Arc<str>, TierName>,
}

/// More tiers than this are looked through for those that nobody names any more.
const MANY_TIERS: usize = 256;

impl Strings {
    pub(crate) fn get(&mut self, text: &str) -> Arc<str> {
        if text.is_empty() {
            return self.empty.clone();
        }
        if let Some(known) = self.known.get(text) {
            return known.clone();
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|text| Arc::strong_count(text) > 1);
            self.sweep_at = (2 * self.known.len()).max(1024);
        }
        let text: Arc<str> = Arc::from(text);
        self.known.insert(text.clone());
        text
    }
}

impl Strings {
    /// The name of a tier.
    pub(crate) fn tier(&mut self, name: &str) -> TierName {
        if let Some(known) = self.tiers.get(name) {
            return known.clone();
        }
        if self.tiers.len() >= MANY_TIERS {
            self.tiers.retain(|_, tier| Arc::strong_count(tier) > 1);
        }
        let name: Arc<str> = Arc::from(name);
        let tier = Arc::new(name.clone());
        self.tiers.insert(name, tier.clone());
        tier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_unused_ones_go() {
        let mut strings = Strings::default();
        let first = strings.get("app");
        for i in 0..10_000 {
            strings.get(&format!("pod-{i}"));
        }
        assert!(Arc::ptr_eq(&first, &strings.get("app")));
        assert!(strings.known.len() <= 2048, "{}", strings.known.len());
    }
}
