//! `calicoctl node run`: a node in a container of Docker, on etcd, as upstream starts it.
//!
//! Invariant: no password is on a command line, nor printed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tortie_datastore::Choice;
use tortie_net::Family;
use tortie_store_etcd::{Options, Setting};

use crate::cli::{FIRST_FOUND, NodeBackend, NodeRun};
use crate::session::Session;
use crate::settings;

/// Where the container finds etcd's certificates: upstream's names.
const CA: &str = "/etc/calico/certs/ca_cert.crt";
const CERTIFICATE: &str = "/etc/calico/certs/cert.crt";
const KEY: &str = "/etc/calico/certs/key.pem";
/// Where it finds Felix's settings.
const FELIX: &str = "/etc/calico/felix.cfg";
/// What the host shares with the container under the same name.
const SHARED: [&str; 4] = ["/var/run/calico", "/var/lib/calico", "/lib/modules", "/run"];
/// The node logs this once the kernel holds the first picture.
const STARTED: &str = "in sync";
/// How long the log is followed until then.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command, and what is in its environment alone.
#[derive(Debug, PartialEq, Eq)]
struct Docker {
    args: Vec<String>,
    secrets: Vec<(&'static str, String)>,
}

impl Docker {
    /// As a person would type it.
    fn line(&self) -> String {
        format!("docker {}", self.args.join(" "))
    }

    fn command(&self, session: &Session<'_, '_>) -> Command {
        let mut command = docker(session, &self.args);
        command.envs(self.secrets.iter().map(|(name, value)| (*name, value)));
        command
    }
}

fn docker<A: AsRef<std::ffi::OsStr>>(session: &Session<'_, '_>, args: &[A]) -> Command {
    let mut command = Command::new("docker");
    command.env_clear().envs(&session.io.env).args(args).stdin(Stdio::null());
    command
}

pub(crate) fn run(session: &mut Session<'_, '_>, wish: &NodeRun) -> Result<()> {
    start(session, wish).map_err(|error| error.context("error executing command"))
}

fn start(session: &mut Session<'_, '_>, wish: &NodeRun) -> Result<()> {
    check(wish)?;
    let choice = settings::choose(&session.global.config, &session.io.env)?;
    let Choice::Etcd(etcd) = choice else {
        bail!(
            "node run starts a node on etcd alone, and the datastore is {}: start it with `tortie node`, which needs no \
             container",
            choice.place()
        );
    };
    let name = match &wish.name {
        Some(name) => name.clone(),
        None => host_name(&session.io.env)?,
    };
    let docker_run = command(wish, &name, &etcd)?;
    let line = docker_run.line();
    if wish.dryrun {
        let rest = if wish.init_system {
            "Use the following command to stop the calico/node container:\n\ndocker stop calico-node\n\n"
        } else {
            "If you are running calico/node in an init system, use the --init-system flag\n\
             to display the appropriate start and stop commands.\n"
        };
        return session
            .say(&format!("Use the following command to start the calico/node container:\n\n{line}\n\n{rest}"));
    }
    session.say("Removing old calico-node container (if running).\n")?;
    let removed = docker(session, &["rm", "-f", "calico-node"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    removed.context("docker does not start: it runs the node's container")?;
    session.say(&format!("Running the following command to start calico-node:\n\n{line}\n\n"))?;
    let output = docker_run.command(session).output().context("docker does not start")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        let said: String = said.lines().map(|line| format!("\n | {line}")).collect();
        bail!("docker run ended with {}{said}", output.status);
    }
    if wish.init_system {
        return Ok(());
    }
    session.say("Container started, checking progress logs.\n\n")?;
    follow(session)
}

/// Shows the container's log until the node is in sync.
fn follow(session: &mut Session<'_, '_>) -> Result<()> {
    let mut logs = docker(session, &["logs", "--follow", "calico-node"]);
    let mut child = logs.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("docker does not start")?;
    let pipe = child.stdout.take().context("a piped output")?;
    let (sender, lines) = channel();
    std::thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
    let begun = Instant::now();
    let ended = loop {
        match lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
            Ok(line) => {
                session.say(&format!("{line}\n"))?;
                if line.contains(STARTED) {
                    break Ok(());
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                break Err("the node has ended; its log, `docker logs calico-node`, says why".to_owned());
            }
            Err(RecvTimeoutError::Timeout) => {
                let seconds = PATIENCE.as_secs();
                break Err(format!("the node is not in sync after {seconds} s: `docker logs calico-node` says why"));
            }
        }
    };
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
    ended.map_err(anyhow::Error::msg)
}

fn check(wish: &NodeRun) -> Result<()> {
    for (flag, value, family) in [("--ip", &wish.ip, Family::V4), ("--ip6", &wish.ip6, Family::V6)] {
        let Some(value) = value.as_deref().filter(|value| *value != "autodetect") else { continue };
        // With the length of its subnet or without.
        let address = value.split_once('/').map_or(value, |(address, _)| address);
        match address.parse::<IpAddr>() {
            Ok(ip) if Family::of(ip) == family => {}
            Ok(_) => bail!("{flag} is wrong IP version: {value}: expected an IPv{} address", family.version()),
            Err(_) => bail!("{flag}: {value:?}: expected an IPv{} address or autodetect", family.version()),
        }
    }
    Ok(())
}

fn host_name(env: &std::collections::BTreeMap<String, OsString>) -> Result<String> {
    let stated = env.get("HOSTNAME").and_then(|name| name.to_str()).filter(|name| !name.is_empty());
    let name = match stated {
        Some(name) => name.to_owned(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname").context("the host's name can't be read")?,
    };
    Ok(name.trim().to_lowercase())
}

fn command(wish: &NodeRun, name: &str, etcd: &Options) -> Result<Docker> {
    let Options {
        endpoints,
        discovery_srv,
        username,
        password,
        ca_file,
        cert_file,
        key_file,
        ca,
        cert,
        key,
        patience: _,
    } = etcd;
    if let Some(text) = [ca, cert, key].into_iter().flatten().next() {
        bail!(
            "{}: a container needs certificates in files: expected etcdCACertFile, etcdCertFile, etcdKeyFile",
            text.origin
        );
    }
    let mut args: Vec<String> = ["run", "--net=host", "--privileged", "--name=calico-node"].map(str::to_owned).to_vec();
    let stay: &[&str] = if wish.init_system { &["--rm"] } else { &["-d", "--restart=always"] };
    args.extend(stay.iter().map(|flag| (*flag).to_owned()));
    let value = |setting: &Option<Setting>| setting.as_ref().map(|setting| setting.value.clone());
    let method = |text: &String| (text != FIRST_FOUND).then(|| text.clone());
    let inside = |file: &Option<Setting>, path: &str| file.as_ref().map(|_| path.to_owned());
    let backend = match wish.backend {
        NodeBackend::Bird => "bird",
        NodeBackend::Vxlan => "vxlan",
        NodeBackend::None => "none",
    };
    let variables = [
        ("NODENAME", Some(name.to_owned())),
        ("CALICO_NETWORKING_BACKEND", Some(backend.to_owned())),
        // Its plugins are Kubernetes' affair.
        ("CALICO_MANAGE_CNI", Some("false".to_owned())),
        ("NO_DEFAULT_POOLS", wish.no_default_ippools.then(|| "true".to_owned())),
        ("IP_AUTODETECTION_METHOD", method(&wish.ip_autodetection_method)),
        ("IP6_AUTODETECTION_METHOD", method(&wish.ip6_autodetection_method)),
        // Without dots, as the image takes it.
        ("AS", wish.as_number.map(|number| number.0.to_string())),
        ("IP", wish.ip.clone()),
        ("IP6", wish.ip6.clone()),
        ("DATASTORE_TYPE", Some("etcdv3".to_owned())),
        ("ETCD_ENDPOINTS", value(endpoints)),
        ("ETCD_DISCOVERY_SRV", value(discovery_srv)),
        ("ETCD_CA_CERT_FILE", inside(ca_file, CA)),
        ("ETCD_KEY_FILE", inside(key_file, KEY)),
        ("ETCD_CERT_FILE", inside(cert_file, CERTIFICATE)),
    ];
    for (name, value) in variables {
        args.extend(value.into_iter().flat_map(|value| ["-e".to_owned(), format!("{name}={value}")]));
    }
    let secrets = [("ETCD_USERNAME", value(username)), ("ETCD_PASSWORD", value(password))];
    let secrets: Vec<_> = secrets.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    args.extend(secrets.iter().flat_map(|(name, _)| ["-e".to_owned(), (*name).to_owned()]));
    let mut volumes = vec![(wish.log_dir.clone(), "/var/log/calico")];
    volumes.extend(SHARED.map(|path| (path.to_owned(), path)));
    for (file, path) in [(ca_file, CA), (key_file, KEY), (cert_file, CERTIFICATE)] {
        volumes.extend(value(file).map(|file| (file, path)));
    }
    volumes.extend(wish.felix_config.clone().map(|file| (file, FELIX)));
    args.extend(volumes.into_iter().flat_map(|(from, to)| ["-v".to_owned(), format!("{from}:{to}")]));
    args.push(wish.node_image.clone());
    Ok(Docker { args, secrets })
}
