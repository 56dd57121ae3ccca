//! A node of the lab: its process, and whether it is in sync.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use nix::sys::signal::Signal;
use tortie_netlink::{Handle, Netns, Route, RouteFilter};

use crate::lab::Shared;
use crate::place::Place;
use crate::state::Process;
use crate::teardown::signal;
use crate::topology::{Machine, Rules, Store};
use crate::view::View;
use crate::{cni, kubernetes, routes, signals};

/// Port of liveness and readiness (upstream's `FELIX_HEALTHPORT`).
const HEALTH_PORT: u16 = 9099;
/// How long a process may take to end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How often something that is waited for is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A node.
pub struct Node {
    shared: Arc<Shared>,
    machine: Machine,
    child: Mutex<Option<Child>>,
    /// Length of the log when the process was started last.
    log_from: AtomicU64,
}

impl Node {
    pub(crate) fn new(shared: &Arc<Shared>, machine: &Machine) -> Node {
        let log_from = AtomicU64::new(0);
        Node { shared: shared.clone(), machine: machine.clone(), child: Mutex::new(None), log_from }
    }

    /// Makes the node's folder and its CNI configuration.
    pub(crate) fn furnish(&self) -> Result<()> {
        fs::create_dir(self.shared.dir.join(self.name()))?;
        let dual = self.shared.record.topology.pools.iter().any(|pool| matches!(pool, IpNet::V6(_)));
        self.set_conflist(&cni::default_conflist(dual))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Its name, such as `node1`.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// Its description.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Its IPv4 address on its first subnet.
    pub fn ip(&self) -> Ipv4Addr {
        let all = self.machine.interfaces[0].addresses.iter();
        let v4 = all.filter_map(|net| if let IpNet::V4(net) = net { Some(net.addr()) } else { None }).next();
        v4.expect("every subnet has an IPv4 prefix")
    }

    /// Name of its network namespace.
    pub fn netns_name(&self) -> String {
        self.shared.netns(self.name())
    }

    /// Its network namespace.
    pub fn netns(&self) -> Result<Netns> {
        Ok(Netns::named(&self.netns_name())?)
    }

    /// Netlink in its network namespace.
    pub fn netlink(&self) -> Result<Handle> {
        Ok(Handle::open_in(&self.netns()?)?)
    }

    /// Its host side as a place to probe from and to.
    pub fn place(&self) -> Place {
        Place::new(self.name(), &self.netns_name(), self.machine.ips())
    }

    /// How its programs see the system.
    pub fn view(&self) -> View {
        self.shared.view(self.name())
    }

    /// A command on this node: its namespaces, environment and files. Its streams are those of this process unless set.
    pub fn command(&self, program: &str) -> Result<Command> {
        self.view().command(program, false)
    }

    /// The file that its process logs to.
    pub fn log_path(&self) -> PathBuf {
        self.shared.dir.join(self.name()).join("node.log")
    }

    /// What its process has logged since it was started last by this handle.
    pub fn log(&self) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(self.log_path()) {
            let from = self.log_from.load(Ordering::Relaxed);
            // A log that can't be read has no lines; what waits for one says so.
            let _ = file.seek(SeekFrom::Start(from)).and_then(|_| file.read_to_end(&mut text));
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The environment of its process on top of the view's.
    pub fn env(&self) -> Vec<(String, String)> {
        let topology = &self.shared.record.topology;
        let dual = self.machine.ips().iter().any(|ip| ip.is_ipv6());
        let mut env: Vec<(String, String)> = [
            ("IP", "autodetect"),
            ("IP6", if dual { "autodetect" } else { "none" }),
            ("FELIX_HEALTHENABLED", "true"),
            ("CALICO_IPV4POOL_IPIP", "Never"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        if topology.rules != Rules::default() {
            env.extend(topology.rules.env().map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        for pool in &topology.pools {
            let name = if matches!(pool, IpNet::V4(_)) { "CALICO_IPV4POOL_CIDR" } else { "CALICO_IPV6POOL_CIDR" };
            env.push((name.to_owned(), pool.to_string()));
        }
        if topology.pools.is_empty() {
            env.push(("NO_DEFAULT_POOLS".to_owned(), "true".to_owned()));
        }
        if topology.store == Store::Kubernetes {
            env.push(kubernetes::agent_env(&self.shared.dir, topology, self.name()));
        }
        let own = topology.env.iter().chain(&self.machine.env);
        env.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        env
    }

    /// Starts `tortie node`; an error when it runs already.
    pub fn start(&self) -> Result<()> {
        self.start_with(&["node"], &[])
    }

    /// Starts the binary with other arguments and more environment, such as `["felix"]`. An empty value takes a variable
    /// away.
    pub fn start_with(&self, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
        let _gate = signals::gate();
        if self.process().is_some() {
            bail!("{} runs already", self.name());
        }
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        self.log_from.store(log.metadata()?.len(), Ordering::Relaxed);
        let mut command = self.view().command(self.shared.dir.join("bin/tortie"), true)?;
        command.args(args).envs(self.env()).stdin(Stdio::null());
        for (name, value) in env {
            if value.is_empty() {
                command.env_remove(name);
            } else {
                command.env(name, value);
            }
        }
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {}", self.name()))?;
        let started = Process::of(child.id());
        *self.child() = Some(child);
        if let Some(process) = started {
            self.shared.dir.save_process(process, self.name())?;
        }
        Ok(())
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Its process, if it runs.
    pub fn process(&self) -> Option<Process> {
        let all = self.shared.dir.processes().unwrap_or_default();
        all.into_iter().find(|(process, what)| what == self.name() && process.alive()).map(|(process, _)| process)
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill9(&self) -> Result<()> {
        self.end_with(Signal::SIGKILL, STOP_TIMEOUT)
    }

    /// Sends SIGTERM and waits for the end, at most 10 s.
    pub fn stop(&self) -> Result<()> {
        self.end_with(Signal::SIGTERM, STOP_TIMEOUT)
    }

    /// Ends the process, if it runs, and starts it again.
    pub fn restart(&self) -> Result<()> {
        if self.process().is_some() {
            self.stop()?;
        }
        self.start()
    }

    fn end_with(&self, how: Signal, timeout: Duration) -> Result<()> {
        let process = self.process().with_context(|| format!("{} does not run", self.name()))?;
        signal(process, how);
        wait(timeout, || (!process.alive()).then_some(()))
            .with_context(|| format!("{} did not end within {} s of {how}", self.name(), timeout.as_secs()))?;
        self.shared.dir.forget_process(process.pid);
        self.reap();
        Ok(())
    }

    /// Takes the exit status of a process that has ended; its last threads may need a moment for that.
    pub(crate) fn reap(&self) {
        let Some(mut child) = self.child().take() else { return };
        if wait(Duration::from_secs(1), || child.try_wait().transpose()).is_none() {
            *self.child() = Some(child);
        }
    }

    /// Lets the process outlive this handle.
    pub(crate) fn disown(&self) {
        *self.child() = None;
    }

    /// Waits until the process says that the kernel holds its first full pass: the log line with `in sync`, or
    /// readiness. An error with the log's end when it ends before, or at the deadline.
    pub fn wait_in_sync(&self, timeout: Duration) -> Result<()> {
        let step = || {
            if self.process().is_none() {
                return Some(false);
            }
            let synced = self.log().lines().any(|line| line.contains("in sync") && !line.contains("not in sync"));
            (synced || self.ready()).then_some(true)
        };
        match wait(timeout, step) {
            Some(true) => Ok(()),
            Some(false) => bail!("{} ended before it was in sync; its log ends:\n{}", self.name(), self.log_tail()),
            None => {
                let seconds = timeout.as_secs_f32();
                bail!("{} is not in sync after {seconds} s; its log ends:\n{}", self.name(), self.log_tail())
            }
        }
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Whether `/readiness` answers with success.
    pub fn ready(&self) -> bool {
        self.health("readiness").is_ok_and(|(status, _)| (200..300).contains(&status))
    }

    /// Status and body of `GET /<path>` from the health port of this node.
    pub fn health(&self, path: &str) -> Result<(u16, String)> {
        self.http_get(HEALTH_PORT, path)
    }

    /// Status and body of `GET /<path>` from a port of this node's loopback.
    pub fn http_get(&self, port: u16, path: &str) -> Result<(u16, String)> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = self.netns()?.run(|| TcpStream::connect_timeout(&addr, Duration::from_secs(1)))??;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no HTTP answer")?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_owned()))
    }

    /// The main table as `ip route` prints it; the family's lines, IPv4 if `v6` is false.
    pub fn ip_route(&self, v6: bool) -> Result<String> {
        routes::show(&mut self.netlink()?, v6)
    }

    /// All routes of the main table.
    pub fn routes(&self) -> Result<Vec<Route>> {
        Ok(self.netlink()?.routes(&RouteFilter::MAIN)?)
    }

    /// Waits until the main table has a route that passes the test.
    pub fn wait_route(&self, timeout: Duration, what: &str, test: impl Fn(&Route) -> bool) -> Result<Route> {
        let found = wait(timeout, || self.routes().ok()?.into_iter().find(&test));
        found.with_context(|| {
            let have = self.ip_route(false).unwrap_or_default();
            format!("{} has no route {what} after {} s; it has:\n{have}", self.name(), timeout.as_secs_f32())
        })
    }
}

/// Looks every few milliseconds until there is something, at least once; `None` at the deadline.
pub fn wait<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(POLL);
    }
}
