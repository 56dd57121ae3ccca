//! The memory store keeps the port's promises.

use std::sync::Arc;

use tortie_facts::Revision;
use tortie_store::conformance::Subject;
use tortie_store::{MemoryStore, Store};

struct Memory(MemoryStore);

impl Subject for Memory {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn plant(&self, path: &str, text: &str) {
        self.0.plant(path, text);
    }

    fn compact(&self, upto: Revision) {
        self.0.compact(upto);
    }
}

tortie_store::conformance_tests!(|| Memory(MemoryStore::new()));
