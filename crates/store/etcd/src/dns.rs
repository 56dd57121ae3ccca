//! Members by DNS: SRV records (RFC 2782), asked of the host's own name servers over UDP, and TCP for long answers.
//!
//! As etcd's own client: `_etcd-client-ssl._tcp.DOMAIN` names members with TLS, `_etcd-client._tcp.DOMAIN` those without.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::endpoint::Endpoint;

/// How long a name server may take; each is asked twice.
const PATIENCE: Duration = Duration::from_secs(2);
const SRV: u16 = 33;
const INTERNET: u16 = 1;
const SERVICES: [(&str, bool); 2] = [("_etcd-client-ssl._tcp", true), ("_etcd-client._tcp", false)];

/// The members of a domain.
pub(crate) async fn members(domain: &str) -> Result<Vec<Endpoint>, String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    members_by(&servers(&text), domain).await
}

/// The name servers of a resolver's configuration; as the C library, this host if there are none.
fn servers(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let found: Vec<SocketAddr> = words
        .filter_map(|word| word.split_whitespace().next()?.split('%').next()?.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::from((ip, 53)))
        .collect();
    if found.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))] } else { found }
}

async fn members_by(servers: &[SocketAddr], domain: &str) -> Result<Vec<Endpoint>, String> {
    let mut members = Vec::new();
    let mut troubles = Vec::new();
    for (service, tls) in SERVICES {
        let name = format!("{service}.{}", domain.trim_end_matches('.'));
        match lookup(servers, &name).await {
            Ok(targets) => members.extend(targets.into_iter().map(|(host, port)| Endpoint { tls, host, port })),
            Err(trouble) => troubles.push(trouble),
        }
    }
    match (members.is_empty(), troubles.is_empty()) {
        (false, _) => Ok(members),
        (true, false) => Err(troubles.join("; ")),
        (true, true) => Err(format!(
            "no SRV record _etcd-client-ssl._tcp.{domain} and none _etcd-client._tcp.{domain}: expected one a member"
        )),
    }
}

/// The targets of a name's SRV records, the preferred ones first; empty if there are none.
async fn lookup(servers: &[SocketAddr], name: &str) -> Result<Vec<(String, u16)>, String> {
    let mut last = String::new();
    for server in servers.iter().chain(servers) {
        match timeout(PATIENCE, ask(*server, name)).await {
            Ok(Ok(mut records)) => {
                records.sort();
                return Ok(records.into_iter().map(|Record { host, port, .. }| (host, port)).collect());
            }
            Ok(Err(trouble)) => last = format!("the name server {server}: {name}: {trouble}"),
            Err(_) => last = format!("the name server {server} did not answer for {name}"),
        }
    }
    Err(last)
}

async fn ask(server: SocketAddr, name: &str) -> Result<Vec<Record>, String> {
    let id = (RandomState::new().hash_one(name) & 0xffff) as u16;
    let query = query(id, name)?;
    let text = |error: std::io::Error| error.to_string();
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await.map_err(text)?;
    socket.connect(server).await.map_err(text)?;
    socket.send(&query).await.map_err(text)?;
    let mut answer = [0; 4096];
    loop {
        let length = socket.recv(&mut answer).await.map_err(text)?;
        match parse(id, &answer[..length]) {
            // Not the answer to this question: somebody else's, or made up.
            Answer::Other => {}
            Answer::Truncated => break,
            Answer::Records(records) => return Ok(records),
            Answer::Failed(why) => return Err(why),
        }
    }
    let mut stream = TcpStream::connect(server).await.map_err(text)?;
    let length = u16::try_from(query.len()).map_err(|_| "the name is too long".to_owned())?;
    stream.write_all(&[&length.to_be_bytes()[..], &query].concat()).await.map_err(text)?;
    let length = stream.read_u16().await.map_err(text)?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.map_err(text)?;
    match parse(id, &answer) {
        Answer::Records(records) => Ok(records),
        Answer::Failed(why) => Err(why),
        Answer::Other | Answer::Truncated => Err("it answered over TCP with something else".to_owned()),
    }
}

/// A question for SRV records (RFC 1035, 4.1).
fn query(id: u16, name: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(64);
    // Recursion desired; one question.
    for word in [id, 0x0100, 1, 0, 0, 0] {
        bytes.extend(word.to_be_bytes());
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        bytes.push(length.ok_or_else(|| format!("{name:?} is no domain name"))?);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(SRV.to_be_bytes());
    bytes.extend(INTERNET.to_be_bytes());
    Ok(bytes)
}

/// An SRV record; the order is that of preference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    priority: u16,
    host: String,
    port: u16,
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// To another question.
    Other,
    /// It goes on over TCP.
    Truncated,
    Records(Vec<Record>),
    Failed(String),
}

fn parse(id: u16, bytes: &[u8]) -> Answer {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let (Some(found), Some(flags), Some(questions), Some(answers)) = (word(0), word(2), word(4), word(6)) else {
        return Answer::Other;
    };
    if found != id || flags & 0x8000 == 0 {
        return Answer::Other;
    }
    if flags & 0x0200 != 0 {
        return Answer::Truncated;
    }
    match flags & 0x000f {
        0 => records(bytes, questions, answers)
            .map_or_else(|| Answer::Failed("a broken answer".to_owned()), Answer::Records),
        // There is no such name.
        3 => Answer::Records(Vec::new()),
        2 => Answer::Failed("the server failed".to_owned()),
        5 => Answer::Failed("the server refused to answer".to_owned()),
        code => Answer::Failed(format!("answer code {code}")),
    }
}

fn records(bytes: &[u8], questions: u16, answers: u16) -> Option<Vec<Record>> {
    let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let mut at = 12;
    for _ in 0..questions {
        at = name(bytes, at)?.1 + 4;
    }
    let mut records = Vec::new();
    for _ in 0..answers {
        at = name(bytes, at)?.1;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        let data = at + 10;
        if kind == SRV && length >= 7 {
            let (host, _) = name(bytes, data + 6)?;
            // A single dot: the service is not there (RFC 2782).
            if !host.is_empty() {
                records.push(Record { priority: word(data)?, port: word(data + 4)?, host });
            }
        }
        at = data + length;
    }
    Some(records)
}

/// A name, following pointers, and where what is behind it starts.
fn name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut behind = None;
    // A pointer leads backwards, so there can't be more than this.
    for _ in 0..128 {
        let length = *bytes.get(at)?;
        match length {
            0 => return Some((text, behind.unwrap_or(at + 1))),
            1..=63 => {
                let label = bytes.get(at + 1..at + 1 + usize::from(length))?;
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(std::str::from_utf8(label).ok()?);
                at += 1 + usize::from(length);
            }
            192.. => {
                behind = behind.or(Some(at + 2));
                at = usize::from(u16::from_be_bytes([length & 0x3f, *bytes.get(at + 1)?]));
            }
            64..=191 => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket as Socket;

    /// The answer to a question, with a pointer to its name.
    fn answer(query: &[u8], records: &[(u16, u16, &str)]) -> Vec<u8> {
        let mut bytes = query.to_vec();
        bytes[2..4].copy_from_slice(&0x8180_u16.to_be_bytes());
        bytes[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (priority, port, host) in records {
            let target: Vec<u8> =
                host.split('.').flat_map(|l| [&[l.len() as u8], l.as_bytes()].concat()).chain([0]).collect();
            bytes.extend([0xc0, 12]);
            for word in [SRV, INTERNET, 0, 60, 6 + target.len() as u16, *priority, 0, *port] {
                bytes.extend(word.to_be_bytes());
            }
            bytes.extend(target);
        }
        bytes
    }

    #[test]
    fn the_preferred_member_is_first_and_tls_is_by_service() {
        let server = Socket::bind("127.0.0.1:0").expect("a port");
        let address = server.local_addr().expect("bound");
        let serving = std::thread::spawn(move || {
            let mut bytes = [0; 512];
            for _ in 0..2 {
                let (length, from) = server.recv_from(&mut bytes).expect("a question");
                let secure = bytes[..length].windows(15).any(|part| part == b"etcd-client-ssl");
                let records: &[(u16, u16, &str)] =
                    if secure { &[(20, 2380, "b.local"), (10, 2379, "a.local")] } else { &[] };
                server.send_to(&answer(&bytes[..length], records), from).expect("sent");
            }
        });
        let found =
            crate::runtime::wait(async { Ok::<_, crate::fault::Fault>(members_by(&[address], "example.org").await) });
        let shown: Vec<String> = found.expect("a runtime").expect("members").iter().map(Endpoint::to_string).collect();
        assert_eq!(shown, ["https://a.local:2379", "https://b.local:2380"]);
        serving.join().expect("it answered");
    }

    #[test]
    fn name_servers_are_those_of_the_resolver() {
        let text = "# x\nsearch a b\nnameserver 10.0.0.1\n  nameserver fe80::1%eth0\nnameserver nonsense\n";
        let shown: Vec<String> = servers(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:53", "[fe80::1]:53"]);
        assert_eq!(servers("").len(), 1);
    }

    #[test]
    fn foreign_truncated_and_failed_answers_are_told_apart() {
        let question = query(7, "_etcd-client._tcp.example.org").expect("a name");
        let good = answer(&question, &[(1, 2, "a.b")]);
        assert!(matches!(parse(8, &good), Answer::Other));
        assert!(matches!(parse(7, &question), Answer::Other));
        let flags = |flags: u16| [&good[..2], &flags.to_be_bytes(), &good[4..]].concat();
        assert_eq!(parse(7, &flags(0x8380)), Answer::Truncated);
        assert_eq!(parse(7, &flags(0x8183)), Answer::Records(Vec::new()));
        assert!(matches!(parse(7, &flags(0x8182)), Answer::Failed(_)));
        assert!(query(7, "a..b").is_err() && query(7, &"x".repeat(64)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics(mut noise in proptest::collection::vec(proptest::num::u8::ANY, 0..80), at in 0_usize..80, byte: u8) {
            let mut good = answer(&query(7, "_etcd-client._tcp.example.org").expect("a name"), &[(1, 2, "a.b")]);
            let at = at % good.len();
            good[at] = byte;
            let _ = parse(7, &good);
            let _ = parse(7, &good[..at]);
            if noise.len() > 4 {
                noise[..4].copy_from_slice(&[0, 7, 0x81, 0x80]);
            }
            let _ = parse(7, &noise);
        }
    }
}
