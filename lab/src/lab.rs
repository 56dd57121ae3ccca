//! A lab that exists: its nodes, routers and pods, and its end.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use tortie_netlink::{Route, RouteProtocol};

use crate::builder::LabBuilder;
use crate::daemon::Daemon;
use crate::node::Node;
use crate::place::Place;
use crate::pod::Pod;
use crate::state::{LabDir, Process, Record};
use crate::teardown::{Lock, netns_dir, netns_name, teardown, teardown_locked};
use crate::topology::{Machine, Rules, Store, Topology};
use crate::view::View;
use crate::{binary, etcd, fabric, kubernetes, signals};

/// What every handle of a lab knows.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: LabDir,
    pub(crate) record: Record,
}

impl Shared {
    pub(crate) fn netns(&self, member: &str) -> String {
        netns_name(&self.record.id, member)
    }

    /// How programs of a machine see the system.
    pub(crate) fn view(&self, machine: &str) -> View {
        View::new(&self.dir, &self.record, machine, self.netns(machine), machine)
    }
}

/// A lab. Dropping it takes everything down that was made, also after a panic, unless it was to be kept.
pub struct Lab {
    shared: Arc<Shared>,
    nodes: Vec<Node>,
    ends_with_this: bool,
    /// The datastore's programs, if it has any.
    store: Vec<Daemon>,
}

/// Root is needed for namespaces.
pub fn require_root() -> Result<()> {
    if !geteuid().is_root() {
        bail!("this needs root: it makes network namespaces (try: sudo)");
    }
    Ok(())
}

impl Lab {
    /// A lab to describe.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    pub(crate) fn make(builder: LabBuilder, topology: Topology) -> Result<Lab> {
        require_root()?;
        let id = builder.id.clone().unwrap_or_else(fresh_id);
        let binary = builder.binary.clone().map_or_else(binary::find, Ok)?;
        let dir = LabDir::of(&id)?;
        let owner = (!builder.keep).then(Process::current);
        let (_gate, _lock) = (signals::gate(), Lock::take()?);
        sweep();
        let record = Record { id, owner, binary, topology, netns_dir: netns_dir()? };
        dir.create(&record)?;
        if !builder.keep {
            signals::guard(&dir)?;
        }
        let lab = Lab::with(dir, record, !builder.keep);
        match lab.furnish() {
            Ok(()) => Ok(lab),
            Err(error) => {
                signals::release(&lab.shared.dir);
                let mut lab = lab;
                lab.ends_with_this = false;
                teardown_locked(&lab.shared.dir)?;
                Err(error)
            }
        }
    }

    fn with(dir: LabDir, record: Record, ends_with_this: bool) -> Lab {
        let shared = Arc::new(Shared { dir, record });
        let nodes = shared.record.topology.nodes.iter().map(|machine| Node::new(&shared, machine)).collect();
        Lab { shared, nodes, ends_with_this, store: Vec::new() }
    }

    fn furnish(&self) -> Result<()> {
        let Shared { dir, record } = &*self.shared;
        for name in binary::NAMES {
            symlink(&record.binary, dir.join("bin").join(name)).context("link the binary")?;
        }
        fabric::build(record)?;
        self.nodes.iter().try_for_each(Node::furnish)
    }

    pub(crate) fn start_store(&mut self) -> Result<()> {
        self.store = match self.topology().store {
            Store::Sqlite => Vec::new(),
            Store::Etcd => vec![etcd::start(self)?],
            Store::Kubernetes => kubernetes::start(self)?,
        };
        Ok(())
    }

    /// Where the nodes keep facts.
    pub fn store(&self) -> Store {
        self.topology().store
    }

    /// Which packet filter holds the nodes' policy.
    pub fn rules(&self) -> Rules {
        self.topology().rules
    }

    /// A lab that another process made; dropping it leaves it as it is. Without an id: the only one there is.
    pub fn attach(id: Option<&str>) -> Result<Lab> {
        require_root()?;
        let all = LabDir::all()?;
        let ids = || all.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(", ");
        let dir = match (id, all.as_slice()) {
            (Some(id), _) => {
                let found = all.iter().find(|(other, _)| other == id);
                &found.with_context(|| format!("no lab {id:?}: there are [{}]", ids()))?.1
            }
            (None, []) => bail!("there is no lab: make one with `tortie lab up`"),
            (None, [(_, only)]) => only,
            (None, _) => bail!("there are several labs, choose one with --id: {}", ids()),
        };
        Ok(Lab::with(dir.clone(), dir.record()?, false))
    }

    /// The lab's id.
    pub fn id(&self) -> &str {
        &self.shared.record.id
    }

    /// The lab's directory.
    pub fn dir(&self) -> &LabDir {
        &self.shared.dir
    }

    /// What it consists of.
    pub fn topology(&self) -> &Topology {
        &self.shared.record.topology
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of that number, counted from 1 as in the nodes' names. Panics when there is none.
    pub fn node(&self, number: usize) -> &Node {
        let node = number.checked_sub(1).and_then(|at| self.nodes.get(at));
        node.unwrap_or_else(|| panic!("node {number} of a lab with {} nodes", self.nodes.len()))
    }

    /// The node of that name.
    pub fn node_named(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.with_context(|| format!("no node {name:?} in this lab"))
    }

    /// All pods, as recorded now.
    pub fn pods(&self) -> Result<Vec<Pod>> {
        Ok(self.shared.dir.pods()?.into_iter().map(|record| Pod::from_record(&self.shared, record)).collect())
    }

    /// A pod by `namespace/name`, or by its name if that is unique.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let mut pods = self.pods()?;
        pods.retain(|pod| pod.title() == name || pod.name() == name);
        match pods.len() {
            1 => Ok(pods.remove(0)),
            0 => bail!("no pod {name:?} in this lab"),
            n => bail!("{n} pods are named {name:?}: say NAMESPACE/NAME"),
        }
    }

    /// A router, or a node's host side, as a place to probe from and to.
    pub fn place(&self, machine: &str) -> Result<Place> {
        let found: &Machine = self.topology().machine(machine)?;
        Ok(Place::new(machine, &self.shared.netns(machine), found.ips()))
    }

    /// How programs of a node or router see the system.
    pub fn view(&self, machine: &str) -> Result<View> {
        self.topology().machine(machine)?;
        Ok(self.shared.view(machine))
    }

    /// The folder of a node or router for files, such as a peer's configuration; it goes with the lab.
    pub fn folder(&self, machine: &str) -> Result<PathBuf> {
        self.topology().machine(machine)?;
        let folder = self.shared.dir.join(machine);
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(folder)
    }

    /// Starts another program, such as a BGP speaker, on a node or router. It is killed when the handle is dropped and,
    /// whatever becomes of the handle, with the lab.
    pub fn spawn(&self, machine: &str, program: &str, args: &[&str]) -> Result<Daemon> {
        let _gate = signals::gate();
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = self.folder(machine)?.join(format!("{name}.log"));
        let mut command = self.view(machine)?.command(program, true)?;
        command.args(args);
        let daemon = Daemon::start(command, &log).with_context(|| format!("start {program} on {machine}"))?;
        if let Some(process) = Process::of(daemon.pid()) {
            self.shared.dir.save_process(process, &format!("{machine}: {name}"))?;
        }
        Ok(daemon)
    }

    /// Every place: pods, then nodes, then routers.
    pub fn places(&self) -> Result<Vec<Place>> {
        let mut all: Vec<_> = self.pods()?.iter().map(Pod::place).collect();
        let Topology { nodes, routers, .. } = self.topology();
        for machine in nodes.iter().chain(routers) {
            all.push(self.place(&machine.name)?);
        }
        Ok(all)
    }

    /// Starts every node's process and waits until each is in sync, at most `timeout` in all.
    pub fn start(&self, timeout: Duration) -> Result<()> {
        let begun = Instant::now();
        self.nodes.iter().try_for_each(Node::start)?;
        self.nodes.iter().try_for_each(|node| node.wait_in_sync(timeout.saturating_sub(begun.elapsed())))
    }

    /// Waits until every node has a route from BGP to each address of the other nodes' pods.
    pub fn wait_routes(&self, timeout: Duration) -> Result<()> {
        let begun = Instant::now();
        let pods = self.pods()?;
        for node in &self.nodes {
            for pod in pods.iter().filter(|pod| pod.record().node != node.name()) {
                for ip in pod.ips() {
                    let learned = |route: &Route| {
                        route.protocol == RouteProtocol::BIRD && !route.hops.is_empty() && route.net.contains(ip)
                    };
                    let left = timeout.saturating_sub(begun.elapsed());
                    node.wait_route(left, &format!("from BGP to {} ({ip})", pod.title()), learned)?;
                }
            }
        }
        Ok(())
    }

    /// Runs calicoctl on the first node; its output whatever its exit code.
    pub fn calicoctl(&self, args: &[&str], stdin: &str) -> Result<Output> {
        let mut command = self.node(1).view().command(self.shared.dir.join("bin/calicoctl"), false)?;
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start calicoctl")?;
        if let Some(mut pipe) = child.stdin.take() {
            // A program that does not read its input may end before it is written.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        Ok(child.wait_with_output()?)
    }

    /// Runs calicoctl on the first node and returns what it printed; an error when it fails.
    pub fn ctl(&self, args: &[&str], stdin: &str) -> Result<String> {
        let Output { status, stdout, stderr } = self.calicoctl(args, stdin)?;
        if !status.success() {
            bail!("calicoctl {}: {status}\n{}", args.join(" "), String::from_utf8_lossy(&stderr));
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    /// `calicoctl apply -f -` with a manifest.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.ctl(&["apply", "-f", "-"], manifest)
    }

    /// Lets pods that are added from now on talk to each other without a policy: without a policy handler the network's
    /// profile allows everything. On Kubernetes the profiles of namespaces do so already.
    pub fn open_network(&self) -> Result<()> {
        if self.store() == Store::Kubernetes {
            return Ok(());
        }
        for node in &self.nodes {
            let mut conflist = node.conflist()?;
            let plugin = conflist["plugins"][0].as_object_mut().context("the conflist has no plugin")?;
            plugin.remove("policy");
            node.set_conflist(&conflist)?;
        }
        Ok(())
    }

    /// Runs `kubectl` on the first node of a lab on Kubernetes and returns what it printed; an error when it fails.
    pub fn kubectl(&self, args: &[&str], stdin: &str) -> Result<String> {
        kubernetes::ask(&self.node(1).view(), args, stdin)
    }

    /// Lets the lab stay when this handle is dropped and when this process ends.
    pub fn keep(&mut self) -> Result<()> {
        let record = Record { owner: None, ..self.shared.record.clone() };
        self.shared.dir.save(&record)?;
        self.ends_with_this = false;
        signals::release(&self.shared.dir);
        self.nodes.iter().for_each(Node::disown);
        self.store.drain(..).for_each(Daemon::disown);
        Ok(())
    }

    /// Takes the lab down, whoever made it.
    pub fn down(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.ends_with_this = false;
        let done = teardown(&self.shared.dir);
        signals::release(&self.shared.dir);
        self.nodes.iter().for_each(Node::reap);
        self.store.clear();
        done
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.ends_with_this
            && let Err(error) = self.end()
        {
            eprintln!("lab {}: {error:#}", self.id());
        }
    }
}

/// An id that no other lab on the machine has.
fn fresh_id() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Takes down the labs whose owner ended without doing so.
fn sweep() {
    for (id, dir) in LabDir::all().unwrap_or_default() {
        let owner = dir.record().ok().and_then(|record| record.owner);
        if owner.is_some_and(|owner| !owner.alive()) {
            match teardown_locked(&dir) {
                Ok(()) => eprintln!("lab {id}: its process had ended without taking it down; done now"),
                Err(error) => eprintln!("lab {id}: {error:#}"),
            }
        }
    }
}

/// Labels from pairs.
pub(crate) fn label_map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
