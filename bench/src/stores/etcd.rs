//! Debian's etcd with one member that does not wait for the disk, as upstream was measured on.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tortie_netlink::Netns;

use crate::bed::{Bed, Running};

const START: Duration = Duration::from_secs(30);

/// A running etcd.
pub struct Etcd {
    process: Running,
    /// Where it listens, as `ETCD_ENDPOINTS` has it.
    pub endpoints: String,
}

impl Etcd {
    /// Starts one on loopback: that of a host, or the machine's own.
    pub fn start(bed: &Bed, host: Option<&Netns>) -> Result<Etcd> {
        let within = |work: &(dyn Fn() -> Result<Etcd> + Sync)| match host {
            Some(host) => host.run(work)?,
            None => work(),
        };
        within(&|| {
            let [client, peer] = free_ports()?;
            let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
            let log = std::fs::File::create(bed.path("etcd.log"))?;
            let mut command = Command::new("etcd");
            command
                .env_clear()
                .arg("--data-dir")
                .arg(bed.path("etcd"))
                .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
                .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
                .args(["--initial-cluster", &format!("default={peer_url}")])
                .args(["--unsafe-no-fsync", "--log-level", "error", "--quota-backend-bytes", "4294967296"])
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
            let child = command.spawn().context("can't start etcd (Debian's etcd-server): no datastore")?;
            let mut etcd = Etcd { process: Running::of(child), endpoints: client_url };
            let begun = Instant::now();
            while TcpStream::connect_timeout(&client, Duration::from_secs(1)).is_err() {
                if etcd.process.ended() || begun.elapsed() > START {
                    bail!("etcd does not listen: see {}", bed.path("etcd.log").display());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(etcd)
        })
    }

    /// The environment of a program that uses it.
    pub fn env(&self) -> Vec<(String, String)> {
        vec![("DATASTORE_TYPE".to_owned(), "etcdv3".to_owned()), ("ETCD_ENDPOINTS".to_owned(), self.endpoints.clone())]
    }
}

/// Ports of loopback that nobody uses at this moment.
fn free_ports() -> Result<[SocketAddr; 2]> {
    let held = [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
    Ok([held[0].local_addr()?, held[1].local_addr()?])
}
