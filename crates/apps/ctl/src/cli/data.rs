//! The command lines of `calicoctl config`, `convert`, `datastore` and `cluster`.

use clap::{Args, Subcommand, ValueEnum};

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
                        Example: calicoctl config set nodeToNodeMesh off, or calicoctl config set --raw felix ReportingIntervalSecs 60";

/// Whose setting it is.
#[derive(Clone, Debug, Args)]
pub struct SettingPlace {
    /// The setting of this node alone.
    #[arg(short, long, value_name = "NODE")]
    pub node: Option<String>,
    /// A setting by the name that the program itself gives it.
    #[arg(long, value_name = "PROGRAM")]
    pub raw: Option<Raw>,
}

/// The programs that have settings of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Raw {
    /// BGP: a field of BGPConfiguration, or one of the old names as_num, node_mesh, loglevel, listen_port.
    Bgp,
    /// The node's agent: a parameter such as InterfacePrefix, or a field of FelixConfiguration.
    Felix,
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
