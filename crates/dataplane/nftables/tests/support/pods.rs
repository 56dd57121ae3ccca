//! A node with pods: namespaces joined by veth pairs as the CNI plugin joins them, and UDP probes between them.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::MutexGuard;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::support::{fresh_netns, lab, run};

type Job = Box<dyn FnOnce() + Send>;

/// A namespace with one interface towards the node, kept by a thread that lives as long as this.
pub struct Pod {
    pub interface: String,
    pub addresses: Vec<IpAddr>,
    jobs: Sender<Job>,
}

/// Makes the thread's namespace a node that forwards.
pub fn node() -> MutexGuard<'static, ()> {
    let alone = lab();
    for key in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        run("sysctl", &["-qw", &format!("{key}=1")]);
    }
    alone
}

impl Pod {
    /// A pod with addresses, joined to the node (the calling thread's namespace) by an interface.
    pub fn new(interface: &str, addresses: &[&str]) -> Pod {
        let (jobs, inbox) = channel::<Job>();
        let (ready, id) = channel();
        std::thread::spawn(move || {
            fresh_netns();
            ready.send(nix::unistd::gettid().to_string()).expect("the test waits");
            inbox.into_iter().for_each(|job| job());
        });
        let id = id.recv().expect("the thread starts");
        run("ip", &["link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", &id]);
        run("sysctl", &["-qw", &format!("net.ipv6.conf.{interface}.accept_dad=0")]);
        run("sysctl", &["-qw", &format!("net.ipv4.conf.{interface}.rp_filter=1")]);
        run("ip", &["link", "set", interface, "address", "ee:ee:ee:ee:ee:ee", "up"]);
        let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().expect("literal")).collect();
        let pod = Pod { interface: interface.to_owned(), addresses: addresses.clone(), jobs };
        let own = addresses.clone();
        pod.inside(move || {
            run("sysctl", &["-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.eth0.accept_dad=0"]);
            run("ip", &["link", "set", "eth0", "up"]);
            for address in &own {
                run("ip", &["address", "add", &address.to_string(), "dev", "eth0", "nodad"]);
            }
            run("ip", &["neigh", "add", "169.254.1.1", "lladdr", "ee:ee:ee:ee:ee:ee", "dev", "eth0"]);
            run("ip", &["route", "add", "169.254.1.1", "dev", "eth0"]);
            run("ip", &["route", "add", "default", "via", "169.254.1.1", "dev", "eth0"]);
            // By neighbour discovery, so that the node's rules must let that through.
            run("ip", &["route", "add", "default", "via", "fe80::ecee:eeff:feee:eeee", "dev", "eth0"]);
        });
        for address in &addresses {
            run("ip", &["route", "add", &address.to_string(), "dev", interface]);
        }
        pod
    }

    /// Runs a function in the pod's namespace.
    pub fn inside<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        self.jobs.send(Box::new(move || drop(done.send(job())))).expect("the thread runs");
        result.recv().expect("the job did not panic")
    }

    /// A socket in the pod, bound to an address and port; port 0 is any.
    pub fn socket(&self, address: IpAddr, port: u16) -> UdpSocket {
        self.inside(move || bind(address, port))
    }

    pub fn ipv4(&self) -> IpAddr {
        *self.addresses.iter().find(|a| a.is_ipv4()).expect("the pod has one")
    }

    pub fn ipv6(&self) -> IpAddr {
        *self.addresses.iter().find(|a| a.is_ipv6()).expect("the pod has one")
    }
}

/// Room for packets while a receiving thread does not run, bytes: some seconds of every test here.
const RECEIVE_BUFFER: usize = 8 << 20;
/// How long a packet that must arrive may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long nothing may arrive before a packet counts as dropped.
const QUIET: Duration = Duration::from_millis(150);

pub fn bind(address: IpAddr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(address, port)).expect("bind");
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).expect("root may enlarge it");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// Whether a first packet of a new flow gets from one socket to the other, where it should.
pub fn arrives(from: &UdpSocket, to: &UdpSocket) -> bool {
    arrives_within(from, to, PATIENCE)
}

/// Whether it does not, where it should not.
pub fn is_dropped(from: &UdpSocket, to: &UdpSocket) -> bool {
    !arrives_within(from, to, QUIET)
}

fn arrives_within(from: &UdpSocket, to: &UdpSocket, timeout: Duration) -> bool {
    to.set_read_timeout(Some(timeout)).expect("a timeout");
    // A refusal of an earlier packet may wait on the socket as an error.
    let target = to.local_addr().expect("bound");
    let _ = from.send_to(b"probe", target).or_else(|_| from.send_to(b"probe", target));
    let mut buffer = [0; 16];
    to.recv_from(&mut buffer).is_ok()
}
