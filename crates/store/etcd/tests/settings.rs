//! Wrong settings against a real etcd: the message names the setting, where it came from, and what to do.

mod common;

use std::time::{Duration, Instant};

use tortie_etcd_server::{PASSWORD, Pair, Pki, STRANGER, Server, Wish, installed};
use tortie_facts::{Filter, Key, Revision, Value};
use tortie_store::{Expect, Reader, Store, StoreError, Write, WriteError};
use tortie_store_etcd::{EtcdStore, Options, Setting};

fn variable(name: &str, value: impl Into<String>) -> Option<Setting> {
    Some(Setting::new(value, format!("environment variable {name}")))
}

fn file(name: &str, path: &std::path::Path) -> Option<Setting> {
    variable(name, path.display().to_string())
}

/// What a first read says; it must say all of these.
#[track_caller]
fn says(options: Options, unusable: bool, parts: &[&str]) {
    let store = EtcdStore::open(options).expect("the settings alone are good");
    let error = store.list(&Filter::Handles).expect_err("it can't work");
    assert_eq!(matches!(error, StoreError::Unusable(_)), unusable, "{error}");
    let text = error.to_string();
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    assert!(!text.contains(PASSWORD) && !text.contains("not-the-password"), "{text}");
}

#[test]
fn nobody_there_is_said_at_once() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let before = Instant::now();
    let endpoint = format!("http://127.0.0.1:{port}");
    let options = Options { endpoints: variable("ETCD_ENDPOINTS", &endpoint), ..Options::default() };
    says(options, false, &["ETCD_ENDPOINTS", &endpoint, "refused"]);
    assert!(before.elapsed() < Options::default().patience, "it did not wait for what never was");
    let options =
        Options { endpoints: variable("ETCD_ENDPOINTS", "http://no-such-host.invalid:2379"), ..Options::default() };
    says(options, false, &["ETCD_ENDPOINTS", "no-such-host.invalid"]);
}

#[test]
fn wrong_tls_is_named_by_its_setting() {
    if !installed() {
        return;
    }
    let server = Server::start(Wish { tls: true, ..Wish::default() }).ready();
    let good = || common::options(&server);
    let pki = server.pki().expect("TLS");
    let others = Pki::make(&server.directory().join("others"), &["127.0.0.1".parse().expect("an address")]);
    EtcdStore::open(good()).expect("good").list(&Filter::Handles).expect("good settings work");

    let foreign = Options { ca_file: file("ETCD_CA_CERT_FILE", &others.ca()), ..good() };
    says(foreign, true, &["ETCD_CA_CERT_FILE", "not signed by a CA"]);
    says(Options { ca_file: None, ..good() }, true, &["ETCD_CA_CERT_FILE, which is not set"]);
    let Pair { certificate, key } = others.client();
    let stranger =
        Options { cert_file: file("ETCD_CERT_FILE", &certificate), key_file: file("ETCD_KEY_FILE", &key), ..good() };
    says(stranger, true, &["ETCD_CERT_FILE", "clients with a certificate of its CA"]);
    says(Options { cert_file: None, key_file: None, ..good() }, true, &["ETCD_CERT_FILE, which is not set"]);
    let Pair { certificate, key } = pki.sign("old", true);
    let old =
        Options { cert_file: file("ETCD_CERT_FILE", &certificate), key_file: file("ETCD_KEY_FILE", &key), ..good() };
    says(old, true, &["ETCD_CERT_FILE", "certificate"]);
    let plain = server.endpoint(0).replace("https", "http");
    says(Options { endpoints: variable("ETCD_ENDPOINTS", plain), ..good() }, false, &["https://", "ETCD_ENDPOINTS"]);

    let text = |path: &std::path::Path| std::fs::read_to_string(path).expect("it is there");
    let Pair { certificate, key } = pki.client();
    let inline = Options {
        ca: variable("etcdCACert", text(&pki.ca())),
        cert: variable("etcdCert", text(&certificate)),
        key: variable("etcdKey", text(&key)),
        ca_file: None,
        cert_file: None,
        key_file: None,
        ..good()
    };
    EtcdStore::open(inline).expect("good").list(&Filter::Handles).expect("texts are as good as files");
}

#[test]
fn an_expired_member_certificate_is_said_to_be_so() {
    if !installed() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let pki = Pki::make(&directory.path().join("pki"), &["127.0.0.1".parse().expect("an address")]);
    let Pair { certificate, key } = pki.sign("expired", true);
    let args = ["--cert-file", &certificate.display().to_string(), "--key-file", &key.display().to_string()];
    // Not `ready`: no client gets through to it.
    let wish = Wish { tls: true, args: args.iter().map(|arg| (*arg).to_string()).collect(), ..Wish::default() };
    let server = Server::start(wish);
    let options = Options { ca_file: file("ETCD_CA_CERT_FILE", &pki.ca()), ..common::options(&server) };
    let deadline = Instant::now() + Duration::from_secs(60);
    let text = loop {
        let store = EtcdStore::open(options.clone()).expect("good");
        let text = store.list(&Filter::Handles).expect_err("it has expired").to_string();
        if !text.contains("refused") || Instant::now() > deadline {
            break text;
        }
    };
    assert!(text.contains("expired") && text.contains("clock"), "{text}");
}

#[test]
fn tls_to_a_member_without_it_is_said_to_be_so() {
    if !installed() {
        return;
    }
    let server = Server::plain().ready();
    let endpoint = server.endpoint(0).replace("http", "https");
    let options = Options { endpoints: variable("ETCD_ENDPOINTS", endpoint), ..Options::default() };
    says(options, false, &["no TLS there", "http://", "ETCD_ENDPOINTS"]);
}

#[test]
fn wrong_users_are_named() {
    if !installed() {
        return;
    }
    let server = Server::start(Wish { users: true, ..Wish::default() }).ready();
    let good = || common::options(&server);
    let nobody = Options { username: None, password: None, ..good() };
    says(nobody, true, &["asks for a user", "ETCD_USERNAME", "ETCD_PASSWORD"]);
    let wrong = Options { password: variable("ETCD_PASSWORD", "not-the-password"), ..good() };
    says(wrong, true, &["user name or the password is wrong", "ETCD_USERNAME"]);
    let stranger = Options { username: variable("ETCD_USERNAME", STRANGER), ..good() };
    says(stranger.clone(), true, &["permission denied", STRANGER, "ETCD_USERNAME", "/calico/", "grant-permission"]);

    let store = EtcdStore::open(stranger).expect("good");
    let key = Key::Handle("a".into());
    let value = Some(Value::from_json(&key, r#"{"block":{},"deleted":false}"#).expect("a handle"));
    let error = store.write_one(Write { key, expect: Expect::Any, value }).expect_err("no right");
    assert!(matches!(&error, WriteError::Unavailable(text) if text.contains("permission denied")), "{error}");
    let error = store.watch(&Filter::Handles, Revision(1)).err().expect("no right");
    assert!(error.to_string().contains("permission denied"), "{error}");
}

#[test]
fn a_token_that_is_no_longer_good_is_renewed() {
    if !installed() {
        return;
    }
    let mut server = Server::start(Wish { users: true, ..Wish::default() }).ready();
    let store = EtcdStore::open(common::options(&server)).expect("good");
    let from = store.list(&Filter::Handles).expect("a listing").revision;
    let mut watch = store.watch(&Filter::Handles, from).expect("open");
    // Changed rights make every token of before worthless; a member that starts anew knows none.
    server.ctl(&["role", "add", "another"]);
    let key = || Key::Handle("a".into());
    let value = || Some(Value::from_json(&key(), r#"{"block":{"10.0.0.0/26":1},"deleted":false}"#).expect("a handle"));
    store.write_one(Write { key: key(), expect: Expect::Absent, value: value() }).expect("with a fresh token");
    server.kill9(0);
    server.restart(0);
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = store.write_one(Write { key: key(), expect: Expect::Any, value: value() }) {
        assert!(Instant::now() < deadline, "{error}");
    }
    let mut told = 0;
    while told < 2 {
        assert!(Instant::now() < deadline, "{told} changes were told");
        told += watch.next(Duration::from_secs(1)).expect("nothing was compacted").len();
    }
}
