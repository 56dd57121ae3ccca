//! A test between the nodes that never ends: do packets as large as pods send them arrive, whole, the way that they go?
//!
//! Every round asks some of the other nodes, by datagrams that may not be cut in pieces and come back as they are: a
//! small one and one of full size from node to node, and the same through each tunnel. What is wrong is named, and mended
//! where a node can: an MTU in the middle that is too small makes those of tunnels and of pods to come smaller, and if
//! nothing passes through a tunnel, its checksums are made here for some rounds, which stays if that is proved to help.
//! Invariant: a node that does not answer at all is no finding: it may be dead, of another make, or behind a policy.

mod echo;
mod findings;
mod offload;
mod trial;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tortie_desired::{PeerOrigin, Tables, TunnelDevice, Vtep, Wireguard};
use tortie_net::Family;
use tortie_netlink::Handle;
use tracing::{info, warn};

use crate::health::Health;
use echo::{Asker, Fate, Known, SMALL};
use findings::{Fault, Findings, Found};
use trial::Trial;

/// Nodes that one round asks at most; the next one goes on from there.
const A_ROUND: usize = 16;
/// No packet of a pod is larger, its outer headers included.
const MOST: u32 = 1500;
/// The next round comes so soon where checksums were left below once more: if that shuts a tunnel, it is not for long.
const PROOF: Duration = Duration::from_secs(2);

/// Another node, known by its own address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    node: Arc<str>,
    tunnels: Vec<Tunnel>,
}

/// A way to a node inside of other packets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tunnel {
    /// The device here.
    name: Arc<str>,
    /// The address of the node's end.
    end: IpAddr,
    /// Bytes that it adds to a packet.
    overhead: u32,
    make: Make,
}

/// What is special about a kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Make {
    /// Checksums can be made here.
    Vxlan(TunnelDevice),
    Ipip,
    /// The first packets may wait for a handshake.
    Wireguard,
}

impl Tunnel {
    /// One whose device has a name of its own.
    fn plain(device: TunnelDevice, end: IpAddr, make: Make) -> Tunnel {
        Tunnel { name: Arc::from(device.name()), end, overhead: device.overhead(), make }
    }
}

/// Whom to ask, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plan {
    targets: BTreeMap<IpAddr, Target>,
    /// This node's own addresses, IPv4 first.
    own: [Option<IpAddr>; 2],
    /// MTUs of tunnels by configuration.
    configured: BTreeMap<Arc<str>, u32>,
}

impl Plan {
    fn of(tables: &Tables) -> Plan {
        let mut plan = Plan::default();
        let mut own = |addr: IpAddr| plan.own[Family::of(addr) as usize] = Some(addr);
        tables.tunnels.values().for_each(|vxlan| own(vxlan.underlay));
        tables.ipip.iter().for_each(|ipip| own(ipip.underlay));
        let speaker = tables.bgp_speaker.iter().flat_map(|speaker| [speaker.ipv4, speaker.ipv6]);
        speaker.flatten().for_each(&mut own);
        tables.wireguard.values().for_each(|wireguard| own(wireguard.underlay));
        let vxlans = tables.tunnels.iter().map(|(device, vxlan)| (Arc::from(device.name()), vxlan.mtu));
        let ipip = tables.ipip.iter().map(|ipip| (Arc::from(TunnelDevice::Ipip.name()), ipip.mtu));
        let wireguards = tables.wireguard.values().map(|wireguard| (wireguard.name.clone(), wireguard.mtu));
        let configured = vxlans.chain(ipip).chain(wireguards);
        plan.configured = configured.filter_map(|(name, mtu)| Some((name, mtu?))).collect();
        for (addr, Vtep { node, mac: _, underlay }) in &tables.vteps {
            let device = TunnelDevice::vxlan(Family::of(*addr));
            plan.add(*underlay, node, Tunnel::plain(device, *addr, Make::Vxlan(device)));
        }
        if let Some(ipip) = &tables.ipip {
            for (underlay, end) in &ipip.ends {
                let Some(node) = ipip.peers.get(underlay) else { continue };
                plan.add(*underlay, node, Tunnel::plain(TunnelDevice::Ipip, *end, Make::Ipip));
            }
        }
        for (family, wireguard) in &tables.wireguard {
            for (node, peer) in &wireguard.peers {
                let Some(end) = peer.address else { continue };
                let (name, overhead) = (wireguard.name.clone(), Wireguard::overhead(*family));
                plan.add(peer.endpoint, node, Tunnel { name, end, overhead, make: Make::Wireguard });
            }
        }
        let peers = tables.bgp_peers.iter().filter(|(_, peer)| peer.origin == PeerOrigin::Mesh);
        let peers = peers.map(|(addr, peer)| (addr, &peer.name));
        for (addr, node) in tables.ipip.iter().flat_map(|ipip| &ipip.peers).chain(peers) {
            plan.targets.entry(*addr).or_insert_with(|| Target { node: node.clone(), tunnels: Vec::new() });
        }
        plan
    }

    fn add(&mut self, underlay: IpAddr, node: &Arc<str>, tunnel: Tunnel) {
        let new = || Target { node: node.clone(), tunnels: Vec::new() };
        self.targets.entry(underlay).or_insert_with(new).tunnels.push(tunnel);
    }

    fn known(&self) -> BTreeSet<IpAddr> {
        let tunnels = self.targets.values().flat_map(|target| &target.tunnels).map(|tunnel| tunnel.end);
        self.targets.keys().copied().chain(tunnels).collect()
    }
}

/// The running test.
pub struct SelfTest {
    plan: Plan,
    plans: Sender<Plan>,
    known: Known,
    findings: Arc<Mutex<Findings>>,
    stop: Arc<AtomicBool>,
}

impl SelfTest {
    /// Starts it, with a round every so often. `tell` hears the largest packets that pass to all nodes, IPv4 first,
    /// whenever that changes; nothing stands for as large as interfaces take.
    pub fn start(
        every: Duration,
        health: Arc<Health>,
        tell: impl Fn([Option<u32>; 2]) + Send + 'static,
    ) -> io::Result<SelfTest> {
        let (plans, received) = channel();
        let (known, stop): (Known, _) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        for family in Family::ALL {
            let (known, stop) = (known.clone(), stop.clone());
            std::thread::Builder::new().name("self-test-echo".to_owned()).spawn(move || {
                if let Err(error) = echo::answer(family, &known, &stop) {
                    info!(%family, %error, port = echo::PORT, "questions of other nodes' self-tests are not answered");
                }
            })?;
        }
        let findings: Arc<Mutex<Findings>> = Arc::default();
        let tester = Tester {
            every,
            findings: findings.clone(),
            health,
            tell: Box::new(tell),
            told: [None; 2],
            plan: Plan::default(),
            after: None,
            trials: BTreeMap::new(),
            doubted: BTreeSet::new(),
        };
        std::thread::Builder::new().name("self-test".to_owned()).spawn(move || tester.run(&received))?;
        Ok(SelfTest { plan: Plan::default(), plans, known, findings, stop })
    }

    /// Takes the nodes that there are.
    pub fn watch(&mut self, tables: &Tables) {
        let plan = Plan::of(tables);
        if plan == self.plan {
            return;
        }
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = plan.known();
        self.plan = plan.clone();
        // The thread ends only after this.
        let _ = self.plans.send(plan);
    }

    /// What it found, for `calicoctl node status -o json`.
    pub fn state(&self) -> Value {
        lock(&self.findings).state()
    }
}

impl Drop for SelfTest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn lock(findings: &Mutex<Findings>) -> MutexGuard<'_, Findings> {
    findings.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Tester {
    every: Duration,
    findings: Arc<Mutex<Findings>>,
    health: Arc<Health>,
    tell: Box<dyn Fn([Option<u32>; 2]) + Send>,
    told: [Option<u32>; 2],
    plan: Plan,
    /// The node that was asked last.
    after: Option<IpAddr>,
    trials: BTreeMap<TunnelDevice, Trial>,
    /// Ends behind a handshake that did not answer in their last round.
    doubted: BTreeSet<IpAddr>,
}

impl Tester {
    fn run(mut self, plans: &Receiver<Plan>) {
        let mut at = Instant::now() + self.every;
        loop {
            match plans.recv_timeout(at.saturating_duration_since(Instant::now())) {
                Ok(plan) => self.plan = plan,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.round() {
                        warn!(%error, "the test between the nodes could not be made");
                    }
                    let proof = self.trials.values().any(|trial| *trial == Trial::Proof);
                    at = Instant::now() + if proof { self.every.min(PROOF) } else { self.every };
                }
            }
        }
    }

    fn round(&mut self) -> io::Result<()> {
        let sizes = self.sizes().map_err(io::Error::other)?;
        let later = self.plan.targets.range((
            self.after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded),
            std::ops::Bound::Unbounded,
        ));
        let mut chosen: Vec<(IpAddr, Target)> = later.take(A_ROUND).map(|(at, target)| (*at, target.clone())).collect();
        self.after = chosen.last().map(|(at, _)| *at).filter(|_| chosen.len() == A_ROUND);
        let mut askers = BTreeMap::new();
        let mut passed: BTreeMap<TunnelDevice, bool> = BTreeMap::new();
        for (underlay, target) in chosen.drain(..) {
            let family = Family::of(underlay);
            let Some(size) = sizes[family as usize] else { continue };
            let asker = match askers.entry(family) {
                std::collections::btree_map::Entry::Occupied(there) => there.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => free.insert(Asker::new(family)?),
            };
            let found = self.test(asker, underlay, &target, size);
            for tunnel in target.tunnels.iter().filter(|_| found.answers) {
                let Make::Vxlan(device) = tunnel.make else { continue };
                let shut = found.faults.contains(&Fault::Shut(tunnel.name.clone()));
                *passed.entry(device).or_default() |= !shut;
            }
            let new = lock(&self.findings).put(&target.node, underlay, found);
            for fault in new {
                warn!(node = &*target.node, address = %underlay, "{fault}");
            }
        }
        self.try_checksums(&passed);
        self.conclude();
        Ok(())
    }

    /// The largest packets towards other nodes, by the MTU of the interface with this node's address.
    fn sizes(&self) -> tortie_netlink::Result<[Option<u32>; 2]> {
        let mut handle = Handle::open()?;
        let (links, addresses) = (handle.links()?, handle.addresses()?);
        Ok(self.plan.own.map(|own| {
            let held = addresses.iter().find(|held| Some(held.net.addr()) == own)?;
            let link = links.iter().find(|link| link.index == held.index && link.up)?;
            Some(link.mtu.min(MOST))
        }))
    }

    fn test(&mut self, asker: &mut Asker, underlay: IpAddr, target: &Target, wanted: u32) -> Found {
        if asker.ask(underlay, SMALL) != Fate::Answered {
            return Found::default();
        }
        let mut faults = Vec::new();
        let mut passes = wanted;
        if wanted > SMALL && asker.ask(underlay, wanted) == Fate::Lost {
            let Some(largest) = asker.largest(underlay, SMALL, wanted) else { return Found::default() };
            passes = largest;
            faults.push(Fault::SmallPath { largest: passes, wanted });
        }
        for tunnel in &target.tunnels {
            faults.extend(self.test_tunnel(asker, tunnel, passes, passes == wanted));
        }
        // Who falls silent meanwhile has no fault.
        if !faults.is_empty() && asker.ask(underlay, SMALL) != Fate::Answered {
            return Found::default();
        }
        Found { answers: true, faults }
    }

    /// The inside of a tunnel over a way that packets of so many bytes pass, all that are sent here or not.
    fn test_tunnel(&mut self, asker: &mut Asker, tunnel: &Tunnel, passes: u32, whole: bool) -> Vec<Fault> {
        let Tunnel { name, end, overhead, make } = tunnel;
        let configured = self.plan.configured.get(name).copied().unwrap_or(u32::MAX);
        let size = passes.saturating_sub(*overhead).min(configured);
        let mut faults = Vec::new();
        match asker.ask(*end, SMALL) {
            // A handshake may take longer than an answer, and is tried again later: what does not answer twice is shut.
            Fate::Lost if *make == Make::Wireguard && self.doubted.insert(*end) => {}
            Fate::Lost => faults.push(Fault::Shut(name.clone())),
            Fate::Answered => {
                self.doubted.remove(end);
                let trial = if let Make::Vxlan(device) = make { self.trials.get(device) } else { None };
                if trial == Some(&Trial::Helped) {
                    faults.push(Fault::Checksums(name.clone()));
                }
                // One fault explains the other.
                if whole && size > SMALL && asker.ask(*end, size) == Fate::Lost {
                    faults.push(Fault::LosesLarge(name.clone(), size));
                }
            }
            // The device is not there yet, or its MTU was set by somebody else.
            Fate::NotSent => {}
        }
        faults
    }

    /// Goes on with the trials of devices after a round, which packets passed to somebody or not.
    fn try_checksums(&mut self, passed: &BTreeMap<TunnelDevice, bool>) {
        let now = Instant::now();
        for (device, passed) in passed {
            let before = self.trials.get(device).copied().unwrap_or_default();
            let (next, left_below) = before.after(*passed, now);
            let refused = left_below.is_some_and(|left_below| !self.checksums(*device, left_below));
            self.trials.insert(*device, if refused { Trial::refused(now) } else { next });
        }
    }

    fn checksums(&self, device: TunnelDevice, left_below: bool) -> bool {
        let done = offload::set(device.name(), left_below);
        match &done {
            Ok(()) => info!(device = device.name(), left_below, "checksums of the tunnel's packets"),
            Err(error) => warn!(device = device.name(), %error, "where checksums are made can't be changed"),
        }
        done.is_ok()
    }

    fn conclude(&mut self) {
        let mut findings = lock(&self.findings);
        findings.keep(|underlay| self.plan.targets.contains_key(underlay));
        let faults = u64::try_from(findings.faults()).unwrap_or(u64::MAX);
        self.health.numbers.self_test_faults.store(faults, Ordering::Relaxed);
        let now = findings.path_mtu();
        drop(findings);
        if now != self.told {
            let [v4, v6] = now;
            info!(
                ?v4,
                ?v6,
                "the largest packets that pass to all nodes; nothing stands for as large as interfaces take"
            );
            self.told = now;
            (self.tell)(now);
        }
    }
}
