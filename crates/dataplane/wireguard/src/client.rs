//! The node's side: starts a device's process, and asks it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tortie_netlink::{Error, LinkKind, Result, WireguardChange, WireguardDevices, WireguardState};

use crate::control::{parse_state, print_change};
use crate::tun;

/// How long a device's process may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// How long it may take to begin.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// The question how a device is.
const STATE: &str = "get=1\n\n";

/// Devices in user space, one process each.
#[derive(Debug)]
pub struct Userspace {
    folder: PathBuf,
    program: PathBuf,
    words: Vec<String>,
}

impl Userspace {
    /// Devices whose sockets are in a folder of their own below `state_dir`. A device's process is `program` with `words`,
    /// the device's name and its socket.
    pub fn new(state_dir: &Path, program: impl Into<PathBuf>, words: &[&str]) -> Userspace {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Userspace { folder: state_dir.join("wireguard"), program: program.into(), words }
    }

    /// Whether the process of this device has been started here.
    pub fn knows(&self, name: &str) -> bool {
        self.socket(name).exists()
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.sock"))
    }

    /// Whose device it is, anybody could read the packets of: the folder is for root alone.
    fn make_folder(&self) -> Result<()> {
        let doing = || format!("make the folder {}", self.folder.display());
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        let made = made.and_then(|()| fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o700)));
        made.map_err(|error| Error::from_io(error, doing()))
    }

    fn ask(&self, name: &str, request: &str) -> Result<WireguardState> {
        let doing = || format!("ask the process of WireGuard device {name}");
        let text = exchange(&self.socket(name), request).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                Error::NotFound { doing: doing(), detail: "it does not run".to_owned() }
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Error::Timeout {
                doing: doing(),
                waited_ms: u64::try_from(ANSWER_DEADLINE.as_millis()).unwrap_or(u64::MAX),
            },
            _ => Error::from_io(error, doing()),
        })?;
        parse_state(&text).map_err(|errno| Error::from_errno(errno, doing(), ""))
    }

    /// Starts the process and waits until it answers.
    fn start(&self, name: &str) -> Result<()> {
        let doing = || format!("start the process of WireGuard device {name}");
        self.make_folder()?;
        let mut command = Command::new(&self.program);
        command.arg0("tortie").args(&self.words).arg(name).arg(self.socket(name)).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| Error::from_io(error, doing()))?;
        let until = Instant::now() + START_DEADLINE;
        let failed = loop {
            if self.ask(name, STATE).is_ok() {
                break None;
            }
            match child.try_wait() {
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) => break Some(format!("it does not answer within {} s", START_DEADLINE.as_secs())),
                Ok(Some(status)) => break Some(format!("it ended with {status}{}", said(&mut child))),
                Err(error) => break Some(error.to_string()),
            }
        };
        if let Some(detail) = failed {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::Invalid { doing: doing(), detail });
        }
        // It goes on by itself; somebody must wait for its end as long as this process is there.
        let reap = move || drop(child.wait());
        let reaper = std::thread::Builder::new().name("wireguard".to_owned()).spawn(reap);
        reaper.map(drop).map_err(|error| Error::from_io(error, doing()))
    }
}

/// What an ended process had to say.
fn said(child: &mut std::process::Child) -> String {
    let mut text = String::new();
    if let Some(output) = &mut child.stderr {
        let _ = output.take(2_000).read_to_string(&mut text);
    }
    if text.is_empty() { text } else { format!(": {}", text.trim()) }
}

fn exchange(socket: &Path, request: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

impl WireguardDevices for Userspace {
    fn place(&self) -> &'static str {
        "user space"
    }

    fn kind(&self) -> LinkKind {
        LinkKind::Other("tun".to_owned())
    }

    fn ensure(&mut self, name: &str) -> Result<()> {
        if !Path::new(tun::CLONE).exists() {
            let doing = format!("make TUN device {name}");
            return Err(Error::Unsupported { doing, detail: format!("{} is not there", tun::CLONE) });
        }
        match self.device(name) {
            Err(Error::NotFound { .. }) => self.start(name),
            other => other.map(drop),
        }
    }

    fn device(&mut self, name: &str) -> Result<WireguardState> {
        self.ask(name, STATE)
    }

    fn change(&mut self, name: &str, change: &WireguardChange) -> Result<()> {
        self.ask(name, &print_change(change)).map(drop)
    }
}
