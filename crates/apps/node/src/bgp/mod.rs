//! The BGP speaker's sockets: one thread that feeds the pure speaker and does what it says.
//!
//! Out: changes of best paths, and the moment when the picture is whole again after a restart. The thread ends by
//! closing its connections without a NOTIFICATION, so that peers keep the routes (RFC 4724).

mod bfd;
mod config;
mod connection;
mod listen;
mod options;
mod reason;
mod secrets;
mod status;
mod wanted;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::Waker;
pub use secrets::SecretSource;
pub use status::{PeerState, Routes, Status};
use tortie_bgp::BfdState;
use tortie_desired::{BgpPeer, BgpPolicy, BgpSpeaker};
use tortie_net::IpNet;
use tortie_routing::Learned;

/// What the speaker is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Who this node is; `None`: it does not speak BGP.
    pub speaker: Option<BgpSpeaker>,
    /// Its peers.
    pub peers: BTreeMap<IpAddr, BgpPeer>,
    /// What holds for all of them.
    pub policy: BgpPolicy,
    /// What it announces.
    pub announcements: BTreeSet<IpNet>,
}

/// What the speaker tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Best paths changed: prefix to its route, or to nothing.
    Routes(Vec<(IpNet, Option<Learned>)>),
    /// After a restart: every peer has told all that it has, or the time for it is over.
    Recovered,
}

enum Command {
    Want(Box<Wanted>),
    Status(Sender<Status>),
    Routes(IpAddr, Sender<Option<Routes>>),
    /// BFD's view of a peer changed.
    Bfd(IpAddr, BfdState),
    /// A password may be another one.
    Secrets,
    Stop,
}

/// The running speaker.
pub struct Bgp {
    commands: Sender<Command>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Bgp {
    /// Starts the thread. `restarting`: the kernel holds routes of an earlier run of this node.
    /// `secrets`: where passwords are.
    pub fn start(
        restarting: bool,
        secrets: SecretSource,
        tell: impl Fn(Told) + Send + 'static,
    ) -> std::io::Result<Bgp> {
        let (commands, received) = channel();
        let (worker, waker) = worker::Worker::new(restarting, secrets, (commands.clone(), received), Box::new(tell))?;
        let thread = std::thread::Builder::new().name("bgp".to_owned()).spawn(move || worker.run())?;
        Ok(Bgp { commands, waker, thread: Some(thread) })
    }

    /// Changes what is wanted.
    pub fn want(&self, wanted: Wanted) {
        self.send(Command::Want(Box::new(wanted)));
    }

    /// The state now; the default one if the thread does not answer within a second.
    pub fn status(&self) -> Status {
        let (reply, answer) = channel();
        self.send(Command::Status(reply));
        answer.recv_timeout(Duration::from_secs(1)).unwrap_or_default()
    }

    /// What a peer tells and is told; `None` if there is no such peer, or no answer within a second.
    pub fn routes(&self, peer: IpAddr) -> Option<Routes> {
        let (reply, answer) = channel();
        self.send(Command::Routes(peer, reply));
        answer.recv_timeout(Duration::from_secs(1)).ok().flatten()
    }

    fn send(&self, command: Command) {
        // The thread only ends after `Stop`, so neither can fail before that.
        let _ = self.commands.send(command);
        let _ = self.waker.wake();
    }
}

impl Drop for Bgp {
    fn drop(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
