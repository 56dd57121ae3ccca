//! The commands, one file each.

mod completion;
mod delete;
mod get;
mod ipam;
mod label;
mod node_status;
mod patch;
mod version;
mod write;

use anyhow::{Result, bail};

use crate::cli::{Command, Node};
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
        Command::Node { command: Node::Run(_) } => {
            bail!("node run is not in this version: start a node with `tortie node`, which needs no container")
        }
        Command::Node { command: Node::Diags(_) } => bail!("node diags is not in this version"),
        Command::Node { command: Node::Checksystem(_) } => bail!("node checksystem is not in this version"),
        Command::Datastore(_) => bail!("datastore migrate is not in this version"),
        Command::Cluster(_) => bail!("cluster diags is not in this version"),
        Command::Convert(_) => {
            bail!("convert is not in this version: resources must have the apiVersion {}", tortie_api::API_VERSION)
        }
        Command::Version { client, poll } => version::version(session, client, poll.as_deref()),
        Command::Completion { shell } => completion::completion(session, shell),
    }
}
