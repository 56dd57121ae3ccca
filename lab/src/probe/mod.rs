//! Asking whether packets pass: one question is a client socket at one place and an echo at another.
//!
//! Sockets are made inside the namespaces and then used from one thread, so that a hundred questions take as long as
//! one. Nothing is run inside the namespaces; no `ping` is needed.

mod client;
mod echo;
mod icmp;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use tortie_net::Family;

pub use echo::Echo;

use crate::place::Place;

/// The default of how long an answer is waited for.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(400);

/// What carries the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A datagram there and back.
    Udp,
    /// A connection, and a few bytes there and back.
    Tcp,
    /// Echo request and reply.
    Icmp,
}

impl FromStr for Transport {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Transport> {
        match text.to_ascii_lowercase().as_str() {
            "udp" => Ok(Transport::Udp),
            "tcp" => Ok(Transport::Tcp),
            "icmp" => Ok(Transport::Icmp),
            _ => bail!("protocol {text:?}: expected udp, tcp or icmp"),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Icmp => "icmp",
        })
    }
}

/// A question that is asked between places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What carries it.
    pub transport: Transport,
    /// Destination port; without meaning for ICMP.
    pub port: u16,
    /// Address family.
    pub family: Family,
    /// How long the answer is waited for.
    pub timeout: Duration,
}

impl Probe {
    /// By UDP to a port, over IPv4.
    pub fn udp(port: u16) -> Probe {
        Probe { transport: Transport::Udp, port, family: Family::V4, timeout: DEFAULT_TIMEOUT }
    }

    /// By TCP to a port, over IPv4.
    pub fn tcp(port: u16) -> Probe {
        Probe { transport: Transport::Tcp, ..Probe::udp(port) }
    }

    /// By ICMP echo, over IPv4.
    pub fn icmp() -> Probe {
        Probe { transport: Transport::Icmp, ..Probe::udp(0) }
    }

    /// The same over IPv6.
    pub fn v6(self) -> Probe {
        Probe { family: Family::V6, ..self }
    }

    /// The same with another timeout.
    pub fn within(self, timeout: Duration) -> Probe {
        Probe { timeout, ..self }
    }

    fn target(&self, place: &Place) -> Option<SocketAddr> {
        place.ip(self.family).map(|ip| SocketAddr::new(ip, self.port))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Probe { transport, port, family, timeout: _ } = self;
        match transport {
            Transport::Icmp => write!(f, "{transport} over {family}"),
            Transport::Udp | Transport::Tcp => write!(f, "{transport} port {port} over {family}"),
        }
    }
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The echo came back.
    Open,
    /// Refused in words: TCP reset, or ICMP unreachable.
    Refused,
    /// Silence.
    Dropped,
    /// The sender's own kernel would not send, as without a route.
    Unsendable,
    /// One of the places has no address of the family.
    Unaddressed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Open => "ok",
            Outcome::Refused => "refused",
            Outcome::Dropped => "drop",
            Outcome::Unsendable => "no route",
            Outcome::Unaddressed => "n/a",
        })
    }
}

/// Asks one question for each pair, all at the same time; echoes must be there already.
pub fn ask_all(pairs: &[(&Place, &Place)], probe: &Probe) -> Result<Vec<Outcome>> {
    let mut clients = Vec::new();
    for (from, to) in pairs {
        clients.push(match (from.ip(probe.family), probe.target(to)) {
            (Some(_), Some(target)) => Some(client::Client::open(from, target, probe.transport)?),
            (None, _) | (_, None) => None,
        });
    }
    client::run(&mut clients, probe.timeout)?;
    let outcome = |client: Option<client::Client>| client.map_or(Outcome::Unaddressed, |c| c.outcome());
    Ok(clients.into_iter().map(outcome).collect())
}

/// Asks once whether packets of a kind get from one place to another and back, with an echo for just this question.
pub fn ask(from: &Place, to: &Place, probe: &Probe) -> Result<Outcome> {
    let _echo = Echo::start(std::slice::from_ref(to), std::slice::from_ref(probe))?;
    Ok(ask_all(&[(from, to)], probe)?.remove(0))
}

/// Whether packets of a kind get from one place to another and back.
pub fn can(from: &Place, to: &Place, probe: &Probe) -> Result<bool> {
    Ok(ask(from, to, probe)? == Outcome::Open)
}

/// Asks again until the answer is the wanted one; whether it came before the deadline.
pub fn becomes(from: &Place, to: &Place, probe: &Probe, wanted: Outcome, deadline: Duration) -> Result<bool> {
    let _echo = Echo::start(std::slice::from_ref(to), std::slice::from_ref(probe))?;
    let begun = std::time::Instant::now();
    loop {
        if ask_all(&[(from, to)], &probe.within(Duration::from_millis(100)))?[0] == wanted {
            return Ok(true);
        }
        if begun.elapsed() > deadline {
            return Ok(false);
        }
    }
}
