//! Full meshes and reflectors: every node in a namespace of its own with four blocks, from before the first is started
//! until every one holds the blocks of all. Tortie's speaker is the thread that the node runs, in a process without
//! anything else. BIRD's connection timers are a second, so its wall time says little; its CPU and memory do.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tortie_netlink::Netns;

use crate::Setting;
use crate::bed::Bed;
use crate::bgp::bird::Bird;
use crate::bgp::node::Node;
use crate::bgp::star::{address, star};
use crate::bgp::{Neighbour, block};
use crate::process;
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;

const BLOCKS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(180);

/// Who peers with whom.
#[derive(Clone, Copy)]
enum Shape {
    /// Everybody with everybody.
    Mesh(usize),
    /// So many clients with the first two nodes, which are also there.
    TwoReflectors(usize),
}

impl Shape {
    fn nodes(self) -> usize {
        match self {
            Shape::Mesh(nodes) => nodes,
            Shape::TwoReflectors(clients) => clients + 2,
        }
    }

    fn neighbours(self, me: usize) -> Vec<Neighbour> {
        let others = (0..self.nodes()).filter(|other| *other != me);
        match self {
            Shape::Mesh(_) => others.map(|other| Neighbour::plain(address(other))).collect(),
            Shape::TwoReflectors(_) if me < 2 => {
                others.map(|other| Neighbour { client: other >= 2, ..Neighbour::plain(address(other)) }).collect()
            }
            Shape::TwoReflectors(_) => (0..2).map(|other| Neighbour::plain(address(other))).collect(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Tortie,
    Bird,
}

enum Speaker {
    Tortie(Node),
    Bird(Bird),
}

impl Speaker {
    fn start(who: Who, bed: &Bed, netns: &Netns, me: usize, shape: Shape) -> Result<Speaker> {
        let (own, neighbours): (Ipv4Addr, _) = (address(me), shape.neighbours(me));
        let blocks = (0..BLOCKS).map(|n| block(me, n));
        Ok(match who {
            Who::Tortie => {
                let expect = (shape.nodes() - 1) * BLOCKS;
                Speaker::Tortie(Node::start(netns, own, &neighbours, blocks, expect)?)
            }
            Who::Bird => Speaker::Bird(Bird::start(bed, netns, &format!("bird{me}"), own, &neighbours, blocks)?),
        })
    }

    fn holds(&self, all: usize) -> bool {
        match self {
            Speaker::Tortie(node) => node.holds(),
            Speaker::Bird(bird) => bird.count() as usize >= all,
        }
    }

    fn id(&self) -> u32 {
        match self {
            Speaker::Tortie(node) => node.process.id(),
            Speaker::Bird(bird) => bird.process.id(),
        }
    }
}

#[derive(Default)]
struct Costs {
    wall: Samples,
    cpu: Samples,
    memory: Samples,
}

fn converge(who: Who, shape: Shape, costs: &mut Costs) -> Result<()> {
    let mut bed = Bed::new()?;
    let hosts = star(&mut bed, shape.nodes())?;
    let begun = Instant::now();
    let started = hosts.iter().enumerate().map(|(me, netns)| Speaker::start(who, &bed, netns, me, shape));
    let speakers = started.collect::<Result<Vec<_>>>()?;
    let mut waiting: Vec<&Speaker> = speakers.iter().collect();
    let all = shape.nodes() * BLOCKS;
    while !waiting.is_empty() {
        if begun.elapsed() > PATIENCE {
            bail!("{} of {} nodes lack routes after {} s", waiting.len(), shape.nodes(), PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
        waiting.retain(|speaker| !speaker.holds(all));
    }
    costs.wall.push(begun.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_millis(500));
    let (mut cpu, mut memory): (f64, f64) = (0.0, 0.0);
    for speaker in &speakers {
        cpu += process::fine_cpu_seconds(speaker.id())?;
        memory = memory.max(process::memory(speaker.id())?.resident);
    }
    costs.cpu.push(cpu);
    costs.memory.push(memory);
    Ok(())
}

/// Runs pairs, meshes and reflectors, Tortie's and BIRD's in turns.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let small = |full: usize| if setting.quick { full / 10 } else { full };
    let shapes = [
        ("two nodes".to_owned(), Shape::Mesh(2), 1.0),
        (format!("mesh of {}", small(50)), Shape::Mesh(small(50)), 2.0),
        (format!("mesh of {}", small(100)), Shape::Mesh(small(100)), 3.0),
        (format!("2 reflectors, {} clients", small(100)), Shape::TwoReflectors(small(100)), 1.0),
    ];
    let mut findings = Vec::new();
    for (name, shape, most) in shapes {
        let (mut ours, mut birds) = (Costs::default(), Costs::default());
        for _ in 0..if setting.quick { 1 } else { 3 } {
            converge(Who::Tortie, shape, &mut ours)?;
            converge(Who::Bird, shape, &mut birds)?;
        }
        let find = |what: &str, unit, target, seen: &Samples, peer: &Samples| {
            Finding::beside(format!("{name}: {what}"), unit, Stat::P50, target, seen, ("BIRD", peer))
        };
        findings.extend(find("all hold all", "s", Target::AtMost(most), &ours.wall, &birds.wall));
        findings.extend(find("CPU of all speakers", "s", Target::RatioAtMost(1.0), &ours.cpu, &birds.cpu));
        findings.extend(find("memory of the largest", "MiB", Target::AtMost(8.0), &ours.memory, &birds.memory));
    }
    Ok(findings)
}
