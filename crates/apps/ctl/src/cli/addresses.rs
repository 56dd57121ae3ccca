//! The command line of `calicoctl ipam`.

use clap::{Subcommand, ValueEnum};

use super::StatusFormat;
use super::flags::truth;

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
        /// table or json.
        #[arg(short, long, default_value = "table")]
        output: StatusFormat,
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
        #[arg(long, group = "setting", value_name = "BOOL", value_parser = truth)]
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
