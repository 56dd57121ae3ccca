//! Generic netlink: families of messages that are found by name, and their attributes.

use nix::sys::socket::SockProtocol;

use crate::socket::Socket;
use crate::wire::{Request, attributes, put, u16_at};
use crate::{Error, Result};

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// Length of `struct genlmsghdr`.
pub(crate) const GENL_HEADER_LEN: usize = 4;
const NESTED: u16 = 0x8000;

/// Attributes in the making.
#[derive(Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        put(&mut self.0, kind, value);
    }

    pub(crate) fn nest(&mut self, kind: u16, inner: &Attributes) {
        self.put(kind | NESTED, &inner.0);
    }
}

/// A socket for one family.
pub(crate) struct Family {
    pub(crate) socket: Socket,
    id: u16,
}

impl Family {
    /// The family of that name, in the calling thread's network namespace. [`Error::Unsupported`]: the kernel has none.
    pub(crate) fn open(name: &str) -> Result<Family> {
        let mut socket = Socket::open_protocol(0, SockProtocol::NetlinkGeneric)?;
        let mut body = Attributes::default();
        body.put(CTRL_ATTR_FAMILY_NAME, &[name.as_bytes(), &[0]].concat());
        let request = request(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, &body);
        let doing = || format!("find the generic netlink family {name}");
        let unsupported = |text| Error::Unsupported { doing: doing(), detail: text };
        let answer = socket.query(&request)?.map_err(|refusal| match refusal.errno {
            libc::ENOENT => unsupported("this kernel has none".to_owned()),
            errno => Error::from_errno(errno, doing(), refusal.text),
        })?;
        let rest = answer.get(GENL_HEADER_LEN..).unwrap_or_default();
        let id =
            attributes(rest).find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID).and_then(|(_, value)| u16_at(value, 0));
        let id = id.ok_or_else(|| Error::invalid(doing(), "the kernel's answer names no number"))?;
        Ok(Family { socket, id })
    }

    /// A request of this family.
    pub(crate) fn request(&self, flags: u16, command: u8, body: &Attributes) -> Request {
        request(self.id, flags, command, body)
    }
}

fn request(kind: u16, flags: u16, command: u8, body: &Attributes) -> Request {
    let mut bytes = vec![command, 1, 0, 0];
    bytes.extend_from_slice(&body.0);
    Request { kind, flags, body: bytes }
}
