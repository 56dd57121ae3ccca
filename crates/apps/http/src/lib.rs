//! A few pages over plain HTTP: health and metrics.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket, sockopt,
};
use tiny_http::{Response, Server};
use tracing::debug;

/// The place that stands for every address of the host, of both families where the kernel has IPv6 (see [`open`]).
pub fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))
}

/// Listens. At IPv6's unspecified address that is at every address of the host, of IPv4 too, whatever the system's
/// default is; without IPv6, of IPv4 alone.
pub fn open(address: SocketAddr) -> io::Result<TcpListener> {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => match both(v6) {
            Err(Errno::EAFNOSUPPORT) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, v6.port())),
            other => Ok(other?),
        },
        SocketAddr::V4(_) | SocketAddr::V6(_) => TcpListener::bind(address),
    }
}

fn both(address: SocketAddrV6) -> Result<TcpListener, Errno> {
    let fd = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    bind(fd.as_raw_fd(), &SockaddrIn6::from(address))?;
    listen(&fd, Backlog::new(128)?)?;
    Ok(fd.into())
}

/// A running HTTP listener; dropping it stops it.
pub struct Listener {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Starts to serve. `page` has the status and the text of a path, which comes without its query.
    pub fn start(socket: TcpListener, page: impl Fn(&str) -> (u16, String) + Send + 'static) -> io::Result<Listener> {
        let server = Arc::new(Server::from_listener(socket, None).map_err(io::Error::other)?);
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn({
            let server = Arc::clone(&server);
            move || {
                for request in server.incoming_requests() {
                    let (code, text) = page(request.url().split('?').next().unwrap_or_default());
                    if let Err(error) = request.respond(Response::from_string(text).with_status_code(code)) {
                        debug!(%error, "an HTTP client went away");
                    }
                }
            }
        })?;
        Ok(Listener { server, thread: Some(thread) })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.server.unblock();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, TcpStream};

    use super::*;

    #[test]
    fn everywhere_is_at_the_addresses_of_both_families() {
        let socket = open(everywhere(0)).expect("a free port");
        let port = socket.local_addr().expect("it is bound").port();
        let reached = |host: IpAddr| TcpStream::connect((host, port)).is_ok();
        assert!(reached(Ipv4Addr::LOCALHOST.into()));
        // A host without IPv6 has no such loopback.
        let has_ipv6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
        assert_eq!(reached(Ipv6Addr::LOCALHOST.into()), has_ipv6);
        let one = open((Ipv4Addr::LOCALHOST, 0).into()).and_then(|socket| socket.local_addr()).expect("a free port");
        assert_eq!(one.ip(), Ipv4Addr::LOCALHOST);
    }
}
