//! Links: list, find, change, delete.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use tortie_net::Mac;

use crate::link_codec::{self, base_message};
use crate::wire::Request;
use crate::{Error, Handle, Result};

/// What a link is, by the kernel's kind name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// No kind: a physical device, or the loopback.
    Plain,
    /// One end of a veth pair.
    Veth,
    /// A VXLAN tunnel device.
    Vxlan,
    /// An IPIP tunnel device (IPv4 in IPv4).
    Ipip,
    /// A WireGuard device.
    Wireguard,
    /// A bridge.
    Bridge,
    /// Any other kind, by name.
    Other(String),
}

/// A network interface as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Kind.
    pub kind: LinkKind,
    /// Ethernet address, if the link has one of six bytes.
    pub mac: Option<Mac>,
    /// MTU, bytes.
    pub mtu: u32,
    /// Whether it is set up (`IFF_UP`).
    pub up: bool,
    /// Whether it has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Whether it passes packets (`IFF_RUNNING`): follows the carrier when the kernel comes round to it; a device that
    /// has a carrier but does not run yet drops what is sent through it.
    pub running: bool,
    /// Whether it is the loopback.
    pub loopback: bool,
    /// Index of the link below or, for veth, of the peer, in that link's namespace.
    pub below: Option<u32>,
    /// The bridge or other controller that it is a port of.
    pub controller: Option<u32>,
}

/// Which link: by index or by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkRef<'a> {
    /// By index.
    Index(u32),
    /// By name.
    Name(&'a str),
}

impl From<u32> for LinkRef<'_> {
    fn from(index: u32) -> Self {
        LinkRef::Index(index)
    }
}

impl<'a> From<&'a str> for LinkRef<'a> {
    fn from(name: &'a str) -> Self {
        LinkRef::Name(name)
    }
}

impl From<&Link> for LinkRef<'_> {
    fn from(link: &Link) -> Self {
        LinkRef::Index(link.index)
    }
}

impl fmt::Display for LinkRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkRef::Index(index) => write!(f, "link {index}"),
            LinkRef::Name(name) => write!(f, "link {name}"),
        }
    }
}

/// Refuses names that the kernel would refuse without saying why.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let wrong = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(wrong) {
        let detail = "expected 1 to 15 bytes without '/', ':' and blanks, such as \"cali0a1b2c3d4e5\"";
        return Err(Error::invalid(format!("link name {name:?}"), detail));
    }
    Ok(())
}

impl Handle {
    /// All links, by index.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(link_codec::without_statistics());
        let mut links = self.list(&Request::new(libc::RTM_GETLINK, 0, &message), link_codec::parse, "list links")?;
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// One link; [`Error::NotFound`] when there is none.
    pub fn link<'a>(&mut self, link: impl Into<LinkRef<'a>>) -> Result<Link> {
        let link = link.into();
        let mut message = base_message(link)?;
        message.attributes.push(link_codec::without_statistics());
        let doing = || format!("get {link}");
        let body = self
            .socket
            .query(&Request::new(libc::RTM_GETLINK, 0, &message))?
            .map_err(|r| Error::from_errno(r.errno, doing(), r.text))?;
        link_codec::parse(&body).ok_or_else(|| Error::invalid(doing(), "the kernel's answer is no link"))
    }

    /// Sets a link up or down.
    pub fn set_link_up<'a>(&mut self, link: impl Into<LinkRef<'a>>, up: bool) -> Result<()> {
        let flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        let what = if up { "up" } else { "down" };
        self.change(link.into(), what, |message| {
            message.header.flags = flags;
            message.header.change_mask = LinkFlags::Up;
        })
    }

    /// Sets the loopback of the handle's namespace up.
    pub fn set_loopback_up(&mut self) -> Result<()> {
        self.set_link_up("lo", true)
    }

    /// Sets a link's Ethernet address.
    pub fn set_link_mac<'a>(&mut self, link: impl Into<LinkRef<'a>>, mac: Mac) -> Result<()> {
        self.change(link.into(), "Ethernet address", |m| m.attributes.push(LinkAttribute::Address(mac.0.to_vec())))
    }

    /// Sets whether the kernel handles a link's packets in threads of their own, unless it is so. [`Error::NotFound`]: this
    /// kernel, or the sysfs that this process sees, has no such setting.
    pub fn set_link_threaded(&mut self, name: &str, threaded: bool) -> Result<()> {
        check_name(name)?;
        let path = format!("/sys/class/net/{name}/threaded");
        let (doing, right) = (format!("write {path}"), if threaded { "1" } else { "0" });
        let is = std::fs::read_to_string(&path).map_err(|error| Error::from_io(error, doing.clone()))?;
        if is.trim_end() == right {
            return Ok(());
        }
        std::fs::write(&path, right).map_err(|error| Error::from_io(error, doing))
    }

    /// Sets a link's MTU, bytes.
    pub fn set_link_mtu<'a>(&mut self, link: impl Into<LinkRef<'a>>, mtu: u32) -> Result<()> {
        self.change(link.into(), "MTU", |m| m.attributes.push(LinkAttribute::Mtu(mtu)))
    }

    /// Renames a link; older kernels want it down for that.
    pub fn rename_link<'a>(&mut self, link: impl Into<LinkRef<'a>>, name: &str) -> Result<()> {
        check_name(name)?;
        let index = self.index_of(link.into())?;
        self.change(LinkRef::Index(index), "name", |m| m.attributes.push(LinkAttribute::IfName(name.to_owned())))
    }

    /// Moves a link to another network namespace; it arrives there set down, with a new index.
    pub fn move_link<'a>(&mut self, link: impl Into<LinkRef<'a>>, netns: &impl AsFd) -> Result<()> {
        let fd = netns.as_fd().as_raw_fd();
        self.change(link.into(), "network namespace", |m| m.attributes.push(LinkAttribute::NetNsFd(fd)))
    }

    /// Makes a link a port of a bridge, or of none.
    pub fn set_link_controller<'a>(&mut self, link: impl Into<LinkRef<'a>>, bridge: Option<u32>) -> Result<()> {
        self.change(link.into(), "bridge", |m| m.attributes.push(LinkAttribute::Controller(bridge.unwrap_or(0))))
    }

    /// Makes a bridge, set up, and returns its index.
    pub fn create_bridge(&mut self, name: &str) -> Result<u32> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        let request = Request::new(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message);
        self.one(request, || format!("create bridge {name}"))?;
        Ok(self.link(name)?.index)
    }

    /// Deletes a link; of a veth pair both ends go.
    pub fn delete_link<'a>(&mut self, link: impl Into<LinkRef<'a>>) -> Result<()> {
        let link = link.into();
        let request = Request::new(libc::RTM_DELLINK, 0, &base_message(link)?);
        self.one(request, || format!("delete {link}"))
    }

    /// Deletes many links; one result for each, in order.
    ///
    /// The kernel waits a grace period for every link that is deleted alone, so the links are first put into a group
    /// of their own that nothing else uses, and the group is deleted at once.
    pub fn delete_links(&mut self, indices: &[u32]) -> Result<Vec<Result<()>>> {
        if let [index] = indices {
            return Ok(vec![self.delete_link(*index)]);
        }
        let mut results = self.group_links(indices, DELETE_GROUP)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::Group(DELETE_GROUP));
        let request = Request::new(libc::RTM_DELLINK, 0, &message);
        match self.one(request, || format!("delete {} links", indices.len())) {
            // Not found: there was none, or somebody else who deletes links so was faster.
            Ok(()) | Err(Error::NotFound { .. }) => {}
            // The kernel refuses the whole group when one of it, such as the loopback, can't be deleted.
            Err(_) => {
                self.group_links(indices, 0)?;
                for (index, result) in indices.iter().zip(&mut results).filter(|(_, r)| r.is_ok()) {
                    *result = self.delete_link(*index);
                }
            }
        }
        Ok(results)
    }

    fn group_links(&mut self, indices: &[u32], group: u32) -> Result<Vec<Result<()>>> {
        let request = |index: &u32| {
            let mut message = LinkMessage::default();
            message.header.index = *index;
            message.attributes.push(LinkAttribute::Group(group));
            Request::new(libc::RTM_SETLINK, 0, &message)
        };
        let requests: Vec<_> = indices.iter().map(request).collect();
        self.many(&requests, |at| format!("delete link {}", indices[at]))
    }

    pub(crate) fn index_of(&mut self, link: LinkRef<'_>) -> Result<u32> {
        match link {
            LinkRef::Index(index) => Ok(index),
            LinkRef::Name(_) => Ok(self.link(link)?.index),
        }
    }

    fn change(&mut self, link: LinkRef<'_>, what: &str, edit: impl FnOnce(&mut LinkMessage)) -> Result<()> {
        let mut message = base_message(link)?;
        edit(&mut message);
        self.one(Request::new(libc::RTM_SETLINK, 0, &message), || format!("set {link} {what}"))
    }
}

/// The group that links pass through on their way out: "trtl" as a number, so that nothing else has it.
const DELETE_GROUP: u32 = 0x7472_746c;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_name_that_the_kernel_refuses_is_refused_with_the_reason() {
        for wrong in ["", "0123456789abcdef", "a b", "a/b", ".", "a:b"] {
            assert!(matches!(check_name(wrong), Err(Error::Invalid { .. })), "{wrong:?}");
        }
        check_name("cali0123456789a").unwrap();
    }
}
