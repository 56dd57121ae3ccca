//! Tortie's speaker as a program of its own: the pure speaker with sockets of the standard library around it.
//!
//! It prints `holds` once it holds as many learned routes as are expected, and then goes on until it is killed.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tortie_bgp::policy::tell_everything;
use tortie_bgp::{Action, ConnId, ConnectError, LocalRoute, PeerConfig, Speaker, SpeakerConfig};
use tortie_net::AsNumber;

use super::{AS, prefixes};

enum Input {
    Accepted(TcpStream),
    Dialled(ConnId, Result<TcpStream, ConnectError>),
    Bytes(ConnId, Vec<u8>),
    Closed(ConnId),
}

struct Shell {
    speaker: Speaker,
    streams: BTreeMap<ConnId, TcpStream>,
    inputs: Sender<Input>,
}

/// The program: own address, the peer's, how many routes to originate, how many to expect.
pub fn program(args: &[String]) -> Result<()> {
    let [own, peer, originate, expect] = args else { bail!("expected OWN PEER ORIGINATE EXPECT") };
    let (own, peer): (Ipv4Addr, Ipv4Addr) = (own.parse()?, peer.parse()?);
    let (originate, expect): (u32, usize) = (originate.parse()?, expect.parse()?);
    let (inputs, outputs) = channel();
    let listener = TcpListener::bind((own, 179))?;
    let accepting = inputs.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if accepting.send(Input::Accepted(stream)).is_err() {
                return;
            }
        }
    });
    let now = Instant::now();
    let mut speaker = Speaker::new(SpeakerConfig::new(own, AsNumber(AS)), now);
    speaker.set_policy(tell_everything());
    speaker.set_local_routes(now, prefixes(originate).map(|prefix| (prefix, LocalRoute::default())).collect());
    let peer = IpAddr::from(peer);
    speaker.set_peers(now, BTreeMap::from([(peer, PeerConfig::new(peer, AsNumber(AS)))]));
    Shell { speaker, streams: BTreeMap::new(), inputs }.run(&outputs, expect)
}

impl Shell {
    fn run(mut self, outputs: &Receiver<Input>, expect: usize) -> Result<()> {
        let mut told = false;
        loop {
            self.act();
            let held: usize = self.speaker.peers().iter().map(|peer| peer.prefixes_received).sum();
            if !told && held >= expect && expect > 0 {
                println!("holds");
                told = true;
            }
            let due = self.speaker.poll_timeout().map_or(Duration::from_secs(1), |at| at - Instant::now().min(at));
            match outputs.recv_timeout(due.min(Duration::from_secs(1))) {
                Ok(input) => self.take(input)?,
                Err(RecvTimeoutError::Timeout) => self.speaker.handle_timeout(Instant::now()),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn take(&mut self, input: Input) -> Result<()> {
        let now = Instant::now();
        match input {
            Input::Accepted(stream) => {
                let accepted = self.speaker.handle_accepted(now, stream.peer_addr()?.ip(), stream.local_addr()?);
                if let Some((_, conn)) = accepted {
                    self.adopt(conn, stream)?;
                }
            }
            Input::Dialled(conn, Ok(stream)) => {
                let local = stream.local_addr()?;
                self.adopt(conn, stream)?;
                self.speaker.handle_connected(now, conn, local);
            }
            Input::Dialled(conn, Err(error)) => self.speaker.handle_connect_failed(now, conn, error),
            Input::Bytes(conn, bytes) => self.speaker.handle_bytes(now, conn, &bytes),
            Input::Closed(conn) => {
                self.streams.remove(&conn);
                self.speaker.handle_closed(now, conn);
            }
        }
        Ok(())
    }

    fn adopt(&mut self, conn: ConnId, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let (mut reader, inputs) = (stream.try_clone()?, self.inputs.clone());
        thread::spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            loop {
                let input = match reader.read(&mut buffer) {
                    Ok(0) | Err(_) => Input::Closed(conn),
                    Ok(count) => Input::Bytes(conn, buffer[..count].to_vec()),
                };
                let last = matches!(input, Input::Closed(_));
                if inputs.send(input).is_err() || last {
                    return;
                }
            }
        });
        self.streams.insert(conn, stream);
        Ok(())
    }

    fn act(&mut self) {
        while let Some(action) = self.speaker.poll_action() {
            match action {
                Action::Connect { peer, conn, port, .. } => {
                    let inputs = self.inputs.clone();
                    thread::spawn(move || {
                        let to = SocketAddr::new(peer, port);
                        let result = TcpStream::connect_timeout(&to, Duration::from_secs(5)).map_err(|e| why(&e));
                        inputs.send(Input::Dialled(conn, result))
                    });
                }
                Action::Send { conn, bytes } => {
                    let written = self.streams.get_mut(&conn).is_some_and(|stream| stream.write_all(&bytes).is_ok());
                    if written {
                        self.speaker.handle_sent(conn, bytes.len());
                    }
                }
                // Dropping the last handle of a stream would not end its reader.
                Action::Close { conn } => {
                    if let Some(stream) = self.streams.remove(&conn) {
                        let _ = stream.shutdown(std::net::Shutdown::Both);
                    }
                }
            }
        }
        while self.speaker.poll_route_change().is_some() {}
    }
}

fn why(error: &std::io::Error) -> ConnectError {
    match error.kind() {
        ErrorKind::ConnectionRefused => ConnectError::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => ConnectError::NoRoute,
        ErrorKind::TimedOut => ConnectError::TimedOut,
        _ => ConnectError::Other(error.to_string()),
    }
}
