//! Liveness, readiness and metrics over HTTP, at upstream's paths and ports.
//!
//! Live: the agent's loop turned within the last seconds. Ready: the kernel holds a picture of the facts, and nothing
//! that was asked of it is refused.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tortie_http::Listener;
use tracing::info;

use crate::cni::Phases;
use crate::drops::Drops;

/// The loop turns at least once a second; longer than this means that it hangs.
const MOST_SILENCE: Duration = Duration::from_secs(60);

/// What the agent tells of itself, for everyone to read.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    last_turn_ms: AtomicU64,
    in_sync: AtomicBool,
    refused: AtomicBool,
    /// Numbers for `/metrics`.
    pub numbers: Numbers,
    /// Packets that ended.
    pub drops: Drops,
    /// How long CNI calls take.
    pub cni: Arc<Phases>,
}

/// Numbers for `/metrics`, with upstream's names where it has them.
#[derive(Debug, Default)]
pub struct Numbers {
    /// `felix_active_local_endpoints`.
    pub local_endpoints: AtomicU64,
    /// `felix_active_local_policies`.
    pub local_policies: AtomicU64,
    /// `felix_ipsets_calico`.
    pub sets: AtomicU64,
    /// `felix_int_dataplane_apply_time_seconds`, count.
    pub applies: AtomicU64,
    /// The same, sum in nanoseconds.
    pub apply_nanos: AtomicU64,
    /// `felix_int_dataplane_failures`.
    pub failures: AtomicU64,
    /// `felix_calc_graph_updates_processed`.
    pub updates: AtomicU64,
    /// `tortie_repairs_total`: foreign changes that were undone.
    pub repairs: AtomicU64,
    /// `tortie_problems`: stored objects that can't be used as they are written.
    pub problems: AtomicU64,
    /// `tortie_self_test_faults`: what the test between the nodes finds wrong.
    pub self_test_faults: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            started: Instant::now(),
            last_turn_ms: AtomicU64::new(0),
            in_sync: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            numbers: Numbers::default(),
            drops: Drops::default(),
            cni: Arc::default(),
        }
    }
}

impl Health {
    /// The agent's loop turned.
    pub fn turned(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_turn_ms.store(now, Ordering::Relaxed);
    }

    /// The kernel holds the first picture.
    pub fn set_in_sync(&self) {
        self.in_sync.store(true, Ordering::SeqCst);
    }

    /// Whether the kernel holds the first picture.
    pub fn is_in_sync(&self) -> bool {
        self.in_sync.load(Ordering::SeqCst)
    }

    /// Whether the kernel refuses something that is wanted.
    pub fn set_refused(&self, refused: bool) {
        self.refused.store(refused, Ordering::SeqCst);
    }

    fn is_live(&self) -> bool {
        let last = Duration::from_millis(self.last_turn_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last) < MOST_SILENCE
    }

    /// Whether the node is ready, or why not.
    pub fn readiness(&self) -> Result<(), &'static str> {
        if !self.is_in_sync() {
            return Err("not in sync with the datastore yet\n");
        }
        if self.refused.load(Ordering::SeqCst) {
            return Err("the kernel refuses something that is wanted; see the log\n");
        }
        Ok(())
    }

    fn metrics(&self) -> String {
        let Numbers {
            local_endpoints,
            local_policies,
            sets,
            applies,
            apply_nanos,
            failures,
            updates,
            repairs,
            problems,
            self_test_faults,
        } = &self.numbers;
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let mut text = String::new();
        let mut line = |name: &str, kind: &str, help: &str, value: String| {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
        };
        let gauge = "gauge";
        line(
            "felix_active_local_endpoints",
            gauge,
            "Workload endpoints of this node.",
            get(local_endpoints).to_string(),
        );
        line("felix_active_local_policies", gauge, "Policies in use on this node.", get(local_policies).to_string());
        line("felix_ipsets_calico", gauge, "Address sets in use on this node.", get(sets).to_string());
        line("felix_int_dataplane_failures", "counter", "Changes that the kernel refused.", get(failures).to_string());
        line("felix_calc_graph_updates_processed", "counter", "Changed facts.", get(updates).to_string());
        line("tortie_repairs_total", "counter", "Foreign changes that were undone.", get(repairs).to_string());
        line("tortie_problems", gauge, "Stored objects that can't be used as written.", get(problems).to_string());
        let faults = get(self_test_faults).to_string();
        line("tortie_self_test_faults", gauge, "Faults found on the ways to other nodes.", faults);
        let resync = if self.is_in_sync() { 3 } else { 1 };
        line("felix_resync_state", gauge, "1: waiting, 3: in sync.", resync.to_string());
        let name = "felix_int_dataplane_apply_time_seconds";
        let seconds = Duration::from_nanos(get(apply_nanos)).as_secs_f64();
        text.push_str(&format!(
            "# HELP {name} Time to bring changes into the kernel.\n# TYPE {name} summary\n\
             {name}_sum {seconds}\n{name}_count {}\n",
            get(applies)
        ));
        text.push_str(&self.drops.metrics());
        text.push_str(&self.cni.metrics());
        text
    }
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// `/liveness` and `/readiness`.
    Health,
    /// `/metrics`.
    Metrics,
}

/// A node that was killed may hold its port for a moment longer.
const LONGEST_BIND: Duration = Duration::from_secs(5);

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let until = Instant::now() + LONGEST_BIND;
    loop {
        match tortie_http::open(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            done => return done,
        }
    }
}

/// Starts to serve.
pub fn listen(address: SocketAddr, pages: Pages, health: Arc<Health>) -> io::Result<Listener> {
    let socket = bind(address)?;
    info!(%address, ?pages, "serving HTTP");
    Listener::start(socket, move |path| page(path, pages, &health))
}

fn page(path: &str, pages: Pages, health: &Health) -> (u16, String) {
    match (pages, path) {
        (Pages::Health, "/liveness") if health.is_live() => (200, String::new()),
        (Pages::Health, "/liveness") => (503, "the agent's loop hangs\n".to_owned()),
        (Pages::Health, "/readiness") => match health.readiness() {
            Ok(()) => (200, String::new()),
            Err(reason) => (503, reason.to_owned()),
        },
        (Pages::Metrics, "/metrics") => (200, health.metrics()),
        _ => (404, "not here\n".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        text
    }

    #[test]
    fn readiness_follows_what_the_agent_says() {
        let health = Arc::new(Health::default());
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let listener = listen(free, Pages::Health, health.clone()).expect("it starts");
        health.turned();
        assert!(get(free, "/liveness").starts_with("HTTP/1.1 200"));
        assert!(get(free, "/readiness").starts_with("HTTP/1.1 503"));
        health.set_in_sync();
        assert!(get(free, "/readiness").starts_with("HTTP/1.1 200"));
        health.set_refused(true);
        assert!(get(free, "/readiness").starts_with("HTTP/1.1 503"));
        assert!(get(free, "/metrics").starts_with("HTTP/1.1 404"));
        drop(listener);
        let stopped = |_| {
            std::thread::sleep(Duration::from_millis(20));
            std::net::TcpStream::connect(free).is_err()
        };
        assert!((0..250).any(stopped), "it stops to listen");
    }

    #[test]
    fn a_port_that_a_dying_process_still_holds_is_waited_for() {
        let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = held.local_addr().expect("it is bound");
        let waiting = std::thread::spawn(move || listen(address, Pages::Health, Arc::new(Health::default())));
        std::thread::sleep(Duration::from_millis(200));
        assert!(!waiting.is_finished(), "it waits");
        drop(held);
        drop(waiting.join().expect("no panic").expect("it starts"));
    }

    #[test]
    fn metrics_have_upstreams_names() {
        let health = Health::default();
        health.numbers.local_endpoints.store(7, Ordering::Relaxed);
        let text = health.metrics();
        assert!(text.contains("\nfelix_active_local_endpoints 7\n"), "{text}");
        assert!(text.contains("felix_int_dataplane_apply_time_seconds_count 0"), "{text}");
    }
}
