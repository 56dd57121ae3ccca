//! The listening sockets: one a family, so that the system's default for IPv6 sockets does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use tortie_bgp::{Password, PeerConfig};
use tortie_desired::{BgpPolicy, BgpSpeaker};
use tortie_net::{Family, IpNet};
use tracing::warn;

use super::options;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    port: u16,
    addresses: Vec<IpAddr>,
}

impl Place {
    /// With `bindMode: NodeIP` also where workloads that are peers connect to, as nobody else could answer them.
    pub(super) fn of(own: &BgpSpeaker, policy: &BgpPolicy) -> Place {
        let addresses = if policy.bind_to_node {
            let workloads: BTreeSet<IpAddr> = policy.peering.values().flatten().copied().collect();
            own.ipv4.into_iter().chain(own.ipv6).chain(workloads).collect()
        } else {
            vec![options::any(true), options::any(false)]
        };
        Place { port: own.listen_port, addresses }
    }
}

/// Listening sockets with the passwords that they know.
pub(super) struct Listeners {
    pub(super) place: Place,
    sockets: Vec<(bool, TcpListener)>,
    passwords: BTreeMap<IpNet, Password>,
}

impl Listeners {
    /// Listens; the tokens count from `first`. A family that the kernel lacks is left out.
    pub(super) fn open(place: Place, registry: &Registry, first: usize) -> io::Result<Listeners> {
        let mut sockets = Vec::new();
        for address in &place.addresses {
            let socket = match options::listen(SocketAddr::new(*address, place.port)) {
                Err(error) if error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => continue,
                other => other?,
            };
            let mut socket = TcpListener::from_std(socket);
            registry.register(&mut socket, Token(first + sockets.len()), Interest::READABLE)?;
            sockets.push((address.is_ipv4(), socket));
        }
        Ok(Listeners { place, sockets, passwords: BTreeMap::new() })
    }

    /// The next connection on a socket.
    pub(super) fn accept(&self, at: usize) -> io::Result<(TcpStream, SocketAddr)> {
        let (_, socket) = self.sockets.get(at).ok_or(io::ErrorKind::WouldBlock)?;
        socket.accept()
    }

    /// Makes the sockets expect exactly these passwords, and answer from afar if a peer looks at the TTL.
    pub(super) fn expect(&mut self, peers: &BTreeMap<IpAddr, PeerConfig>, ranges: &BTreeMap<IpNet, PeerConfig>) {
        let hosts = peers.iter().map(|(address, config)| (IpNet::from(*address), config));
        let all: Vec<(IpNet, &PeerConfig)> = hosts.chain(ranges.iter().map(|(net, config)| (*net, config))).collect();
        let passwords: BTreeMap<IpNet, Password> =
            all.iter().filter_map(|(net, config)| Some((*net, config.password.clone()?))).collect();
        let guarded = all.iter().any(|(_, config)| config.ttl_hops.is_some());
        let old = std::mem::replace(&mut self.passwords, passwords);
        for (v4, socket) in &self.sockets {
            let of_family = |net: &IpNet| (Family::of_net(*net) == Family::V4) == *v4;
            let gone = old.keys().filter(|net| of_family(net) && !self.passwords.contains_key(net));
            for net in gone {
                report(*net, options::set_password(socket, *net, None));
            }
            let new = self.passwords.iter().filter(|(net, word)| of_family(net) && old.get(net) != Some(word));
            for (net, Password(word)) in new {
                report(*net, options::set_password(socket, *net, Some(word)));
            }
            if guarded && let Err(error) = options::send_far(socket, *v4) {
                warn!(%error, "the TTL of BGP packets can't be set");
            }
        }
    }
}

fn report(net: IpNet, result: io::Result<()>) {
    if let Err(error) = result {
        warn!(peer = %net, %error, "the kernel does not take the password of a BGP session");
    }
}
