//! The one binary: which program it is, is decided by the name that it is called by, else by its first argument.
//!
//! The CNI plugins are decided before anything else, so that a pod's start pays for nothing that it does not use.

mod component;
mod health;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tortie_cni::plugin::{self, Plugin};
use tortie_node::Role;
use tortie_store::Reader;

/// A pure layer-3 network and network policy for containers, VMs and hosts.
#[derive(Parser)]
#[command(name = "tortie", version, propagate_version = true)]
struct Tortie {
    #[command(subcommand)]
    program: Program,
}

#[derive(Subcommand)]
enum Program {
    /// Run the node agent: start-up, routes, policy, BGP and CNI (also as `calico-node`).
    Node {
        /// Join the cluster of the datastore, though this node belonged to another one.
        #[arg(long)]
        adopt: bool,
        #[command(subcommand)]
        command: Option<NodeCommand>,
    },
    /// Run policy and routes alone: no start-up, no BGP (also as `calico-felix`).
    Felix,
    /// Run the cluster's controllers (also as `kube-controllers`).
    Controllers(tortie_controllers::ControllersArgs),
    /// Manage resources, addresses and nodes (also as `calicoctl`).
    #[command(disable_help_flag = true)]
    Ctl {
        /// Arguments of calicoctl; `--help` lists its commands.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run a CNI plugin as a container runtime would (also as `calico` and `calico-ipam`).
    Cni {
        /// Which plugin.
        #[arg(default_value = "calico")]
        plugin: CniPlugin,
    },
    /// Put the CNI plugins and their configuration on a host (also as `install`).
    Install,
    /// Run a component as upstream's manifests name it (also `calico component`).
    #[command(subcommand)]
    Component(component::Component),
    /// Say why a flow is allowed or denied, and the smallest change that turns it; from the datastore alone.
    Why {
        #[command(flatten)]
        args: tortie_why::cli::WhyArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Show what a node should hold: endpoints, policies, routes, sets or peers; from the datastore alone.
    Show {
        #[command(flatten)]
        args: tortie_why::cli::ShowArgs,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// BGP sessions of the node on this host: peers, routes, and why a session is not up.
    Bgp(tortie_ctl::bgp::BgpArgs),
    /// Packets that ended on this node, each with its cause: which rule, which policies, or which check.
    Drops(tortie_ctl::drops::DropsArgs),
    /// A network of nodes, routers and pods out of network namespaces on this machine.
    Lab(tortie_lab::cli::LabArgs),
    /// Three nodes on this machine: routes over BGP, and policies that close and open paths.
    Demo(tortie_lab::cli::DemoArgs),
    /// Be a WireGuard device in user space; the node starts it where the kernel has none.
    #[command(name = tortie_node::WIREGUARD_PROCESS, hide = true)]
    WireguardDevice {
        /// The device's name.
        name: String,
        /// Where it is asked.
        socket: PathBuf,
    },
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What can be done beside running the agent.
#[derive(Subcommand)]
enum NodeCommand {
    /// The addresses that this node would take, with every candidate and the reason; from its environment.
    Addresses {
        /// How to print.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// Take out of this host what the node put there: interfaces, routes, rules, settings. Pods lose their network.
    Clean {
        /// Also while a node runs.
        #[arg(long)]
        force: bool,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
        /// Also the files: plugins, their configuration and credentials, and what the node keeps.
        #[arg(long)]
        installed: bool,
        /// Stay afterwards, for a container that would be started again.
        #[arg(long)]
        stay: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Where the datastore is.
#[derive(Args)]
struct StoreArgs {
    /// File with the settings of the datastore, as for calicoctl.
    #[arg(short, long, value_name = "FILE", default_value = tortie_ctl::DEFAULT_CONFIG)]
    config: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum CniPlugin {
    /// Interface, addresses and policy.
    Calico,
    /// Addresses alone.
    CalicoIpam,
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().and_then(|arg| Path::new(arg).file_name()).unwrap_or_default().to_string_lossy();
    let first = args.get(1).and_then(|arg| arg.to_str());
    match &*name {
        "calico" if !first.is_some_and(|word| component::WORDS.contains(&word)) => return plugin::main(Plugin::Calico),
        "calico-ipam" if matches!(first, Some("-upgrade" | "--upgrade")) => return component::upgrade_ipam(),
        "calico-ipam" => return plugin::main(Plugin::CalicoIpam),
        "calico" => return component::calico(args),
        "install" => return tortie_install::main(),
        "calicoctl" => return tortie_ctl::main(args),
        "calico-node" => return component::calico_node(args),
        // The command of upstream's node image.
        "start_runit" => return component::agent(false),
        "kube-controllers" | "check-status" => return component::kube_controllers(args),
        "calico-felix" => return tortie_node::run(Role::Felix, false),
        _ => {}
    }
    let Tortie { program } = Tortie::parse_from(args);
    match program {
        Program::Node { adopt, command: None } => component::agent(adopt),
        Program::Node { adopt: _, command: Some(NodeCommand::Addresses { output }) } => {
            end(read_to_the_end(tortie_node::show_addresses(matches!(output, Output::Json), &mut io::stdout().lock())))
        }
        Program::Node { adopt: _, command: Some(NodeCommand::Clean { force, dry_run, installed, stay }) } => {
            end(clean(force, dry_run, installed, stay))
        }
        Program::Felix => tortie_node::run(Role::Felix, false),
        Program::Controllers(args) => tortie_controllers::run(&args),
        Program::Ctl { args } => tortie_ctl::main(std::iter::once("calicoctl".into()).chain(args).collect()),
        Program::Cni { plugin: CniPlugin::Calico } => plugin::main(Plugin::Calico),
        Program::Cni { plugin: CniPlugin::CalicoIpam } => plugin::main(Plugin::CalicoIpam),
        Program::Install => tortie_install::main(),
        Program::Component(component) => component::run(component),
        Program::Why { args, store } => end(answer(&store, |store, out| tortie_why::cli::why(&args, store, out))),
        Program::Show { args, store } => {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let host = std::env::var("NODENAME").ok().filter(|name| !name.is_empty()).unwrap_or(host);
            end(answer(&store, |store, out| tortie_why::cli::show(&args, store, host.trim(), out)))
        }
        Program::Bgp(args) => end(read_to_the_end(tortie_ctl::bgp::run(&args, &mut io::stdout().lock()))),
        Program::Drops(args) => end(read_to_the_end(tortie_ctl::drops::run(&args, &mut io::stdout().lock()))),
        Program::Lab(args) => end(tortie_lab::cli::run(args)),
        Program::Demo(args) => end(tortie_lab::cli::demo(args)),
        Program::WireguardDevice { name, socket } => {
            end(tortie_node::wireguard_device(&name, &socket).map(|()| ExitCode::SUCCESS))
        }
        Program::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Tortie::command(), "tortie", &mut script);
            end(read_to_the_end(io::stdout().write_all(&script).map(|()| ExitCode::SUCCESS).map_err(Into::into)))
        }
    }
}

fn clean(force: bool, dry_run: bool, installed: bool, stay: bool) -> anyhow::Result<ExitCode> {
    let files = || {
        let vars = std::env::vars_os().filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
        tortie_install::Settings::of_this_host(&vars.collect()).map(|settings| tortie_install::installed(&settings))
    };
    let files = installed.then(files).transpose()?;
    let options = tortie_node::CleanOptions { force, dry_run, files };
    let code = tortie_node::clean(options, &mut io::stdout().lock())?;
    if stay && code == ExitCode::SUCCESS {
        loop {
            std::thread::park();
        }
    }
    Ok(code)
}

/// Opens the datastore and prints what is asked.
fn answer(
    store: &StoreArgs,
    ask: impl FnOnce(&dyn Reader, &mut dyn Write) -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    let store = tortie_ctl::open_store(&store.config)?;
    read_to_the_end(ask(&*store, &mut std::io::stdout().lock()))
}

/// What came of printing: a reader that went away, such as `head`, is no fault.
fn read_to_the_end(result: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match result {
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            Ok(ExitCode::SUCCESS)
        }
        result => result,
    }
}

fn end<E: std::fmt::Display>(result: Result<ExitCode, E>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("tortie: {error:#}");
        ExitCode::FAILURE
    })
}
