//! Throughput from a pod of one host to a pod of another through VXLAN: the node's device, beside one set up by hand.
//!
//! Both pairs of hosts exist at the same time and take turns, so that both see the same load of the machine.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use serde_json::json;
use tortie_net::Mac;
use tortie_netlink::{AddressSpec, FdbEntry, Handle, Netns, NextHop, Route, RouteFilter, RouteProtocol, VxlanSpec};
use tortie_store::Store;
use tortie_store_sqlite::SqliteStore;

use crate::Setting;
use crate::bed::{Bed, Running};
use crate::node::{Agent, Wish, store_options};
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;
use crate::scenario::write;
use crate::topology::{HOST, Host, OUTSIDE, bare_pod, host};
use crate::traffic::{self, Kind};

const PODS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 65, 200, 2), Ipv4Addr::new(10, 65, 201, 2)];
const ENDS: [Ipv4Addr; 2] = [HOST, OUTSIDE];
/// What VXLAN leaves of the hosts' 1500.
const MTU: u32 = 1450;
const PATIENCE: Duration = Duration::from_secs(60);

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
    let mut pairs = [(pair(setting, false)?, Samples::default()), (pair(setting, true)?, Samples::default())];
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
    let beside = ("device set up by hand", bare);
    let name = "throughput pod to pod through VXLAN, one stream";
    Ok(Finding::beside(name, "Gbit/s", Stat::P50, Target::RatioAtLeast(0.97), ours, beside).into_iter().collect())
}

fn pair(setting: &Setting, nodes: bool) -> Result<Pair> {
    let mut beds = vec![Bed::new()?, Bed::new()?];
    let hosts = host(&mut beds[0], "host")?;
    let ends = [&hosts.netns, &hosts.outside];
    plain_routes_away(&ends)?;
    let mut pods = Vec::new();
    for (at, end) in ends.into_iter().enumerate() {
        let device = format!("cali9000{at}");
        let pod = bare_pod(&mut beds[at], end, &format!("pod{at}"), &device, PODS[at])?;
        Handle::open_in(end)?.set_link_mtu(device.as_str(), MTU)?;
        Handle::open_in(&Netns::open(&pod)?)?.set_link_mtu("eth0", MTU)?;
        pods.push(pod);
    }
    let mut agents = Vec::new();
    if nodes {
        let database = beds[0].path("tortie.db");
        populate(&SqliteStore::open(store_options(&database, Wish { sync_normal: true }))?)?;
        for (at, end) in ends.into_iter().enumerate() {
            let env = [
                ("TORTIE_SQLITE", database.to_str().context("a path in UTF-8")?),
                ("NODENAME", &format!("node{at}")),
                ("CALICO_NETWORKING_BACKEND", "vxlan"),
                ("FELIX_ROUTESOURCE", "WorkloadIPs"),
                ("FELIX_VXLANMTU", &MTU.to_string()),
            ];
            let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
            agents.push(Agent::start_on(&beds[at], setting, end, env.into())?);
        }
    } else {
        by_hand(&ends)?;
    }
    for (at, end) in ends.into_iter().enumerate() {
        leads_through_vxlan(end, PODS[1 - at])?;
    }
    let server = traffic::serve(&pods[1])?;
    Ok(Pair { client: pods.swap_remove(0), _server: server, _agents: agents, _beds: beds, _hosts: hosts })
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

fn by_hand(ends: &[&Netns; 2]) -> Result<()> {
    let mac = |at: u8| Mac([0x66, 0, 0, 0, 0, at]);
    let inner = |at: usize| Ipv4Addr::from([10, 65, if at == 0 { 0 } else { 1 }, 1]);
    for (at, end) in ends.iter().enumerate() {
        let other = 1 - at;
        let other_mac = mac(u8::try_from(other)?);
        let mut handle = Handle::open_in(end)?;
        let below = handle.link("eth0")?.index;
        let spec = VxlanSpec { vni: 4096, port: 4789, local: ENDS[at].into(), below };
        let index = handle.create_vxlan("vxlan.hand", &spec, mac(u8::try_from(at)?), MTU)?;
        handle.add_address(&AddressSpec::new(index, single(inner(at))))?;
        handle.set_link_up(index, true)?;
        handle.set_neighbour(index, inner(other).into(), other_mac)?;
        handle.set_fdb(&FdbEntry { index, mac: other_mac, remote: ENDS[other].into() })?;
        let hop = NextHop { onlink: true, ..NextHop::via(inner(other).into(), index) };
        handle.add_route(Route::via(single(PODS[other]), vec![hop], RouteProtocol::BOOT))?;
    }
    Ok(())
}

fn single(address: Ipv4Addr) -> IpNet {
    IpNet::from(std::net::IpAddr::from(address))
}

fn leads_through_vxlan(end: &Netns, pod: Ipv4Addr) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut handle = Handle::open_in(end)?;
        let routes = handle.routes(&RouteFilter::MAIN)?;
        let route = routes.iter().find(|route| route.net == single(pod)).and_then(|route| route.hops.first());
        if let Some(hop) = route
            && handle.link(hop.interface)?.name.starts_with("vxlan.")
        {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("no route to {pod} through VXLAN after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A pool in VXLAN, both pods, and a policy that lets everything pass.
fn populate(store: &dyn Store) -> Result<()> {
    let api = "projectcalico.org/v3";
    let allow = json!([{ "action": "Allow" }]);
    let mut all = vec![
        json!({
            "apiVersion": api, "kind": "IPPool", "metadata": { "name": "pool1" },
            "spec": { "cidr": "10.65.0.0/16", "ipipMode": "Never", "vxlanMode": "Always", "blockSize": 26, "nodeSelector": "all()" },
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
