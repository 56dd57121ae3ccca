//! CNI ADD, 16 at once, 500 pods: pods a second.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tortie_netlink::Netns;

use crate::Setting;
use crate::bed::Bed;
use crate::node::{Agent, Wish};
use crate::plugin::Plugin;
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;
use crate::topology::host;

const AT_ONCE: usize = 16;
const PODS: usize = 500;

/// Runs it three times, ours and the peer in turns.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let rounds = if setting.quick { 1 } else { 3 };
    let (mut ours_rate, mut ptp_rate) = (Samples::default(), Samples::default());
    let (mut ours_each, mut ptp_each) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        let mut bed = Bed::new()?;
        let (ours_host, ptp_host) = (host(&mut bed, "ours")?, host(&mut bed, "ptp")?);
        let agent = Agent::start(&bed, setting, &ours_host.netns, &bed.path("tortie.db"), Wish::default())?;
        let ours = Plugin::ours(&bed, setting, &agent)?;
        let ptp = Plugin::ptp(&bed).context("ptp is not installed (Debian's containernetworking-plugins): no peer")?;
        let count = setting.times(PODS);
        for (plugin, host, stem, rate, each) in [
            (&ours, &ours_host, "a", &mut ours_rate, &mut ours_each),
            (&ptp, &ptp_host, "b", &mut ptp_rate, &mut ptp_each),
        ] {
            let pods = bed.pods(stem, count)?;
            let begun = Instant::now();
            each.extend(add_all(plugin, &host.netns, &pods)?);
            rate.push(count as f64 / begun.elapsed().as_secs_f64());
        }
    }
    let beside = |name: &str, unit, target, ours: &Samples, ptp: &Samples| {
        Finding::beside(name, unit, Stat::P50, target, ours, ("ptp", ptp))
    };
    Ok([
        beside("ADD, 16 at once", "pods/s", Target::AtLeast(150.0), &ours_rate, &ptp_rate),
        beside("ADD, 16 at once, against ptp", "pods/s", Target::RatioAtLeast(2.0), &ours_rate, &ptp_rate),
        beside("one ADD of the 16", "ms", Target::None, &ours_each, &ptp_each),
    ]
    .into_iter()
    .flatten()
    .collect())
}

fn add_all(plugin: &Plugin, host: &Netns, pods: &[PathBuf]) -> Result<Samples> {
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Samples> {
        let mut each = Samples::default();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(netns) = pods.get(n) else { return Ok(each) };
            each.push_ms(plugin.call("ADD", &format!("ctr-{n:05}"), netns)?);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(|| host.run(worker)?)).collect();
        let mut all = Samples::default();
        for worker in workers {
            match worker.join() {
                Ok(each) => all.extend(each?),
                Err(_) => bail!("a worker panicked"),
            }
        }
        Ok(all)
    })
}
