//! The questions that Kubernetes asks of the node by running a program in its container.
//!
//! Felix's are asked over HTTP, as anybody may; BGP's over the node's own socket. Each has a deadline, and an answer
//! that is not good says what is wrong in upstream's words.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;
use tortie_cni::plugin::{exchange_any, sockets};
use tortie_cni::wire::{Operation, Reply, Request};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked for; all of it must be good.
#[derive(Args, Clone, Debug, Default)]
pub struct Checks {
    /// Whether policy and routes are brought into the kernel.
    #[arg(long)]
    pub felix_live: bool,
    /// Whether the kernel holds what is wanted.
    #[arg(long)]
    pub felix_ready: bool,
    /// Whether BGP is spoken over IPv4.
    #[arg(long)]
    pub bird_live: bool,
    /// Whether IPv4 peers are connected.
    #[arg(long)]
    pub bird_ready: bool,
    /// Whether BGP is spoken over IPv6.
    #[arg(long)]
    pub bird6_live: bool,
    /// Whether IPv6 peers are connected.
    #[arg(long)]
    pub bird6_ready: bool,
    /// How long after a start every peer must be connected, such as 30s; later one is enough.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub threshold_time: Duration,
}

impl Checks {
    /// Whether anything is asked for.
    pub fn any(&self) -> bool {
        let Checks { felix_live, felix_ready, bird_live, bird_ready, bird6_live, bird6_ready, threshold_time: _ } =
            self;
        *felix_live || *felix_ready || *bird_live || *bird_ready || *bird6_live || *bird6_ready
    }

    /// Asks; the first answer that is not good, in words.
    pub fn run(&self) -> Result<()> {
        let Checks { felix_live, felix_ready, bird_live, bird_ready, bird6_live, bird6_ready, threshold_time } = self;
        ensure!(self.any(), "name at least one of --felix-live, --felix-ready, --bird-live, --bird-ready");
        if *felix_live {
            felix("liveness").context("calico/node is not ready: Felix is not live")?;
        }
        if *felix_ready {
            felix("readiness").context("calico/node is not ready: felix is not ready")?;
        }
        if !(*bird_live || *bird_ready || *bird6_live || *bird6_ready) || !speaks_bgp() {
            return Ok(());
        }
        let bgp = ask_node()?["bgp"].clone();
        if *bird_live || *bird6_live {
            live(&bgp).context("calico/node is not ready: bird is not live")?;
        }
        for (asked, v6, name) in [(*bird_ready, false, "BIRD"), (*bird6_ready, true, "BIRD6")] {
            if asked {
                let young = age() < *threshold_time;
                ready(&bgp, v6, young).with_context(|| format!("calico/node is not ready: {name} is not ready"))?;
            }
        }
        Ok(())
    }
}

/// Answers for a process: nothing and 0, or what is wrong and 1.
pub fn answer(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One HTTP question. Good is what HTTP calls success or a redirection.
pub fn http(host: &str, port: u16, path: &str, patience: Duration) -> Result<()> {
    // Resolving "localhost" would ask name services, which a node without a network may lack.
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    let address = (host, port).to_socket_addrs().with_context(|| format!("{host:?} is no address"))?.next();
    let address = address.with_context(|| format!("{host:?} has no address"))?;
    let mut stream =
        TcpStream::connect_timeout(&address, patience).with_context(|| format!("nobody answers on {address}"))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.take(64 << 10).read_to_string(&mut text).with_context(|| format!("no answer from {address}"))?;
    let code: u16 = text.split(' ').nth(1).and_then(|code| code.parse().ok()).context("the answer is not HTTP")?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    ensure!((200..400).contains(&code), "{path} probe reporting {code} {body}");
    Ok(())
}

fn felix(path: &str) -> Result<()> {
    let host = std::env::var("FELIX_HEALTHHOST").ok().filter(|host| !host.is_empty());
    let port = match std::env::var("FELIX_HEALTHPORT").ok().filter(|port| !port.is_empty()) {
        Some(text) => text.parse().with_context(|| format!("FELIX_HEALTHPORT={text:?} is no TCP port"))?,
        None => 9099,
    };
    http(host.as_deref().unwrap_or("localhost"), port, path, PATIENCE)
}

/// Whether the node is one that speaks BGP; what does not run can't be ill.
fn speaks_bgp() -> bool {
    !matches!(std::env::var("CALICO_NETWORKING_BACKEND").as_deref(), Ok("none" | "vxlan"))
}

fn ask_node() -> Result<Value> {
    let request = Request {
        operation: Operation::NodeStatus,
        container_id: String::new(),
        ifname: String::new(),
        netns: String::new(),
        args: Default::default(),
        conf: Value::Null,
        ipam: None,
    };
    let sockets = sockets(std::env::var_os("TORTIE_STATE_DIR").as_deref());
    match exchange_any(&sockets, &request, None, PATIENCE.as_secs()) {
        Ok(Reply::State(state)) => Ok(state),
        Ok(Reply::Failed(error)) => bail!("calico/node is not ready: {error}"),
        Ok(Reply::Done(_)) => bail!("calico/node is not ready: it gave an answer to another question"),
        Err(error) => bail!("calico/node is not ready: the node agent does not answer: {error}"),
    }
}

fn live(bgp: &Value) -> Result<()> {
    if let Some(fault) = bgp["fault"].as_str() {
        bail!("{fault}");
    }
    ensure!(bgp["running"] == true, "BGP is not running");
    Ok(())
}

/// After a start, every peer must be connected, so that a rolling update waits; later one is enough, so that nodes that
/// are down don't take down the rest.
fn ready(bgp: &Value, v6: bool, young: bool) -> Result<()> {
    live(bgp)?;
    let peers: Vec<(&str, bool)> = bgp["peers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|peer| Some((peer["address"].as_str()?, peer["info"] == "Established")))
        .filter(|(address, _)| address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() == v6))
        .collect();
    let missing: Vec<&str> = peers.iter().filter(|(_, up)| !up).map(|(address, _)| *address).collect();
    let good = if young { missing.is_empty() } else { missing.is_empty() || missing.len() < peers.len() };
    ensure!(good, "BGP not established with {}", missing.join(","));
    Ok(())
}

/// How long ago the node started: it writes its name's file then.
fn age() -> Duration {
    let file = std::env::var("CALICO_NODENAME_FILE").ok().filter(|file| !file.is_empty());
    let file = file.as_deref().unwrap_or("/var/lib/calico/nodename");
    let written = Path::new(file).metadata().and_then(|meta| meta.modified()).ok();
    written.and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or(Duration::MAX)
}

/// A duration as Go writes short ones.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: expected a number and s, m or h, such as 30s");
    let (number, scale) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?.parse::<u64>().ok()?, *scale)))
        .ok_or_else(wrong)?;
    number.checked_mul(scale).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bgp(states: &[(&str, &str)]) -> Value {
        let peers: Vec<Value> = states.iter().map(|(a, info)| json!({ "address": a, "info": info })).collect();
        json!({ "running": true, "fault": null, "peers": peers })
    }

    #[test]
    fn a_young_node_needs_every_peer_and_an_old_one_needs_one() {
        let mixed = bgp(&[("10.0.0.1", "Established"), ("10.0.0.2", "Connection refused"), ("fd00::1", "idle")]);
        assert!(ready(&mixed, false, true).expect_err("one is missing").to_string().contains("10.0.0.2"));
        assert!(ready(&mixed, false, false).is_ok());
        assert!(ready(&mixed, true, false).is_err());
        assert!(ready(&bgp(&[]), false, true).is_ok(), "a node without peers is ready");
        assert!(ready(&json!({ "running": false }), false, false).is_err());
    }

    #[test]
    fn durations_are_read_as_upstream_writes_them() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("soon").is_err());
    }
}
