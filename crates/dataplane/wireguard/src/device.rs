//! A WireGuard device without its files: keys, peers and prefixes; packets in, packets out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519;
use ipnet::IpNet;
use tortie_net::PublicKey;
use tortie_netlink::{WireguardChange, WireguardPeer, WireguardPeerState, WireguardState};

use crate::prefixes::Prefixes;

/// Messages of handshakes a second above which a sender must first show that its address is its own. Each is counted
/// twice, for the device and for its peer.
const HANDSHAKES_PER_SEC: u64 = 200;
/// The largest packet, encrypted.
const SCRATCH_BYTES: usize = 65_535 + 64;
/// The kind of a message that says "come again with this cookie"; it proves nothing about its sender.
const COOKIE_REPLY: u8 = 3;

/// Where packets go.
pub trait Output {
    /// To another node.
    fn network(&mut self, to: SocketAddr, packet: &[u8]);
    /// To the kernel's routes.
    fn tunnel(&mut self, packet: &[u8]);
}

struct Keys {
    private: x25519::StaticSecret,
    public: x25519::PublicKey,
    limiter: Arc<RateLimiter>,
}

struct Peer {
    key: PublicKey,
    tunnel: Tunn,
    endpoint: SocketAddr,
    keepalive_secs: u16,
    allowed: BTreeSet<IpNet>,
    last_handshake: Option<SystemTime>,
    rx_bytes: u64,
    tx_bytes: u64,
}

/// A device. Call [`Device::tick`] four times a second.
#[derive(Default)]
pub struct Device {
    keys: Option<Keys>,
    port: u16,
    mark: u32,
    peers: HashMap<u32, Peer>,
    numbers: BTreeMap<PublicKey, u32>,
    prefixes: Prefixes,
    next: u32,
    scratch: Scratch,
}

struct Scratch(Box<[u8]>);

impl Default for Scratch {
    fn default() -> Self {
        Scratch(vec![0; SCRATCH_BYTES].into())
    }
}

impl Device {
    /// A device without a key. `first`: the number of its first peer, so that packets to an earlier device find nobody.
    pub fn new(first: u32) -> Device {
        Device { next: first, ..Device::default() }
    }

    /// How it is, handshakes of this moment with it.
    pub fn state(&mut self) -> WireguardState {
        self.peers.values_mut().for_each(note_handshake);
        let peers = self.peers.values().map(|peer| {
            let Peer { key, tunnel: _, endpoint, keepalive_secs, allowed, last_handshake, rx_bytes, tx_bytes } = peer;
            let held = allowed.iter().filter(|net| self.prefixes.owner_of_net(net) == self.numbers.get(key).copied());
            let state = WireguardPeerState {
                endpoint: Some(*endpoint),
                allowed: held.copied().collect(),
                keepalive_secs: *keepalive_secs,
                last_handshake: *last_handshake,
                rx_bytes: *rx_bytes,
                tx_bytes: *tx_bytes,
            };
            (*key, state)
        });
        WireguardState {
            public_key: self.keys.as_ref().map(|keys| PublicKey(keys.public.to_bytes())),
            port: self.port,
            mark: self.mark,
            peers: peers.collect(),
        }
    }

    /// The port and the mark of its sockets.
    pub(crate) fn socket(&self) -> (u16, u32) {
        (self.port, self.mark)
    }

    /// Changes it. Peers whose key and interval stay keep their sessions.
    pub fn change(&mut self, change: &WireguardChange) {
        let WireguardChange { private_key, port, mark, peers } = change;
        if let Some(key) = private_key {
            self.set_key(x25519::StaticSecret::from(*key.bytes()));
        }
        self.port = port.unwrap_or(self.port);
        self.mark = mark.unwrap_or(self.mark);
        for (key, peer) in peers {
            match peer {
                Some(peer) => self.put_peer(*key, peer),
                None => self.remove_peer(key),
            }
        }
    }

    fn set_key(&mut self, private: x25519::StaticSecret) {
        let public = x25519::PublicKey::from(&private);
        let limiter = Arc::new(RateLimiter::new(&public, HANDSHAKES_PER_SEC));
        for peer in self.peers.values_mut() {
            peer.tunnel.set_static_private(private.clone(), public, Some(limiter.clone()));
        }
        self.keys = Some(Keys { private, public, limiter });
    }

    fn put_peer(&mut self, key: PublicKey, wanted: &WireguardPeer) {
        let WireguardPeer { endpoint, allowed, keepalive_secs } = wanted;
        let Some(keys) = &self.keys else { return };
        let tunnel = |number: u32| {
            let keepalive = Some(*keepalive_secs).filter(|secs| *secs > 0);
            let (private, public) = (keys.private.clone(), x25519::PublicKey::from(key.0));
            Tunn::new(private, public, None, keepalive, number, Some(keys.limiter.clone()))
        };
        let number = match self.numbers.get(&key) {
            Some(number) => *number,
            None => {
                // A session's number has the peer's in its upper 24 bits.
                while self.peers.contains_key(&(self.next & 0x00ff_ffff)) {
                    self.next = self.next.wrapping_add(1);
                }
                let number = self.next & 0x00ff_ffff;
                self.next = self.next.wrapping_add(1);
                self.numbers.insert(key, number);
                number
            }
        };
        self.prefixes.remove_owner(number);
        allowed.iter().for_each(|net| self.prefixes.insert(*net, number));
        let peer = self.peers.entry(number).or_insert_with(|| Peer {
            key,
            tunnel: tunnel(number),
            endpoint: *endpoint,
            keepalive_secs: *keepalive_secs,
            allowed: BTreeSet::new(),
            last_handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
        });
        if peer.keepalive_secs != *keepalive_secs {
            (peer.tunnel, peer.keepalive_secs) = (tunnel(number), *keepalive_secs);
        }
        (peer.endpoint, peer.allowed) = (*endpoint, allowed.clone());
    }

    fn remove_peer(&mut self, key: &PublicKey) {
        if let Some(number) = self.numbers.remove(key) {
            self.prefixes.remove_owner(number);
            self.peers.remove(&number);
        }
    }

    /// Takes a packet that the kernel's routes sent into the device: encrypts it for whom it belongs to.
    pub fn from_tunnel(&mut self, packet: &[u8], out: &mut impl Output) {
        if packet.len() > SCRATCH_BYTES - 32 {
            return;
        }
        let owner = Tunn::dst_address(packet).and_then(|to| self.prefixes.owner(to));
        let Some(peer) = owner.and_then(|number| self.peers.get_mut(&number)) else { return };
        if let TunnResult::WriteToNetwork(sealed) = peer.tunnel.encapsulate(packet, &mut self.scratch.0) {
            peer.tx_bytes += sealed.len() as u64;
            out.network(peer.endpoint, sealed);
        }
    }

    /// Takes what came over the network.
    pub fn from_network(&mut self, from: SocketAddr, datagram: &[u8], out: &mut impl Output) {
        let Some(keys) = &self.keys else { return };
        if datagram.len() > SCRATCH_BYTES {
            return;
        }
        let number = match keys.limiter.verify_packet(Some(from.ip()), datagram, &mut self.scratch.0) {
            Ok(Packet::HandshakeInit(init)) => {
                let Ok(half) = parse_handshake_anon(&keys.private, &keys.public, &init) else { return };
                self.numbers.get(&PublicKey(half.peer_static_public)).copied()
            }
            Ok(Packet::HandshakeResponse(answer)) => Some(answer.receiver_idx >> 8),
            Ok(Packet::PacketCookieReply(reply)) => Some(reply.receiver_idx >> 8),
            Ok(Packet::PacketData(data)) => Some(data.receiver_idx >> 8),
            Err(TunnResult::WriteToNetwork(cookie)) => return out.network(from, cookie),
            Err(_) => return,
        };
        let Some((number, peer)) = number.and_then(|number| Some((number, self.peers.get_mut(&number)?))) else {
            return;
        };
        let mut rest: &[u8] = datagram;
        loop {
            // An empty datagram asks for what waited for the session.
            match peer.tunnel.decapsulate(Some(from.ip()), rest, &mut self.scratch.0) {
                TunnResult::Err(_) => return,
                TunnResult::Done => break,
                TunnResult::WriteToNetwork(answer) => {
                    // Only who has the peer's key gets any other answer.
                    if answer.first() == Some(&COOKIE_REPLY) {
                        return out.network(from, answer);
                    }
                    peer.endpoint = from;
                    peer.tx_bytes += answer.len() as u64;
                    out.network(peer.endpoint, answer);
                }
                TunnResult::WriteToTunnelV4(packet, source) => {
                    peer.endpoint = from;
                    if self.prefixes.owner(IpAddr::V4(source)) == Some(number) {
                        out.tunnel(packet);
                    }
                    break;
                }
                TunnResult::WriteToTunnelV6(packet, source) => {
                    peer.endpoint = from;
                    if self.prefixes.owner(IpAddr::V6(source)) == Some(number) {
                        out.tunnel(packet);
                    }
                    break;
                }
            }
            rest = &[];
        }
        peer.rx_bytes += datagram.len() as u64;
    }

    /// Does what time asks for: handshakes, packets that keep a way open, old keys that are forgotten.
    pub fn tick(&mut self, out: &mut impl Output) {
        if let Some(keys) = &self.keys {
            keys.limiter.reset_count();
        }
        for peer in self.peers.values_mut() {
            note_handshake(peer);
            if let TunnResult::WriteToNetwork(packet) = peer.tunnel.update_timers(&mut self.scratch.0) {
                peer.tx_bytes += packet.len() as u64;
                out.network(peer.endpoint, packet);
            }
        }
    }
}

/// Keeps when the last handshake was; it is forgotten with the session elsewhere.
fn note_handshake(peer: &mut Peer) {
    let at = peer.tunnel.time_since_last_handshake().and_then(|age| SystemTime::now().checked_sub(age));
    // The age is of a clock with a coarse step: what is newer by less is the same.
    let newer =
        |at: &SystemTime| peer.last_handshake.is_none_or(|last| at.duration_since(last).is_ok_and(|d| d.as_secs() > 1));
    if let Some(at) = at.filter(newer) {
        peer.last_handshake = Some(at);
    }
}
