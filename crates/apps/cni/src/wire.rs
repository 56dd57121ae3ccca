//! The protocol between the plugin and the node, over a unix socket.
//!
//! One call a connection: a length of four bytes (big endian) and JSON, each way. The pod's namespace travels as a file
//! descriptor with the length, so that the node needs no path into the runtime's mount namespace.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::{CniError, Outcome};

/// Name of the node's socket below its state directory.
pub const SOCKET: &str = "cni.sock";

/// Ending of the path of a second socket beside the state directory, for everybody's questions about the state.
const STATUS_ENDING: &str = ".status";

/// The socket that anybody may ask for the state of the node with this state directory.
pub fn status_socket(state_dir: &Path) -> PathBuf {
    let mut path = state_dir.as_os_str().to_owned();
    path.push(STATUS_ENDING);
    path.into()
}

/// Longest message, bytes: a configuration with a GC list of thousands of attachments fits.
const MAX_MESSAGE: usize = 4 << 20;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Make the pod's network.
    Add,
    /// Take it away.
    Del,
    /// Compare what is there with what ADD made.
    Check,
    /// Whether ADD could work now.
    Status,
    /// Take away what no listed attachment holds.
    Gc,
    /// Addresses alone.
    IpamAdd,
    /// Give addresses back.
    IpamDel,
    /// What the BGP peer whose address is the argument `PEER` tells and is told.
    BgpRoutes,
    /// Packets that ended, those after the record whose number is the argument `AFTER`.
    Drops,
    /// The node's own state, for `calicoctl node status`.
    NodeStatus,
    /// The ranges that Kubernetes gave the node for its pods, as a list of texts.
    PodCidrs,
}

/// A call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// What is asked for.
    pub operation: Operation,
    /// The container.
    #[serde(default)]
    pub container_id: String,
    /// Name of the interface in the pod.
    #[serde(default)]
    pub ifname: String,
    /// Path of the namespace, for the result and for messages.
    #[serde(default)]
    pub netns: String,
    /// `CNI_ARGS`.
    #[serde(default)]
    pub args: BTreeMap<String, String>,
    /// The network configuration.
    #[serde(default)]
    pub conf: Value,
    /// What a foreign IPAM plugin gave, if the configuration names one.
    #[serde(default)]
    pub ipam: Option<Outcome>,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It is done.
    Done(Outcome),
    /// It is not done.
    Failed(CniError),
    /// The node's state, as JSON.
    State(Value),
}

/// Sends one message, with a descriptor if there is one.
pub fn send<T: Serialize>(stream: &mut UnixStream, message: &T, fd: Option<RawFd>) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| io::Error::other("message too long"))?.to_be_bytes();
    let fds = fd.map(|fd| [fd]);
    let control: Vec<ControlMessage<'_>> = fds.iter().map(|fds| ControlMessage::ScmRights(fds)).collect();
    let sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&length)], &control, MsgFlags::MSG_NOSIGNAL, None)?;
    stream.write_all(&length[sent..])?;
    stream.write_all(&body)
}

/// Receives one message and the descriptor that came with it.
pub fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<(T, Option<OwnedFd>)> {
    let mut length = [0; 4];
    let mut control = nix::cmsg_space!([RawFd; 4]);
    let mut fd = None;
    let got = {
        let mut parts = [IoSliceMut::new(&mut length)];
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for item in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = item {
                for raw in fds {
                    // SAFETY: the kernel just gave this descriptor to this process; nobody else owns it.
                    fd = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                }
            }
        }
        message.bytes
    };
    if got == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stream.read_exact(&mut length[got..])?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes is too long")));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_message_travels_with_its_descriptor() {
        let (mut a, mut b) = UnixStream::pair().expect("a socket pair");
        let file = std::fs::File::open("/proc/self/ns/net").expect("this process has a namespace");
        let reply = Reply::Failed(CniError::new(7, "x".repeat(100_000)));
        let sender = std::thread::spawn(move || send(&mut a, &reply, Some(file.as_fd().as_raw_fd())));
        let (got, fd): (Reply, _) = receive(&mut b).expect("it was sent");
        sender.join().expect("no panic").expect("sent");
        assert!(matches!(got, Reply::Failed(error) if error.msg.len() == 100_000));
        assert!(fd.is_some());
    }

    #[test]
    fn nonsense_is_refused_without_reading_it_all() {
        let (mut a, mut b) = UnixStream::pair().expect("a socket pair");
        a.write_all(&[0xff; 8]).expect("written");
        assert!(receive::<Reply>(&mut b).is_err());
        let (a, mut b) = UnixStream::pair().expect("a socket pair");
        drop(a);
        assert!(receive::<Reply>(&mut b).is_err());
    }
}
