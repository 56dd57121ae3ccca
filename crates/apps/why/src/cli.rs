//! The commands `tortie why` and `tortie show`: their arguments, and what they do with a store.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use tortie_api::{Resource, printable_lines};
use tortie_net::Protocol;
use tortie_store::Reader;

use crate::World;
use crate::point::find;
use crate::report::explain_flow;
use crate::show::{self, Table};
use crate::text::render;
use crate::way::Flow;

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Arguments of `tortie why`.
#[derive(Debug, Args)]
#[command(after_help = "Example: tortie why prod/client prod/web tcp 9001\n\n\
    The answer comes from the datastore alone. What a node's own environment sets (FELIX_*) is not known to it.")]
pub struct WhyArgs {
    /// Who sends: NAMESPACE/POD, a pod, an endpoint, a network set, a node or an address.
    pub source: String,
    /// Who is to receive: the same choices.
    pub destination: String,
    /// tcp, udp, icmp, sctp, udplite or a protocol number.
    #[arg(default_value = "tcp")]
    pub protocol: String,
    /// The destination port; without one, 80 for tcp and 53 for udp.
    pub port: Option<u16>,
    /// How to print.
    #[arg(short, long, default_value = "text")]
    pub output: Output,
    /// Show the rules that were not tried, too.
    #[arg(long)]
    pub all: bool,
    /// Answer as if staged policies were enforced.
    #[arg(long)]
    pub staged: bool,
    /// End with 1 if the flow is denied (else with 0 either way, and with 1 only on errors).
    #[arg(long)]
    pub exit_code: bool,
}

/// Arguments of `tortie show`.
#[derive(Debug, Args)]
#[command(after_help = "Example: tortie show policies --node n1")]
pub struct ShowArgs {
    /// Which table.
    pub table: Table,
    /// The node; not needed if there is only one, or if this host is one by its name.
    #[arg(long)]
    pub node: Option<String>,
    /// How to print.
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

fn protocol(text: &str) -> Result<Protocol> {
    let number = text.parse::<u8>().ok().filter(|number| *number > 0).map(Protocol);
    if let Some(protocol) = number.or_else(|| Protocol::from_name(text)) {
        return Ok(protocol);
    }
    let names = Protocol::NAMES.iter().map(|(name, _)| name.to_lowercase());
    let near = names.min_by_key(|name| strsim::damerau_levenshtein(&text.to_lowercase(), name)).unwrap_or_default();
    bail!(
        "protocol {text:?}: expected tcp, udp, icmp, icmpv6, sctp, udplite or a number from 1 to 255; did you mean {near:?}?"
    )
}

/// Says why a flow is allowed or denied.
pub fn why(args: &WhyArgs, store: &dyn Reader, out: &mut dyn Write) -> Result<ExitCode> {
    let WhyArgs { source, destination, protocol: text, port, output, all, staged, exit_code } = args;
    let protocol = protocol(text)?;
    let port = match (protocol, port) {
        (_, Some(0)) => bail!("port 0: expected a port from 1 to 65535"),
        (_, Some(_)) if !protocol.has_ports() => bail!("{protocol} has no ports: leave the port out"),
        (_, Some(port)) => *port,
        (Protocol::TCP, None) => 80,
        (Protocol::UDP, None) => 53,
        (_, None) if !protocol.has_ports() => 0,
        (_, None) => bail!("{protocol} needs a port: tortie why {source} {destination} {text} PORT"),
    };
    let (world, invalid) = World::read(store)?;
    let mut world = if *staged { world.with_staged() } else { world };
    let flow = Flow::between(find(&world, source)?, find(&world, destination)?, protocol, port)?;
    let mut report = explain_flow(&mut world, &flow);
    report.notes.extend(invalid.into_iter().map(|line| format!("not readable, so left out: {line}")));
    match output {
        Output::Text => out.write_all(printable_lines(&render(&report, *all)).as_bytes())?,
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
    }
    Ok(if *exit_code && !report.allowed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Shows a table of a node. `host` is this host's name, for when no node is named.
pub fn show(args: &ShowArgs, store: &dyn Reader, host: &str, out: &mut dyn Write) -> Result<ExitCode> {
    let ShowArgs { table, node, output } = args;
    let (mut world, _) = World::read(store)?;
    let node = choose(&world, node.as_deref(), host)?;
    let (headings, rows) = show::rows(world.node(&node), *table);
    match output {
        Output::Text => out.write_all(printable_lines(&show::text(&headings, &rows)).as_bytes())?,
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&show::objects(&headings, rows))?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn choose(world: &World, wanted: Option<&str>, host: &str) -> Result<String> {
    let mut nodes: Vec<&str> = Vec::new();
    for resource in world.resources() {
        match resource {
            Resource::Node(node) => nodes.push(&node.metadata.name),
            Resource::WorkloadEndpoint(wep) => nodes.push(&wep.spec.node),
            _ => {}
        }
    }
    nodes.sort_unstable();
    nodes.dedup();
    let named = |name: &str| nodes.iter().find(|node| **node == name).map(|node| (*node).to_owned());
    let Some(wanted) = wanted else {
        return match (&nodes[..], named(host)) {
            (_, Some(node)) => Ok(node),
            ([only], None) => Ok((*only).to_owned()),
            (_, None) => bail!("which node? Name one with --node: {}", nodes.join(", ")),
        };
    };
    if let Some(node) = named(wanted) {
        return Ok(node);
    }
    let near = nodes.iter().min_by_key(|node| strsim::damerau_levenshtein(wanted, node));
    let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    bail!("--node {wanted:?}: there is no such node{hint}")
}
