//! `tortie lab` and `tortie demo`: the command line of the lab.

use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use tortie_net::Family;

pub use crate::demo::{DemoArgs, demo};
use crate::lab::Lab;
use crate::matrix::Matrix;
use crate::probe::{Probe, Transport};
use crate::state::LabDir;
use crate::view::View;

/// How long the nodes of a new lab may take until they are in sync.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A network of nodes, routers and pods out of network namespaces on this machine.
#[derive(Debug, Args)]
pub struct LabArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a lab, start its nodes and leave it running.
    Up(Up),
    /// Run a program on a node, on a router or in a pod.
    Exec {
        /// Which lab; needed when there are several.
        #[arg(long)]
        id: Option<String>,
        /// A node or router by name, or a pod as NAME or NAMESPACE/NAME.
        place: String,
        /// The program and its arguments; calicoctl and tortie are in its PATH.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Ask every pod, node and router whether it reaches every other.
    Matrix(MatrixArgs),
    /// Take a lab down.
    Down {
        /// Which lab; needed when there are several.
        #[arg(long, conflicts_with = "all")]
        id: Option<String>,
        /// Every lab of this machine.
        #[arg(long)]
        all: bool,
    },
    /// List the labs with their nodes and pods.
    Status,
}

#[derive(Debug, Args)]
struct Up {
    /// The lab's id.
    #[arg(long, default_value = "lab")]
    id: String,
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=150))]
    nodes: u8,
    /// How many pods on each node.
    #[arg(long, default_value_t = 2)]
    pods: usize,
    /// The nodes' IPv4 subnet.
    #[arg(long, default_value = "172.17.8.0/24")]
    subnet: String,
    /// The IPv4 pool.
    #[arg(long, default_value = "192.168.0.0/16")]
    pool: String,
    /// IPv6 beside IPv4.
    #[arg(long)]
    dual_stack: bool,
    /// A router, which the nodes have their default route through.
    #[arg(long)]
    router: bool,
    /// A variable for every node process, as NAME=VALUE.
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Make the namespaces alone and start no node.
    #[arg(long)]
    no_start: bool,
}

#[derive(Debug, Args)]
struct MatrixArgs {
    /// Which lab; needed when there are several.
    #[arg(long)]
    id: Option<String>,
    /// What to ask with: udp, tcp or icmp.
    #[arg(long, default_value = "tcp")]
    protocol: Transport,
    /// The port, for udp and tcp.
    #[arg(long, default_value_t = 9000)]
    port: u16,
    /// Over IPv6.
    #[arg(long)]
    ipv6: bool,
    /// Leave nodes and routers out.
    #[arg(long)]
    pods_only: bool,
    /// How long to wait for an answer, milliseconds.
    #[arg(long, default_value_t = 400)]
    timeout: u64,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// A table.
    Table,
    /// JSON.
    Json,
}

/// Runs `tortie lab`.
pub fn run(args: LabArgs) -> Result<ExitCode> {
    let LabArgs { command } = args;
    match command {
        Command::Up(args) => up(&args)?,
        Command::Exec { id, place, command } => exec(id.as_deref(), &place, &command)?,
        Command::Matrix(args) => matrix(&args)?,
        Command::Down { all: true, .. } => down_all()?,
        Command::Down { id, all: false } => Lab::attach(id.as_deref())?.down()?,
        Command::Status => status()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(args: &Up) -> Result<()> {
    let Up { id, nodes, pods, subnet, pool, dual_stack, router, env, no_start } = args;
    let mut builder = Lab::builder().id(id).nodes(usize::from(*nodes)).subnet(subnet).pool(pool);
    if *dual_stack {
        builder = builder.dual_stack();
    }
    if *router {
        builder = builder.router("router");
    }
    for pair in env {
        let (name, value) = pair.split_once('=').with_context(|| format!("--env {pair:?}: expected NAME=VALUE"))?;
        builder = builder.env(name, value);
    }
    let mut lab = builder.up()?;
    if !no_start {
        lab.start(START_TIMEOUT)?;
        for node in lab.nodes() {
            for number in 0..*pods {
                let name = format!("{}-{}", node.name(), letter(number));
                node.add_pod("default", &name, &[("app", name.as_str()), ("node", node.name())])?;
            }
        }
    }
    // Until here a failure or a signal takes it down; a lab that is whole stays.
    lab.keep()?;
    status()?;
    print(&format!(
        "\ntry: tortie lab exec --id {id} node1 -- calicoctl get nodes\n     tortie lab matrix --id {id}\n     \
         tortie lab down --id {id}"
    ))
}

fn letter(number: usize) -> String {
    let alphabet = b'a'..=b'z';
    alphabet.clone().nth(number).map_or_else(|| format!("p{number}"), |letter| char::from(letter).to_string())
}

fn exec(id: Option<&str>, place: &str, command: &[String]) -> Result<()> {
    let lab = Lab::attach(id)?;
    let [program, args @ ..] = command else { bail!("no program to run") };
    let error = view(&lab, place)?.command(program, false)?.args(args).exec();
    Err(error).with_context(|| format!("run {program} in {place}"))
}

fn view(lab: &Lab, place: &str) -> Result<View> {
    if lab.topology().machine(place).is_ok() {
        return lab.view(place);
    }
    match lab.pod(place) {
        Ok(pod) => Ok(pod.view()),
        Err(_) => {
            let names: Vec<_> = lab.places()?.iter().map(|place| place.name().to_owned()).collect();
            bail!("no node, router or pod {place:?} in lab {}: there are {}", lab.id(), names.join(", "))
        }
    }
}

fn matrix(args: &MatrixArgs) -> Result<()> {
    let MatrixArgs { id, protocol, port, ipv6, pods_only, timeout, output } = args;
    let lab = Lab::attach(id.as_deref())?;
    let places = if *pods_only { lab.pods()?.iter().map(|pod| pod.place()).collect() } else { lab.places()? };
    let family = if *ipv6 { Family::V6 } else { Family::V4 };
    let probe = Probe { transport: *protocol, port: *port, family, timeout: Duration::from_millis(*timeout) };
    let matrix = Matrix::measure(&places, &probe)?;
    match output {
        Output::Table => print(&matrix.to_string()),
        Output::Json => print(&serde_json::to_string_pretty(&matrix)?),
    }
}

fn down_all() -> Result<()> {
    crate::lab::require_root()?;
    for (id, dir) in LabDir::all()? {
        crate::teardown::teardown(&dir)?;
        print(&format!("lab {id} is down"))?;
    }
    Ok(())
}

fn status() -> Result<()> {
    let labs = LabDir::all()?;
    if labs.is_empty() {
        return print("no lab is up; make one with: tortie lab up");
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_FULL_CONDENSED);
    table.set_header(["LAB", "PLACE", "KIND", "ADDRESSES", "STATE", "NETNS"]);
    for (id, _) in &labs {
        let lab = Lab::attach(Some(id))?;
        for node in lab.nodes() {
            let state = match (node.process(), node.ready()) {
                (None, _) => "not running".to_owned(),
                (Some(process), true) => format!("ready, pid {}", process.pid),
                (Some(process), false) => format!("not ready, pid {}", process.pid),
            };
            add_row(&mut table, id, &node.place(), "node", &state);
        }
        for router in &lab.topology().routers {
            add_row(&mut table, id, &lab.place(&router.name)?, "router", "");
        }
        for pod in lab.pods()? {
            add_row(&mut table, id, &pod.place(), "pod", &format!("on {}", pod.record().node));
        }
    }
    print(&table.to_string())
}

/// Prints; a reader that closed its end, as `head` does, is no error.
fn print(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn add_row(table: &mut Table, id: &str, place: &crate::Place, kind: &str, state: &str) {
    let ips: Vec<_> = place.ips().iter().map(ToString::to_string).collect();
    table.add_row([id, place.name(), kind, &ips.join("\n"), state, place.netns_name()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        lab: LabArgs,
    }

    #[test]
    fn what_follows_two_dashes_is_the_program() {
        use clap::Parser;
        let line = ["lab", "exec", "node1", "--", "calicoctl", "get", "nodes", "-o", "wide"];
        let Program { lab: LabArgs { command } } = Program::try_parse_from(line).unwrap();
        let Command::Exec { place, command, .. } = command else { panic!("not exec") };
        assert_eq!((place.as_str(), command.join(" ").as_str()), ("node1", "calicoctl get nodes -o wide"));
        assert!(Program::try_parse_from(["lab", "matrix", "--protocol", "sctp"]).is_err());
    }

    #[test]
    fn pods_are_lettered() {
        assert_eq!([0, 1, 25, 26].map(letter), ["a", "b", "z", "p26"].map(str::to_owned));
    }
}
