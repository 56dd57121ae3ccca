//! The command line: commands, flags and their help, with upstream's names.
//!
//! Invariant: nothing here reads a file or a store.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

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

/// `calicoctl ipam`.
#[derive(Debug, Subcommand)]
pub enum Ipam {
    /// Show how full pools and blocks are, or who has an address
    #[command(after_help = "Example: calicoctl ipam show --show-blocks")]
    Show {
        /// Who has this address.
        #[arg(long, value_name = "ADDRESS")]
        ip: Option<String>,
        /// Blocks too.
        #[arg(long)]
        show_blocks: bool,
        /// Addresses that nodes have from blocks of others.
        #[arg(long)]
        show_borrowed: bool,
        /// The settings.
        #[arg(long)]
        show_configuration: bool,
    },
    /// Compare blocks, handles and affinities with each other and with who uses addresses
    #[command(after_help = "Example: calicoctl ipam check --show-problem-ips -o report.json")]
    Check {
        /// Every address that is looked at.
        #[arg(long)]
        show_all_ips: bool,
        /// Every problem.
        #[arg(long)]
        show_problem_ips: bool,
        /// File for a report that ipam release can read.
        #[arg(short, long, value_name = "FILE")]
        output: Option<String>,
        /// Not needed; accepted for upstream's scripts.
        #[arg(long, hide = true)]
        kubeconfig: Option<String>,
    },
    /// Release addresses
    #[command(after_help = "Example: calicoctl ipam release --from-report report.json")]
    Release {
        /// This address.
        #[arg(long, value_name = "ADDRESS", required_unless_present = "from_report")]
        ip: Option<String>,
        /// What a report of ipam check found unused; of several reports, what all found.
        #[arg(long, value_name = "FILE")]
        from_report: Vec<String>,
        /// Although the address is in use, the datastore is not locked, or another version made the report.
        #[arg(long)]
        force: bool,
    },
    /// Change the settings
    #[command(after_help = "Example: calicoctl ipam configure --strictaffinity=true")]
    #[command(group = clap::ArgGroup::new("setting").required(true).multiple(true))]
    Configure {
        /// Whether nodes use addresses of their own blocks only.
        #[arg(long, group = "setting", value_name = "BOOL")]
        strictaffinity: Option<bool>,
        /// How many blocks a node may have.
        #[arg(long, group = "setting", value_name = "NUMBER")]
        max_blocks_per_host: Option<i64>,
        /// Whether virtual machines keep their addresses.
        #[arg(long, group = "setting", value_name = "CHOICE")]
        kubevirt_ip_persistence: Option<Persistence>,
        /// Seconds for which a released address is not given out again.
        #[arg(long, group = "setting", value_name = "SECONDS")]
        ip_cooldown_seconds: Option<i64>,
    },
    /// Split a pool into smaller ones of equal size
    #[command(after_help = "Example: calicoctl ipam split 4 --name default-ipv4-ippool")]
    Split {
        /// Into how many; a power of two.
        number: u32,
        /// The pool's range.
        #[arg(long, required_unless_present = "name")]
        cidr: Option<String>,
        /// The pool's name.
        #[arg(long)]
        name: Option<String>,
    },
}

/// Whether virtual machines keep their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Persistence {
    /// They do.
    #[value(name = "Enabled")]
    Enabled,
    /// They do not.
    #[value(name = "Disabled")]
    Disabled,
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
    /// Start a node (not in this version: `tortie node`)
    #[command(disable_help_flag = true)]
    Run(Later),
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

/// `calicoctl config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Change a setting
    #[command(after_help = SETTINGS)]
    Set {
        /// Which one.
        name: String,
        /// The value.
        value: String,
        /// Which node's, or which program's.
        #[command(flatten)]
        at: SettingPlace,
    },
    /// Take back a setting, so that the default or the cluster's value holds again
    #[command(after_help = SETTINGS)]
    Unset {
        /// Which one.
        name: String,
        /// Which node's, or which program's.
        #[command(flatten)]
        at: SettingPlace,
    },
    /// Show a setting
    #[command(after_help = SETTINGS)]
    Get {
        /// Which one.
        name: String,
        /// Which node's, or which program's.
        #[command(flatten)]
        at: SettingPlace,
    },
}

const SETTINGS: &str = "Settings: logLevel (none, debug, info, warning, error, critical; also of one --node), \
                        nodeToNodeMesh (on, off), asNumber (0-4294967295), ipip (on, off)\n\n\
                        Example: calicoctl config set nodeToNodeMesh off";

/// Whose setting it is.
#[derive(Clone, Debug, Args)]
pub struct SettingPlace {
    /// The setting of this node alone.
    #[arg(short, long, value_name = "NODE")]
    pub node: Option<String>,
    /// A setting by the name that the program itself gives it (not in this version).
    #[arg(long, value_name = "PROGRAM", hide = true)]
    pub raw: Option<String>,
}

/// `calicoctl datastore`.
#[derive(Debug, Subcommand)]
pub enum Datastore {
    /// Move what a datastore holds into another one
    Migrate {
        /// What to do.
        #[command(subcommand)]
        command: Migrate,
    },
    /// Give policies of the default tier that have old names (\"default.NAME\") their new ones
    #[command(after_help = "Example: calicoctl datastore migrate-policy-names")]
    MigratePolicyNames,
}

/// `calicoctl datastore migrate`.
#[derive(Debug, Subcommand)]
pub enum Migrate {
    /// Write everything that the locked datastore holds to standard output
    #[command(after_help = "Example: calicoctl datastore migrate export > datastore.txt")]
    Export {
        /// Workload endpoints and profiles too, and nodes under their own names: for another datastore than Kubernetes,
        /// which has them of its own.
        #[arg(long)]
        complete: bool,
    },
    /// Bring what was exported into an empty datastore, which is left locked
    #[command(after_help = "Example: calicoctl datastore migrate import -f datastore.txt")]
    Import {
        /// What export wrote, or - for standard input.
        #[arg(short, long, value_name = "FILE")]
        filename: String,
    },
    /// Tell nodes and plugins to leave the datastore as it is
    #[command(after_help = "Example: calicoctl datastore migrate lock")]
    Lock,
    /// Let nodes and plugins work with the datastore again
    #[command(after_help = "Example: calicoctl datastore migrate unlock")]
    Unlock,
}

/// `calicoctl cluster`.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Collect the state of the cluster in one file
    #[command(after_help = "Example: calicoctl cluster diags")]
    Diags(ClusterDiags),
}

/// What to collect. Flags that only mean something to a Kubernetes cluster's logs are accepted for upstream's scripts.
#[derive(Clone, Debug, Args)]
pub struct ClusterDiags {
    /// Only logs newer than this.
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    pub since: String,
    /// Most logs of one sort.
    #[arg(long, default_value_t = 5, value_name = "NUMBER")]
    pub max_logs: u32,
    /// Most collections at the same time.
    #[arg(long, default_value_t = 10, value_name = "NUMBER")]
    pub max_parallelism: u32,
    /// Nodes to begin with, separated by commas.
    #[arg(long, default_value = "", value_name = "NODES")]
    pub focus_nodes: String,
    /// Leave the directory in which the file was put together.
    #[arg(long)]
    pub skip_temp_dir_cleanup: bool,
}

/// How converted resources are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConvertFormat {
    /// YAML.
    #[value(alias = "yml")]
    Yaml,
    /// JSON.
    Json,
}

/// What a command of a later version is given: anything.
#[derive(Debug, Args)]
pub struct Later {
    /// Anything.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub rest: Vec<String>,
}
