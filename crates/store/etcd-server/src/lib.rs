//! For tests: a real etcd of one or more members, with TLS and users if wanted. Gone, files included, when dropped.
//!
//! What fails here fails the test that asked for it, so everything panics with the reason.

#![allow(clippy::unwrap_used, reason = "a test whose set-up fails has failed")]

mod pki;

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

pub use pki::{Pair, Pki};

/// How long a member may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);
/// The password of every user.
pub const PASSWORD: &str = "a-good-password";
/// A user who may read and write what is Calico's.
pub const USER: &str = "tortie";
/// A user without any right.
pub const STRANGER: &str = "stranger";

/// What etcd is wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    /// How many members.
    pub members: usize,
    /// Whether clients speak TLS and show a certificate.
    pub tls: bool,
    /// Whether clients must be users.
    pub users: bool,
    /// The address that members listen at for clients.
    pub ip: IpAddr,
    /// More arguments of each member.
    pub args: Vec<String>,
}

impl Default for Wish {
    fn default() -> Wish {
        Wish { members: 1, tls: false, users: false, ip: Ipv4Addr::LOCALHOST.into(), args: Vec::new() }
    }
}

/// A member.
struct Member {
    client: SocketAddr,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

/// A cluster of etcd.
pub struct Server {
    members: Vec<Member>,
    wish: Wish,
    pki: Option<Pki>,
    directory: TempDir,
}

/// Whether `etcd` and `etcdctl` are installed; says so if not.
pub fn installed() -> bool {
    let there = |name| Command::new(name).arg(if name == "etcd" { "--version" } else { "version" }).output().is_ok();
    let both = there("etcd") && there("etcdctl");
    if !both {
        eprintln!("skipped: etcd is not installed (Debian: etcd-server, etcd-client)");
    }
    both
}

/// Ports of an address that nobody uses at this moment.
fn free_ports(ip: IpAddr, count: usize) -> Vec<SocketAddr> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind((ip, 0)).unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

impl Server {
    /// Starts etcd with one member, no TLS and no users.
    pub fn plain() -> Server {
        Server::start(Wish::default())
    }

    /// Starts etcd.
    pub fn start(wish: Wish) -> Server {
        Server::start_with(wish, |command| command.spawn())
    }

    /// The same; `spawn` starts each member's command, for example in another namespace.
    pub fn start_with(wish: Wish, spawn: impl Fn(&mut Command) -> std::io::Result<Child>) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let pki = wish.tls.then(|| Pki::make(&directory.path().join("pki"), &[wish.ip]));
        let mut server = Server { members: Vec::new(), pki, directory, wish };
        server.describe();
        for at in 0..server.members.len() {
            server.spawn(at, &spawn);
        }
        server
    }

    fn describe(&mut self) {
        let Wish { members, tls, users: _, ip, args } = &self.wish;
        let clients = free_ports(*ip, *members);
        let peers = free_ports(*ip, *members);
        let cluster: Vec<String> = peers.iter().enumerate().map(|(at, peer)| format!("m{at}=http://{peer}")).collect();
        let scheme = if *tls { "https" } else { "http" };
        // A lone member has nobody to wait for.
        let (beat, election) = if *members == 1 { ("10", "100") } else { ("50", "500") };
        for (at, (client, peer)) in clients.iter().zip(&peers).enumerate() {
            let data = self.directory.path().join(format!("m{at}"));
            let mut all: Vec<String> = [
                ("--name", format!("m{at}")),
                ("--data-dir", data.display().to_string()),
                ("--listen-client-urls", format!("{scheme}://{client}")),
                ("--advertise-client-urls", format!("{scheme}://{client}")),
                ("--listen-peer-urls", format!("http://{peer}")),
                ("--initial-advertise-peer-urls", format!("http://{peer}")),
                ("--initial-cluster", cluster.join(",")),
                ("--heartbeat-interval", beat.to_owned()),
                ("--election-timeout", election.to_owned()),
                ("--log-level", "error".to_owned()),
            ]
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect();
            // What a test's machine survives is not what these tests are about; `kill -9` loses nothing.
            all.push("--unsafe-no-fsync".to_owned());
            if let Some(pki) = &self.pki {
                let Pair { certificate, key } = pki.server();
                all.extend(["--client-cert-auth".to_owned()]);
                for (name, path) in [("--cert-file", certificate), ("--key-file", key), ("--trusted-ca-file", pki.ca())]
                {
                    all.extend([name.to_owned(), path.display().to_string()]);
                }
            }
            all.extend(args.iter().cloned());
            let log = self.directory.path().join(format!("m{at}.log"));
            self.members.push(Member { client: *client, args: all, log, child: None });
        }
    }

    fn spawn(&mut self, at: usize, spawn: &impl Fn(&mut Command) -> std::io::Result<Child>) {
        let member = &mut self.members[at];
        let log = File::options().create(true).append(true).open(&member.log).unwrap();
        let mut command = Command::new("etcd");
        command.args(&member.args).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        member.child = Some(spawn(&mut command).unwrap_or_else(|error| panic!("can't start etcd: {error}")));
    }

    /// Waits until every member takes writes, and makes the users if wanted.
    pub fn ready(self) -> Server {
        let deadline = Instant::now() + START;
        for at in 0..self.members.len() {
            while !self.member_answers(at) {
                assert!(Instant::now() < deadline, "etcd did not start:\n{}", self.log(at));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if self.wish.users {
            self.make_users();
        }
        self
    }

    fn member_answers(&self, at: usize) -> bool {
        let member = &self.members[at];
        TcpStream::connect_timeout(&member.client, Duration::from_secs(1)).is_ok()
            && self.ctl_of(&[at], "", &["get", "/ready"]).output().is_ok_and(|output| output.status.success())
    }

    fn make_users(&self) {
        let role = ["role", "grant-permission", "calico", "readwrite", "--prefix=true", "/calico/"];
        for args in [
            &["user", "add", &format!("root:{PASSWORD}")][..],
            &["user", "add", &format!("{USER}:{PASSWORD}")],
            &["user", "add", &format!("{STRANGER}:{PASSWORD}")],
            &["user", "grant-role", "root", "root"],
            &["role", "add", "calico"],
            &role,
            &["user", "grant-role", USER, "calico"],
            &["auth", "enable"],
        ] {
            let output = self.ctl_of(&[0], "", args).output().unwrap();
            assert!(output.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// The members' addresses with commas between, as `ETCD_ENDPOINTS` has them.
    pub fn endpoints(&self) -> String {
        let all: Vec<String> = (0..self.members.len()).map(|at| self.endpoint(at)).collect();
        all.join(",")
    }

    /// One member's address.
    pub fn endpoint(&self, at: usize) -> String {
        let scheme = if self.pki.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.members[at].client)
    }

    /// The certificates, if there is TLS.
    pub fn pki(&self) -> Option<&Pki> {
        self.pki.as_ref()
    }

    /// The environment of a client that may do everything that Calico must.
    pub fn env(&self) -> Vec<(String, String)> {
        let mut env = vec![("DATASTORE_TYPE".into(), "etcdv3".into()), ("ETCD_ENDPOINTS".into(), self.endpoints())];
        if let Some(pki) = &self.pki {
            let Pair { certificate, key } = pki.client();
            for (name, path) in
                [("ETCD_CA_CERT_FILE", pki.ca()), ("ETCD_CERT_FILE", certificate), ("ETCD_KEY_FILE", key)]
            {
                env.push((name.into(), path.display().to_string()));
            }
        }
        if self.wish.users {
            env.push(("ETCD_USERNAME".into(), USER.into()));
            env.push(("ETCD_PASSWORD".into(), PASSWORD.into()));
        }
        env
    }

    /// Runs `etcdctl` as root; its output. A failure ends the test.
    pub fn ctl(&self, args: &[&str]) -> String {
        let all: Vec<usize> = (0..self.members.len()).filter(|at| self.members[*at].child.is_some()).collect();
        let user = if self.wish.users { "root" } else { "" };
        let output = self.ctl_of(&all, user, args).output().unwrap();
        assert!(output.status.success(), "etcdctl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn ctl_of(&self, members: &[usize], user: &str, args: &[&str]) -> Command {
        let endpoints: Vec<String> = members.iter().map(|at| self.endpoint(*at)).collect();
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", endpoints.join(",")));
        command.args(["--dial-timeout=5s", "--command-timeout=10s"]);
        if let Some(pki) = &self.pki {
            let Pair { certificate, key } = pki.client();
            command.arg("--cacert").arg(pki.ca()).arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        if !user.is_empty() {
            command.arg(format!("--user={user}:{PASSWORD}"));
        }
        command.args(args);
        command
    }

    /// Puts a text under a key, as a foreign writer would.
    pub fn put(&self, key: &str, text: &str) {
        self.ctl(&["put", "--", key, text]);
    }

    /// What is under a prefix: keys and values in order.
    pub fn get_prefix(&self, prefix: &str) -> Vec<(String, String)> {
        let text = self.ctl(&["get", "--prefix", prefix]);
        let lines: Vec<&str> = text.lines().collect();
        lines.chunks(2).map(|pair| (pair[0].to_owned(), (*pair.get(1).unwrap_or(&"")).to_owned())).collect()
    }

    /// Which member leads.
    pub fn leader(&self) -> usize {
        let leads = |at: &usize| {
            let output = self.ctl_of(&[*at], "", &["endpoint", "status", "--write-out=simple"]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).split(", ").nth(4) == Some("true")
        };
        (0..self.members.len()).find(leads).expect("a cluster has a leader")
    }

    /// Sends a signal to a member.
    pub fn signal(&self, at: usize, signal: Signal) {
        let child = self.members[at].child.as_ref().expect("it runs");
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
    }

    /// Kills a member without warning.
    pub fn kill9(&mut self, at: usize) {
        let mut child = self.members[at].child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a member that was killed, and waits until it answers.
    pub fn restart(&mut self, at: usize) {
        self.spawn(at, &|command: &mut Command| command.spawn());
        let deadline = Instant::now() + START;
        while TcpStream::connect_timeout(&self.members[at].client, Duration::from_secs(1)).is_err() {
            assert!(Instant::now() < deadline, "etcd did not start again:\n{}", self.log(at));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a member has logged.
    pub fn log(&self, at: usize) -> String {
        std::fs::read_to_string(&self.members[at].log).unwrap_or_default()
    }

    /// A folder that is gone with the server.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            // One that was stopped ends by this too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
