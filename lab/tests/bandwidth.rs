//! Limits of bandwidth: what goes to a pod and what comes from it is held back, the limit comes back when others take
//! it away, and nothing of it is left when it goes.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::Traces;
use tortie_lab::{Lab, Node, Pod, wait};

const START: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(20);
/// Bytes per second, and bytes at once.
const RATE: u64 = 1_000_000;
const BURST: u64 = 50_000;
/// How long is measured.
const MEASURED: Duration = Duration::from_millis(1500);

/// Bytes that get from one pod to another one by TCP, and how long that was measured.
fn transferred(from: &Pod, to: &Pod) -> (u64, Duration) {
    let at = SocketAddr::new(to.ip(), 9100);
    let listener = to.place().run(|| Ok(TcpListener::bind(at)?)).unwrap();
    let mut client = from.place().run(|| Ok(TcpStream::connect_timeout(&at, SOON)?)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let bytes = vec![7; 64 << 10];
            while !stop.load(Ordering::Relaxed) {
                // What is held back for long is a timeout here.
                let _ = client.write(&bytes);
            }
        });
        let (mut count, started) = (0, Instant::now());
        let mut buffer = vec![0; 64 << 10];
        while started.elapsed() < MEASURED {
            count += u64::try_from(server.read(&mut buffer).unwrap_or(0)).unwrap();
        }
        let took = started.elapsed();
        stop.store(true, Ordering::Relaxed);
        (count, took)
    })
}

/// Whether a transfer is as fast as the limit lets it be. Acknowledgements and headers are limited too, so that a little
/// less than the rate arrives; a bucket never lets more through.
fn is_held_back(from: &Pod, to: &Pod) -> bool {
    let (bytes, took) = transferred(from, to);
    let most = BURST + RATE * u64::try_from(took.as_millis()).unwrap() / 1000;
    println!("{bytes} bytes in {took:?}, at most {most}");
    // The queue in front of a bucket that has just come may have been another one.
    bytes <= most && bytes >= most / 4
}

fn limit(pod: &Pod, controls: &Value) {
    pod.change(&json!({ "spec": { "qosControls": controls } })).unwrap();
}

/// The devices of limits.
fn devices(node: &Node) -> Vec<String> {
    let links = node.netlink().unwrap().links().unwrap();
    links.into_iter().map(|link| link.name).filter(|name| name.starts_with("bwcali")).collect()
}

fn tc(node: &Node, args: &[&str]) -> String {
    let output = node.command("tc").unwrap().args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn bucket_of(node: &Node, device: &str) -> Option<()> {
    tc(node, &["qdisc", "show", "dev", device]).contains("tbf").then_some(())
}

#[test]
#[ignore = "needs root"]
fn bandwidth_is_held_back_each_way_and_put_right_and_goes_without_a_trace() {
    let before = Traces::now();
    let lab = Lab::builder().nodes(1).up().unwrap();
    lab.start(START).unwrap();
    let node = lab.node(1);
    lab.open_network().unwrap();
    let [limited, free] = ["limited", "free"].map(|name| node.add_pod("default", name, &[]).unwrap());
    let interface = limited.record().host_interface.clone().unwrap();
    let (bytes, took) = transferred(&limited, &free);
    println!("without a limit {bytes} bytes in {took:?}");
    assert!(bytes > 10 * RATE, "the machine is too slow to show a limit: {bytes}");

    limit(&limited, &json!({ "ingressBandwidth": RATE * 8, "ingressBurst": BURST * 8 }));
    wait(SOON, || bucket_of(node, &interface)).expect("a bucket on the pod's interface");
    assert!(is_held_back(&free, &limited));
    assert!(!is_held_back(&limited, &free), "the other way is free");
    assert_eq!(devices(node), Vec::<String>::new());

    let bits = |rate: u64| json!({ "ingressBandwidth": null, "ingressBurst": null, "egressBandwidth": rate * 8, "egressBurst": BURST * 8 });
    limit(&limited, &bits(RATE / 2));
    let device = wait(SOON, || devices(node).pop()).expect("a device");
    wait(SOON, || bucket_of(node, &device)).expect("its bucket");
    limit(&limited, &bits(RATE));
    wait(SOON, || tc(node, &["qdisc", "show", "dev", &device]).contains("rate 8Mbit").then_some(()))
        .expect("the new rate");
    assert!(bucket_of(node, &interface).is_none());
    assert!(is_held_back(&limited, &free));
    assert!(!is_held_back(&free, &limited), "the other way is free");

    // Somebody takes it away: then nothing of the pod would pass, until it is put right.
    node.netlink().unwrap().delete_link(&*device).unwrap();
    wait(SOON, || bucket_of(node, &device)).expect("it comes back");
    assert!(is_held_back(&limited, &free));
    // A node without memory finds its own.
    node.kill9().unwrap();
    limit(&limited, &Value::Null);
    node.start().unwrap();
    node.wait_in_sync(START).unwrap();
    wait(SOON, || devices(node).is_empty().then_some(())).expect("the device goes");
    assert_eq!(tc(node, &["filter", "show", "dev", &interface, "ingress"]), "");
    assert!(transferred(&limited, &free).0 > 10 * RATE);
    limit(&limited, &bits(RATE));
    wait(SOON, || (!devices(node).is_empty()).then_some(())).expect("a device");
    limited.delete().unwrap();
    wait(SOON, || devices(node).is_empty().then_some(())).expect("it goes with the pod");
    lab.down().unwrap();
    assert_eq!(Traces::now(), before);
}
