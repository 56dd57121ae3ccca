//! The etcd store keeps the port's promises on a real etcd: as plain as it comes, and with TLS and users.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tortie_etcd_server::{Server, Wish};
use tortie_facts::Revision;
use tortie_store::Store;
use tortie_store::conformance::Subject;
use tortie_store_etcd::{EtcdStore, Options};

mod common;

/// How long a store may take to answer.
const LONG: Duration = Duration::from_secs(30);

struct Etcd(Server);

impl Etcd {
    fn make(wish: Wish) -> Option<Etcd> {
        tortie_etcd_server::installed().then(|| Etcd(Server::start(wish).ready()))
    }

    /// Connected: on a busy machine with thirty etcds a handshake may take longer than a call does.
    fn store(&self) -> EtcdStore {
        let options = Options { patience: LONG, ..common::options(&self.0) };
        let store = EtcdStore::open(options).expect("good settings");
        let deadline = Instant::now() + LONG;
        while let Err(error) = store.revision() {
            assert!(Instant::now() < deadline, "{error}");
        }
        store
    }
}

impl Subject for Etcd {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store())
    }

    fn plant(&self, path: &str, text: &str) {
        self.0.put(path, text);
    }

    fn text(&self, path: &str) -> String {
        self.0.get_prefix(path).remove(0).1
    }

    fn compact(&self, upto: Revision) {
        self.store().compact(upto).expect("it may do so");
    }
}

mod plain {
    //! One member, no TLS, no users.
    tortie_store::conformance_tests!(maybe: || super::Etcd::make(super::Wish::default()));
}

mod secure {
    //! TLS with client certificates, and a user with the least rights.
    tortie_store::conformance_tests!(maybe: || super::Etcd::make(super::Wish {
        tls: true,
        users: true,
        ..super::Wish::default()
    }));
}
