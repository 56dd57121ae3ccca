//! The plugin's life: read, ask the node, print.

use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::conf::Conf;
use crate::spec::{CniError, Outcome, VERSIONS, code};
use crate::wire::{self, Operation, Reply, Request};
use crate::{Environment, delegate, gates, pod_cidrs, waits};

/// Which of the two plugins runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// `calico`: interface, addresses, policy.
    Calico,
    /// `calico-ipam`: addresses alone.
    CalicoIpam,
}

/// Runs the plugin as the runtime calls it: environment and standard input in, JSON on standard output.
pub fn main(plugin: Plugin) -> ExitCode {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    let version = version_of(&text);
    let result = match read {
        Ok(_) => call(plugin, &text),
        Err(error) => Err(CniError::new(code::IO, format!("the network configuration can't be read: {error}"))),
    };
    match result {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(output)) => {
            println!("{output}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", error.to_json(&version));
            ExitCode::FAILURE
        }
    }
}

/// The version that an answer should have: the configuration's if it is one of ours.
fn version_of(text: &str) -> String {
    let asked = serde_json::from_str::<Value>(text).ok().and_then(|v| v["cniVersion"].as_str().map(str::to_owned));
    asked.filter(|v| VERSIONS.contains(&v.as_str())).unwrap_or_else(|| VERSIONS[VERSIONS.len() - 1].to_owned())
}

fn call(plugin: Plugin, text: &str) -> Result<Option<Value>, CniError> {
    let environment = Environment::read(|name| std::env::var(name).ok())?;
    if environment.command == "VERSION" {
        return Ok(Some(json!({ "cniVersion": version_of(text), "supportedVersions": VERSIONS })));
    }
    let mut raw: Value = serde_json::from_str(text)
        .map_err(|error| CniError::new(code::DECODE, format!("the network configuration is no JSON: {error}")))?;
    let conf = Conf::from_value(&raw)?;
    let operation = match (plugin, environment.command.as_str()) {
        (Plugin::Calico, "ADD") => Operation::Add,
        (Plugin::Calico, "DEL") => Operation::Del,
        (Plugin::CalicoIpam, "ADD") => Operation::IpamAdd,
        (Plugin::CalicoIpam, "DEL") => Operation::IpamDel,
        (Plugin::Calico, "CHECK") => Operation::Check,
        (Plugin::Calico, "GC") => Operation::Gc,
        (Plugin::CalicoIpam, "CHECK" | "GC") => return Ok(None),
        (_, _) => Operation::Status,
    };
    let delegated = plugin == Plugin::Calico && !conf.own_ipam();
    if operation == Operation::Add {
        gates::pass(&conf.readiness_gates)?;
    }
    let ipam = match operation {
        Operation::Add if delegated => {
            pod_cidrs::fill_in(&mut raw, || ask_pod_cidrs(&environment, &conf))?;
            delegate::run(&environment, &conf.ipam.kind, &raw)?
        }
        _ => {
            // host-local finds what it gave by the container, so that any range will do.
            pod_cidrs::fill_in(&mut raw, || Ok(vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()]))?;
            None
        }
    };
    let result = ask_node(operation, &environment, &conf, raw.clone(), ipam);
    if delegated {
        // What the foreign plugin holds goes back with DEL, and also when ADD failed after it gave addresses.
        let command = environment.command.clone();
        let give_back = Environment { command: "DEL".to_owned(), ..environment };
        match (operation, &result) {
            (Operation::Del, Ok(_)) => drop(delegate::run(&give_back, &conf.ipam.kind, &raw)?),
            (Operation::Add, Err(_)) => drop(delegate::run(&give_back, &conf.ipam.kind, &raw)),
            (operation, Ok(_)) if passed_on(operation, &conf.cni_version) => {
                let asked = Environment { command: command.clone(), ..give_back };
                drop(delegate::run(&asked, &conf.ipam.kind, &raw)?);
            }
            _ => {}
        }
    }
    let outcome = result?;
    Ok(matches!(operation, Operation::Add | Operation::IpamAdd).then(|| outcome.to_json(&conf.cni_version)))
}

/// Whether a foreign IPAM plugin is asked too, by the first version of the specification that has the command.
fn passed_on(operation: Operation, version: &str) -> bool {
    match operation {
        Operation::Check => version >= "0.4.0",
        Operation::Gc | Operation::Status => version >= "1.1.0",
        Operation::Add
        | Operation::Del
        | Operation::IpamAdd
        | Operation::IpamDel
        | Operation::NodeStatus
        | Operation::PodCidrs
        | Operation::BgpRoutes
        | Operation::Drops => false,
    }
}

fn ask_node(
    operation: Operation,
    environment: &Environment,
    conf: &Conf,
    raw: Value,
    ipam: Option<Outcome>,
) -> Result<Outcome, CniError> {
    // The namespace may be gone at DEL, which must work all the same.
    let netns = match (operation, std::fs::File::open(&environment.netns)) {
        (Operation::Add | Operation::Check, Err(error)) => {
            return Err(CniError::new(
                code::UNKNOWN_CONTAINER,
                format!("CNI_NETNS {} can't be opened: {error}", environment.netns),
            ));
        }
        (_, file) => file.ok(),
    };
    let request = Request {
        operation,
        container_id: environment.container_id.clone(),
        ifname: environment.ifname.clone(),
        netns: environment.netns.clone(),
        args: environment.args.clone(),
        conf: raw,
        ipam,
    };
    let timeout = waits::answer(operation, conf).as_secs();
    let sockets = sockets(std::env::var_os("TORTIE_STATE_DIR").as_deref());
    let reply = exchange_any(&sockets, &request, netns.as_ref().map(AsRawFd::as_raw_fd), timeout)
        .map_err(|error| no_node(operation, &sockets, &error))?;
    match reply {
        Reply::Done(outcome) => Ok(outcome),
        Reply::Failed(error) => Err(error),
        Reply::State(_) => Err(CniError::new(code::INTERNAL, OTHER_QUESTION)),
    }
}

/// An answer that fits no question of the plugin's.
const OTHER_QUESTION: &str = "the node gave an answer to another question";

/// The ranges that Kubernetes gave this node for its pods.
fn ask_pod_cidrs(environment: &Environment, conf: &Conf) -> Result<Vec<String>, CniError> {
    let request = Request {
        operation: Operation::PodCidrs,
        container_id: environment.container_id.clone(),
        ifname: environment.ifname.clone(),
        netns: environment.netns.clone(),
        args: environment.args.clone(),
        conf: Value::Null,
        ipam: None,
    };
    let sockets = sockets(std::env::var_os("TORTIE_STATE_DIR").as_deref());
    let timeout = waits::answer(Operation::PodCidrs, conf).as_secs();
    let reply = exchange_any(&sockets, &request, None, timeout)
        .map_err(|error| no_node(Operation::PodCidrs, &sockets, &error))?;
    match reply {
        Reply::State(cidrs) => serde_json::from_value(cidrs).map_err(|_| CniError::new(code::INTERNAL, OTHER_QUESTION)),
        Reply::Failed(error) => Err(error),
        Reply::Done(_) => Err(CniError::new(code::INTERNAL, OTHER_QUESTION)),
    }
}

fn no_node(operation: Operation, sockets: &[PathBuf], error: &std::io::Error) -> CniError {
    let tried: Vec<String> = sockets.iter().map(|socket| socket.display().to_string()).collect();
    let code = if operation == Operation::Status { code::NOT_AVAILABLE } else { code::TRY_AGAIN };
    CniError::new(code, format!("the node agent does not answer on {}: {error}", tried.join(" or ")))
        .with_details("is `tortie node` running on this host? TORTIE_STATE_DIR says where its socket is")
}

/// Where a node's socket may be, the likeliest first: below `TORTIE_STATE_DIR` alone if that is set; else below
/// `/run/tortie`, or below the folder that a container of upstream's shape shares with its host.
pub fn sockets(state_dir: Option<&std::ffi::OsStr>) -> Vec<PathBuf> {
    match state_dir.filter(|dir| !dir.is_empty()) {
        Some(dir) => vec![Path::new(dir).join(wire::SOCKET)],
        None => ["/run/tortie", "/var/run/calico/tortie"].iter().map(|dir| Path::new(dir).join(wire::SOCKET)).collect(),
    }
}

/// One call to the node of this host: to the first of its sockets that somebody listens on.
pub fn exchange_any(
    sockets: &[PathBuf],
    request: &Request,
    netns: Option<std::os::fd::RawFd>,
    timeout_secs: u64,
) -> std::io::Result<Reply> {
    let mut first = None;
    for socket in sockets {
        match exchange(socket, request, netns, timeout_secs) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
                first.get_or_insert(error);
            }
            answer => return answer,
        }
    }
    Err(first.unwrap_or_else(|| ErrorKind::NotFound.into()))
}

/// One call to a node's socket. Waits at most `timeout_secs` for the answer.
pub fn exchange(
    socket: &Path,
    request: &Request,
    netns: Option<std::os::fd::RawFd>,
    timeout_secs: u64,
) -> std::io::Result<Reply> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(timeout_secs)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    wire::send(&mut stream, request, netns)?;
    Ok(wire::receive(&mut stream)?.0)
}
