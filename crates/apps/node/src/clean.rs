//! `tortie node clean`: takes out of this host what the node put there.
//!
//! Invariant: pods' interfaces go before routes and rules, so that no packet passes without its policy meanwhile; and what
//! is not known to be ours stays.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use tortie_cni::wire;
use tortie_dataplane::PolicyBackend;
use tortie_desired::{TunnelDevice, WIREGUARD_MARK, Wireguard as WireguardDevice};
use tortie_iptables::Flavour;
use tortie_net::Family;
use tortie_netlink::{Handle, Link, LinkKind, RouteFilter, RouteProtocol, Rule, TABLE_MAIN, Wireguard};
use tortie_nftables::Nftables;
use tortie_wireguard::Userspace;

use crate::environment::{Backend, Environment};
use crate::{cluster, settings_before, startup};

/// How to clean.
#[derive(Clone, Debug)]
pub struct Options {
    /// Also while a node runs.
    pub force: bool,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Also the node's own files, and these of the installer.
    pub files: Option<Vec<PathBuf>>,
}

/// One thing to take away.
struct Step {
    what: String,
    act: Box<dyn FnOnce() -> Result<()>>,
}

impl Step {
    fn new(what: String, act: impl FnOnce() -> Result<()> + 'static) -> Step {
        Step { what, act: Box::new(act) }
    }
}

/// Cleans, and tells what was done. All is tried; 1: something could not be done.
pub fn clean(options: Options, out: &mut dyn Write) -> Result<ExitCode> {
    let Options { force, dry_run, files } = options;
    let environment = crate::read_environment()?;
    let socket = environment.state_dir.join(wire::SOCKET);
    if UnixStream::connect(&socket).is_ok() && !force && !dry_run {
        bail!(
            "a node runs on this host (it listens on {}) and would put everything back: stop it first, or say --force",
            socket.display()
        );
    }
    let mut faults = 0;
    // Each kind is looked for only once those before it are gone: links take routes and addresses with them.
    let files = |environment: &Environment| Ok(files.map(|more| of_files(environment, more)).unwrap_or_default());
    let finds: [Box<dyn FnOnce(&Environment) -> Result<Vec<Step>>>; 6] = [
        Box::new(links),
        Box::new(wireguard_tables),
        Box::new(routes),
        Box::new(rules),
        Box::new(settings),
        Box::new(files),
    ];
    for find in finds {
        for Step { what, act } in find(&environment)? {
            if dry_run {
                writeln!(out, "would go: {what}")?;
                continue;
            }
            match act() {
                Ok(()) => writeln!(out, "gone: {what}")?,
                Err(error) => {
                    faults += 1;
                    writeln!(out, "not gone: {what}: {error:#}")?;
                }
            }
        }
    }
    if let Ok(name) = startup::node_name(&environment) {
        writeln!(out, "the datastore still knows the node: calicoctl delete node {name} takes it away there")?;
    }
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Interfaces of pods, and tunnel devices.
fn links(environment: &Environment) -> Result<Vec<Step>> {
    let prefixes = match &*environment.felix.interface_prefix {
        "" => "cali",
        told => told,
    };
    let prefixes: Vec<&str> = prefixes.split(',').map(str::trim).filter(|prefix| !prefix.is_empty()).collect();
    let ours = |link: &Link| match &link.kind {
        LinkKind::Veth => prefixes.iter().any(|prefix| link.name.starts_with(prefix)),
        LinkKind::Vxlan => TunnelDevice::ALL.iter().any(|device| device.name() == link.name),
        // The kernel's own one, which nobody uses, is down.
        LinkKind::Ipip => link.name == TunnelDevice::Ipip.name() && link.up,
        LinkKind::Wireguard => WIREGUARD.contains(&&*link.name) || marked(&link.name),
        // WireGuard in user space: its process ends with it.
        LinkKind::Other(kind) if kind == "tun" => WIREGUARD.contains(&&*link.name) || asked(environment, &link.name),
        // Those of limits of bandwidth.
        LinkKind::Other(kind) => kind == "ifb" && link.name.starts_with("bwcali"),
        LinkKind::Plain | LinkKind::Bridge => false,
    };
    let found = Handle::open()?.links()?.into_iter().filter(ours);
    let step = |link: Link| {
        let what = format!("interface {}", link.name);
        Step::new(what, move || {
            let mut kernel = Handle::open()?;
            let done = if link.kind == LinkKind::Ipip {
                kernel.delete_ipip(link.index)
            } else {
                kernel.delete_link(link.index)
            };
            gone(done)
        })
    };
    Ok(found.map(step).collect())
}

/// Whether a WireGuard device has the mark of ours, whatever its name is.
fn marked(device: &str) -> bool {
    let state = Wireguard::open().and_then(|mut devices| devices.device(device));
    state.is_ok_and(|state| state.mark == WIREGUARD_MARK)
}

/// Whether a process in user space, started by a node of this host, is asked about this device.
fn asked(environment: &Environment, device: &str) -> bool {
    Userspace::new(&environment.state_dir, "", &[]).knows(device)
}

/// Upstream's names of WireGuard devices.
const WIREGUARD: [&str; 2] = ["wireguard.cali", "wg-v6.cali"];

/// Routing rules that lead to WireGuard's tables, and its routes there.
fn wireguard_tables(_: &Environment) -> Result<Vec<Step>> {
    let mut kernel = Handle::open()?;
    let mut steps = Vec::new();
    for family in Family::ALL {
        let ours = |rule: &Rule| rule.inverted && rule.mark == Some((WIREGUARD_MARK, WIREGUARD_MARK));
        let rules: Vec<Rule> = kernel.rules(family)?.into_iter().filter(ours).collect();
        let (_, usual) = WireguardDevice::default_place(family);
        let tables: BTreeSet<u32> = rules.iter().map(|rule| rule.table).chain([usual]).collect();
        for rule in rules {
            let what = format!("{family} rule {} to table {}", rule.priority, rule.table);
            steps.push(Step::new(what, move || gone(Handle::open()?.delete_rule(&rule))));
        }
        for table in tables.into_iter().filter(|table| *table != TABLE_MAIN) {
            let filter = RouteFilter { family: Some(family), table: Some(table), protocol: None };
            let routes = kernel.routes(&filter)?.into_iter().filter(|route| route.protocol == RouteProtocol::CALICO);
            steps.extend(routes.map(|route| {
                let what = format!("route {route} of table {table}");
                Step::new(what, move || gone(Handle::open()?.delete_route(route)))
            }));
        }
    }
    Ok(steps)
}

/// What is gone already is no fault.
fn gone(done: tortie_netlink::Result<()>) -> Result<()> {
    match done {
        Err(error) if !error.is_not_found() => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Routes to pods, blocks and nodes.
fn routes(environment: &Environment) -> Result<Vec<Step>> {
    // Another speaker's routes have the same number as those that this node learns.
    let own_bgp = environment.backend == Backend::Bird;
    let ours = |protocol| protocol == RouteProtocol::CALICO || (own_bgp && protocol == RouteProtocol::BIRD);
    let all = Handle::open()?.routes(&RouteFilter::default())?;
    let found = all.into_iter().filter(|route| route.table == TABLE_MAIN && ours(route.protocol));
    let step = |route: tortie_netlink::Route| {
        let what = format!("route {route}");
        Step::new(what, move || gone(Handle::open()?.delete_route(route)))
    };
    Ok(found.map(step).collect())
}

/// Rules of the packet filter.
fn rules(_: &Environment) -> Result<Vec<Step>> {
    let remove = || {
        let mut backend: Box<dyn PolicyBackend> = Box::new(Nftables::open()?);
        backend.remove_all().map_err(|cause| anyhow::anyhow!("{cause}"))
    };
    let mut steps = vec![Step::new(format!("nftables table {}", tortie_nftables::TABLE), remove)];
    for flavour in Flavour::ALL {
        // Where its programs are missing, nothing can be said of it.
        if tortie_iptables::leftovers(flavour).unwrap_or(false) {
            let what = format!("iptables-{flavour}: rules and chains cali-*, and their sets");
            steps.push(Step::new(what, move || {
                tortie_iptables::remove(flavour, false)?;
                // Few hosts have this table before; the others are everybody's.
                if flavour == Flavour::Nft {
                    Family::ALL
                        .into_iter()
                        .try_for_each(|family| tortie_nftables::remove_empty(family, "raw").map(drop))?;
                }
                Ok(())
            }));
        }
    }
    Ok(steps)
}

/// The host's own settings.
fn settings(environment: &Environment) -> Result<Vec<Step>> {
    let file = settings_before::file(&environment.node_name_file);
    let kept = settings_before::kept(&file)?;
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    let what = "the node's network settings; those of before are back".to_owned();
    Ok(vec![Step::new(what, move || {
        settings_before::put_back(&kept)?;
        Ok(std::fs::remove_file(&file)?)
    })])
}

/// Files, and folders with what is in them; the installer's first.
fn of_files(environment: &Environment, installed: Vec<PathBuf>) -> Vec<Step> {
    let name = &environment.node_name_file;
    let own = [name.clone(), name.with_file_name("mtu"), cluster::file(name), environment.state_dir.clone()];
    let step = |path: PathBuf| {
        let what =
            if path.is_dir() { format!("folder {}", path.display()) } else { format!("file {}", path.display()) };
        Step::new(what, move || {
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match gone {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
                Ok(()) | Err(_) => Ok(()),
            }
        })
    };
    installed.into_iter().chain(own).filter(|path| path.exists()).map(step).collect()
}
