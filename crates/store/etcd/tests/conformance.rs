//! The etcd store keeps the port's promises on a real etcd: as plain as it comes, and with TLS and users.

use std::sync::Arc;

use tortie_etcd_server::{Server, Wish};
use tortie_facts::Revision;
use tortie_store::Store;
use tortie_store::conformance::Subject;
use tortie_store_etcd::EtcdStore;

mod common;

struct Etcd(Server);

impl Etcd {
    fn make(wish: Wish) -> Option<Etcd> {
        tortie_etcd_server::installed().then(|| Etcd(Server::start(wish).ready()))
    }

    fn store(&self) -> EtcdStore {
        EtcdStore::open(common::options(&self.0)).expect("good settings")
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
