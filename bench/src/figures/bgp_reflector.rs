//! One reflector with 300 simulated clients: a block moves from one to another, until all have its new place.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use tortie_netlink::{AddressSpec, Handle, Netns, VethPeer, VethSpec};

use crate::Setting;
use crate::bed::Bed;
use crate::bgp::bird::Bird;
use crate::bgp::clients::{self, Clients, next_hop};
use crate::bgp::node::Node;
use crate::bgp::{Neighbour, block};
use crate::process;
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;

const REFLECTOR: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Costs {
    wall: Samples,
    cpu: Samples,
}

/// Runs Tortie's reflector and BIRD's.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let count = if setting.quick { 30 } else { 300 };
    let (mut ours, mut birds) = (Costs::default(), Costs::default());
    let neighbours: Vec<Neighbour> = (0..count)
        .map(|at| Neighbour { client: true, passive: true, ..Neighbour::plain(clients::address(at)) })
        .collect();
    for tortie in [true, false] {
        let mut bed = Bed::new()?;
        let (near, far) = pair(&mut bed, count)?;
        let (_node, _bird, id) = if tortie {
            let node = Node::start(&near, REFLECTOR, &neighbours, std::iter::empty(), count)?;
            let id = node.process.id();
            (Some(node), None, id)
        } else {
            let bird = Bird::start(&bed, &near, "reflector", REFLECTOR, &neighbours, std::iter::empty())?;
            let id = bird.process.id();
            (None, Some(bird), id)
        };
        let costs = if tortie { &mut ours } else { &mut birds };
        far.run(|| moves(count, setting.times(50), id, costs))??;
    }
    let find = |what: &str, target, seen: &Samples, peer: &Samples| {
        let name = format!("a block moves between two of {count} clients: {what}");
        Finding::beside(name, "ms", Stat::P50, target, seen, ("BIRD", peer))
    };
    let wall = find("until all have it", Target::AtMost(200.0), &ours.wall, &birds.wall);
    let cpu = find("CPU of the reflector", Target::AtMost(50.0), &ours.cpu, &birds.cpu);
    Ok(wall.into_iter().chain(cpu).collect())
}

fn moves(count: usize, times: usize, reflector: u32, costs: &mut Costs) -> Result<()> {
    let mut clients = Clients::new(REFLECTOR, count);
    clients.until(PATIENCE, |me, speaker| {
        (0..count).filter(|at| *at != me).all(|at| next_hop(speaker, block(at, 0)) == Some(clients::address(at).into()))
    })?;
    for turn in 0..times {
        let (from, to) = (turn % count, (turn + count / 2) % count);
        let block = block(from, 0);
        let before = process::fine_cpu_seconds(reflector)?;
        clients.move_block(block, from, to);
        let place = Some(clients::address(to).into());
        let took = clients.until(PATIENCE, |me, speaker| me == to || next_hop(speaker, block) == place)?;
        costs.wall.push_ms(took);
        // The rest of the turn's work may come after the last client has the route.
        std::thread::sleep(Duration::from_millis(20));
        costs.cpu.push((process::fine_cpu_seconds(reflector)? - before) * 1e3);
    }
    Ok(())
}

/// The reflector's namespace, and that of all clients.
fn pair(bed: &mut Bed, count: usize) -> Result<(Netns, Netns)> {
    let (near, _) = bed.namespace("reflector")?;
    let (far, _) = bed.namespace("clients")?;
    let mut handle = Handle::open_in(&near)?;
    let peer = VethPeer { name: "eth0", mac: None, netns: Some(far.as_fd()) };
    handle.create_veth(&VethSpec { name: "eth0", mac: None, mtu: None, up: true, peer })?;
    let own = [REFLECTOR];
    let theirs: Vec<Ipv4Addr> = (0..count).map(clients::address).collect();
    for (netns, addresses) in [(&near, &own[..]), (&far, &theirs)] {
        let mut handle = Handle::open_in(netns)?;
        let index = handle.link("eth0")?.index;
        handle.set_link_up(index, true)?;
        for address in addresses {
            handle.add_address(&AddressSpec::new(index, IpNet::new((*address).into(), 15).context("a length")?))?;
        }
    }
    Ok((near, far))
}
