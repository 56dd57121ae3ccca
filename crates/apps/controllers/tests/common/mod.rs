//! Stores that tests of several programs open.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;

use tortie_etcd_server::Server;
use tortie_store::Store;

/// A client of a real etcd, by upstream's variables.
pub fn etcd(server: &Server) -> Arc<dyn Store> {
    choice(server).open().expect("good settings")
}

/// The same before it is opened.
pub fn choice(server: &Server) -> tortie_datastore::Choice {
    let env: BTreeMap<String, OsString> = server
        .env()
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .chain([("DATASTORE_TYPE".to_owned(), "etcdv3".into())])
        .collect();
    let sources = tortie_datastore::Sources { env: &env, file: None, felix: tortie_datastore::Felix::Ignored };
    tortie_datastore::choose(&sources).expect("good")
}
