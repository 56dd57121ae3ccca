//! Asking the node on this host for its state.
//!
//! Root asks on the socket that the CNI plugins call. Others ask on a second one beside the state directory, which
//! answers questions about the state alone.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tortie_cni::plugin::{exchange, sockets};
use tortie_cni::wire::{self, Operation, Reply, Request};

/// How long the node may take to answer, seconds.
const PATIENCE_SECS: u64 = 10;

/// The node's answer to a question about its state. `directory`: its state directory, if not the usual one.
pub(crate) fn ask(directory: Option<PathBuf>, operation: Operation, args: BTreeMap<String, String>) -> Result<Value> {
    let directory = directory.filter(|path| !path.as_os_str().is_empty());
    let directory = directory.unwrap_or_else(|| {
        let there = sockets(None).into_iter().find(|socket| socket.exists());
        there.and_then(|socket| socket.parent().map(Path::to_owned)).unwrap_or_else(|| PathBuf::from("/run/tortie"))
    });
    let request = Request {
        operation,
        container_id: String::new(),
        ifname: String::new(),
        netns: String::new(),
        args,
        conf: Value::Null,
        ipam: None,
    };
    let socket = directory.join(wire::SOCKET);
    match exchange(&socket, &request, None, PATIENCE_SECS) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let socket = wire::status_socket(&directory);
            answer(&socket, exchange(&socket, &request, None, PATIENCE_SECS))
        }
        reply => answer(&socket, reply),
    }
}

fn answer(socket: &Path, reply: io::Result<Reply>) -> Result<Value> {
    let shown = socket.display();
    match reply {
        Ok(Reply::State(state)) => Ok(state),
        Ok(Reply::Failed(error)) => bail!("the node refuses to tell its state: {error}"),
        Ok(Reply::Done(_)) => bail!("the node gave an answer to another question"),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            bail!("Calico process is not running.\nNobody listens on {shown}; TORTIE_STATE_DIR says where that is")
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("no permission to ask the node on {shown}: run this command as root")
        }
        Err(error) => Err(error).with_context(|| format!("the node does not answer on {shown}")),
    }
}
