//! Veth pairs: both ends made, named, sized, addressed and set up by one message.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use tortie_net::Mac;

use crate::link::check_name;
use crate::wire::Request;
use crate::{Handle, Result};

/// The far end of a new veth pair. It starts set down: the kernel can't set it up before the near end is there.
#[derive(Clone, Copy, Debug)]
pub struct VethPeer<'a> {
    /// Its name, free in the namespace that it is born in.
    pub name: &'a str,
    /// Its Ethernet address; `None` leaves the choice to the kernel.
    pub mac: Option<Mac>,
    /// The namespace that it is born in; `None` is the handle's own.
    pub netns: Option<BorrowedFd<'a>>,
}

/// A veth pair to make.
#[derive(Clone, Copy, Debug)]
pub struct VethSpec<'a> {
    /// Name of the near end, in the handle's namespace.
    pub name: &'a str,
    /// Ethernet address of the near end; `None` leaves the choice to the kernel.
    pub mac: Option<Mac>,
    /// MTU of both ends, bytes; `None` is the kernel's default of 1500.
    pub mtu: Option<u32>,
    /// Whether the near end starts set up.
    pub up: bool,
    /// The far end.
    pub peer: VethPeer<'a>,
}

impl Handle {
    /// Makes a veth pair in one step: when this fails, nothing is left of it. Returns the near end's index.
    ///
    /// [`crate::Error::Exists`]: one of the names is taken.
    pub fn create_veth(&mut self, spec: &VethSpec<'_>) -> Result<u32> {
        let VethSpec { name, mac, mtu, up, peer: VethPeer { name: peer_name, mac: peer_mac, netns } } = *spec;
        let mut peer = end(peer_name, peer_mac, mtu, false)?;
        peer.attributes.extend(netns.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        let mut near = end(name, mac, mtu, up)?;
        near.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let request = Request::new(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &near);
        self.one(request, || format!("create veth pair {name} and {peer_name}"))?;
        Ok(self.link(name)?.index)
    }
}

fn end(name: &str, mac: Option<Mac>, mtu: Option<u32>, up: bool) -> Result<LinkMessage> {
    check_name(name)?;
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    if up {
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
    }
    Ok(message)
}
