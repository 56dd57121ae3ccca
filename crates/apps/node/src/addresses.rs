//! The node's own addresses: what the environment chooses, or what is found, with every candidate and its reason.

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tortie_api::{Kind, Resource};
use tortie_facts::Filter;
use tortie_net::{Family, IpNet};
use tortie_store::Store;
use tracing::{info, warn};

use crate::autodetect::{Candidate, Interface, Method, NotFound, Surroundings};
use crate::environment::{AddressChoice, Environment};
use crate::{host, startup};

/// What the datastore says around a node's addresses.
#[derive(Default)]
pub struct Known {
    peers: Vec<IpAddr>,
    before: Vec<IpAddr>,
    internal: Vec<IpAddr>,
}

impl Known {
    /// Reads the nodes and their BGP peers.
    pub fn read(store: &dyn Store, name: &str) -> Result<Known> {
        let mut known = Known::default();
        for entry in store.list(&Filter::Kind(Kind::Node))?.entries {
            let Some(Resource::Node(node)) = entry.value.as_resource().map(|r| &**r) else { continue };
            let bgp = node.spec.bgp.iter().flat_map(|bgp| [&bgp.ipv4_address, &bgp.ipv6_address]);
            let held = bgp.filter_map(|text| text.addr());
            if node.metadata.name != name {
                known.peers.extend(held);
                continue;
            }
            known.before.extend(held);
            let internal = node.spec.addresses.iter().filter(|address| address.address_type == "InternalIP");
            known.internal.extend(internal.filter_map(|address| address.address.parse::<IpAddr>().ok()));
        }
        for entry in store.list(&Filter::Kind(Kind::BgpPeer))?.entries {
            let Some(Resource::BgpPeer(peer)) = entry.value.as_resource().map(|r| &**r) else { continue };
            if peer.spec.node.is_empty() || peer.spec.node == name {
                known.peers.extend(peer.spec.peer_address().map(|(address, _)| address));
            }
        }
        Ok(known)
    }

    fn around<'a>(&self, source_for: &'a dyn Fn(&str, Family) -> Option<IpAddr>) -> Surroundings<'a> {
        let Known { peers, before, internal } = self;
        Surroundings { source_for, peers: peers.clone(), before: before.clone(), internal: internal.clone() }
    }
}

/// The choice of one family.
struct Wanted<'a> {
    family: Family,
    variable: &'static str,
    choice: AddressChoice,
    method: &'a str,
}

fn wanted(environment: &Environment) -> [Wanted<'_>; 2] {
    let Environment { ipv4, ipv6, ipv4_method, ipv6_method, .. } = environment;
    [
        Wanted { family: Family::V4, variable: "IP", choice: *ipv4, method: ipv4_method },
        Wanted { family: Family::V6, variable: "IP6", choice: *ipv6, method: ipv6_method },
    ]
}

impl Wanted<'_> {
    fn parsed(&self) -> Result<Method> {
        let Wanted { variable, method, .. } = self;
        Method::parse(method).map_err(|problem| {
            anyhow::anyhow!("the environment variable {variable}_AUTODETECTION_METHOD={method:?}: {problem}")
        })
    }
}

/// The addresses of this node, IPv4 and IPv6, by the environment's choice.
pub fn find(
    environment: &Environment,
    interfaces: &[Interface],
    known: &Known,
) -> Result<(Option<IpNet>, Option<IpNet>)> {
    let around = known.around(&host::source_for);
    let one = |wanted: Wanted<'_>| -> Result<Option<IpNet>> {
        match wanted.choice {
            AddressChoice::None => Ok(None),
            AddressChoice::Fixed(addr, length) => Ok(Some(fixed(addr, length, interfaces)?)),
            AddressChoice::Autodetect => {
                let all = wanted.parsed()?.weigh(wanted.family, interfaces, &around);
                for candidate in &all {
                    let Candidate { interface, address, taken, reason } = candidate;
                    info!(%address, interface, taken, reason, "looked at for this node's {} address", wanted.family);
                }
                match all.iter().find(|candidate| candidate.taken) {
                    Some(found) => Ok(Some(found.address)),
                    None => {
                        let (method, family) = (wanted.method.to_owned(), wanted.family);
                        Err(NotFound { method, family, rejected: all }.into())
                    }
                }
            }
        }
    };
    let [ipv4, ipv6] = wanted(environment).map(one);
    let (ipv4, ipv6) = (ipv4?, ipv6?);
    if ipv4.is_none() && ipv6.is_none() {
        bail!("this node has neither an IPv4 nor an IPv6 address: IP and IP6 are both \"none\"");
    }
    Ok((ipv4, ipv6))
}

fn fixed(addr: IpAddr, length: Option<u8>, interfaces: &[Interface]) -> Result<IpNet> {
    let held = interfaces.iter().flat_map(|i| &i.addresses).find(|held| held.addr() == addr);
    if held.is_none() {
        warn!(%addr, "no interface of this host has the address that it is told to have");
    }
    let length = length.or(held.map(IpNet::prefix_len)).unwrap_or(Family::of(addr).bits());
    Ok(IpNet::new(addr, length)?)
}

/// What `tortie node addresses` tells of one family.
#[derive(Serialize)]
struct Answer {
    family: String,
    /// How the address is chosen.
    method: String,
    address: Option<IpNet>,
    candidates: Vec<Candidate>,
}

/// Tells which addresses this node would take, and why. 1: it would take none where it should have one.
pub fn show(json: bool, out: &mut dyn Write) -> Result<ExitCode> {
    let environment = crate::read_environment()?;
    let interfaces = host::interfaces().context("can't read this host's interfaces")?;
    let known = startup::node_name(&environment)
        .and_then(|name| Known::read(&*environment.datastore.clone().open()?, &name))
        .unwrap_or_else(|error| {
            eprintln!("without the datastore, as the way to the peers is not known then: {error:#}");
            Known::default()
        });
    let around = known.around(&host::source_for);
    let mut answers = Vec::new();
    let mut missing = false;
    for wanted in wanted(&environment) {
        let variable = wanted.variable;
        let (method, address, candidates) = match wanted.choice {
            AddressChoice::None => (format!("{variable} is \"none\""), None, Vec::new()),
            AddressChoice::Fixed(addr, length) => {
                (format!("{variable} tells it"), Some(fixed(addr, length, &interfaces)?), Vec::new())
            }
            AddressChoice::Autodetect => {
                let all = wanted.parsed()?.weigh(wanted.family, &interfaces, &around);
                let address = all.iter().find(|candidate| candidate.taken).map(|candidate| candidate.address);
                missing |= address.is_none();
                let method = if wanted.method.is_empty() { "the way to the peers" } else { wanted.method };
                (method.to_owned(), address, all)
            }
        };
        answers.push(Answer { family: wanted.family.to_string(), method, address, candidates });
    }
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&answers)?)?;
    } else {
        answers.iter().try_for_each(|answer| print(answer, out))?;
    }
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(answer: &Answer, out: &mut dyn Write) -> Result<()> {
    let Answer { family, method, address, candidates } = answer;
    let address = address.map_or_else(|| "no address".to_owned(), |address| address.to_string());
    writeln!(out, "{family}: {address} ({method})")?;
    let widest = |text: fn(&Candidate) -> usize| candidates.iter().map(text).max().unwrap_or_default();
    let (first, second) = (widest(|c| c.interface.len()), widest(|c| c.address.to_string().len()));
    for Candidate { interface, address, taken, reason } in candidates {
        let mark = if *taken { "*" } else { " " };
        writeln!(out, "  {mark} {interface:first$}  {:second$}  {reason}", address.to_string())?;
    }
    Ok(())
}
