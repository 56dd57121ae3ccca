//! The command line: commands, flags and their help, with upstream's names.
//!
//! Invariant: nothing here reads a file or a store.

mod addresses;
mod data;
mod flags;

pub use addresses::{Ipam, Persistence};
pub use data::{Cluster, ClusterDiags, Config, ConvertFormat, Datastore, Migrate, Raw, SettingPlace};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tortie_net::AsNumber;

/// Where the connection settings are unless `--config` says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/calico/calicoctl.cfg";

/// Manage network and security policy, address pools, endpoints and nodes of a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "calicoctl",
    disable_help_subcommand = false,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Settings of the datastore come from --config or from the environment (DATASTORE_TYPE, TORTIE_SQLITE); \
                  without any, it is the file /var/lib/tortie/tortie.db."
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The command line as it is read and completed.
pub fn command() -> clap::Command {
    flags::with_values(Cli::command())
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// How much to tell on standard error: panic, fatal, error, warn, info or debug.
    #[arg(
        short = 'l',
        long,
        global = true,
        value_name = "LEVEL",
        default_value = "panic",
        ignore_case = true,
        hide_possible_values = true
    )]
    pub log_level: LogLevel,
    /// File with the settings of the datastore, as YAML or JSON (kind CalicoAPIConfig).
    #[arg(short, long, global = true, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: String,
    /// Context of the kubeconfig file to use.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Work although the cluster runs another version.
    #[arg(long, global = true)]
    pub allow_version_mismatch: bool,
}

/// How much is told on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    /// Faults alone.
    Panic,
    /// As panic: faults are told anyway.
    Fatal,
    /// As panic: faults are told anyway.
    Error,
    /// What looks wrong.
    #[value(alias = "warning")]
    Warn,
    /// Steps.
    Info,
    /// Details.
    #[value(alias = "trace")]
    Debug,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create resources from files, directories or standard input; those that exist are an error
    #[command(after_help = "Example: calicoctl create -f policy.yaml")]
    Create {
        /// Where the resources are.
        #[command(flatten)]
        input: Input,
        /// Pass over resources that exist already.
        #[arg(long)]
        skip_exists: bool,
    },
    /// Create resources or replace those that exist
    #[command(after_help = "Example: calicoctl apply -f policy.yaml")]
    Apply {
        /// Where the resources are.
        #[command(flatten)]
        input: Input,
    },
    /// Replace resources; those that do not exist are an error
    #[command(after_help = "Example: calicoctl replace -f policy.yaml")]
    Replace {
        /// Where the resources are.
        #[command(flatten)]
        input: Input,
    },
    /// Check resources without writing them; needs no datastore
    #[command(after_help = "Example: calicoctl validate -f policy.yaml")]
    Validate {
        /// Where the resources are.
        #[command(flatten)]
        input: Input,
    },
    /// Delete resources by kind and name, or those that files name
    #[command(
        override_usage = "calicoctl delete <KIND> <NAME>...\n       calicoctl delete -f <FILE>",
        after_help = "Example: calicoctl delete networkpolicy web db -n prod"
    )]
    Delete {
        /// Which resources.
        #[command(flatten)]
        select: Select,
        /// Pass over resources that do not exist.
        #[arg(short, long)]
        skip_not_exists: bool,
    },
    /// Show resources of a kind, all or by name, or those that files name
    #[command(
        override_usage = "calicoctl get <KIND> [NAME]...\n       calicoctl get -f <FILE>",
        after_help = "Example: calicoctl get networkpolicy -A -o wide"
    )]
    Get {
        /// Which resources.
        #[command(flatten)]
        select: Select,
        /// ps, wide, yaml, json, custom-columns=A,B, go-template=TEXT or go-template-file=FILE.
        #[arg(short, long, default_value = "ps", value_name = "FORMAT")]
        output: String,
        /// Resources of every namespace.
        #[arg(short = 'A', long, short_alias = 'a')]
        all_namespaces: bool,
        /// Leave out what belongs to this cluster alone (namespace, identity, revision, times); only with a name.
        #[arg(long)]
        export: bool,
    },
    /// Change fields of one resource
    #[command(after_help = "Example: calicoctl patch node n1 -p '{\"spec\":{\"bgp\":{\"asNumber\":64513}}}'")]
    Patch {
        /// Kind, such as ippool.
        kind: String,
        /// Name.
        name: String,
        /// The change, as JSON or YAML.
        #[arg(short, long, value_name = "TEXT")]
        patch: String,
        /// What the change is: parts to merge, or a list of operations (RFC 6902).
        #[arg(short = 't', long = "type", default_value = "strategic")]
        how: PatchType,
        /// Namespace of the resource.
        #[arg(short, long)]
        namespace: Option<String>,
    },
    /// Set, change or remove labels of one resource
    #[command(after_help = "Example: calicoctl label node n1 rack=a7 --overwrite")]
    Label {
        /// Kind, such as node.
        kind: String,
        /// Name.
        name: String,
        /// KEY=VALUE, or KEY with --remove.
        #[arg(required = true, value_name = "KEY=VALUE")]
        labels: Vec<String>,
        /// Change the value of a label that exists.
        #[arg(long)]
        overwrite: bool,
        /// Remove the labels of these keys.
        #[arg(long, conflicts_with = "overwrite")]
        remove: bool,
        /// Namespace of the resource.
        #[arg(short, long)]
        namespace: Option<String>,
    },
    /// Look after IP addresses
    Ipam {
        /// What to do.
        #[command(subcommand)]
        command: Ipam,
    },
    /// Look after this node
    Node {
        /// What to do.
        #[command(subcommand)]
        command: Node,
    },
    /// Read and change the settings that v1 knew by name
    Config {
        /// What to do.
        #[command(subcommand)]
        command: Config,
    },
    /// Lock, export and import the datastore
    Datastore {
        /// What to do.
        #[command(subcommand)]
        command: Datastore,
    },
    /// Look after the cluster
    Cluster {
        /// What to do.
        #[command(subcommand)]
        command: Cluster,
    },
    /// Show resources of the old apiVersion v1 in their new form
    #[command(after_help = "Example: calicoctl convert -f old-policy.yaml -o yaml > policy.yaml")]
    Convert {
        /// File with the resources, or - for standard input.
        #[arg(short, long, value_name = "FILE")]
        filename: String,
        /// yaml or json.
        #[arg(short, long, default_value = "yaml", value_name = "FORMAT")]
        output: ConvertFormat,
        /// Show what would not be accepted as well.
        #[arg(long)]
        ignore_validation: bool,
    },
    /// Show the version of this program and of the cluster
    #[command(after_help = "Example: calicoctl version --client")]
    Version {
        /// Only that of this program.
        #[arg(long)]
        client: bool,
        /// Show the cluster's version again whenever it has changed, looking at this interval (such as 5s).
        #[arg(long, value_name = "DURATION")]
        poll: Option<String>,
    },
    /// Print the completion script of a shell
    #[command(after_help = "Example: calicoctl completion bash > /etc/bash_completion.d/calicoctl")]
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// Where resources to write are.
#[derive(Clone, Debug, Args)]
pub struct Input {
    /// File or directory (of .yaml, .yml and .json files) with the resources, or - for standard input.
    #[arg(short, long, required = true, value_name = "FILE")]
    pub filename: Vec<String>,
    /// Directories below the directory too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Files without resources are no error.
    #[arg(long)]
    pub skip_empty: bool,
    /// Namespace of resources that name none.
    #[arg(short, long)]
    pub namespace: Option<String>,
}

/// Which resources to show or delete.
#[derive(Clone, Debug, Args)]
pub struct Select {
    /// Kind, such as ippool.
    #[arg(required_unless_present = "filename", conflicts_with = "filename")]
    pub kind: Option<String>,
    /// Names.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// File or directory that names the resources, or - for standard input.
    #[arg(short, long, value_name = "FILE")]
    pub filename: Vec<String>,
    /// Directories below the directory too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Files without resources are no error.
    #[arg(long)]
    pub skip_empty: bool,
    /// Namespace of the resources; "default" if none is named.
    #[arg(short, long)]
    pub namespace: Option<String>,
}

/// What a patch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PatchType {
    /// Parts to merge, with `$patch` directives.
    Strategic,
    /// Operations of RFC 6902.
    Json,
    /// Parts to merge as RFC 7386 says.
    Merge,
}

/// `calicoctl node`.
#[derive(Debug, Subcommand)]
pub enum Node {
    /// Show whether the node runs, and its BGP sessions
    #[command(after_help = "Example: sudo calicoctl node status")]
    Status {
        /// table or json.
        #[arg(short, long, default_value = "table")]
        output: StatusFormat,
    },
    /// Start a node in a container of Docker, on etcd (`tortie node` needs no container)
    #[command(after_help = "Example: sudo calicoctl node run --dryrun")]
    Run(NodeRun),
    /// Collect the state and the logs of this node in one file
    #[command(after_help = "Example: sudo calicoctl node diags --log-dir /var/log/calico")]
    Diags {
        /// Where the logs are.
        #[arg(long, default_value = "/var/log/calico", value_name = "DIRECTORY")]
        log_dir: String,
    },
    /// Check whether this host can run a node
    #[command(after_help = "Example: sudo calicoctl node checksystem")]
    Checksystem {
        /// The kernel's configuration, where it is not at a usual place.
        #[arg(short = 'f', long, value_name = "FILE")]
        kernel_config: Option<String>,
    },
}

/// How the node's status is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusFormat {
    /// Tables.
    Table,
    /// The node's own JSON.
    Json,
}

/// How a node is to be started.
#[derive(Clone, Debug, Args)]
pub struct NodeRun {
    /// Its IPv4 address, or autodetect.
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// Its IPv6 address, or autodetect.
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<String>,
    /// Its AS number; without one the cluster's.
    #[arg(long = "as", value_name = "NUMBER")]
    pub as_number: Option<AsNumber>,
    /// Its name; without one that of the host.
    #[arg(long)]
    pub name: Option<String>,
    /// How its IPv4 address is found.
    #[arg(long, default_value = FIRST_FOUND, value_name = "METHOD")]
    pub ip_autodetection_method: String,
    /// How its IPv6 address is found.
    #[arg(long, default_value = FIRST_FOUND, value_name = "METHOD")]
    pub ip6_autodetection_method: String,
    /// Where its logs are on the host.
    #[arg(long, default_value = "/var/log/calico", value_name = "DIRECTORY")]
    pub log_dir: String,
    /// The image.
    #[arg(long, default_value = concat!("docker.io/tortie/tortie:v", env!("CARGO_PKG_VERSION")), value_name = "IMAGE")]
    pub node_image: String,
    /// What makes the network.
    #[arg(long, default_value = "bird")]
    pub backend: NodeBackend,
    /// Show the command, and do nothing.
    #[arg(long)]
    pub dryrun: bool,
    /// For an init system: the command stays until the container ends, and leaves nothing.
    #[arg(long)]
    pub init_system: bool,
    /// Make no pools.
    #[arg(long = "no-default-ippools")]
    pub no_default_ippools: bool,
    /// A file with Felix's parameters, which count where no FELIX_… variable says otherwise.
    #[arg(long, value_name = "FILE")]
    pub felix_config: Option<String>,
}

/// The node's own choice among its addresses.
pub const FIRST_FOUND: &str = "first-found";

/// What makes the network of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NodeBackend {
    /// BGP.
    Bird,
    /// VXLAN alone.
    Vxlan,
    /// Somebody else.
    None,
}
