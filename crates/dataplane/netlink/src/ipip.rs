//! The IPIP device through which one node reaches many: without far end of its own, each packet's route says where to.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use crate::link::check_name;
use crate::wire::Request;
use crate::{Error, Handle, LinkKind, Result};

/// The MTU that the kernel gives to the device, bytes.
const FIRST_MTU: u32 = 1480;

impl Handle {
    /// Makes an IPIP device without ends, set down; returns its index. A namespace has one such device at most, and
    /// its kernel may have made it by itself, as `tunl0`: then that is the one. [`Error::Unsupported`]: the kernel has
    /// no IPIP.
    pub fn create_ipip(&mut self, name: &str) -> Result<u32> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::IpIp)]));
        let request = Request::new(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message);
        let made = self.one(request, || format!("create IPIP device {name}"));
        match (made, self.link(name)) {
            // The module came with the request, and brought the device.
            (Err(Error::Exists { .. }), Ok(link)) if link.kind == LinkKind::Ipip => Ok(link.index),
            (Err(error), _) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(link)) => Ok(link.index),
        }
    }

    /// Deletes an IPIP device. One that the kernel made by itself can't be deleted: it is down, without addresses and
    /// with its first MTU afterwards, as it came.
    pub fn delete_ipip(&mut self, index: u32) -> Result<()> {
        for address in self.addresses()?.into_iter().filter(|address| address.index == index) {
            match self.delete_address(index, address.net) {
                // Those of IPv6 may go with the link's going down.
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.set_link_up(index, false)?;
        self.set_link_mtu(index, FIRST_MTU)?;
        self.delete_link(index)
    }
}
