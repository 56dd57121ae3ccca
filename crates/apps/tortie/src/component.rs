//! Upstream's internal commands, as its manifests and operator call them: `calico component …`, `calico health …`, and
//! the flags of the older `calico-node`.
//!
//! What a supervised process of its own does upstream, the one agent does here; such a command says so and ends well,
//! as nothing is missing. What is not in this version says so and ends with 1.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tortie_cni::plugin::{self, Plugin};
use tortie_node::Role;

use crate::health::{self, Checks};

/// `calico …`, where it is not called as a plugin.
#[derive(Parser)]
#[command(name = "calico", version)]
pub struct Calico {
    #[command(subcommand)]
    command: CalicoCommand,
}

#[derive(Subcommand)]
enum CalicoCommand {
    /// Run a component; for manifests and operators.
    #[command(subcommand)]
    Component(Component),
    /// Manage resources, addresses and nodes.
    #[command(disable_help_flag = true)]
    Ctl {
        /// Arguments of calicoctl.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Ask a component for its health over HTTP.
    Health(HttpHealth),
    /// Run the node agent, as the command of upstream's node image does.
    #[command(name = "start_runit", hide = true)]
    Start,
    /// Print the version.
    Version,
}

/// The words after `calico` that mean its command line even where a runtime's variables are set.
pub const WORDS: [&str; 9] =
    ["component", "ctl", "health", "start_runit", "version", "help", "--help", "-h", "--version"];

/// A component.
#[derive(Subcommand)]
pub enum Component {
    /// Policy and routes alone.
    Felix,
    /// The life of a node.
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// The CNI plugins.
    Cni {
        #[command(subcommand)]
        command: CniCommand,
    },
    /// The cluster's controllers.
    KubeControllers(tortie_controllers::ControllersArgs),
    /// Any other component of upstream.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// A step in the life of a node.
#[derive(Subcommand)]
pub enum NodeCommand {
    /// Whether the node is well.
    Health(Checks),
    /// Before the first start: what the eBPF dataplane would need.
    Init {
        /// A fault is no reason to stop.
        #[arg(long)]
        best_effort: bool,
    },
    /// Before the end.
    Shutdown,
    /// Any other step of upstream's.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// What the CNI component does.
#[derive(Subcommand)]
pub enum CniCommand {
    /// Put plugins and configuration on the host.
    Install,
    /// Run the plugin `calico`.
    Plugin,
    /// Run the plugin `calico-ipam`.
    Ipam,
}

#[derive(Args)]
struct HttpHealth {
    /// The host.
    #[arg(long, default_value = "localhost")]
    host: String,
    /// The TCP port.
    #[arg(long)]
    port: u16,
    /// What is asked.
    #[arg(long = "type", value_enum, default_value = "readiness")]
    kind: CheckType,
    /// How many seconds an answer may take, such as 5s.
    #[arg(long, default_value = "5s", value_parser = health::duration)]
    timeout: Duration,
}

#[derive(Clone, Copy, ValueEnum)]
enum CheckType {
    Readiness,
    Liveness,
}

/// Runs `calico` with these arguments.
pub fn calico(args: Vec<OsString>) -> ExitCode {
    let Calico { command } = Calico::parse_from(args);
    match command {
        CalicoCommand::Component(component) => run(component),
        CalicoCommand::Ctl { args } => tortie_ctl::main(std::iter::once("calicoctl".into()).chain(args).collect()),
        CalicoCommand::Health(HttpHealth { host, port, kind, timeout }) => {
            let path = match kind {
                CheckType::Readiness => "readiness",
                CheckType::Liveness => "liveness",
            };
            health::answer(health::http(&host, port, path, timeout))
        }
        CalicoCommand::Start => agent(false),
        CalicoCommand::Version => {
            println!("{}", tortie_ctl::VERSION);
            ExitCode::SUCCESS
        }
    }
}

/// Runs the node agent; in a pod, the credentials that the installer left for other programs are kept fresh beside it.
/// `adopt`: another cluster's datastore is accepted from now on.
pub fn agent(adopt: bool) -> ExitCode {
    tortie_install::keep_current();
    tortie_node::run(Role::Node, adopt)
}

/// Runs a component.
pub fn run(component: Component) -> ExitCode {
    match component {
        Component::Felix => tortie_node::run(Role::Felix, false),
        Component::Node { command } => node(command),
        Component::Cni { command: CniCommand::Install } => tortie_install::main(),
        Component::Cni { command: CniCommand::Plugin } => plugin::main(Plugin::Calico),
        Component::Cni { command: CniCommand::Ipam } => plugin::main(Plugin::CalicoIpam),
        Component::KubeControllers(args) => tortie_controllers::run(&args),
        Component::Other(args) => absent(&args),
    }
}

fn node(command: NodeCommand) -> ExitCode {
    match command {
        NodeCommand::Health(checks) => health::answer(checks.run()),
        NodeCommand::Init { best_effort: _ } => said("there is no eBPF dataplane in this version: nothing to prepare"),
        NodeCommand::Shutdown => match tortie_node::shutdown() {
            Ok(true) => said("told Kubernetes that this node's network is going away"),
            Ok(false) => said("nobody is to be told that this node's network is going away"),
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        },
        NodeCommand::Other(args) => match args.first().and_then(|word| word.to_str()) {
            Some("startup" | "allocate-tunnel-addrs" | "node-services" | "monitor-addresses" | "complete-startup") => {
                said("the agent does this itself (`calico-node`, `tortie node`): nothing done")
            }
            _ => absent(&args),
        },
    }
}

fn said(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

fn absent(args: &[OsString]) -> ExitCode {
    let word = args.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    eprintln!("{word:?} is not in this version of Tortie; docs/limits.md says what is missing");
    ExitCode::FAILURE
}

/// The programs of upstream's image of controllers.
#[derive(Parser)]
#[command(name = "kube-controllers", version)]
struct KubeControllers {
    #[command(flatten)]
    args: tortie_controllers::ControllersArgs,
}

#[derive(Parser)]
#[command(name = "check-status", version)]
struct StatusCheck {
    #[command(flatten)]
    args: tortie_controllers::CheckStatus,
}

/// Runs `kube-controllers`, or its `check-status`, with these arguments.
pub fn kube_controllers(args: Vec<OsString>) -> ExitCode {
    let checks = args.first().is_some_and(|name| std::path::Path::new(name).ends_with("check-status"));
    if checks {
        return tortie_controllers::check_status(&StatusCheck::parse_from(args).args);
    }
    tortie_controllers::run(&KubeControllers::parse_from(args).args)
}

/// `calico-node` with upstream's flags, each of one dash or two. Without any, the agent itself.
#[derive(Parser)]
#[command(name = "calico-node", version, disable_version_flag = true)]
struct Flags {
    #[command(flatten)]
    checks: Checks,
    /// Print the version.
    #[arg(short = 'v', long)]
    version: bool,
    /// Run policy and routes alone.
    #[arg(long)]
    felix: bool,
    /// Before the first start: what the eBPF dataplane would need.
    #[arg(long)]
    init: bool,
    /// With --init: a fault is no reason to stop.
    #[arg(long)]
    best_effort: bool,
    /// Accept another cluster's datastore from now on, and run the agent.
    #[arg(long)]
    adopt: bool,
    /// Before the end.
    #[arg(long)]
    shutdown: bool,
    /// The agent does this itself.
    #[arg(long)]
    startup: bool,
    /// The agent does this itself.
    #[arg(long)]
    allocate_tunnel_addrs: bool,
    /// The agent does this itself.
    #[arg(long)]
    allocate_tunnel_addrs_run_once: bool,
    /// The agent does this itself.
    #[arg(long)]
    monitor_addresses: bool,
    /// The agent does this itself.
    #[arg(long)]
    monitor_token: bool,
    /// The agent does this itself.
    #[arg(long)]
    complete_startup: bool,
    /// Make host paths fit for a node without root.
    #[arg(long)]
    hostpath_init: bool,
}

/// Runs `calico-node` with these arguments.
pub fn calico_node(args: Vec<OsString>) -> ExitCode {
    if args.len() < 2 {
        return agent(false);
    }
    // Go's flags have one dash or two.
    let doubled = |arg: OsString| match arg.to_str() {
        Some(text) if text.len() > 2 && text.starts_with('-') && !text.starts_with("--") => format!("-{text}").into(),
        _ => arg,
    };
    let Flags {
        checks,
        version,
        felix,
        init,
        best_effort,
        adopt,
        shutdown,
        startup,
        allocate_tunnel_addrs,
        allocate_tunnel_addrs_run_once,
        monitor_addresses,
        monitor_token,
        complete_startup,
        hostpath_init,
    } = Flags::parse_from(args.into_iter().map(doubled));
    let own = startup
        || allocate_tunnel_addrs
        || allocate_tunnel_addrs_run_once
        || monitor_addresses
        || monitor_token
        || complete_startup;
    match () {
        () if version => said(tortie_ctl::VERSION),
        () if adopt => agent(true),
        () if felix => tortie_node::run(Role::Felix, false),
        () if init => node(NodeCommand::Init { best_effort }),
        () if shutdown => node(NodeCommand::Shutdown),
        () if own => node(NodeCommand::Other(vec!["startup".into()])),
        () if hostpath_init => absent(&["--hostpath-init".into()]),
        () => health::answer(checks.run()),
    }
}

/// Where upstream's installations with host-local addresses keep them.
const HOST_LOCAL: &str = "/var/lib/cni/networks/k8s-pod-network";

/// `calico-ipam -upgrade`: addresses of host-local would have to be taken over; there are none on a new node.
pub fn upgrade_ipam() -> ExitCode {
    let held = |name: &OsString| name.to_str().is_some_and(|name| name.parse::<std::net::IpAddr>().is_ok());
    let names = std::fs::read_dir(HOST_LOCAL).into_iter().flatten().flatten().map(|entry| entry.file_name());
    match names.filter(held).count() {
        0 => said("no addresses of host-local on this node: nothing to take over"),
        count => {
            eprintln!(
                "{count} addresses of host-local are held in {HOST_LOCAL}; this version can't take them over: drain the \
                 node and empty that folder, or keep \"ipam\": {{\"type\": \"host-local\"}}"
            );
            ExitCode::FAILURE
        }
    }
}
