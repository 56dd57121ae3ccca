//! The agent: one thread that turns facts into kernel state, and the handle by which others ask it.
//!
//! A turn: take what came (facts, kernel events, learned routes, questions), calculate, commit rules in one
//! transaction, write routes, tell BGP, answer those who wait. Rules come before routes, so a pod is never reachable
//! before its policy stands. Nothing is written before the facts are complete for the first time.

mod apply;
mod inbox;
mod interfaces;
mod run;
mod state;
mod told;
mod waits;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tortie_desired::{EndpointId, HostInterface};
use tortie_net::IpNet;
use tortie_routing::Learned;

pub use inbox::{Inbox, Post};
pub use interfaces::Interfaces;
pub use run::{Agent, Parts};

use crate::cni::Phases;
use crate::health::Health;
use crate::revoke::Question;

/// What somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// The kernel holds the endpoint's policy, and the routes to its addresses through this interface.
    Programmed {
        /// Host side of the endpoint's interface.
        interface: Arc<str>,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// The kernel holds nothing of the endpoint.
    Gone,
}

/// An endpoint of this node and the interfaces that it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// A workload.
    Workload {
        /// Which one.
        id: EndpointId,
        /// Host side of its interface.
        interface: Arc<str>,
        /// Whether the kernel holds the rules that are wanted.
        programmed: bool,
    },
    /// A host endpoint.
    Host {
        /// Name of the resource.
        name: Arc<str>,
        /// Its interfaces, which need not be there; none: nothing matches it.
        interfaces: Vec<HostInterface>,
    },
}

/// What the agent is sent.
pub enum Message {
    /// Somebody waits for the kernel.
    Wait {
        /// Which endpoint.
        endpoint: EndpointId,
        /// For what.
        until: Until,
        /// For how long: after this the answer is of no use.
        deadline: Instant,
        /// Told once it is so.
        reply: Sender<()>,
    },
    /// BGP learned routes: prefix to its route, or to nothing.
    Learned(Vec<(IpNet, Option<Learned>)>),
    /// BGP has heard all peers again after a restart.
    Recovered,
    /// The largest packets that pass to all other nodes, IPv4 first; nothing: as large as interfaces take.
    PathMtu([Option<u32>; 2]),
    /// Somebody asks what a BGP peer tells and is told.
    BgpRoutes(IpAddr, Sender<Value>),
    /// What becomes of these flows under the rules that are in force?
    Judge(Question),
    /// Somebody asks for the node's state.
    State(Sender<Value>),
    /// Somebody asks which endpoints the node has; nothing is answered before the kernel holds the first picture.
    Endpoints(Sender<Option<Vec<Local>>>),
    /// End.
    Stop,
}

/// Talks to the agent from other threads.
#[derive(Clone)]
pub struct AgentHandle {
    post: Post,
    health: Arc<Health>,
}

impl AgentHandle {
    /// A handle on the agent that reads this post.
    pub fn new(post: Post, health: Arc<Health>) -> AgentHandle {
        AgentHandle { post, health }
    }

    /// Where the times of CNI calls are kept.
    pub fn cni_phases(&self) -> Arc<Phases> {
        self.health.cni.clone()
    }

    /// Whether the kernel holds the first picture.
    pub fn is_in_sync(&self) -> bool {
        self.health.is_in_sync()
    }

    /// Waits until the kernel is so; an error says how long it was waited for.
    pub fn wait(&self, endpoint: &EndpointId, until: Until, patience: Duration) -> Result<(), String> {
        let (reply, answer) = channel();
        let deadline = Instant::now() + patience;
        self.post.send(Message::Wait { endpoint: endpoint.clone(), until, deadline, reply });
        answer.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Disconnected if Instant::now() < deadline => "the node agent is stopping".to_owned(),
            RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout => {
                format!("not within {} s; the node's log says why", patience.as_secs())
            }
        })
    }

    /// What a BGP peer tells and is told, as JSON; null if there is no such peer.
    pub fn bgp_routes(&self, peer: IpAddr) -> Value {
        let (reply, answer) = channel();
        self.post.send(Message::BgpRoutes(peer, reply));
        answer.recv_timeout(Duration::from_secs(5)).unwrap_or_else(|_| json!({ "error": "the agent does not answer" }))
    }

    /// Packets that ended, as JSON.
    pub fn drops(&self, args: &BTreeMap<String, String>) -> Value {
        self.health.drops.answer(args)
    }

    /// The node's endpoints, once the kernel holds the first picture.
    pub fn endpoints(&self) -> Option<Vec<Local>> {
        let (reply, answer) = channel();
        self.post.send(Message::Endpoints(reply));
        answer.recv_timeout(Duration::from_secs(5)).ok().flatten()
    }

    /// The node's state as JSON.
    pub fn state(&self) -> Value {
        let (reply, answer) = channel();
        self.post.send(Message::State(reply));
        answer.recv_timeout(Duration::from_secs(5)).unwrap_or_else(|_| json!({ "error": "the agent does not answer" }))
    }
}
