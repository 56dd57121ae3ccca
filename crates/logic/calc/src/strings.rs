//! One copy of each name, however many facts carry it.

use std::sync::Arc;

use hashbrown::HashSet;

/// Shared texts. What nobody holds any more is dropped each time the collection has doubled.
#[derive(Debug, Default)]
pub(crate) struct Strings {
    known: HashSet<Arc<str>>,
    /// Most policies of all namespaces ask for it.
    empty: Arc<str>,
    sweep_at: usize,
}

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
