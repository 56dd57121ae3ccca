//! Traffic between two namespaces: requests and answers of one byte over one connection or a new one each, and a stream.
//!
//! Both ends are processes of their own, as a program in a pod is. Those of single requests are pinned to one processor,
//! else the time is mostly that of waking another one, and has two humps. Those of the stream are pinned to two, else its
//! rate is mostly a matter of where the kernel happens to put them.

mod client;
mod server;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tortie_netlink::in_netns;

use crate::bed::Running;
use crate::samples::Summary;

/// Port of requests.
const REQUESTS: u16 = 7777;
/// Port of the stream.
const STREAM: u16 = 7778;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A byte there and back on one connection, µs.
    RoundTrip,
    /// A new connection, a byte there and back, µs.
    Connection,
    /// One stream, Gbit/s.
    Stream,
}

impl Kind {
    const ALL: [(&'static str, Kind); 3] =
        [("round-trip", Kind::RoundTrip), ("connection", Kind::Connection), ("stream", Kind::Stream)];

    fn name(self) -> &'static str {
        Kind::ALL.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// Starts the servers in a pod.
pub fn serve(pod: &Path) -> Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["traffic", "server"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = in_netns(pod, || command.spawn())?.context("can't start the traffic server")?;
    let output = child.stdout.take().context("a piped output")?;
    let running = Running::of(child);
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    if line.trim() != "ready" {
        bail!("the traffic server did not start");
    }
    Ok(running)
}

/// Measures from a pod for some seconds.
pub fn measure(pod: &Path, kind: Kind, server: Ipv4Addr, seconds: f64) -> Result<Summary> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["traffic", kind.name(), &server.to_string(), &seconds.to_string()]).stdin(Stdio::null());
    let output = in_netns(pod, || command.output())?.context("can't start the traffic client")?;
    if !output.status.success() {
        bail!("the traffic client: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let parts: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match parts[..] {
        [n, min, p50, p99, max] => Ok(Summary { n: n as usize, min, p50, p99, max }),
        _ => bail!("the traffic client said {text:?}"),
    }
}

/// The program that servers and clients are: `server`, or a kind, an address and seconds.
pub fn program(args: &[String]) -> Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (kind, address, seconds) = match words[..] {
        ["server"] => return server::run(REQUESTS, STREAM),
        [kind, address, seconds] => (kind, address.parse::<Ipv4Addr>()?, seconds.parse::<f64>()?),
        _ => bail!("expected server, or a kind, an address and seconds"),
    };
    let (_, kind) = *Kind::ALL.iter().find(|(name, _)| *name == kind).context("no such kind of traffic")?;
    let port = if kind == Kind::Stream { STREAM } else { REQUESTS };
    let samples = client::run(kind, SocketAddrV4::new(address, port).into(), seconds)?;
    let Summary { n, min, p50, p99, max } = samples.summary().context("nothing was measured")?;
    println!("{n} {min} {p50} {p99} {max}");
    Ok(())
}

/// Where a thread is kept.
#[derive(Clone, Copy, Debug)]
enum Processor {
    First,
    Last,
}

/// Keeps the calling thread on a processor.
fn pin(to: Processor) -> Result<()> {
    let number = match to {
        Processor::First => 0,
        Processor::Last => std::thread::available_parallelism()?.get() - 1,
    };
    let mut set = CpuSet::new();
    set.set(number)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}
