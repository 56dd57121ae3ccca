//! Links to and from the wire.

use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use tortie_net::Mac;

use crate::link::check_name;
use crate::wire::{attributes, string, u16_at, u32_at};
use crate::{Link, LinkKind, LinkRef, Result};

/// Length of `struct ifinfomsg`.
const HEADER_LEN: usize = 16;
const IFLA_INFO_KIND: u16 = 1;

/// A message that names an existing link.
pub(crate) fn base_message(link: LinkRef<'_>) -> Result<LinkMessage> {
    let mut message = LinkMessage::default();
    match link {
        LinkRef::Index(index) => message.header.index = index,
        LinkRef::Name(name) => {
            check_name(name)?;
            message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        }
    }
    Ok(message)
}

/// Asks the kernel to leave statistics out: they are most of the answer.
pub(crate) fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

/// Reads what this crate needs of an `ifinfomsg` and its attributes.
pub(crate) fn parse(body: &[u8]) -> Option<Link> {
    let link_layer = u16_at(body, 2)?;
    let index = u32_at(body, 4)?;
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        index,
        name: String::new(),
        kind: LinkKind::Plain,
        mac: None,
        mtu: 0,
        up: has(flags, libc::IFF_UP),
        carrier: has(flags, libc::IFF_LOWER_UP),
        running: has(flags, libc::IFF_RUNNING),
        loopback: has(flags, libc::IFF_LOOPBACK) || link_layer == libc::ARPHRD_LOOPBACK,
        below: None,
        controller: None,
    };
    for (kind, value) in attributes(body.get(HEADER_LEN..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = string(value),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            libc::IFLA_LINK => link.below = u32_at(value, 0).filter(|i| *i != 0),
            libc::IFLA_MASTER => link.controller = u32_at(value, 0).filter(|i| *i != 0),
            libc::IFLA_LINKINFO => link.kind = kind_of(value),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn has(flags: u32, flag: libc::c_int) -> bool {
    flags & flag.cast_unsigned() != 0
}

fn kind_of(info: &[u8]) -> LinkKind {
    let Some((_, value)) = attributes(info).find(|(kind, _)| *kind == IFLA_INFO_KIND) else { return LinkKind::Plain };
    match string(value).as_str() {
        "veth" => LinkKind::Veth,
        "vxlan" => LinkKind::Vxlan,
        "ipip" => LinkKind::Ipip,
        "wireguard" => LinkKind::Wireguard,
        "bridge" => LinkKind::Bridge,
        other => LinkKind::Other(other.to_owned()),
    }
}
