//! The commands, one file each.

mod bundle;
mod checksystem;
mod completion;
mod config;
mod config_raw;
mod convert;
mod datastore;
mod delete;
mod diags;
mod get;
mod ipam;
mod label;
mod node_run;
mod node_status;
mod patch;
mod version;
mod write;

use anyhow::Result;

use crate::cli::{Cluster, Command, Node};
use crate::session::Session;
use crate::write::Verb;

/// Does what the command line says.
pub(crate) fn dispatch(session: &mut Session<'_, '_>, command: Command) -> Result<()> {
    match command {
        Command::Create { input, skip_exists } => write::write(session, &input, Verb::Create { skip_exists }),
        Command::Apply { input } => write::write(session, &input, Verb::Apply),
        Command::Replace { input } => write::write(session, &input, Verb::Replace),
        Command::Validate { input } => write::validate(session, &input),
        Command::Delete { select, skip_not_exists } => delete::delete(session, &select, skip_not_exists),
        Command::Get { select, output, all_namespaces, export } => {
            get::get(session, &select, &output, all_namespaces, export)
        }
        Command::Patch { kind, name, patch, how, namespace } => {
            patch::patch(session, &kind, &name, namespace.as_deref(), &patch, how)
        }
        Command::Label { kind, name, labels, overwrite, remove, namespace } => {
            let change = label::Change { labels: &labels, overwrite, remove };
            label::label(session, &kind, &name, namespace.as_deref(), change)
        }
        Command::Ipam { command } => ipam::ipam(session, command),
        Command::Node { command: Node::Status { output } } => node_status::status(session, output),
        Command::Node { command: Node::Run(wish) } => node_run::run(session, &wish),
        Command::Node { command: Node::Diags { log_dir } } => diags::node(session, &log_dir),
        Command::Node { command: Node::Checksystem { kernel_config } } => {
            checksystem::checksystem(session, kernel_config.as_deref())
        }
        Command::Config { command } => config::config(session, &command),
        Command::Datastore { command } => datastore::datastore(session, &command),
        Command::Cluster { command: Cluster::Diags(what) } => diags::cluster(session, &what),
        Command::Convert { filename, output, ignore_validation } => {
            convert::convert(session, &filename, output, ignore_validation)
        }
        Command::Version { client, poll } => version::version(session, client, poll.as_deref()),
        Command::Completion { shell } => completion::completion(session, shell),
    }
}
