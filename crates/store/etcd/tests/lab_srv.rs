//! Members found by SRV records, end to end: a name server and a real etcd in a namespace of a child's own, whose
//! `/etc/resolv.conf` names that server.

mod common;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tortie_api::Kind;
use tortie_etcd_server::{Server, Wish, installed};
use tortie_facts::{Filter, Key, Value};
use tortie_store::{Expect, Reader, Store, Write};
use tortie_store_etcd::{EtcdStore, Options, Setting};

/// Says to the child what it is.
const ROLE: &str = "TORTIE_TEST_SRV";
const DOMAIN: &str = "calico.example";
const SECURE: &str = "_etcd-client-ssl._tcp.calico.example";
const PLAIN: &str = "_etcd-client._tcp.calico.example";

/// SRV records by name: priority, port, target.
type Records = Arc<Mutex<BTreeMap<&'static str, Vec<(u16, u16, String)>>>>;

/// The name that a question asks for, its type, and where the question ends.
fn question(bytes: &[u8]) -> (String, u16, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while bytes[at] != 0 {
        let end = at + 1 + usize::from(bytes[at]);
        labels.push(String::from_utf8(bytes[at + 1..end].to_vec()).expect("a name"));
        at = end;
    }
    (labels.join("."), u16::from_be_bytes([bytes[at + 1], bytes[at + 2]]), at + 5)
}

/// The answer to a question; every host of the domain is this machine. `room`: how many bytes an answer may have.
fn answer(query: &[u8], records: &Records, room: usize) -> Vec<u8> {
    let (name, kind, end) = question(query);
    let mut found: Vec<Vec<u8>> = Vec::new();
    if kind == 33 {
        for (priority, port, target) in records.lock().expect("no panic").get(name.as_str()).into_iter().flatten() {
            let mut data: Vec<u8> = [*priority, 1, *port].iter().flat_map(|word| word.to_be_bytes()).collect();
            for label in target.split('.') {
                data.push(label.len() as u8);
                data.extend(label.as_bytes());
            }
            data.push(0);
            found.push(data);
        }
    } else if kind == 1 && name.ends_with(DOMAIN) {
        found.push(vec![127, 0, 0, 1]);
    }
    let known = !found.is_empty() || name.ends_with(DOMAIN) && !name.starts_with('_');
    let mut bytes = query[..end].to_vec();
    // An answer without extensions; no such name where there is nothing of it.
    bytes[2..4].copy_from_slice(&(0x8180_u16 + if known { 0 } else { 3 }).to_be_bytes());
    bytes[4..12].copy_from_slice(&[0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
    for data in found {
        bytes.extend([0xc0, 12]);
        for word in [kind, 1, 0, 60, data.len() as u16] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(data);
    }
    if bytes.len() > room {
        bytes.truncate(end);
        bytes[2] |= 0x02;
        bytes[6..8].copy_from_slice(&[0, 0]);
    }
    bytes
}

/// Serves the records at port 53 of loopback, over UDP and TCP, until the process ends.
fn serve(records: &Records) {
    let (udp, tcp) = (UdpSocket::bind("127.0.0.1:53").expect("ours"), TcpListener::bind("127.0.0.1:53").expect("ours"));
    let of_udp = Arc::clone(records);
    std::thread::spawn(move || {
        let mut bytes = [0; 1500];
        loop {
            let (length, from) = udp.recv_from(&mut bytes).expect("a question");
            let _ = udp.send_to(&answer(&bytes[..length], &of_udp, 512), from);
        }
    });
    let of_tcp = Arc::clone(records);
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("a question");
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut query).expect("a question");
            let answer = answer(&query, &of_tcp, usize::MAX);
            let _ = stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat());
        }
    });
}

/// A network of loopback alone, and a resolver's configuration of its own.
fn isolate(directory: &Path) {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("root may unshare");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("root may mount");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip is there");
    assert!(up.success());
    let file = directory.join("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.1\noptions timeout:2 attempts:5\n").expect("a file");
    mount(Some(&file), "/etc/resolv.conf", None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("root may mount");
}

/// The settings of a client that finds the members by itself.
fn options(server: &Server) -> Options {
    let srv = Some(Setting::new(DOMAIN, "environment variable ETCD_DISCOVERY_SRV"));
    Options { endpoints: None, discovery_srv: srv, ..common::options(server) }
}

fn port(server: &Server, at: usize) -> u16 {
    server.endpoint(at).rsplit(':').next().and_then(|port| port.parse().ok()).expect("an endpoint has a port")
}

fn write(store: &EtcdStore, name: &str) {
    let key = Key::resource(Kind::Tier, "", name);
    let text =
        format!(r#"{{"kind":"Tier","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{}}}}"#);
    let value = Value::from_json(&key, &text).expect("a tier");
    // A write of unknown outcome is its caller's to repeat.
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while store.get(&key).ok().flatten().is_none() {
        assert!(std::time::Instant::now() < deadline, "{name} can't be written");
        let _ = store.write_one(Write { key: key.clone(), expect: Expect::Absent, value: Some(value.clone()) });
    }
}

#[track_caller]
fn refused(options: Options, parts: &[&str]) {
    let error = EtcdStore::open(options).expect("the settings alone are good").list(&Filter::Handles);
    let text = error.expect_err("no member can be reached").to_string();
    assert!(parts.iter().all(|part| text.contains(part)), "{parts:?}: {text}");
}

/// Runs in a child with its own network and mounts. Not a test unless the environment says so.
#[test]
fn inside() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    isolate(directory.path());
    let records = Records::default();
    serve(&records);
    let set =
        |name: &'static str, all: Vec<(u16, u16, String)>| drop(records.lock().expect("no panic").insert(name, all));
    let host = |at: usize| format!("m{at}.{DOMAIN}");

    // Without TLS: three members by names that the same server knows.
    let mut plain = Server::start(Wish { members: 3, ..Wish::default() }).ready();
    refused(options(&plain), &["ETCD_DISCOVERY_SRV", SECURE, PLAIN, "expected one a member"]);
    set(PLAIN, vec![(1, 9, host(0))]);
    refused(options(&plain), &["ETCD_DISCOVERY_SRV", "http://m0.calico.example:9", "refused"]);
    set(PLAIN, vec![(1, port(&plain, 0), "nobody.elsewhere.example".to_owned())]);
    refused(options(&plain), &["ETCD_DISCOVERY_SRV", "nobody.elsewhere.example"]);
    set(PLAIN, (0..3).map(|at| (at as u16, port(&plain, at), host(at))).collect());
    let store =
        EtcdStore::open(Options { patience: Duration::from_secs(20), ..options(&plain) }).expect("good settings");
    write(&store, "first");
    // Whichever member is lost, the others are found.
    for at in 0..3 {
        plain.kill9(at);
        write(&store, &format!("without-{at}"));
        plain.restart(at);
        plain = plain.ready();
    }
    // So many records that they come over TCP, with one good one among them.
    let mut many: Vec<_> = (0..40).map(|at| (1, 9, host(at))).collect();
    many.push((0, port(&plain, 1), host(1)));
    set(PLAIN, many);
    write(&EtcdStore::open(options(&plain)).expect("good settings"), "over-tcp");
    assert_eq!(store.list(&Filter::Kind(Kind::Tier)).expect("a listing").entries.len(), 5);

    // With TLS and client certificates; a record of the service without TLS is another member's.
    let secure = Server::start(Wish { tls: true, ..Wish::default() }).ready();
    set(PLAIN, vec![]);
    set(SECURE, vec![(1, port(&secure, 0), "localhost".to_owned())]);
    let store = EtcdStore::open(options(&secure)).expect("good settings");
    write(&store, "secure");
    assert!(server_has(&secure, "secure"));
    // The certificate is for another name than the record's.
    set(SECURE, vec![(1, port(&secure, 0), host(0))]);
    refused(options(&secure), &["ETCD_DISCOVERY_SRV", "m0.calico.example"]);
}

fn server_has(server: &Server, name: &str) -> bool {
    !server.get_prefix(&Key::resource(Kind::Tier, "", name).path()).is_empty()
}

#[test]
#[ignore = "needs root"]
fn members_are_found_by_srv_records() {
    if !installed() {
        return;
    }
    let program = std::env::current_exe().expect("this program");
    let child = Command::new(program).args(["--exact", "inside", "--nocapture"]).env(ROLE, "1").output();
    let output = child.expect("a process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
