//! Throughput from a pod of one host to a pod of another through each encapsulation that there is: the node's device,
//! beside one set up by hand. WireGuard in user space, for want of the kernel's, is beside no encapsulation at all.
//!
//! Both pairs of hosts exist at the same time and take turns, so that both see the same load of the machine.

mod by_hand;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde_json::json;
use tortie_net::Mac;
use tortie_netlink::{Error, Handle, Netns, Route, RouteFilter};
use tortie_store::Store;
use tortie_store_sqlite::SqliteStore;

use crate::Setting;
use crate::bed::{Bed, Running};
use crate::node::{Agent, Wish, store_options};
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;
use crate::scenario::write;
use crate::topology::{GATEWAY, HOST, Host, OUTSIDE, bare_pod, host};
use crate::traffic::{self, Kind};

const PODS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 65, 200, 2), Ipv4Addr::new(10, 65, 201, 2)];
const ENDS: [Ipv4Addr; 2] = [HOST, OUTSIDE];
const PATIENCE: Duration = Duration::from_secs(60);

/// What packets travel in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encapsulation {
    /// Nothing: what the filter alone costs, which the others pay too.
    None,
    Vxlan,
    Ipip,
    Wireguard,
    /// By a process of ours, as the kernel has no such devices.
    WireguardInUserSpace,
}

impl Encapsulation {
    const ALL: [Encapsulation; 5] = [
        Encapsulation::None,
        Encapsulation::Vxlan,
        Encapsulation::Ipip,
        Encapsulation::Wireguard,
        Encapsulation::WireguardInUserSpace,
    ];

    fn name(self) -> &'static str {
        match self {
            Encapsulation::None => "no encapsulation",
            Encapsulation::Vxlan => "VXLAN",
            Encapsulation::Ipip => "IPIP",
            Encapsulation::Wireguard => "WireGuard",
            Encapsulation::WireguardInUserSpace => "WireGuard in user space",
        }
    }

    /// What it leaves of the hosts' 1500.
    fn mtu(self) -> u32 {
        match self {
            Encapsulation::None => 1500,
            Encapsulation::Vxlan => 1450,
            Encapsulation::Ipip => 1480,
            Encapsulation::Wireguard | Encapsulation::WireguardInUserSpace => 1440,
        }
    }

    /// The node's device.
    fn device(self) -> &'static str {
        match self {
            Encapsulation::None => "eth0",
            Encapsulation::Vxlan => "vxlan.calico",
            Encapsulation::Ipip => "tunl0",
            Encapsulation::Wireguard | Encapsulation::WireguardInUserSpace => "wireguard.cali",
        }
    }

    /// The pool's modes for IPIP and VXLAN.
    fn modes(self) -> [&'static str; 2] {
        match self {
            Encapsulation::Vxlan => ["Never", "Always"],
            Encapsulation::Ipip => ["Always", "Never"],
            Encapsulation::None | Encapsulation::Wireguard | Encapsulation::WireguardInUserSpace => ["Never", "Never"],
        }
    }

    /// Settings of the node.
    fn env(self) -> Vec<(&'static str, String)> {
        match self {
            Encapsulation::None => vec![("FELIX_PROGRAMCLUSTERROUTES", "Enabled".to_owned())],
            Encapsulation::Vxlan => vec![("FELIX_VXLANMTU", self.mtu().to_string())],
            Encapsulation::Ipip => vec![("FELIX_IPINIPMTU", self.mtu().to_string())],
            Encapsulation::Wireguard | Encapsulation::WireguardInUserSpace => {
                vec![("FELIX_WIREGUARDENABLED", "true".to_owned()), ("FELIX_WIREGUARDMTU", self.mtu().to_string())]
            }
        }
    }

    /// Whether it can be measured here.
    fn is_there(self) -> Result<bool> {
        let netns = Netns::unnamed()?;
        let mut handle = Handle::open_in(&netns)?;
        let made = |result: tortie_netlink::Result<u32>| match result {
            Ok(_) => Ok(true),
            Err(Error::Unsupported { .. }) => Ok(false),
            Err(error) => Err(error),
        };
        Ok(match self {
            Encapsulation::None | Encapsulation::Vxlan => true,
            Encapsulation::Ipip => made(handle.create_ipip("tunl0"))?,
            Encapsulation::Wireguard => made(handle.create_wireguard("wg0"))?,
            Encapsulation::WireguardInUserSpace => {
                Path::new("/dev/net/tun").exists() && !made(handle.create_wireguard("wg0"))?
            }
        })
    }
}

/// Two hosts with a pod each, one of which serves.
struct Pair {
    client: PathBuf,
    _server: Running,
    _agents: Vec<Agent>,
    _beds: Vec<Bed>,
    _hosts: Host,
}

/// Runs it.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for encapsulation in Encapsulation::ALL {
        if encapsulation.is_there()? {
            findings.extend(throughput(setting, encapsulation).with_context(|| encapsulation.name())?);
        } else {
            eprintln!("skipped: {} (not with this kernel)", encapsulation.name());
        }
    }
    Ok(findings)
}

fn throughput(setting: &Setting, encapsulation: Encapsulation) -> Result<Option<Finding>> {
    let pair = |nodes| Ok::<_, anyhow::Error>((pair(setting, encapsulation, nodes)?, Samples::default()));
    let mut pairs = [pair(false)?, pair(true)?];
    for turn in 0..setting.times(31) {
        for (pair, seen) in &mut pairs {
            let seconds = if setting.quick { 0.1 } else { 0.4 };
            let rate = traffic::measure(&pair.client, Kind::Stream, PODS[1], seconds)?.p50;
            // The first turn warms up.
            if turn > 0 {
                seen.push(rate);
            }
        }
    }
    let [(_, bare), (_, ours)] = &pairs;
    let (target, beside) = match encapsulation {
        Encapsulation::None => (Target::None, "routes set up by hand"),
        Encapsulation::WireguardInUserSpace => (Target::None, "no encapsulation"),
        Encapsulation::Vxlan | Encapsulation::Ipip | Encapsulation::Wireguard => {
            (Target::RatioAtLeast(0.97), "device set up by hand")
        }
    };
    let name = format!("throughput pod to pod, {}, one stream", encapsulation.name());
    Ok(Finding::beside(name, "Gbit/s", Stat::P50, target, ours, (beside, bare)))
}

fn pair(setting: &Setting, encapsulation: Encapsulation, nodes: bool) -> Result<Pair> {
    let mut beds = vec![Bed::new()?, Bed::new()?];
    let hosts = host(&mut beds[0], "host")?;
    let ends = [&hosts.netns, &hosts.outside];
    plain_routes_away(&ends)?;
    let mut pods = Vec::new();
    for (at, end) in ends.into_iter().enumerate() {
        let device = format!("cali9000{at}");
        let pod = bare_pod(&mut beds[at], end, &format!("pod{at}"), &device, PODS[at])?;
        Handle::open_in(end)?.set_link_mtu(device.as_str(), encapsulation.mtu())?;
        let mut inside = Handle::open_in(&Netns::open(&pod)?)?;
        let link = inside.link("eth0")?.index;
        inside.set_link_mtu(link, encapsulation.mtu())?;
        // The kernel answers for a gateway only where it has a way there itself, and there is none without a default.
        inside.set_neighbour(link, GATEWAY.into(), Mac::WORKLOAD_HOST_SIDE)?;
        pods.push(pod);
    }
    let mut agents = Vec::new();
    if nodes {
        let database = beds[0].path("tortie.db");
        let store = SqliteStore::open(store_options(&database, Wish { sync_normal: true }))?;
        populate(&store, encapsulation.modes())?;
        for (at, end) in ends.into_iter().enumerate() {
            let own = [
                ("TORTIE_SQLITE", database.to_str().context("a path in UTF-8")?.to_owned()),
                ("NODENAME", format!("node{at}")),
                ("CALICO_NETWORKING_BACKEND", "vxlan".to_owned()),
                ("FELIX_ROUTESOURCE", "WorkloadIPs".to_owned()),
            ];
            let env = own.into_iter().chain(encapsulation.env()).map(|(name, value)| (name.to_owned(), value));
            agents.push(Agent::start_on(&beds[at], setting, end, env.collect())?);
        }
        for (at, end) in ends.into_iter().enumerate() {
            leads_through(end, PODS[1 - at], encapsulation.device())?;
        }
    } else {
        by_hand::set_up(&ends, encapsulation)?;
    }
    let server = traffic::serve(&pods[1])?;
    let client = pods.swap_remove(0);
    flows(&client)?;
    Ok(Pair { client, _server: server, _agents: agents, _beds: beds, _hosts: hosts })
}

/// Without these, nothing goes another way than through the device.
fn plain_routes_away(ends: &[&Netns; 2]) -> Result<()> {
    for end in ends {
        let mut handle = Handle::open_in(end)?;
        let gatewayed = |route: &Route| route.hops.iter().any(|hop| hop.via.is_some());
        for route in handle.routes(&RouteFilter::MAIN)?.into_iter().filter(gatewayed) {
            handle.delete_route(route)?;
        }
        end.run(|| tortie_netlink::sysctl_write_if_different(&["ipv4", "ip_forward"], "1"))??;
    }
    Ok(())
}

fn single(address: Ipv4Addr) -> IpNet {
    IpNet::from(std::net::IpAddr::from(address))
}

/// Waits for a route, in any table, to a pod through a device.
fn leads_through(end: &Netns, pod: Ipv4Addr, device: &str) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut handle = Handle::open_in(end)?;
        let link = handle.link(device).map(|link| link.index).ok();
        let routes = handle.routes(&RouteFilter::default())?;
        let leads = |route: &Route| route.hops.first().is_some_and(|hop| Some(hop.interface) == link);
        if routes.iter().any(|route| route.net.contains(&single(pod)) && leads(route)) {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("no route to {pod} through {device} after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for the first stream: policy and keys may come after the routes.
fn flows(client: &Path) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    while let Err(error) = traffic::measure(client, Kind::Stream, PODS[1], 0.05) {
        if Instant::now() > until {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A pool with these modes for IPIP and VXLAN, both pods, and a policy that lets everything pass.
fn populate(store: &dyn Store, [ipip, vxlan]: [&str; 2]) -> Result<()> {
    let api = "projectcalico.org/v3";
    let allow = json!([{ "action": "Allow" }]);
    let mut all = vec![
        json!({
            "apiVersion": api, "kind": "IPPool", "metadata": { "name": "pool1" },
            "spec": { "cidr": "10.65.0.0/16", "ipipMode": ipip, "vxlanMode": vxlan, "blockSize": 26, "nodeSelector": "all()" },
        }),
        json!({
            "apiVersion": api, "kind": "GlobalNetworkPolicy", "metadata": { "name": "open" },
            "spec": { "selector": "app == 'perf'", "types": ["Ingress", "Egress"], "ingress": allow, "egress": allow },
        }),
    ];
    for (at, address) in PODS.into_iter().enumerate() {
        let pod = format!("pod{at}");
        all.push(json!({
            "apiVersion": api, "kind": "WorkloadEndpoint",
            "metadata": {
                "name": format!("node{at}-k8s-{pod}-eth0"), "namespace": "default",
                "labels": { "app": "perf", "projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s" },
            },
            "spec": {
                "orchestrator": "k8s", "node": format!("node{at}"), "containerID": format!("cid{at}"), "pod": pod,
                "endpoint": "eth0", "ipNetworks": [format!("{address}/32")], "profiles": ["kns.default"],
                "interfaceName": format!("cali9000{at}"),
            },
        }));
    }
    store.write_all(&all.iter().map(write).collect::<Result<Vec<_>>>()?)?;
    Ok(())
}
