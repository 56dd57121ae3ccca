//! VXLAN devices, and the forwarding entries that lead their frames to other machines.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as WireState,
};
use tortie_net::Mac;

use crate::link::check_name;
use crate::link_codec::{self, base_message};
use crate::wire::{Request, attributes, u16_at, u32_at};
use crate::{Error, Handle, LinkRef, Result};

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;
/// Lengths of `struct ifinfomsg` and `struct ndmsg`.
const LINK_HEADER_LEN: usize = 16;
const NEIGHBOUR_HEADER_LEN: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// What a VXLAN device is made with and can't change later. It never learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VxlanSpec {
    /// Network identifier, 24 bits.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Source address of the outer packets; its family is theirs.
    pub local: IpAddr,
    /// Index of the link below, which the outer packets leave through.
    pub below: u32,
}

/// An entry of a VXLAN device's forwarding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbEntry {
    /// Index of the device.
    pub index: u32,
    /// Destination of the inner frame.
    pub mac: Mac,
    /// Destination of the outer packet.
    pub remote: IpAddr,
}

impl Handle {
    /// Makes a VXLAN device, set down; returns its index. [`Error::Unsupported`]: the kernel has no VXLAN.
    pub fn create_vxlan(&mut self, name: &str, spec: &VxlanSpec, mac: Mac, mtu: u32) -> Result<u32> {
        check_name(name)?;
        let VxlanSpec { vni, port, local, below } = *spec;
        let local = match local {
            IpAddr::V4(addr) => InfoVxlan::Local(addr),
            IpAddr::V6(addr) => InfoVxlan::Local6(addr),
        };
        let info =
            vec![InfoVxlan::Id(vni), InfoVxlan::Link(below), local, InfoVxlan::Port(port), InfoVxlan::Learning(false)];
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::empty();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::Mtu(mtu),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(InfoData::Vxlan(info))]),
        ];
        let request = Request::new(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message);
        self.one(request, || format!("create VXLAN device {name}"))?;
        Ok(self.link(name)?.index)
    }

    /// How a VXLAN device was made; `None` for a link of another kind, [`Error::NotFound`] when there is none.
    pub fn vxlan<'a>(&mut self, link: impl Into<LinkRef<'a>>) -> Result<Option<VxlanSpec>> {
        let link = link.into();
        let mut message = base_message(link)?;
        message.attributes.push(link_codec::without_statistics());
        let doing = || format!("get {link}");
        let body = self
            .socket
            .query(&Request::new(libc::RTM_GETLINK, 0, &message))?
            .map_err(|r| Error::from_errno(r.errno, doing(), r.text))?;
        Ok(parse_vxlan(&body))
    }

    /// The permanent unicast entries of all VXLAN devices, sorted.
    pub fn fdb(&mut self) -> Result<Vec<FdbEntry>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        let mut all =
            self.list(&Request::new(libc::RTM_GETNEIGH, 0, &message), parse_fdb, "list forwarding entries")?;
        all.sort_unstable();
        Ok(all)
    }

    /// Sets the entry of an Ethernet address, whatever was there before.
    pub fn set_fdb(&mut self, entry: &FdbEntry) -> Result<()> {
        let FdbEntry { index, mac, remote } = *entry;
        let mut message = fdb_message(index, mac);
        message.header.state = WireState::Permanent;
        message.attributes.push(NeighbourAttribute::Destination(match remote {
            IpAddr::V4(addr) => NeighbourAddress::Inet(addr),
            IpAddr::V6(addr) => NeighbourAddress::Inet6(addr),
        }));
        let request = Request::new(libc::RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &message);
        self.one(request, || format!("set forwarding entry {mac} of link {index}"))
    }

    /// Deletes the entry of an Ethernet address.
    pub fn delete_fdb(&mut self, index: u32, mac: Mac) -> Result<()> {
        let request = Request::new(libc::RTM_DELNEIGH, 0, &fdb_message(index, mac));
        self.one(request, || format!("delete forwarding entry {mac} of link {index}"))
    }
}

fn fdb_message(index: u32, mac: Mac) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.flags = NeighbourFlags::Own;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    message
}

pub(crate) fn parse_vxlan(body: &[u8]) -> Option<VxlanSpec> {
    let info = find(body.get(LINK_HEADER_LEN..)?, libc::IFLA_LINKINFO)?;
    if crate::wire::string(find(info, IFLA_INFO_KIND)?) != "vxlan" {
        return None;
    }
    let data = find(info, IFLA_INFO_DATA)?;
    let number = |kind| u32_at(find(data, kind)?, 0);
    let port = <[u8; 2]>::try_from(find(data, IFLA_VXLAN_PORT)?).ok()?;
    let local = find(data, IFLA_VXLAN_LOCAL).or_else(|| find(data, IFLA_VXLAN_LOCAL6)).and_then(address);
    Some(VxlanSpec {
        vni: number(IFLA_VXLAN_ID)?,
        port: u16::from_be_bytes(port),
        // Without one the device answers from any address, which the unspecified one says.
        local: local.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)),
        below: number(IFLA_VXLAN_LINK).unwrap_or(0),
    })
}

/// Entries without a remote address are of bridges, those that are not permanent were learned.
pub(crate) fn parse_fdb(body: &[u8]) -> Option<FdbEntry> {
    let permanent = u16_at(body, 8)? & libc::NUD_PERMANENT != 0;
    let rest = body.get(NEIGHBOUR_HEADER_LEN..)?;
    let mac = Mac(find(rest, NDA_LLADDR)?.try_into().ok()?);
    let remote = address(find(rest, NDA_DST)?)?;
    permanent.then_some(FdbEntry { index: u32_at(body, 4)?, mac, remote })
}

fn find(buffer: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(buffer).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
