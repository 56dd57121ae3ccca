//! While the API server is away, the log has no line for each try: whoever asked is told, and says it once.

use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tortie_api::Kind;
use tortie_facts::Key;
use tortie_store::{Reader as _, StoreError};
use tortie_store_kubernetes::{KubernetesStore, Options};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_api_server_that_is_away_is_told_to_who_asks_and_to_nobody_else() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(move || writer.clone());
    log.try_init().expect("the only log of this process");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback");
    let options = Options {
        endpoint: format!("http://{free}"),
        deadline: Some(Duration::from_millis(600)),
        ..Options::default()
    };
    let store = KubernetesStore::open(options).expect("a thread");
    let key = Key::resource(Kind::ClusterInformation, "", "default");
    assert!(matches!(store.get(&key), Err(StoreError::Unavailable(_))));
    let text = String::from_utf8(lines.0.lock().expect("no panic").clone()).expect("text");
    assert_eq!(text, "");
}
