//! Flows of all kinds that stay open, driven by one thread: each tick sends on every flow and takes what has come.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tortie_lab::Place;

/// Between two ticks.
pub const TICK: Duration = Duration::from_millis(10);
/// How long a connection may take to open on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const LENGTH: usize = 8;

/// What travels on a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Datagrams, each answered.
    UdpEcho,
    /// One datagram to begin with, then only answers.
    UdpPush,
    /// A connection whose bytes come back.
    TcpEcho,
    /// A connection that only the server sends on.
    TcpPush,
    /// Echo requests of one identifier.
    Ping,
}

enum Ends {
    Udp { client: UdpSocket, server: UdpSocket },
    Tcp { client: TcpStream, server: TcpStream },
    Ping { client: UdpSocket, to: IpAddr, id: u16 },
}

/// An open flow. The client's port and the server's stay what they are.
pub struct Flow {
    pub name: String,
    pub kind: Kind,
    pub port: u16,
    ends: Ends,
    /// What the client or the pushing server sent, and what has come to the client of it.
    pub sent: u64,
    pub got: u64,
}

impl Flow {
    /// Opens a flow; policy must allow it now. `port` is the identifier of echo requests.
    pub fn open(kind: Kind, from: &Place, to: &Place, addr: IpAddr, port: u16) -> Flow {
        let name = format!("{kind:?} {} -> {}:{port}", from.name(), to.name());
        let at = SocketAddr::new(addr, port);
        let ends = match kind {
            Kind::UdpEcho | Kind::UdpPush => {
                let server = to.run(|| Ok(UdpSocket::bind(at)?)).unwrap();
                let client = from.run(|| Ok(UdpSocket::bind("0.0.0.0:0")?)).unwrap();
                client.connect(at).unwrap();
                // The server answers whoever spoke to it: with NAT between, that is another address.
                server.set_read_timeout(Some(PATIENCE)).unwrap();
                client.send(b"hello").unwrap();
                let (_, whom) = server.recv_from(&mut [0; LENGTH]).unwrap_or_else(|e| panic!("{name}: {e}"));
                server.connect(whom).unwrap();
                server.send(b"hello").unwrap();
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                client.recv(&mut [0; LENGTH]).unwrap();
                client.set_nonblocking(true).unwrap();
                server.set_nonblocking(true).unwrap();
                Ends::Udp { client, server }
            }
            Kind::TcpEcho | Kind::TcpPush => {
                let listener = to.run(|| Ok(TcpListener::bind(at)?)).unwrap();
                // Policy may be about to allow it.
                let connect = || Ok(TcpStream::connect_timeout(&at, Duration::from_secs(1)));
                let client = tortie_lab::wait(PATIENCE, || from.run(connect).unwrap().ok());
                let client = client.unwrap_or_else(|| panic!("{name}: no connection within {PATIENCE:?}"));
                let (server, _) = listener.accept().unwrap();
                for stream in [&client, &server] {
                    stream.set_nonblocking(true).unwrap();
                    stream.set_nodelay(true).unwrap();
                }
                Ends::Tcp { client, server }
            }
            Kind::Ping => {
                let raw =
                    || Ok(socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_NONBLOCK, SockProtocol::Icmp)?);
                let client = UdpSocket::from(from.run(raw).unwrap());
                Ends::Ping { client, to: addr, id: port }
            }
        };
        Flow { name, kind, port, ends, sent: 0, got: 0 }
    }

    /// Sends once.
    pub fn send(&mut self) {
        let number = self.sent.to_be_bytes();
        let sent = match (&mut self.ends, self.kind) {
            (Ends::Udp { client: _, server }, Kind::UdpPush) => server.send(&number),
            (Ends::Udp { client, server: _ }, _) => client.send(&number),
            (Ends::Tcp { client: _, server }, Kind::TcpPush) => server.write(&number),
            (Ends::Tcp { client, server: _ }, _) => client.write(&number),
            (Ends::Ping { client, to, id }, _) => client.send_to(&echo_request(*id, self.sent), (*to, 0)),
        };
        match sent {
            Ok(length) if self.is_stream() => self.sent += u64::try_from(length).unwrap(),
            Ok(_) => self.sent += 1,
            // A window is full, or the kernel tells of an earlier packet.
            Err(error) => assert!(is_fine(&error), "{}: {error}", self.name),
        }
    }

    /// Takes what has come, and lets the server answer.
    pub fn take(&mut self) {
        let mut buffer = [0; 4096];
        match &mut self.ends {
            Ends::Udp { client, server } => {
                while let Some(length) = come(server.recv(&mut buffer)) {
                    let _ = server.send(&buffer[..length]);
                }
                while come(client.recv(&mut buffer)).is_some() {
                    self.got += 1;
                }
            }
            Ends::Tcp { client, server } => {
                while let Some(length) = come(server.read(&mut buffer)) {
                    // What does not fit into the socket is not worth waiting for here.
                    let _ = server.write(&buffer[..length]);
                }
                while let Some(length) = come(client.read(&mut buffer)) {
                    self.got += u64::try_from(length).unwrap();
                }
            }
            Ends::Ping { client, to: _, id } => {
                while let Some(length) = come(client.recv(&mut buffer)) {
                    // The IP header without options, then ICMP: an echo reply with our identifier.
                    self.got += u64::from(length >= 28 && buffer[20] == 0 && buffer[24..26] == id.to_be_bytes());
                }
            }
        }
    }

    /// Whether lost packets are sent again, so that they can't be counted.
    pub fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::TcpEcho | Kind::TcpPush)
    }
}

fn come(received: std::io::Result<usize>) -> Option<usize> {
    match received {
        Ok(0) => None,
        Ok(length) => Some(length),
        Err(error) => {
            assert!(is_fine(&error), "{error}");
            None
        }
    }
}

fn is_fine(error: &std::io::Error) -> bool {
    [ErrorKind::WouldBlock, ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied, ErrorKind::HostUnreachable]
        .contains(&error.kind())
}

fn echo_request(id: u16, number: u64) -> Vec<u8> {
    let sequence = u16::try_from(number & 0xffff).unwrap();
    let sum = 0x0800 + u32::from(id) + u32::from(sequence);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    [0x0800, sum, id, sequence].map(u16::to_be_bytes).concat()
}
