//! 500,000 routes over one iBGP session: Tortie's speaker receives them from BIRD and sends them to BIRD, beside BIRD with
//! BIRD. Nothing goes to the kernel. Wall time runs from the start of both until the receiver holds all routes, connection
//! timers of a second or more in it: compare CPU time. Other peers receive from BIRD too where they are asked for, once.

use std::io::BufRead;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use tortie_netlink::{AddressSpec, Handle, Netns, VethPeer, VethSpec};

use crate::Setting;
use crate::bed::{Bed, Running};
use crate::bgp::bird::Bird;
use crate::bgp::others::{Other, Peer};
use crate::bgp::{Neighbour, prefixes};
use crate::process;
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;

const ROUTES: u32 = 500_000;
const SENDER: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 2);
const PATIENCE: Duration = Duration::from_secs(120);

/// Who speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Tortie,
    Bird,
    Other(Peer),
}

#[derive(Default)]
struct Costs {
    wall: Samples,
    cpu: [Samples; 2],
    memory: [Samples; 2],
}

/// Runs the three pairs in turns.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let routes = if setting.quick { ROUTES / 50 } else { ROUTES };
    let pairs = [(Who::Bird, Who::Bird), (Who::Bird, Who::Tortie), (Who::Tortie, Who::Bird)];
    let mut costs: [Costs; 3] = Default::default();
    for _ in 0..if setting.quick { 1 } else { 3 } {
        for (costs, (sender, receiver)) in costs.iter_mut().zip(pairs) {
            pair(sender, receiver, routes, costs)?;
        }
    }
    let mut others = Vec::new();
    for peer in &setting.peers {
        let mut costs = Costs::default();
        pair(Who::Bird, Who::Other(*peer), routes, &mut costs)?;
        others.push((peer.name(), costs));
    }
    let [bird, receives, sends] = &costs;
    let find = |name: &str, unit, seen: &Samples, peer: &Samples| {
        Finding::beside(name, unit, Stat::P50, Target::None, seen, ("BIRD", peer))
    };
    let shown = others.iter().flat_map(|(name, costs)| {
        [
            find(&format!("{name} receiving them, CPU"), "s", &costs.cpu[1], &bird.cpu[1]),
            find(&format!("{name} receiving them, memory"), "MiB", &costs.memory[1], &bird.memory[1]),
            find(&format!("{name} receiving them, wall"), "s", &costs.wall, &bird.wall),
        ]
    });
    Ok([
        find("receiving 500,000 routes, CPU", "s", &receives.cpu[1], &bird.cpu[1]),
        find("receiving 500,000 routes, memory", "MiB", &receives.memory[1], &bird.memory[1]),
        find("receiving 500,000 routes, wall", "s", &receives.wall, &bird.wall),
        find("sending 500,000 routes, CPU", "s", &sends.cpu[0], &bird.cpu[0]),
        find("sending 500,000 routes, memory", "MiB", &sends.memory[0], &bird.memory[0]),
        find("sending 500,000 routes, wall", "s", &sends.wall, &bird.wall),
    ]
    .into_iter()
    .chain(shown)
    .flatten()
    .collect())
}

/// A speaker of any kind.
enum Speaker {
    Tortie(Running, std::sync::mpsc::Receiver<()>),
    Bird(Bird),
    Other(Other),
}

impl Speaker {
    fn start(who: Who, bed: &Bed, netns: &Netns, own: Ipv4Addr, peer: Ipv4Addr, counts: (u32, u32)) -> Result<Speaker> {
        let (originate, expect) = counts;
        match who {
            Who::Tortie => {}
            Who::Bird => {
                let neighbours = [Neighbour::plain(peer)];
                let bird = Bird::start(bed, netns, &format!("bird-{own}"), own, &neighbours, prefixes(originate))?;
                return Ok(Speaker::Bird(bird));
            }
            Who::Other(other) => return Ok(Speaker::Other(Other::start(other, bed, netns, own, peer)?)),
        }
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("speaker")
            .args([own, peer].map(|a| a.to_string()))
            .args([originate, expect].map(|n| n.to_string()));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = netns.run(|| command.spawn())?.context("can't start the speaker")?;
        let output = child.stdout.take().context("a piped output")?;
        let (tell, holds) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if std::io::BufReader::new(output).lines().next().is_some() {
                let _ = tell.send(());
            }
        });
        Ok(Speaker::Tortie(Running::of(child), holds))
    }

    fn holds(&self, routes: u32) -> bool {
        match self {
            Speaker::Tortie(_, holds) => holds.try_recv().is_ok(),
            Speaker::Bird(bird) => bird.received() >= routes,
            Speaker::Other(other) => other.count() >= routes,
        }
    }

    fn id(&self) -> u32 {
        match self {
            Speaker::Tortie(running, _) => running.id(),
            Speaker::Bird(bird) => bird.process.id(),
            Speaker::Other(other) => other.process.id(),
        }
    }
}

fn pair(sender: Who, receiver: Who, routes: u32, costs: &mut Costs) -> Result<()> {
    let mut bed = Bed::new()?;
    let (near, _) = bed.namespace("sender")?;
    let (far, _) = bed.namespace("receiver")?;
    let mut handle = Handle::open_in(&near)?;
    let peer = VethPeer { name: "eth0", mac: None, netns: Some(far.as_fd()) };
    handle.create_veth(&VethSpec { name: "eth0", mac: None, mtu: None, up: true, peer })?;
    for (netns, address) in [(&near, SENDER), (&far, RECEIVER)] {
        let mut handle = Handle::open_in(netns)?;
        let index = handle.link("eth0")?.index;
        handle.set_link_up(index, true)?;
        handle.add_address(&AddressSpec::new(index, IpNet::new(address.into(), 24).context("a length")?))?;
    }
    let begun = Instant::now();
    let source = Speaker::start(sender, &bed, &near, SENDER, RECEIVER, (routes, 0))?;
    let sink = Speaker::start(receiver, &bed, &far, RECEIVER, SENDER, (0, routes))?;
    while !sink.holds(routes) {
        if begun.elapsed() > PATIENCE {
            bail!("the receiver does not hold {routes} routes after {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    costs.wall.push(begun.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(1));
    for (at, speaker) in [&source, &sink].into_iter().enumerate() {
        costs.cpu[at].push(process::cpu_seconds(speaker.id())?);
        costs.memory[at].push(process::memory(speaker.id())?.resident);
    }
    Ok(())
}
