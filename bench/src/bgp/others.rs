//! FRR and GoBGP as speakers that receive: their configuration, their process, their route count.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::Value;
use tortie_netlink::Netns;

use super::AS;
use crate::bed::{Bed, Running};

const BGPD: &str = "/usr/lib/frr/bgpd";

/// Which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// FRR's `bgpd`.
    Frr,
    /// GoBGP.
    #[value(name = "gobgp")]
    GoBgp,
}

impl Peer {
    /// As it calls itself.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Frr => "FRR",
            Peer::GoBgp => "GoBGP",
        }
    }
}

/// One that runs. It asks nobody whether next hops are reachable, and gives nothing to the kernel.
pub struct Other {
    /// Its process.
    pub process: Running,
    netns: Netns,
    peer: Peer,
    sockets: PathBuf,
}

impl Other {
    /// Starts it with one iBGP neighbour.
    pub fn start(peer: Peer, bed: &Bed, netns: &Netns, own: Ipv4Addr, neighbour: Ipv4Addr) -> Result<Other> {
        let (conf, sockets) = (bed.path("other.conf"), bed.folder("other")?);
        let (text, mut command) = match peer {
            Peer::Frr => {
                let mut command = Command::new(BGPD);
                command.args(["--no_zebra", "--skip_runas", "-i"]).arg(bed.path("other.pid"));
                command.arg("--vty_socket").arg(&sockets);
                let text = format!(
                    "router bgp {AS}\n bgp router-id {own}\n neighbor {neighbour} remote-as {AS}\n neighbor {neighbour} \
                     timers connect 1\n"
                );
                (text, command)
            }
            Peer::GoBgp => {
                let mut command = Command::new("gobgpd");
                command.args(["--api-hosts", "127.0.0.1:50051"]);
                let text = format!(
                    "[global.config]\n as = {AS}\n router-id = \"{own}\"\n[[neighbors]]\n [neighbors.config]\n  \
                     neighbor-address = \"{neighbour}\"\n  peer-as = {AS}\n [neighbors.timers.config]\n  connect-retry \
                     = 1\n  idle-hold-time-after-reset = 1\n"
                );
                (text, command)
            }
        };
        std::fs::write(&conf, text)?;
        command.arg("-f").arg(&conf).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = netns.run(|| command.spawn())?.with_context(|| format!("can't start {}", peer.name()))?;
        let process = Running::of(child);
        Ok(Other { netns: Netns::of_process(process.id())?, process, peer, sockets })
    }

    /// How many routes it holds; 0 while it is not up.
    pub fn count(&self) -> u32 {
        let (mut command, number) = match self.peer {
            Peer::Frr => {
                let mut command = Command::new("vtysh");
                command.arg("--vty_socket").arg(&self.sockets).args(["-c", "show bgp ipv4 unicast summary json"]);
                (command, "/ribCount")
            }
            Peer::GoBgp => {
                let mut command = Command::new("gobgp");
                command.args(["global", "rib", "summary", "-a", "ipv4", "-j"]);
                (command, "/num_destination")
            }
        };
        self.netns.run(|| asked(&mut command, number)).unwrap_or(0)
    }
}

/// A number in what a program prints as JSON; 0 if there is none.
fn asked(command: &mut Command, pointer: &str) -> u32 {
    let output = command.stdin(Stdio::null()).output().map(|output| output.stdout).unwrap_or_default();
    let said: Value = serde_json::from_slice(&output).unwrap_or_default();
    said.pointer(pointer).and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}
