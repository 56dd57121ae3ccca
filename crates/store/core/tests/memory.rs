//! The memory store keeps the port's promises.

use std::sync::Arc;

use tortie_facts::{Key, Revision};
use tortie_store::conformance::Subject;
use tortie_store::{MemoryStore, Reader, Store};

struct Memory(MemoryStore);

impl Subject for Memory {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    fn plant(&self, path: &str, text: &str) {
        self.0.plant(path, text);
    }

    fn text(&self, path: &str) -> String {
        let key = Key::from_path(path).expect("a key");
        let entry = Reader::get(&self.0, &key).expect("it can be read").expect("it is there");
        entry.value.to_json()
    }

    fn compact(&self, upto: Revision) {
        self.0.compact(upto);
    }
}

tortie_store::conformance_tests!(|| Memory(MemoryStore::new()));
