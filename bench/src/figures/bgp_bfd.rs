//! A peer falls silent without a word, its TCP connection as it was: how long its routes stay. The peer's process is
//! stopped, so that not even its kernel ends anything.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Setting;
use crate::bed::Bed;
use crate::bgp::node::Node;
use crate::bgp::star::{address, star};
use crate::bgp::{Neighbour, block};
use crate::report::{Finding, Stat, Target};
use crate::samples::Samples;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs it, each time with new speakers.
pub fn run(setting: &Setting) -> Result<Vec<Finding>> {
    let mut silence = Samples::default();
    for _ in 0..setting.times(20) {
        let mut bed = Bed::new()?;
        let hosts = star(&mut bed, 2)?;
        let peer = |at: usize| [Neighbour { bfd: true, ..Neighbour::plain(address(at)) }];
        let silent = Node::start(&hosts[0], address(0), &peer(1), [block(0, 0)].into_iter(), 1)?;
        let watching = Node::start(&hosts[1], address(1), &peer(0), [block(1, 0)].into_iter(), 1)?;
        watching.says("watched", PATIENCE)?;
        silent.says("watched", PATIENCE)?;
        // Both speak at their full rate by now.
        std::thread::sleep(Duration::from_millis(500));
        let begun = Instant::now();
        kill(Pid::from_raw(silent.process.id().cast_signed()), Signal::SIGSTOP)?;
        let lost = watching.says("lost", PATIENCE)?;
        silence.push_ms(lost.duration_since(begun));
    }
    let name = "a peer falls silent: until its routes are gone, BFD of 50 ms and 3 packets";
    Ok(Finding::alone(name, "ms", Stat::P99, Target::AtMost(200.0), &silence).into_iter().collect())
}
