//! The node's own addresses: what the environment chooses, what is stored, or what is found, with every candidate and its
//! reason.
//!
//! Invariant: a stored address goes only for another one, and only where the environment tells that one or asks to look
//! (upstream's `configureIPsAndSubnets`).

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tortie_api::{Kind, Node, Resource};
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
    ipv4: Option<IpNet>,
    ipv6: Option<IpNet>,
    internal: Vec<IpAddr>,
}

impl Known {
    /// Reads the nodes and their BGP peers.
    pub fn read(store: &dyn Store, name: &str) -> Result<Known> {
        let mut known = Known::default();
        for entry in store.list(&Filter::Kind(Kind::Node))?.entries {
            let Some(Resource::Node(node)) = entry.value.as_resource().map(|r| &**r) else { continue };
            if node.metadata.name == name {
                known.take_own(node);
            } else {
                known.peers.extend(held_by(node).map(|net| net.addr()));
            }
        }
        for entry in store.list(&Filter::Kind(Kind::BgpPeer))?.entries {
            let Some(Resource::BgpPeer(peer)) = entry.value.as_resource().map(|r| &**r) else { continue };
            if peer.spec.node.is_empty() || peer.spec.node == name {
                known.peers.extend(peer.spec.peer_address().map(|(address, _)| address));
            }
        }
        Ok(known)
    }

    /// What a node's own resource says, and nothing of peers.
    pub fn of_node(node: &Node) -> Known {
        let mut known = Known::default();
        known.take_own(node);
        known
    }

    fn take_own(&mut self, node: &Node) {
        let of = |family| held_by(node).find(|net| Family::of_net(*net) == family);
        (self.ipv4, self.ipv6) = (of(Family::V4), of(Family::V6));
        let internal = node.spec.addresses.iter().filter(|address| address.address_type == "InternalIP");
        self.internal.extend(internal.filter_map(|address| address.address.parse::<IpAddr>().ok()));
    }

    fn around<'a>(&self, source_for: &'a dyn Fn(&str, Family) -> Option<IpAddr>) -> Surroundings<'a> {
        let Known { peers, ipv4, ipv6, internal } = self;
        let before = ipv4.iter().chain(ipv6).map(IpNet::addr).collect();
        Surroundings { source_for, peers: peers.clone(), before, internal: internal.clone() }
    }

    /// The address that is stored for this node.
    pub fn stored(&self, family: Family) -> Option<IpNet> {
        match family {
            Family::V4 => self.ipv4,
            Family::V6 => self.ipv6,
        }
    }
}

fn held_by(node: &Node) -> impl Iterator<Item = IpNet> + '_ {
    let bgp = node.spec.bgp.iter().flat_map(|bgp| [&bgp.ipv4_address, &bgp.ipv6_address]);
    bgp.filter_map(|text| text.interface())
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

/// Where the address of one family comes from.
enum Plan {
    /// What is stored stays, be it nothing.
    Keep,
    Take(IpAddr, Option<u8>),
    /// One is looked for; if there is none, what is stored stays.
    Detect,
}

impl Wanted<'_> {
    fn plan(&self, stored: Option<IpNet>) -> Plan {
        match self.choice {
            AddressChoice::Unset if self.family == Family::V4 && stored.is_none() => Plan::Detect,
            AddressChoice::Unset | AddressChoice::None => Plan::Keep,
            AddressChoice::Autodetect => Plan::Detect,
            AddressChoice::Fixed(addr, length) => Plan::Take(addr, length),
        }
    }

    /// Why nothing is looked for.
    fn why_kept(&self) -> String {
        let says = if self.choice == AddressChoice::None { "is \"none\"" } else { "is not set" };
        format!("{} {says}: what is stored stays", self.variable)
    }

    fn parsed(&self) -> Result<Method> {
        let Wanted { variable, method, .. } = self;
        Method::parse(method).map_err(|problem| {
            anyhow::anyhow!("the environment variable {variable}_AUTODETECTION_METHOD={method:?}: {problem}")
        })
    }
}

/// The addresses of this node, IPv4 and IPv6, by the environment's choice and what is stored.
pub fn find(
    environment: &Environment,
    interfaces: &[Interface],
    known: &Known,
) -> Result<(Option<IpNet>, Option<IpNet>)> {
    let around = known.around(&host::source_for);
    let one = |wanted: Wanted<'_>| -> Result<Option<IpNet>> {
        let stored = known.stored(wanted.family);
        match wanted.plan(stored) {
            Plan::Keep => Ok(stored.inspect(|stored| warn_of_absence(stored.addr(), interfaces))),
            Plan::Take(addr, length) => Ok(Some(fixed(addr, length, interfaces)?)),
            Plan::Detect => {
                let all = wanted.parsed()?.weigh(wanted.family, interfaces, &around);
                for candidate in &all {
                    let Candidate { interface, address, taken, reason } = candidate;
                    info!(%address, interface, taken, reason, "looked at for this node's {} address", wanted.family);
                }
                if let Some(found) = all.iter().find(|candidate| candidate.taken) {
                    return Ok(Some(found.address));
                }
                let (method, family) = (wanted.method.to_owned(), wanted.family);
                let problem = NotFound { method, family, rejected: all };
                let Some(stored) = stored else { return Err(problem.into()) };
                warn!(address = %stored, "the stored address stays: {problem}");
                Ok(Some(stored))
            }
        }
    };
    let [ipv4, ipv6] = wanted(environment).map(one);
    let (ipv4, ipv6) = (ipv4?, ipv6?);
    if ipv4.is_none() && ipv6.is_none() {
        bail!("this node has neither an IPv4 nor an IPv6 address: none is stored, and neither IP nor IP6 asks for one");
    }
    Ok((ipv4, ipv6))
}

/// Whether [`find_again`] may find other addresses than those that are stored.
pub fn may_change(environment: &Environment) -> bool {
    wanted(environment).iter().any(|wanted| matches!(wanted.plan(None), Plan::Detect))
}

/// The addresses of this node while it runs. What is not found, or is looked for no longer, stays; without a method an
/// address also stays as long as the host has it, whatever else is there. `own` is what is stored for this node; `all`,
/// with the peers, is asked for only where they decide.
pub fn find_again(
    environment: &Environment,
    interfaces: &[Interface],
    own: &Known,
    all: impl Fn() -> Result<Known>,
) -> Result<(Option<IpNet>, Option<IpNet>)> {
    let one = |wanted: Wanted<'_>| -> Result<Option<IpNet>> {
        let stored = own.stored(wanted.family);
        let Plan::Detect = wanted.plan(stored) else { return Ok(stored) };
        let method = wanted.parsed()?;
        if let Some(still) = stored.and_then(|stored| method.still(stored, interfaces)) {
            return Ok(Some(still));
        }
        let with_peers = if method.asks_for_peers() { Some(all()?) } else { None };
        let around = with_peers.as_ref().unwrap_or(own).around(&host::source_for);
        let weighed = method.weigh(wanted.family, interfaces, &around);
        Ok(weighed.iter().find(|candidate| candidate.taken).map(|candidate| candidate.address).or(stored))
    };
    let [ipv4, ipv6] = wanted(environment).map(one);
    Ok((ipv4?, ipv6?))
}

fn fixed(addr: IpAddr, length: Option<u8>, interfaces: &[Interface]) -> Result<IpNet> {
    warn_of_absence(addr, interfaces);
    let held = held(addr, interfaces);
    let length = length.or(held.map(IpNet::prefix_len)).unwrap_or(Family::of(addr).bits());
    Ok(IpNet::new(addr, length)?)
}

fn held(addr: IpAddr, interfaces: &[Interface]) -> Option<&IpNet> {
    interfaces.iter().flat_map(|interface| &interface.addresses).find(|held| held.addr() == addr)
}

fn warn_of_absence(addr: IpAddr, interfaces: &[Interface]) {
    if held(addr, interfaces).is_none() {
        warn!(%addr, "no interface of this host has the address that it is told to have");
    }
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
        let stored = known.stored(wanted.family);
        let (method, address, candidates) = match wanted.plan(stored) {
            Plan::Keep => (wanted.why_kept(), stored, Vec::new()),
            Plan::Take(addr, length) => {
                (format!("{} tells it", wanted.variable), Some(fixed(addr, length, &interfaces)?), Vec::new())
            }
            Plan::Detect => {
                let all = wanted.parsed()?.weigh(wanted.family, &interfaces, &around);
                let found = all.iter().find(|candidate| candidate.taken).map(|candidate| candidate.address);
                missing |= found.or(stored).is_none();
                let method = if wanted.method.is_empty() { "the way to the peers" } else { wanted.method };
                let stays = if found.is_none() && stored.is_some() { " finds none: the stored one stays" } else { "" };
                (format!("{method}{stays}"), found.or(stored), all)
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

#[cfg(test)]
mod tests {
    use tortie_api::{Metadata, NodeBgpSpec};
    use tortie_facts::Key;
    use tortie_store::{MemoryStore, Reader, resource};

    use super::*;
    use crate::register;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Environment::read(&vars, tortie_datastore::Felix::Last).expect("all are good")
    }

    fn node(store: &dyn Store) -> NodeBgpSpec {
        let entry = Reader::get(store, &Key::resource(Kind::Node, "", "a")).expect("it works").expect("it is there");
        match entry.value.as_resource().map(|found| &**found) {
            Some(Resource::Node(node)) => node.spec.bgp.clone().unwrap_or_default(),
            other => panic!("{other:?}"),
        }
    }

    /// What a start makes of the stored addresses: the texts of both families, or the fault.
    fn start(vars: &[(&str, &str)], stored: [&str; 2]) -> Result<[String; 2], String> {
        let (environment, store) = (environment(vars), MemoryStore::new());
        let bgp =
            NodeBgpSpec { ipv4_address: stored[0].into(), ipv6_address: stored[1].into(), ..NodeBgpSpec::default() };
        let mut made = Node { metadata: Metadata::named("a"), ..Node::default() };
        made.spec.bgp = Some(bgp);
        resource::ensure(&store, made.into()).expect("it is empty");
        let net = |text: &str| text.parse().expect("a literal");
        let addresses = vec![net("10.0.0.7/24"), net("fd00::7/64")];
        let interfaces = [Interface { name: "eth0".into(), addresses, virtual_bridge: false }];
        let known = Known::read(&store, "a").expect("it works");
        let (ipv4, ipv6) = find(&environment, &interfaces, &known).map_err(|error| format!("{error:#}"))?;
        let identity = startup::Identity { name: "a".into(), ipv4, ipv6 };
        register::register(&store, &environment, &identity).map_err(|error| format!("{error:#}"))?;
        let NodeBgpSpec { ipv4_address, ipv6_address, .. } = node(&store);
        Ok([ipv4_address.to_string(), ipv6_address.to_string()])
    }

    #[test]
    fn what_is_stored_stays_unless_something_else_is_asked_for_and_found() {
        const STORED: [&str; 2] = ["192.0.2.9/26", "2001:db8::9/56"];
        const FOUND: [&str; 2] = ["10.0.0.7/24", "fd00::7/64"];
        const OTHER: [&str; 2] = ["10.0.0.8/25", "fd00::8/80"];
        // For each family: the variable, what is then there with an address stored, and without.
        let cases = [
            (None, [STORED[0], STORED[1]], [FOUND[0], ""]),
            (Some(["autodetect", "autodetect"]), FOUND, FOUND),
            (Some(["none", "none"]), STORED, ["", ""]),
            (Some(OTHER), OTHER, OTHER),
        ];
        for (vars, with, without) in cases {
            for (at, name) in ["IP", "IP6"].into_iter().enumerate() {
                // The other family has an address of its own, so that the node may start.
                let other = if at == 0 { ("IP6", "fd00::1/64") } else { ("IP", "10.0.0.1/24") };
                let mut set = vec![other];
                set.extend(vars.map(|values| (name, values[at])));
                for (stored, expected) in [(true, with[at]), (false, without[at])] {
                    let mut before = ["", ""];
                    before[at] = if stored { STORED[at] } else { "" };
                    let after = start(&set, before).unwrap_or_else(|error| panic!("{set:?} {before:?}: {error}"));
                    assert_eq!(after[at], expected, "{set:?} {before:?}");
                }
            }
        }
    }

    #[test]
    fn a_search_that_finds_nothing_keeps_what_is_stored_and_fails_without() {
        for (name, method, at) in [("IP", "IP_AUTODETECTION_METHOD", 0), ("IP6", "IP6_AUTODETECTION_METHOD", 1)] {
            let other = if at == 0 { ("IP6", "fd00::1/64") } else { ("IP", "10.0.0.1/24") };
            let vars = [(name, "autodetect"), (method, "interface=nosuch"), other];
            let mut stored = ["", ""];
            let error = start(&vars, stored).expect_err("nothing is found, nothing is stored");
            assert!(error.contains("the name does not match"), "{error}");
            stored[at] = ["192.0.2.9", "2001:db8::9"][at];
            assert_eq!(start(&vars, stored).expect("it keeps it")[at], stored[at], "as it was written");
        }
    }

    #[test]
    fn a_running_node_changes_over_only_to_what_is_found_in_place_of_what_is_gone() {
        let interface = |name: &str, addresses: &[&str]| Interface {
            name: name.into(),
            addresses: addresses.iter().map(|text| text.parse().expect("a literal")).collect(),
            virtual_bridge: false,
        };
        let first = interface("eth0", &["10.0.0.7/24"]);
        let (second, docker) = (interface("eth1", &["10.1.0.7/24"]), interface("docker0", &["10.0.0.7/24"]));
        let shorter = interface("eth0", &["10.0.0.7/16"]);
        let (both, other) = ([first, second.clone()], std::slice::from_ref(&second));
        let eth0 = ("IP_AUTODETECTION_METHOD", "interface=eth0");
        let found = ("IP_AUTODETECTION_METHOD", "first-found");
        let auto = ("IP", "autodetect");
        for (vars, interfaces, expected, why) in [
            (&[auto][..], &both[..], "10.0.0.7/24", "the host has it still"),
            (&[auto], other, "10.1.0.7/24", "it is gone"),
            (&[auto], &[], "10.0.0.7/24", "nothing is found"),
            (&[auto], &[shorter], "10.0.0.7/16", "its prefix changed"),
            (&[auto], &[docker, second.clone()], "10.1.0.7/24", "the host itself has it no more"),
            (&[auto, found], &both, "10.1.0.7/24", "a method is taken at its word"),
            (&[auto, eth0], other, "10.0.0.7/24", "the method finds nothing"),
            (&[], other, "10.0.0.7/24", "nobody asks to look"),
            (&[("IP", "none")], other, "10.0.0.7/24", "told not to look"),
        ] {
            let own = Known { ipv4: Some("10.0.0.7/24".parse().expect("a literal")), ..Known::default() };
            let (ipv4, ipv6) = find_again(&environment(vars), interfaces, &own, || Ok(Known::default())).expect(why);
            assert_eq!((ipv4.map(|net| net.to_string()).as_deref(), ipv6), (Some(expected), None), "{why}");
        }
        assert!(may_change(&environment(&[])), "an address that goes from the store is looked for");
        assert!(!may_change(&environment(&[("IP", "10.0.0.7")])));
        assert!(may_change(&environment(&[("IP", "none"), ("IP6", "autodetect")])));
    }

    #[test]
    fn a_node_for_which_nothing_is_stored_or_asked_does_not_start() {
        let error = start(&[("IP", "none")], ["", ""]).expect_err("it has no address");
        assert!(error.contains("neither an IPv4 nor an IPv6"), "{error}");
        assert_eq!(start(&[("IP", "none")], ["", "fd00::9/64"]), Ok([String::new(), "fd00::9/64".to_owned()]));
    }
}
