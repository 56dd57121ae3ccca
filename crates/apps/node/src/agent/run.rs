//! The loop: wait for anything, take it, apply.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use tortie_calc::Calculator;
use tortie_dataplane::PolicyBackend;
use tortie_desired::Tables;
use tortie_facts::SyncStatus;
use tortie_flow::Judge;
use tortie_netlink::{Event, Handle, Monitor};
use tortie_routing::{Routing, Shaping, Tunnels, Wireguards};
use tortie_store::mirror::Mirror;
use tracing::{debug, info, warn};

use super::interfaces::Interfaces;
use super::told::Told;
use super::waits::Waits;
use super::{Inbox, Message};
use crate::bgp::Bgp;
use crate::cni::Service;
use crate::forget::Forgetter;
use crate::health::Health;
use crate::lock;
use crate::memory;
use crate::node_status;
use crate::revoke::Revoker;
use crate::rules::Leftovers;
use crate::self_test::SelfTest;
use crate::tunnel_addresses::Bell;

/// The loop turns at least this often, for liveness.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Everything is read back from the kernel this often, in case an event was missed.
pub(super) const REFRESH: Duration = Duration::from_secs(90);

/// What the agent is made of.
pub struct Parts {
    /// Where messages come from.
    pub inbox: Inbox,
    /// Where facts come from.
    pub facts: Mirror,
    /// Facts to desired state.
    pub calculator: Calculator,
    /// Rules.
    pub rules: Box<dyn PolicyBackend>,
    /// What other packet filters hold.
    pub leftovers: Leftovers,
    /// Routes.
    pub routing: Routing<Handle>,
    /// Tunnels.
    pub tunnels: Tunnels,
    /// WireGuard.
    pub wireguard: Wireguards,
    /// Limits of bandwidth.
    pub shaping: Shaping,
    /// Who looks after the tunnels' addresses, if this node does.
    pub tunnel_addresses: Option<Bell>,
    /// The node's own interfaces.
    pub interfaces: Interfaces,
    /// Kernel events.
    pub monitor: Monitor,
    /// The BGP speaker, if this node has one.
    pub bgp: Option<Bgp>,
    /// Who reports this node's status to resources that ask for it.
    pub node_status: Option<node_status::Bell>,
    /// The test between the nodes, if there is one.
    pub self_test: Option<SelfTest>,
    /// Who answers CNI calls, to be kept up to date.
    pub service: Arc<Service>,
    /// Who stops established flows that policy denies, if anybody does.
    pub revoker: Option<Revoker>,
    /// Who ends the flows of addresses that workloads gave up, if anybody can.
    pub forgetter: Option<Forgetter>,
    /// What this kernel lacks, with what follows from it.
    pub unsupported: BTreeMap<String, String>,
    /// What is told of the agent.
    pub health: Arc<Health>,
}

/// The agent.
pub struct Agent {
    pub(super) inbox: Inbox,
    pub(super) facts: Mirror,
    pub(super) calculator: Calculator,
    pub(super) rules: Box<dyn PolicyBackend>,
    pub(super) leftovers: Leftovers,
    pub(super) routing: Routing<Handle>,
    pub(super) tunnels: Tunnels,
    pub(super) wireguard: Wireguards,
    pub(super) shaping: Shaping,
    pub(super) tunnel_addresses: Option<Bell>,
    pub(super) interfaces: Interfaces,
    pub(super) monitor: Monitor,
    pub(super) bgp: Option<Bgp>,
    node_status: Option<node_status::Bell>,
    pub(super) self_test: Option<SelfTest>,
    pub(super) service: Arc<Service>,
    pub(super) revoker: Option<Revoker>,
    pub(super) forgetter: Option<Forgetter>,
    /// Addresses that workloads gave up, whose flows end once the kernel holds the rules without them.
    pub(super) given_up: BTreeSet<IpAddr>,
    /// Who judges flows, while the endpoints stay as they are.
    pub(super) judge: Option<Judge>,
    pub(super) health: Arc<Health>,
    /// What is wanted.
    pub(super) tables: Tables,
    /// Whether the kernel's rules are known to be as `tables` say.
    pub(super) rules_current: bool,
    /// When refused rules are tried again.
    pub(super) rules_retry: Option<Instant>,
    pub(super) rules_failures: u32,
    pub(super) rules_fault: Option<String>,
    pub(super) complete: bool,
    pub(super) first_pass_done: bool,
    pub(super) refresh_at: Instant,
    pub(super) last_routing: String,
    /// Learned routes that are not in the kernel, as nothing leads to their gateways, in words.
    pub(super) unreachable: String,
    pub(super) last_tunnels: String,
    pub(super) last_wireguard: String,
    pub(super) last_shaping: String,
    pub(super) waits: Waits,
    pub(super) told: Told,
    /// Whether many facts came at once, whose memory is free again.
    heap_has_gaps: bool,
    /// Whether the datastore is locked: nothing that it says is done then.
    pub(super) locked: bool,
    /// Whether facts came since the last apply.
    pub(super) facts_changed: bool,
    stopping: bool,
}

impl Agent {
    /// An agent that has done nothing yet.
    pub fn new(parts: Parts) -> Agent {
        let Parts {
            inbox,
            facts,
            calculator,
            rules,
            leftovers,
            routing,
            tunnels,
            wireguard,
            shaping,
            tunnel_addresses,
            interfaces,
            monitor,
            bgp,
            node_status,
            self_test,
            service,
            revoker,
            forgetter,
            unsupported,
            health,
        } = parts;
        Agent {
            inbox,
            facts,
            calculator,
            rules,
            leftovers,
            routing,
            tunnels,
            wireguard,
            shaping,
            tunnel_addresses,
            interfaces,
            monitor,
            bgp,
            node_status,
            self_test,
            service,
            revoker,
            forgetter,
            given_up: BTreeSet::new(),
            judge: None,
            health,
            tables: Tables::default(),
            rules_current: false,
            rules_retry: None,
            rules_failures: 0,
            rules_fault: None,
            complete: false,
            first_pass_done: false,
            refresh_at: Instant::now() + REFRESH,
            last_routing: String::new(),
            unreachable: String::new(),
            last_tunnels: String::new(),
            last_wireguard: String::new(),
            last_shaping: String::new(),
            waits: Waits::default(),
            told: Told::lacking(unsupported),
            heap_has_gaps: false,
            locked: false,
            facts_changed: false,
            stopping: false,
        }
    }

    /// Turns until it is told to stop. What the kernel holds then stays there.
    pub fn run(mut self) {
        while !self.stopping {
            let messages = self.wait();
            for message in messages {
                self.take(message);
            }
            self.take_events();
            self.take_facts();
            if self.complete && (self.first_pass_done || !self.locked) {
                self.apply(Instant::now());
            }
            self.waits.expire(Instant::now());
            if std::mem::take(&mut self.heap_has_gaps) {
                memory::give_back();
            }
            self.health.turned();
        }
        info!("the agent stops; the kernel keeps what it holds");
    }

    fn wait(&mut self) -> Vec<Message> {
        let now = Instant::now();
        let wake = self.wake_at(now).map_or(LONGEST_WAIT, |at| at.saturating_duration_since(now).min(LONGEST_WAIT));
        // Rounded up, so that a turn never comes a fraction too early and finds nothing to do.
        let millis = u16::try_from(wake.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        let mut fds =
            vec![PollFd::new(self.inbox.as_fd(), PollFlags::POLLIN), PollFd::new(self.monitor.fd(), PollFlags::POLLIN)];
        fds.extend(self.rules.monitor_fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        if let Err(errno) = poll(&mut fds, PollTimeout::from(millis))
            && errno != nix::errno::Errno::EINTR
        {
            warn!(%errno, "waiting for events failed");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.inbox.take()
    }

    fn wake_at(&self, now: Instant) -> Option<Instant> {
        if !self.complete {
            return None;
        }
        let devices = || {
            let routes = self.routing.wake_at(now).into_iter().chain(self.tunnels.wake_at(now));
            routes.chain(self.wireguard.wake_at(now)).chain(self.shaping.wake_at(now)).min()
        };
        // They have work at once, but it waits for the rules.
        let devices = if self.writes_devices() { devices() } else { None };
        devices.into_iter().chain(self.rules_retry).chain([self.refresh_at]).min()
    }

    /// Whether routes and devices are written: before its rules stand, a pod gets no route.
    pub(super) fn writes_devices(&self) -> bool {
        self.rules_current || self.first_pass_done
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Wait { endpoint, until, deadline, reply } => self.waits.add(endpoint, until, deadline, reply),
            Message::Learned(changes) => self.routing.learn(changes),
            Message::Recovered => {
                info!("all BGP peers have told their routes; routes of the earlier run that are gone are removed");
                self.routing.sweep_learned();
            }
            Message::PathMtu(path) => {
                self.tunnels.set_path_mtu(path);
                if let Some(bell) = &self.tunnel_addresses {
                    bell.path_mtu(path);
                }
            }
            Message::BgpRoutes(peer, reply) => {
                drop(reply.send(json!(self.bgp.as_ref().and_then(|bgp| bgp.routes(peer)))));
            }
            Message::Judge(question) => self.judge(question),
            // Who asked may have given up.
            Message::State(reply) => drop(reply.send(self.state())),
            Message::Endpoints(reply) => drop(reply.send(self.local_endpoints())),
            Message::Stop => self.stopping = true,
        }
    }

    fn take_events(&mut self) {
        match self.monitor.drain() {
            Ok(events) => {
                for event in &events {
                    self.routing.on_event(event);
                    self.tunnels.on_event(event);
                    self.wireguard.on_event(event);
                    self.shaping.on_event(event);
                    self.interfaces.on_event(event);
                    if let Some(bell) = &mut self.tunnel_addresses {
                        bell.on_event(event);
                    }
                    if let Event::LinkGone(link) = event {
                        self.link_gone(&link.name);
                    }
                }
            }
            Err(error) => {
                warn!(%error, "kernel events can't be read; reading everything back instead");
                self.resync_devices();
            }
        }
        for change in self.rules.drain_events() {
            let who = change.process_name.as_deref().unwrap_or("an unknown process");
            warn!(process = who, pid = change.process_id, objects = change.objects, "somebody changed our rules");
            self.health.numbers.repairs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.rules_current = false;
            self.rules_retry = None;
        }
    }

    /// A pod's device that goes before its endpoint was not taken away by us.
    fn link_gone(&self, name: &str) {
        if let Some(endpoint) = self.tables.endpoints.values().find(|endpoint| *endpoint.interface == *name) {
            self.service.mend(endpoint.interface.clone());
        }
    }

    fn take_facts(&mut self) {
        let batch = self.facts.take();
        if batch.is_empty() {
            return;
        }
        for invalid in &batch.invalid {
            warn!(key = invalid.path, reason = invalid.reason, "a stored object can't be read and counts as absent");
        }
        self.told.datastore(batch.status, batch.trouble.as_deref());
        let count = u64::try_from(batch.updates.len()).unwrap_or(u64::MAX);
        self.health.numbers.updates.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
        self.heap_has_gaps |= batch.updates.len() >= memory::MANY;
        self.service.addresses.observe(&batch.updates);
        self.service.lock.observe(&batch.updates, batch.status, batch.trouble.is_some());
        if let Some(locked) = lock::told(&batch.updates)
            && std::mem::replace(&mut self.locked, locked) != locked
        {
            info!(locked, "the datastore's lock changed");
        }
        if let Some(bell) = &self.tunnel_addresses {
            bell.observe(&batch.updates);
        }
        if let Some(bell) = &self.node_status {
            bell.observe(&batch.updates);
        }
        for update in batch.updates {
            self.calculator.apply(update);
        }
        self.facts.done();
        self.facts_changed = true;
        match batch.status {
            Some(SyncStatus::InSync) if !self.complete => {
                debug!("the picture of the facts is complete");
                self.calculator.in_sync();
                self.complete = true;
                // It came in parts.
                self.heap_has_gaps = true;
            }
            Some(SyncStatus::InSync | SyncStatus::Resync | SyncStatus::WaitForDatastore) | None => {}
        }
    }
}
