//! WireGuard devices of the kernel: what is set on them and what they tell of their peers (`linux/wireguard.h`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use tortie_net::PublicKey;

use crate::genl::{Attributes, Family, GENL_HEADER_LEN};
use crate::link::check_name;
use crate::wire::{Request, attributes, u16_at, u32_at};
use crate::{Error, Handle, LinkKind, Netns, Result};

const GET_DEVICE: u8 = 0;
const SET_DEVICE: u8 = 1;
const DEVICE_IFNAME: u16 = 2;
const DEVICE_PRIVATE_KEY: u16 = 3;
const DEVICE_PUBLIC_KEY: u16 = 4;
const DEVICE_LISTEN_PORT: u16 = 6;
const DEVICE_FWMARK: u16 = 7;
const DEVICE_PEERS: u16 = 8;
const PEER_PUBLIC_KEY: u16 = 1;
const PEER_FLAGS: u16 = 3;
const PEER_ENDPOINT: u16 = 4;
const PEER_KEEPALIVE: u16 = 5;
const PEER_LAST_HANDSHAKE: u16 = 6;
const PEER_RX_BYTES: u16 = 7;
const PEER_TX_BYTES: u16 = 8;
const PEER_ALLOWED_IPS: u16 = 9;
const PEER_REMOVE: u32 = 1;
const PEER_REPLACE_ALLOWED_IPS: u32 = 2;
const ALLOWED_FAMILY: u16 = 1;
const ALLOWED_ADDRESS: u16 = 2;
const ALLOWED_BITS: u16 = 3;
/// Prefixes in one message: far below what its 64 KiB hold.
const PREFIXES_PER_MESSAGE: usize = 1000;

/// A private key. It is never shown, and the device is the only place that keeps it.
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// The key of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> PrivateKey {
        PrivateKey(bytes)
    }

    /// Its bytes, for the device alone.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A new one, from the kernel's random numbers.
    pub fn generate() -> Result<PrivateKey> {
        let mut bytes = [0; 32];
        let doing = "read random numbers from /dev/urandom";
        let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
        read.map_err(|error| Error::from_io(error, doing.to_owned()))?;
        Ok(PrivateKey(bytes))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// A peer as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireguardPeer {
    /// Where encrypted packets go.
    pub endpoint: SocketAddr,
    /// The prefixes behind it: packets to them are encrypted for it, and only such sources are taken from it.
    pub allowed: BTreeSet<IpNet>,
    /// Seconds between packets that keep a translation on the way open; 0: none.
    pub keepalive_secs: u16,
}

/// A peer as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireguardPeerState {
    /// What can be set; `None` as endpoint until one is known.
    pub endpoint: Option<SocketAddr>,
    /// The prefixes behind it.
    pub allowed: BTreeSet<IpNet>,
    /// Seconds between packets that keep a translation open; 0: none.
    pub keepalive_secs: u16,
    /// When the last handshake was, if there was one.
    pub last_handshake: Option<SystemTime>,
    /// Bytes received, encrypted.
    pub rx_bytes: u64,
    /// Bytes sent, encrypted.
    pub tx_bytes: u64,
}

/// A device as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireguardState {
    /// Its public key; none while it has no private one.
    pub public_key: Option<PublicKey>,
    /// The UDP port that it listens on.
    pub port: u16,
    /// The mark of the packets that it sends; 0: none.
    pub mark: u32,
    /// Its peers.
    pub peers: BTreeMap<PublicKey, WireguardPeerState>,
}

/// A change to a device. What is `None` stays.
#[derive(Debug, Default)]
pub struct WireguardChange {
    /// A new private key.
    pub private_key: Option<PrivateKey>,
    /// The UDP port.
    pub port: Option<u16>,
    /// The mark of the packets that it sends.
    pub mark: Option<u32>,
    /// Peers that come, change as a whole, or go.
    pub peers: BTreeMap<PublicKey, Option<WireguardPeer>>,
}

/// Where WireGuard devices are made: in the kernel, or beside it.
pub trait WireguardDevices: Send {
    /// Where that is, in a word.
    fn place(&self) -> &'static str;

    /// What their links are to the kernel.
    fn kind(&self) -> LinkKind;

    /// Makes a device, or sees to it that one that is there works; a new one is down and without a key.
    /// [`Error::Unsupported`]: there can be none.
    fn ensure(&mut self, name: &str) -> Result<()>;

    /// A device as it is; [`Error::NotFound`] when there is none of that name.
    fn device(&mut self, name: &str) -> Result<WireguardState>;

    /// Changes a device, step by step in order; the first refusal ends it.
    fn change(&mut self, name: &str, change: &WireguardChange) -> Result<()>;
}

/// The kernel's devices of one network namespace.
pub struct KernelWireguard {
    links: Handle,
    /// Open once one is there: before, the kernel may not have loaded what they need.
    devices: Option<Wireguard>,
}

impl KernelWireguard {
    /// Those of the calling thread's namespace.
    pub fn new() -> Result<KernelWireguard> {
        Ok(KernelWireguard { links: Handle::open()?, devices: None })
    }

    fn devices(&mut self) -> Result<&mut Wireguard> {
        let devices = match self.devices.take() {
            Some(devices) => devices,
            None => Wireguard::open()?,
        };
        Ok(self.devices.insert(devices))
    }
}

impl WireguardDevices for KernelWireguard {
    fn place(&self) -> &'static str {
        "kernel"
    }

    fn kind(&self) -> LinkKind {
        LinkKind::Wireguard
    }

    fn ensure(&mut self, name: &str) -> Result<()> {
        match self.links.create_wireguard(name) {
            Ok(_) | Err(Error::Exists { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn device(&mut self, name: &str) -> Result<WireguardState> {
        self.devices()?.device(name)
    }

    fn change(&mut self, name: &str, change: &WireguardChange) -> Result<()> {
        self.devices()?.change(name, change)
    }
}

impl Handle {
    /// Makes a WireGuard device, set down and without a key; returns its index. [`Error::Unsupported`]: the kernel has
    /// no WireGuard.
    pub fn create_wireguard(&mut self, name: &str) -> Result<u32> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Wireguard)]));
        let request = Request::new(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message);
        self.one(request, || format!("create WireGuard device {name}"))?;
        Ok(self.link(name)?.index)
    }
}

/// The WireGuard devices of one network namespace.
pub struct Wireguard {
    family: Family,
}

impl Wireguard {
    /// Those of the calling thread's namespace. [`Error::Unsupported`]: the kernel has no WireGuard.
    pub fn open() -> Result<Wireguard> {
        Ok(Wireguard { family: Family::open("wireguard")? })
    }

    /// Those of another namespace; the calling thread stays where it is.
    pub fn open_in(netns: &Netns) -> Result<Wireguard> {
        netns.run(Wireguard::open)?
    }

    /// A device as it is; [`Error::NotFound`] when there is none of that name.
    pub fn device(&mut self, name: &str) -> Result<WireguardState> {
        let request = self.family.request(0, GET_DEVICE, &named(name)?);
        let mut state = WireguardState::default();
        let end = self.family.socket.dump(&request, |body| match body {
            None => state = WireguardState::default(),
            Some(body) => read_device(body, &mut state),
        })?;
        end.map_err(|refusal| Error::from_errno(refusal.errno, format!("read WireGuard device {name}"), refusal.text))?;
        Ok(state)
    }

    /// Changes a device, step by step in order; the first refusal ends it.
    pub fn change(&mut self, name: &str, change: &WireguardChange) -> Result<()> {
        let WireguardChange { private_key, port, mark, peers } = change;
        let mut own = named(name)?;
        if let Some(PrivateKey(bytes)) = private_key {
            own.put(DEVICE_PRIVATE_KEY, bytes);
        }
        if let Some(port) = port {
            own.put(DEVICE_LISTEN_PORT, &port.to_ne_bytes());
        }
        if let Some(mark) = mark {
            own.put(DEVICE_FWMARK, &mark.to_ne_bytes());
        }
        let mut requests = Vec::new();
        if private_key.is_some() || port.is_some() || mark.is_some() {
            requests.push(self.family.request(0, SET_DEVICE, &own));
        }
        for (key, peer) in peers {
            for part in peer_parts(key, peer.as_ref()) {
                let mut peers = Attributes::default();
                peers.nest(0, &part);
                let mut body = named(name)?;
                body.nest(DEVICE_PEERS, &peers);
                requests.push(self.family.request(0, SET_DEVICE, &body));
            }
        }
        for answer in self.family.socket.transact(&requests)? {
            let doing = || format!("set up WireGuard device {name}");
            answer.map_err(|refusal| Error::from_errno(refusal.errno, doing(), refusal.text))?;
        }
        Ok(())
    }
}

fn named(name: &str) -> Result<Attributes> {
    check_name(name)?;
    let mut body = Attributes::default();
    body.put(DEVICE_IFNAME, &[name.as_bytes(), &[0]].concat());
    Ok(body)
}

/// The messages that set one peer: its prefixes may need several.
fn peer_parts(key: &PublicKey, peer: Option<&WireguardPeer>) -> Vec<Attributes> {
    let start = |flags: u32| {
        let mut part = Attributes::default();
        part.put(PEER_PUBLIC_KEY, &key.0);
        part.put(PEER_FLAGS, &flags.to_ne_bytes());
        part
    };
    let Some(WireguardPeer { endpoint, allowed, keepalive_secs }) = peer else { return vec![start(PEER_REMOVE)] };
    let prefixes: Vec<&IpNet> = allowed.iter().collect();
    let mut parts = Vec::new();
    let chunks = prefixes.chunks(PREFIXES_PER_MESSAGE).chain(prefixes.is_empty().then_some(&[][..]));
    for chunk in chunks {
        let mut part = start(if parts.is_empty() { PEER_REPLACE_ALLOWED_IPS } else { 0 });
        part.put(PEER_ENDPOINT, &socket_address(*endpoint));
        part.put(PEER_KEEPALIVE, &keepalive_secs.to_ne_bytes());
        let mut list = Attributes::default();
        for net in chunk {
            list.nest(0, &allowed_ip(net));
        }
        part.nest(PEER_ALLOWED_IPS, &list);
        parts.push(part);
    }
    parts
}

fn allowed_ip(net: &IpNet) -> Attributes {
    let mut entry = Attributes::default();
    let mut put = |family: libc::c_int, bytes: &[u8]| {
        entry.put(ALLOWED_FAMILY, &u16::try_from(family).expect("a small number").to_ne_bytes());
        entry.put(ALLOWED_ADDRESS, bytes);
    };
    match net.network() {
        IpAddr::V4(addr) => put(libc::AF_INET, &addr.octets()),
        IpAddr::V6(addr) => put(libc::AF_INET6, &addr.octets()),
    }
    entry.put(ALLOWED_BITS, &[net.prefix_len()]);
    entry
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn socket_address(addr: SocketAddr) -> Vec<u8> {
    let family = |family: libc::c_int| u16::try_from(family).expect("a small number").to_ne_bytes();
    let port = addr.port().to_be_bytes();
    match addr {
        SocketAddr::V4(v4) => [&family(libc::AF_INET)[..], &port, &v4.ip().octets(), &[0; 8]].concat(),
        SocketAddr::V6(v6) => {
            let (flow, scope) = (v6.flowinfo().to_be_bytes(), v6.scope_id().to_ne_bytes());
            [&family(libc::AF_INET6)[..], &port, &flow, &v6.ip().octets(), &scope].concat()
        }
    }
}

/// Adds what one message of a dump says; a long peer comes in several.
pub(crate) fn read_device(body: &[u8], state: &mut WireguardState) {
    for (kind, value) in attributes(body.get(GENL_HEADER_LEN..).unwrap_or_default()) {
        match kind {
            DEVICE_PUBLIC_KEY => {
                let key = <[u8; 32]>::try_from(value).ok().filter(|key| *key != [0; 32]);
                state.public_key = key.map(PublicKey);
            }
            DEVICE_LISTEN_PORT => state.port = u16_at(value, 0).unwrap_or(0),
            DEVICE_FWMARK => state.mark = u32_at(value, 0).unwrap_or(0),
            DEVICE_PEERS => attributes(value).for_each(|(_, peer)| read_peer(peer, state)),
            _ => {}
        }
    }
}

fn read_peer(body: &[u8], state: &mut WireguardState) {
    let key = attributes(body).find(|(kind, _)| *kind == PEER_PUBLIC_KEY);
    let Some(key) = key.and_then(|(_, value)| <[u8; 32]>::try_from(value).ok()) else { return };
    let peer = state.peers.entry(PublicKey(key)).or_default();
    for (kind, value) in attributes(body) {
        match kind {
            PEER_ENDPOINT => peer.endpoint = read_socket_address(value),
            PEER_KEEPALIVE => peer.keepalive_secs = u16_at(value, 0).unwrap_or(0),
            PEER_LAST_HANDSHAKE => peer.last_handshake = read_time(value),
            PEER_RX_BYTES => peer.rx_bytes = u64_at(value, 0).unwrap_or(0),
            PEER_TX_BYTES => peer.tx_bytes = u64_at(value, 0).unwrap_or(0),
            PEER_ALLOWED_IPS => peer.allowed.extend(attributes(value).filter_map(|(_, entry)| read_allowed(entry))),
            _ => {}
        }
    }
}

fn read_allowed(entry: &[u8]) -> Option<IpNet> {
    let find = |wanted: u16| attributes(entry).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let bytes = find(ALLOWED_ADDRESS)?;
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let addr = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()?;
    IpNet::new(addr, *find(ALLOWED_BITS)?.first()?).ok()
}

fn read_socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let addr: IpAddr = match libc::c_int::from(u16_at(bytes, 0)?) {
        libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(addr, port))
}

/// `struct __kernel_timespec`; zero is never.
fn read_time(bytes: &[u8]) -> Option<SystemTime> {
    let (secs, nanos) = (u64_at(bytes, 0)?, u64_at(bytes, 8)?);
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let since = Duration::new(secs, nanos);
    if since.is_zero() { None } else { SystemTime::UNIX_EPOCH.checked_add(since) }
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
