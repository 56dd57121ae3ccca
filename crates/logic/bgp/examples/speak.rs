//! A speaker over real TCP with the standard library, for trying Tortie's BGP against other routers by hand.
//!
//! speak --id 10.0.0.1 --as 64512 [--listen PORT] [--restarting] [--hold SECS] [--seconds N] [--quiet]
//!       [--route PREFIX]... [--many N] --peer ADDRESS=AS[:PORT]...
//! Ends after N seconds without a NOTIFICATION, as a crash would. Blocking writes: good enough for this purpose.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tortie_bgp::{Action, ConnId, ConnectError, LocalRoute, PeerConfig, PeerId, PeerState, Speaker, SpeakerConfig};
use tortie_net::{AsNumber, IpNet};

enum Input {
    Accepted(TcpStream),
    Dialled(ConnId, Result<TcpStream, ConnectError>),
    Bytes(ConnId, Vec<u8>),
    Closed(ConnId),
}

struct Options {
    config: SpeakerConfig,
    port: u16,
    seconds: u64,
    quiet: bool,
    peers: BTreeMap<PeerId, PeerConfig>,
    routes: BTreeMap<IpNet, LocalRoute>,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let config = SpeakerConfig::new(Ipv4Addr::LOCALHOST, AsNumber(64512));
    let (peers, routes) = (BTreeMap::new(), BTreeMap::new());
    let mut options = Options { config, port: 179, seconds: u64::MAX, quiet: false, peers, routes };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--id" => options.config.router_id = value()?.parse()?,
            "--as" => options.config.local_as = value()?.parse()?,
            "--listen" => options.port = value()?.parse()?,
            "--hold" => options.config.hold_time_secs = value()?.parse()?,
            "--seconds" => options.seconds = value()?.parse()?,
            "--restarting" => options.config.restarting = true,
            "--quiet" => options.quiet = true,
            "--route" => {
                options.routes.insert(value()?.parse()?, LocalRoute::default());
            }
            "--many" => {
                let many = (0..value()?.parse::<u32>()?)
                    .map(|at| IpNet::from(IpAddr::from((0x2000_0000 + at * 16).to_be_bytes())));
                options.routes.extend(
                    many.map(|host| (IpNet::new(host.addr(), 28).expect("28 bits fit"), LocalRoute::default())),
                );
            }
            "--peer" => {
                let text = value()?;
                let (address, asn) = text.split_once('=').ok_or("a peer is ADDRESS=AS[:PORT]")?;
                let (asn, port) = asn.split_once(':').unwrap_or((asn, "179"));
                let address: IpAddr = address.parse()?;
                let config = PeerConfig { port: port.parse()?, ..PeerConfig::new(address, asn.parse()?) };
                options.peers.insert(address, config);
            }
            _ => return Err(format!("{word} is no option: see the head of this file").into()),
        }
    }
    Ok(options)
}

fn why(error: &std::io::Error) -> ConnectError {
    match error.kind() {
        ErrorKind::ConnectionRefused => ConnectError::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => ConnectError::NoRoute,
        ErrorKind::TimedOut => ConnectError::TimedOut,
        _ => ConnectError::Other(error.to_string()),
    }
}

fn read_from(conn: ConnId, stream: &TcpStream, inputs: Sender<Input>) -> std::io::Result<()> {
    let mut stream = stream.try_clone()?;
    thread::spawn(move || {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let input = match stream.read(&mut buffer) {
                Ok(0) | Err(_) => Input::Closed(conn),
                Ok(count) => Input::Bytes(conn, buffer[..count].to_vec()),
            };
            let last = matches!(input, Input::Closed(_));
            if inputs.send(input).is_err() || last {
                return;
            }
        }
    });
    Ok(())
}

struct Shell {
    speaker: Speaker,
    streams: BTreeMap<ConnId, TcpStream>,
    inputs: Sender<Input>,
    quiet: bool,
    changes: usize,
}

impl Shell {
    fn take(&mut self, input: Input) -> std::io::Result<()> {
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

    fn adopt(&mut self, conn: ConnId, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        read_from(conn, &stream, self.inputs.clone())?;
        self.streams.insert(conn, stream);
        Ok(())
    }

    fn act(&mut self) {
        while let Some(action) = self.speaker.poll_action() {
            match action {
                Action::Connect { peer, conn, port, .. } => {
                    let inputs = self.inputs.clone();
                    thread::spawn(move || {
                        let result = TcpStream::connect_timeout(&SocketAddr::new(peer, port), Duration::from_secs(5));
                        inputs.send(Input::Dialled(conn, result.map_err(|error| why(&error))))
                    });
                }
                Action::Send { conn, bytes } => {
                    let written = self.streams.get_mut(&conn).is_some_and(|stream| stream.write_all(&bytes).is_ok());
                    if written {
                        self.speaker.handle_sent(conn, bytes.len());
                    }
                }
                Action::Close { conn } => {
                    if let Some(stream) = self.streams.remove(&conn) {
                        let _ = stream.shutdown(Shutdown::Both);
                    }
                }
            }
        }
        while let Some(change) = self.speaker.poll_route_change() {
            self.changes += 1;
            if !self.quiet {
                let best = change.best.map(|best| format!("via {:?} from {}", best.next_hops, best.from));
                println!("route {} {}", change.prefix, best.unwrap_or_else(|| "-".to_owned()));
            }
        }
    }
}

fn cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    stat.split(' ').skip(13).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10
}

fn run(mut shell: Shell, outputs: &Receiver<Input>, start: Instant, seconds: u64) -> Result<(), Box<dyn Error>> {
    let mut shown: BTreeMap<PeerId, (PeerState, usize, usize)> = BTreeMap::new();
    let mut synced = false;
    while start.elapsed() < Duration::from_secs(seconds) {
        shell.act();
        for peer in shell.speaker.peers() {
            let told = (peer.state, peer.prefixes_received, peer.prefixes_sent);
            if shown.insert(peer.address, told) != Some(told) {
                let ms = start.elapsed().as_millis();
                let counts = format!("{} in, {} out", told.1, told.2);
                println!("[{ms} ms, {} ms CPU] {} {}: {counts}", cpu_ms(), peer.address, peer.info());
            }
        }
        if !std::mem::replace(&mut synced, shell.speaker.initial_sync_done()) && shell.speaker.initial_sync_done() {
            println!("[{} ms] in sync", start.elapsed().as_millis());
        }
        let due = shell.speaker.poll_timeout().map_or(Duration::from_secs(1), |at| at - Instant::now().min(at));
        match outputs.recv_timeout(due.min(Duration::from_secs(1))) {
            Ok(input) => shell.take(input)?,
            Err(RecvTimeoutError::Timeout) => shell.speaker.handle_timeout(Instant::now()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    println!("[{} ms CPU] {} route changes in all", cpu_ms(), shell.changes);
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        status.lines().filter(|line| line.starts_with("VmRSS")).for_each(|line| println!("{line}"));
    }
    shell.speaker.shutdown(Instant::now());
    shell.act();
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let Options { config, port, seconds, quiet, peers, routes } = options()?;
    let (inputs, outputs) = channel();
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let accepting = inputs.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if accepting.send(Input::Accepted(stream)).is_err() {
                return;
            }
        }
    });
    let start = Instant::now();
    let mut speaker = Speaker::new(config, start);
    speaker.set_local_routes(start, routes);
    speaker.set_peers(start, peers);
    run(Shell { speaker, streams: BTreeMap::new(), inputs, quiet, changes: 0 }, &outputs, start, seconds)
}
