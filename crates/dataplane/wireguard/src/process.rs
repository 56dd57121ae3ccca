//! The process of one device: packets between its TUN device, its sockets and [`Device`], and what it is asked.
//!
//! One thread waits for all of it. It ends when the TUN device is deleted.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tortie_netlink::{Error, Result, WireguardChange};

use crate::control::{Asked, asked, print_state};
use crate::device::{Device, Output};
use crate::tun;
use crate::udp::Sockets;

/// How often the device looks at the clock.
const TICK: Duration = Duration::from_millis(250);
/// Packets of one side before the other side has its turn.
const BURST: usize = 64;
/// The longest that who asks may take; packets wait meanwhile.
const ASK_DEADLINE: Duration = Duration::from_millis(200);
/// The longest request: some ten thousand nodes.
const ASK_BYTES: u64 = 16 << 20;
/// The largest packet, and more.
const PACKET_BYTES: usize = 65_536 + 64;

/// Runs the device `name` in this network namespace, to be asked at `socket`, until the TUN device is deleted.
pub fn run(name: &str, socket: &Path) -> Result<()> {
    // Whoever holds the TUN device is the only one, so a socket that is there is of one that is dead.
    let tun = tun::open(name)?;
    let doing = || format!("listen on {}", socket.display());
    if let Err(error) = fs::remove_file(socket)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(Error::from_io(error, doing()));
    }
    let listener = UnixListener::bind(socket).map_err(|error| Error::from_io(error, doing()))?;
    listener.set_nonblocking(true).map_err(|error| Error::from_io(error, doing()))?;
    let first = random()?;
    let mut process = Process { tun, listener, sockets: Sockets::default(), device: Device::new(first) };
    let ended = process.serve();
    let _ = fs::remove_file(socket);
    ended
}

fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| Error::from_io(error, "read random numbers from /dev/urandom"))?;
    Ok(u32::from_ne_bytes(bytes))
}

struct Process {
    tun: File,
    listener: UnixListener,
    sockets: Sockets,
    device: Device,
}

/// Where the device's packets go.
struct Wires<'a> {
    tun: &'a File,
    sockets: &'a Sockets,
}

impl Output for Wires<'_> {
    fn network(&mut self, to: SocketAddr, packet: &[u8]) {
        self.sockets.send(to, packet);
    }

    fn tunnel(&mut self, packet: &[u8]) {
        // While the device is down its packets are lost.
        let _ = self.tun.write(packet);
    }
}

impl Process {
    fn serve(&mut self) -> Result<()> {
        let mut buffer = vec![0; PACKET_BYTES];
        let mut ticked = Instant::now();
        loop {
            let gone = self.wait(TICK.saturating_sub(ticked.elapsed()))?;
            if gone || !self.outward(&mut buffer) {
                return Ok(());
            }
            self.inward(&mut buffer);
            while let Ok((stream, _)) = self.listener.accept() {
                // Who asks and goes away gets no answer.
                let _ = self.answer(stream);
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.device.tick(&mut Wires { tun: &self.tun, sockets: &self.sockets });
            }
        }
    }

    /// Waits for anything; whether the TUN device is gone.
    fn wait(&self, timeout: Duration) -> Result<bool> {
        let fds = [Some(self.tun.as_fd()), Some(self.listener.as_fd())];
        let sockets = [&self.sockets.v4, &self.sockets.v6].map(|socket| socket.as_ref().map(AsFd::as_fd));
        let fds: Vec<BorrowedFd<'_>> = fds.into_iter().chain(sockets).flatten().collect();
        let mut waited: Vec<PollFd<'_>> = fds.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // Rounded up, so that no time is spent on turning round and round.
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).saturating_add(1);
        match poll(&mut waited, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::from_io(errno.into(), "wait for packets")),
        }
        let broken = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        // A TUN device that is only down has an error, too; reading tells them apart.
        Ok(waited[0].revents().is_some_and(|events| events.intersects(broken)) && self.deleted())
    }

    fn deleted(&self) -> bool {
        let read = (&self.tun).read(&mut []);
        read.is_err_and(|error| error.raw_os_error() == Some(libc::EBADFD))
    }

    /// Packets of pods to other nodes; `false` when the TUN device is gone.
    fn outward(&mut self, buffer: &mut [u8]) -> bool {
        let mut wires = Wires { tun: &self.tun, sockets: &self.sockets };
        for _ in 0..BURST {
            match (&self.tun).read(buffer) {
                Ok(0) => break,
                Ok(length) => self.device.from_tunnel(&buffer[..length], &mut wires),
                Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return false,
                Err(_) => break,
            }
        }
        true
    }

    /// Packets of other nodes to pods.
    fn inward(&mut self, buffer: &mut [u8]) {
        let mut wires = Wires { tun: &self.tun, sockets: &self.sockets };
        for socket in [&self.sockets.v4, &self.sockets.v6].into_iter().flatten() {
            for _ in 0..BURST {
                match socket.recv_from(buffer) {
                    Ok((length, from)) => self.device.from_network(from, &buffer[..length], &mut wires),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // What an earlier packet met on its way is told here.
                    Err(_) => {}
                }
            }
        }
    }

    fn answer(&mut self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(ASK_DEADLINE))?;
        stream.set_write_timeout(Some(ASK_DEADLINE))?;
        let text = read_request(&stream)?;
        let answer = match asked(&text) {
            Ok(Asked::State) => print_state(&self.device.state()),
            Ok(Asked::Change(change)) => match self.change(&change) {
                Ok(()) => "errno=0\n\n".to_owned(),
                Err(error) => format!("errno={}\n\n", error.raw_os_error().unwrap_or(libc::EIO)),
            },
            Err(_) => format!("errno={}\n\n", libc::EINVAL),
        };
        stream.write_all(answer.as_bytes())
    }

    /// The sockets first: a device with a port that it has not got would be a lie.
    fn change(&mut self, change: &WireguardChange) -> io::Result<()> {
        let (held_port, held_mark) = self.device.socket();
        let mark = change.mark.unwrap_or(held_mark);
        match change.port.filter(|port| *port != held_port) {
            Some(port) => self.sockets = Sockets::open(port, mark)?,
            None if mark != held_mark => self.sockets.mark(mark)?,
            None => {}
        }
        self.device.change(change);
        Ok(())
    }
}

/// Lines up to an empty one.
fn read_request(stream: &UnixStream) -> io::Result<String> {
    let until = Instant::now() + ASK_DEADLINE;
    let mut bytes = Vec::new();
    let mut reader = stream.take(ASK_BYTES);
    let mut part = [0; 16_384];
    while !bytes.ends_with(b"\n\n") {
        let length = reader.read(&mut part)?;
        if length == 0 || Instant::now() > until {
            return Err(ErrorKind::TimedOut.into());
        }
        bytes.extend_from_slice(&part[..length]);
    }
    String::from_utf8(bytes).map_err(|_| ErrorKind::InvalidData.into())
}
