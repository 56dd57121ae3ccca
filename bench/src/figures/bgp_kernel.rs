//! Learned routes into the kernel: through the node's own routing, beside the same routes in one bare netlink batch.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use tortie_desired::Tables;
use tortie_netlink::{
    AddressSpec, Handle, Netns, NextHop, Route, RouteChange, RouteFilter, RouteProtocol, VethPeer, VethSpec,
};
use tortie_routing::{Learned, Options, Routing};

use crate::Setting;
use crate::bed::Bed;
use crate::bgp::prefixes;
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 2);

/// Runs both in turns, each time in a new namespace.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let routes = if setting.quick { 200 } else { 10_000 };
    let (mut ours, mut bare) = (Samples::default(), Samples::default());
    for turn in 0..setting.times(10) {
        let mut bed = Bed::new()?;
        let mut ways = [("bare", &mut bare, batch as fn(&Netns, u32) -> Result<f64>), ("routing", &mut ours, routing)];
        // The kernel still takes down the namespaces of the turn before while the first one runs.
        if turn % 2 == 1 {
            ways.reverse();
        }
        for (name, samples, way) in ways {
            let netns = host(&mut bed, name)?;
            samples.push(way(&netns, routes)?);
            let there = Handle::open_in(&netns)?.routes(&RouteFilter::default())?;
            let there = there.iter().filter(|route| route.protocol == RouteProtocol::BIRD).count();
            if there != routes as usize {
                bail!("{name}: {there} of {routes} routes are in the kernel");
            }
        }
    }
    let name = format!("{routes} learned routes into the kernel");
    let found = Finding::beside(name, "ms", Stat::P50, Target::RatioAtMost(1.2), &ours, ("bare batch", &bare));
    Ok(found.into_iter().collect())
}

fn batch(netns: &Netns, routes: u32) -> Result<f64> {
    let mut handle = Handle::open_in(netns)?;
    let link = handle.link("eth0")?.index;
    let begun = Instant::now();
    let add = |net| {
        let route = Route::via(net, vec![NextHop::via(GATEWAY.into(), link)], RouteProtocol::BIRD);
        RouteChange::Add(Route { metric: 1024, ..route })
    };
    let changes: Vec<RouteChange> = prefixes(routes).map(add).collect();
    handle.change_routes(&changes)?.into_iter().collect::<Result<Vec<()>, _>>()?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

fn routing(netns: &Netns, routes: u32) -> Result<f64> {
    let mut routing = Routing::new(Handle::open_in(netns)?, Options::default());
    routing.set_desired(&Tables::default());
    routing.apply(Instant::now());
    let begun = Instant::now();
    let hops: Vec<IpAddr> = vec![GATEWAY.into()];
    let learned = || Learned { next_hops: hops.clone(), metric: 1024, over_workloads: false };
    routing.learn(prefixes(routes).map(|net| (net, Some(learned()))).collect());
    let report = routing.apply(Instant::now());
    let took = begun.elapsed().as_secs_f64() * 1e3;
    if !report.waiting.is_empty() {
        bail!("{} routes wait for a gateway", report.waiting.len());
    }
    Ok(took)
}

fn host(bed: &mut Bed, name: &str) -> Result<Netns> {
    let (netns, _) = bed.namespace(name)?;
    let (far, _) = bed.namespace(&format!("{name}-far"))?;
    let mut handle = Handle::open_in(&netns)?;
    let peer = VethPeer { name: "eth0", mac: None, netns: Some(far.as_fd()) };
    let link = handle.create_veth(&VethSpec { name: "eth0", mac: None, mtu: None, up: true, peer })?;
    let mut across = Handle::open_in(&far)?;
    let index = across.link("eth0")?.index;
    across.set_link_up(index, true)?;
    handle.add_address(&AddressSpec::new(link, IpNet::new(OWN.into(), 24).context("a length")?))?;
    Ok(netns)
}
