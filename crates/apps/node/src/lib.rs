//! The node agent: start-up, calculation, dataplane, BGP speaker, CNI service, status.
//!
//! Its tasks, and who tells what to whom:
//!
//! ```text
//!   store --changes--> store-mirror --mailbox--> agent --rules, routes--> kernel
//!                                                 ^ |                      |
//!   cni (a thread a call) --Wait, State----------->| |<----link, route, rule events
//!        |  writes endpoints and addresses         | +--Wanted--> bgp --TCP--> peers
//!        +--> store                                |<--Learned, Recovered--+
//!        +--devices--> reaper, mend --> kernel     |
//!                                                            bfd --up, down--> bgp; its own UDP sockets --> peers
//!   tunnel-addresses <--Bell, WireGuard's keys-- agent; writes the Node resource and addresses --> store
//!   node-status <--who asks for a CalicoNodeStatus-- agent, which it asks; writes the status --> store
//!   self-test <--the nodes-- agent; --packets of full size--> other nodes; the largest that pass --> agent
//!   drops <--packets that ended, by NFLOG-- kernel; <--batches-- agent; told to whoever asks by cni
//!   revoke <--rules changed-- agent; asks it to Judge the flows that conntrack lists; --marks--> conntrack
//!   forget <--addresses that workloads gave up-- agent, which waits before others get them; --deletes flows--> conntrack
//!   http (health, metrics) reads Health, which the agent writes
//!   leftovers --once, after the first picture is in the kernel--> rules of other packet filters go
//!   reports --the node is alive, by a clock, on etcd alone--> store
//!   endpoint-reports --which endpoints are up, on etcd and if told to; it asks the agent--> store
//!   monitor-addresses --the node's address is another one, by address events and a clock--> store
//!   condition --the node's network is up, or why not--> the Kubernetes around the node; it asks the agent and Health
//!   signals: SIGTERM and SIGINT make the main thread send Stop
//! ```
//!
//! A task without a line here is a finding. Ending the process, in whatever way, takes nothing out of the kernel.

mod addresses;
mod agent;
mod autodetect;
mod bgp;
mod clean;
mod cluster;
mod cni;
mod condition;
mod drops;
mod endpoint_reports;
mod environment;
mod forget;
mod health;
mod host;
mod lock;
mod logging;
mod memory;
mod monitor_addresses;
mod node_status;
mod patience;
mod register;
mod reports;
mod revoke;
mod rules;
mod self_test;
mod settings_before;
mod startup;
mod tunnel_addresses;

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tortie_api::{FelixConfigurationSpec, Kind, Resource};
use tortie_calc::{Calculator, Overrides};
use tortie_datastore::{Choice, Felix};
use tortie_facts::{Filter, Key};
use tortie_http::Listener;
use tortie_netlink::{Groups, Handle, KernelWireguard, Monitor, WireguardDevices};
use tortie_routing::{BgpRoutes, Options as RoutingOptions, Routing, Shaping, Tunnels, Wireguards};
use tortie_store::mirror::{Mirror, Options as MirrorOptions};
use tortie_store::{Reader, Store};
use tortie_store_kubernetes::Cluster;
use tortie_wireguard::Userspace;
use tracing::{info, warn};

use agent::{Agent, AgentHandle, Inbox, Interfaces, Message, Parts};
use bgp::{SecretSource, Told};
use condition::Condition;
pub use condition::shutdown;
use environment::{Backend, Environment, WireguardDevice};
use health::{Health, Pages};
use self_test::SelfTest;
use tunnel_addresses::TunnelAddresses;

pub use addresses::show as show_addresses;
pub use bgp::{Bgp, SecretSource as BgpSecrets, Status as BgpStatus, Told as BgpTold, Wanted as BgpWanted};
pub use clean::{Options as CleanOptions, clean};
pub use memory::one_heap;
pub use tortie_wireguard::run as wireguard_device;

/// The word after which the binary is a WireGuard device in user space: its name and its socket follow.
pub const WIREGUARD_PROCESS: &str = "wireguard-device";

/// The version of Tortie.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// Which of upstream's programs the node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `calico-node`: start-up, routes, policy, BGP, CNI.
    Node,
    /// `calico-felix`: routes and policy alone.
    Felix,
}

/// Runs the node until it is told to stop. A fault at start is printed and ends the process with 1. `adopt`: the
/// datastore may be of another cluster than before.
pub fn run(role: Role, adopt: bool) -> ExitCode {
    memory::one_heap();
    let environment = match Environment::from_process(match role {
        Role::Node => Felix::Last,
        Role::Felix => Felix::First,
    }) {
        Ok(environment) => environment,
        Err(faults) => {
            for fault in &faults {
                eprintln!("tortie node: {fault}");
            }
            return ExitCode::FAILURE;
        }
    };
    logging::start(&environment);
    match serve(role, adopt, &environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            eprintln!("tortie node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The environment for a command beside the node.
fn read_environment() -> Result<Environment> {
    Environment::from_process(Felix::Last).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", faults.join("; "))
    })
}

fn serve(role: Role, adopt: bool, environment: &Environment) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    for name in &environment.unknown {
        warn!(name, "the environment variable is set, but no setting of that name is known");
    }
    for setting in &environment.without_effect {
        warn!("accepted, has no effect: {setting}");
    }
    let name = startup::node_name(environment)?;
    let overrides = overrides(environment, &name)?;
    info!(version = VERSION, node = name, ?role, "starting");
    let condition = match role {
        Role::Node => Condition::of(environment, &name)?,
        Role::Felix => None,
    };
    if let Some(recent) = environment.kubernetes.as_ref().and_then(|options| options.recent.as_ref()) {
        recent.follow(&name);
    }
    let store = environment.datastore.clone().open()?;
    if !patience::wait(&*store, environment.wait_for_datastore, condition.as_ref(), &mut signals)? {
        return Ok(());
    }
    let node = start(role, adopt, environment, &name, store, overrides, &mut signals);
    if let (Err(error), Some(condition)) = (&node, &condition) {
        condition.down(&format!("{error:#}"));
    }
    let Some(node) = node? else { return Ok(()) };
    if let Some(condition) = condition {
        condition.follow(node.health.clone(), node.agent.clone())?;
    }
    node.until(signals)
}

/// All that a node does before it serves; `None`: a signal came first.
fn start(
    role: Role,
    adopt: bool,
    environment: &Environment,
    name: &str,
    store: Arc<dyn Store>,
    overrides: Overrides,
    signals: &mut Signals,
) -> Result<Option<Node>> {
    if !lock::wait(&*store, signals)? {
        return Ok(None);
    }
    let (cluster_file, place) = (cluster::file(&environment.node_name_file), environment.datastore.place());
    cluster::check(&*store, &cluster_file, adopt, &place)?;
    if role == Role::Node {
        let interfaces = host::interfaces().context("can't read this host's interfaces")?;
        let known = addresses::Known::read(&*store, name)?;
        let (ipv4, ipv6) = addresses::find(environment, &interfaces, &known)?;
        let identity = startup::Identity { name: name.to_owned(), ipv4, ipv6 };
        startup::keep_node_name(environment, name);
        startup::run(&*store, environment, &identity)?;
        // The first node of a cluster has just made it.
        cluster::check(&*store, &cluster_file, true, &place)?;
    }
    host::prepare(&environment.node_name_file)?;
    let felix = felix_settings(&*store, environment, name)?;
    let on_etcd = matches!(environment.datastore, Choice::Etcd(_));
    if on_etcd {
        reports::start(store.clone(), name, &felix)?;
    }
    let node = Node::start(role, environment, name, store.clone(), &felix, overrides)?;
    if role == Role::Node {
        monitor_addresses::start(store.clone(), environment, name)?;
    }
    if on_etcd {
        endpoint_reports::start(store, node.agent.clone(), name, &felix)?;
    }
    Ok(Some(node))
}

/// What the environment says before every stored setting; looked at before anything is written anywhere.
fn overrides(environment: &Environment, node: &str) -> Result<Overrides> {
    let mut problems = Vec::new();
    let overrides = Overrides::of_spec(&environment.felix, &mut problems);
    if !problems.is_empty() {
        bail!("the environment: {}", problems.join("; "));
    }
    let kubernetes_node = environment.kubernetes_node.as_deref().map(Arc::from);
    let router_id = environment.router_id.map(|id| id.of(node));
    Ok(Overrides { router_id, kubernetes_node, ..overrides })
}

/// Settings that are only read at start: the environment before the node's own before the cluster's.
fn felix_settings(store: &dyn Store, environment: &Environment, node: &str) -> Result<FelixConfigurationSpec> {
    let own = format!("node.{node}");
    let mut merged = serde_json::json!({});
    for name in ["default", own.as_str()] {
        let entry = Reader::get(store, &Key::resource(Kind::FelixConfiguration, "", name))?;
        let Some(Resource::FelixConfiguration(found)) =
            entry.as_ref().and_then(|e| e.value.as_resource()).map(|r| &**r)
        else {
            continue;
        };
        overlay(&mut merged, &found.spec)?;
    }
    overlay(&mut merged, &environment.felix)?;
    Ok(serde_json::from_value(merged)?)
}

fn overlay(merged: &mut serde_json::Value, spec: &FelixConfigurationSpec) -> Result<()> {
    if let serde_json::Value::Object(fields) = serde_json::to_value(spec)? {
        for (name, value) in fields {
            merged[name] = value;
        }
    }
    Ok(())
}

/// Starts who stops established flows that policy denies, if the kernel has what that takes.
fn start_revoker(
    felix: &FelixConfigurationSpec,
    post: &agent::Post,
    unsupported: &mut BTreeMap<String, String>,
) -> Result<Option<revoke::Revoker>> {
    let why = match rules::can_mark(felix) {
        Ok(()) => match revoke::start(post.clone())? {
            Some(revoker) => return Ok(Some(revoker)),
            None => "this kernel tells of no connections (nf_conntrack_netlink)".to_owned(),
        },
        Err(why) => {
            warn!(why, "established flows go on whatever policy says");
            why
        }
    };
    unsupported.insert("revocation".to_owned(), why);
    Ok(None)
}

/// Starts who ends the flows of addresses that workloads gave up, if the kernel tells of flows.
fn start_forgetter(unsupported: &mut BTreeMap<String, String>) -> Result<Option<forget::Forgetter>> {
    let forgetter = forget::start()?;
    if forgetter.is_none() {
        let why = "this kernel tells of no connections (nf_conntrack_netlink)";
        unsupported.insert("ending flows of earlier workloads".to_owned(), why.to_owned());
    }
    Ok(forgetter)
}

/// The running node.
struct Node {
    post: agent::Post,
    health: Arc<Health>,
    agent: AgentHandle,
    thread: std::thread::JoinHandle<()>,
    _listeners: Vec<Listener>,
    _server: Option<cni::Server>,
}

impl Node {
    fn start(
        role: Role,
        environment: &Environment,
        name: &str,
        store: Arc<dyn Store>,
        felix: &FelixConfigurationSpec,
        overrides: Overrides,
    ) -> Result<Node> {
        let health = Arc::new(Health::default());
        let counts = if environment.drop_records { rules::counts(felix) } else { None };
        let record_drops = match counts {
            Some(counts) => drops::start(health.clone(), counts)?,
            None => false,
        };
        let mut unsupported = BTreeMap::new();
        if environment.drop_records && !record_drops {
            unsupported.insert("drop records".to_owned(), "this kernel tells of no packets (NFLOG)".to_owned());
        }
        let overrides = Overrides { record_drops: Some(record_drops), ..overrides };
        let (inbox, post) = Inbox::new()?;
        let revoker = if environment.revoke_flows { start_revoker(felix, &post, &mut unsupported)? } else { None };
        let forgetter = start_forgetter(&mut unsupported)?;
        let told = rules::can_tell_addresses(felix);
        let overrides = Overrides { tunnel_sources: Some(told.is_ok()), ..overrides };
        unsupported.extend(told.err().map(|why| ("sources in tunnels".to_owned(), why)));
        let workload_routes = Some(felix.route_source == "WorkloadIPs");
        let overrides = Overrides { revoke_flows: Some(revoker.is_some()), workload_routes, ..overrides };
        let handle = AgentHandle::new(post.clone(), health.clone());
        let speaks = role == Role::Node && environment.backend == Backend::Bird;
        let restarting = speaks && host::has_routes_of_an_earlier_run()?;
        let cluster = environment.kubernetes.clone().map(Cluster::open).transpose().context("can't start a thread")?;
        let cluster = cluster.map(Arc::new);
        let secrets = match (&environment.bgp_secrets, &cluster) {
            (Some(directory), _) => SecretSource::Directory(directory.clone()),
            (None, Some(cluster)) => SecretSource::Kubernetes(cluster.clone(), environment.namespace.clone()),
            (None, None) => SecretSource::None,
        };
        let bgp = if speaks { Some(start_bgp(restarting, secrets, post.clone())?) } else { None };
        // Without BGP there is no BIRD beside us either, but for what an earlier run of ours left; with Felix alone, or
        // where others make the network, there may be.
        let bgp_routes = match (role, environment.backend) {
            (Role::Node, Backend::Bird) => BgpRoutes::Ours,
            (Role::Node, Backend::Vxlan) => BgpRoutes::LeftInPools,
            (Role::Node, Backend::None) | (Role::Felix, _) => BgpRoutes::Others,
        };
        let mut routing = Routing::new(Handle::open()?, RoutingOptions { bgp_routes, ..RoutingOptions::default() });
        routing.hold_learned(restarting);
        let service = Arc::new(
            cni::Service::new(
                store.clone(),
                handle.clone(),
                name.to_owned(),
                host::mtu(&felix.mtu_iface_pattern)?,
                &environment.state_dir,
            )
            .with_context(|| format!("can't keep state in {}", environment.state_dir.display()))?
            .in_kubernetes(cluster)
            .keeping_mtu_in(environment.node_name_file.with_file_name("mtu")),
        );
        let tunnel_addresses = match role {
            Role::Node => Some(TunnelAddresses::new(store.clone(), service.clone(), felix).start()?),
            // Upstream's Felix gives no addresses; its node does.
            Role::Felix => None,
        };
        let bell = post.clone();
        let wake = Box::new(move || bell.ring());
        let mirror = Mirror::spawn(
            follow(store.clone()),
            Filter::NodeAgent(name.to_owned()),
            MirrorOptions { wake, ..MirrorOptions::default() },
        )?;
        let groups = Groups { links: true, addresses: true, routes: true, neighbours: false };
        let rules::Rules { backend, iptables, leftovers } = rules::open(felix)?;
        let node_status = match role {
            Role::Node => Some(node_status::start(store, handle.clone(), name)?),
            Role::Felix => None,
        };
        let self_test = if role == Role::Node { start_self_test(environment, &health, post.clone())? } else { None };
        let agent = Agent::new(Parts {
            inbox,
            facts: mirror,
            calculator: Calculator::new(name, Overrides { iptables: Some(iptables), ..overrides }),
            rules: backend,
            leftovers,
            routing,
            tunnels: Tunnels::new(Handle::open)?,
            wireguard: Wireguards::new(Handle::open()?, wireguard_devices(environment)?),
            shaping: Shaping::new(Handle::open()?),
            tunnel_addresses,
            interfaces: Interfaces::new(Handle::open()?),
            monitor: Monitor::open(groups)?,
            bgp,
            node_status,
            self_test,
            service: service.clone(),
            revoker,
            forgetter,
            unsupported,
            health: health.clone(),
        });
        let listeners = listeners(felix, &health)?;
        let server = cni::Server::start(&environment.state_dir, service).with_context(|| {
            format!("can't listen in {}; TORTIE_STATE_DIR says where", environment.state_dir.display())
        })?;
        let thread = std::thread::Builder::new().name("agent".to_owned()).spawn(move || agent.run())?;
        Ok(Node { post, health, agent: handle, thread, _listeners: listeners, _server: Some(server) })
    }

    fn until(self, mut signals: Signals) -> Result<()> {
        let post = self.post.clone();
        let handle = signals.handle();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                info!(signal, "told to stop");
                post.send(Message::Stop);
            }
        })?;
        let ended = self.thread.join();
        handle.close();
        ended.map_err(|_| anyhow::anyhow!("the agent's thread ended by a panic"))
    }
}

/// A store as something to follow.
fn follow(store: Arc<dyn Store>) -> Arc<dyn Reader> {
    store
}

/// Where WireGuard's devices are made, in order. A process of this program is a device in user space.
fn wireguard_devices(environment: &Environment) -> Result<Vec<Box<dyn WireguardDevices>>> {
    let kernel = || -> Result<Box<dyn WireguardDevices>> { Ok(Box::new(KernelWireguard::new()?)) };
    let user = || -> Box<dyn WireguardDevices> {
        Box::new(Userspace::new(&environment.state_dir, "/proc/self/exe", &[WIREGUARD_PROCESS]))
    };
    Ok(match environment.wireguard_device {
        WireguardDevice::Auto => vec![kernel()?, user()],
        WireguardDevice::Kernel => vec![kernel()?],
        WireguardDevice::User => vec![user()],
    })
}

fn start_self_test(environment: &Environment, health: &Arc<Health>, post: agent::Post) -> Result<Option<SelfTest>> {
    if environment.self_test_secs == 0 {
        return Ok(None);
    }
    let every = Duration::from_secs(environment.self_test_secs.into());
    let tell = move |path| post.send(Message::PathMtu(path));
    SelfTest::start(every, health.clone(), tell).context("can't start the test between the nodes").map(Some)
}

fn start_bgp(restarting: bool, secrets: SecretSource, post: agent::Post) -> Result<Bgp> {
    let tell = move |told| match told {
        Told::Routes(changes) => post.send(Message::Learned(changes)),
        Told::Recovered => post.send(Message::Recovered),
    };
    Bgp::start(restarting, secrets, tell).context("can't start the BGP speaker")
}

fn listeners(felix: &FelixConfigurationSpec, health: &Arc<Health>) -> Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    let mut listen = |pages: Pages, host: &str, port: i64| -> Result<()> {
        let address = address(host, port)?;
        let listener = health::listen(address, pages, health.clone())
            .with_context(|| format!("can't serve {pages:?} on {address}"))?;
        listeners.push(listener);
        Ok(())
    };
    if felix.health_enabled == Some(true) {
        let host = felix.health_host.as_deref().unwrap_or("localhost");
        listen(Pages::Health, host, felix.health_port.unwrap_or(9099))?;
    }
    if felix.prometheus_metrics_enabled == Some(true) {
        listen(Pages::Metrics, &felix.prometheus_metrics_host, felix.prometheus_metrics_port.unwrap_or(9091))?;
    }
    Ok(listeners)
}

fn address(host: &str, port: i64) -> Result<SocketAddr> {
    let port = u16::try_from(port).with_context(|| format!("{port} is no TCP port"))?;
    // Resolving "localhost" would ask name services, which a node without a network may lack.
    let host = match host {
        "" => return Ok(tortie_http::everywhere(port)),
        "localhost" => "127.0.0.1",
        other => other,
    };
    let mut addresses = (host, port).to_socket_addrs().with_context(|| format!("{host:?} is no address"))?;
    addresses.next().with_context(|| format!("{host:?} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_host_is_every_address_of_both_families() {
        assert_eq!(address("", 9091).expect("a port"), tortie_http::everywhere(9091));
        assert_eq!(address("0.0.0.0", 9091).expect("a port").to_string(), "0.0.0.0:9091");
        assert!(address("", 65536).is_err());
    }
}
