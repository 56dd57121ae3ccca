//! The answering side: UDP and TCP echoes at many places, served by one thread. The kernel answers ICMP by itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;

use super::{Probe, Transport};
use crate::place::Place;

/// Echoes that answer until this is dropped.
pub struct Echo {
    /// Closing it ends the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

enum Socket {
    Udp(UdpSocket),
    Listener(TcpListener),
    Stream(TcpStream),
}

impl Echo {
    /// Answers at every place what every probe asks, on each of the place's addresses of the probe's family.
    pub fn start(places: &[Place], probes: &[Probe]) -> Result<Echo> {
        let mut sockets = Vec::new();
        for place in places {
            sockets.extend(place.run(|| open(place, probes))?);
        }
        let (stopped, stop) = pipe2(OFlag::O_CLOEXEC).context("make a pipe")?;
        let spawned = std::thread::Builder::new().name("lab-echo".to_owned()).spawn(move || serve(sockets, &stopped));
        Ok(Echo { stop: Some(stop), thread: Some(spawned.context("start the echo's thread")?) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; the probes that it should have answered see silence.
            let _ = thread.join();
        }
    }
}

fn open(place: &Place, probes: &[Probe]) -> Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for probe in probes {
        let same = |ip: &&std::net::IpAddr| tortie_net::Family::of(**ip) == probe.family;
        for ip in place.ips().iter().filter(same) {
            let addr = SocketAddr::new(*ip, probe.port);
            let doing = || format!("listen on {} {addr}", probe.transport);
            match probe.transport {
                Transport::Udp => {
                    let socket = UdpSocket::bind(addr).with_context(doing)?;
                    socket.set_nonblocking(true)?;
                    sockets.push(Socket::Udp(socket));
                }
                Transport::Tcp => {
                    let listener = TcpListener::bind(addr).with_context(doing)?;
                    listener.set_nonblocking(true)?;
                    sockets.push(Socket::Listener(listener));
                }
                Transport::Icmp => {}
            }
        }
    }
    Ok(sockets)
}

fn serve(mut sockets: Vec<Socket>, stopped: &OwnedFd) {
    loop {
        let ready: Vec<bool> = {
            let mut fds = vec![PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
            fds.extend(sockets.iter().map(|socket| PollFd::new(socket.fd(), PollFlags::POLLIN)));
            if poll(&mut fds, PollTimeout::NONE).is_err() {
                continue;
            }
            fds.iter().map(|fd| fd.any().unwrap_or(true)).collect()
        };
        if ready[0] {
            return;
        }
        let mut next = Vec::with_capacity(sockets.len());
        for (socket, ready) in sockets.into_iter().zip(&ready[1..]) {
            if *ready {
                answer(socket, &mut next);
            } else {
                next.push(socket);
            }
        }
        sockets = next;
    }
}

/// Handles what a socket has; sockets that go on are put into `next`.
fn answer(socket: Socket, next: &mut Vec<Socket>) {
    let mut buffer = [0; 4096];
    match socket {
        Socket::Udp(udp) => {
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                // An answer that can't be sent is one that the asker does not get, which is what it measures.
                let _ = udp.send_to(&buffer[..length], from);
            }
            next.push(Socket::Udp(udp));
        }
        Socket::Listener(listener) => {
            while let Ok((stream, _)) = listener.accept() {
                if stream.set_nonblocking(true).is_ok() {
                    next.push(Socket::Stream(stream));
                }
            }
            next.push(Socket::Listener(listener));
        }
        Socket::Stream(mut stream) => match stream.read(&mut buffer) {
            Ok(0) => {}
            Ok(length) => {
                if stream.write_all(&buffer[..length]).is_ok() {
                    next.push(Socket::Stream(stream));
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                next.push(Socket::Stream(stream));
            }
            Err(_) => {}
        },
    }
}

impl Socket {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Udp(socket) => socket.as_fd(),
            Socket::Listener(socket) => socket.as_fd(),
            Socket::Stream(socket) => socket.as_fd(),
        }
    }
}
