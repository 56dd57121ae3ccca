//! A store on a test's etcd.

use tortie_etcd_server::Server;
use tortie_store_etcd::{Options, Setting};

/// The settings of a client that may do all that it must, as the environment would have them.
pub fn options(server: &Server) -> Options {
    let mut options = Options::default();
    for (name, value) in server.env() {
        let setting = Some(Setting::new(value, format!("environment variable {name}")));
        match name.as_str() {
            "ETCD_ENDPOINTS" => options.endpoints = setting,
            "ETCD_USERNAME" => options.username = setting,
            "ETCD_PASSWORD" => options.password = setting,
            "ETCD_CA_CERT_FILE" => options.ca_file = setting,
            "ETCD_CERT_FILE" => options.cert_file = setting,
            "ETCD_KEY_FILE" => options.key_file = setting,
            _ => {}
        }
    }
    options
}
