//! The text that a device's process is asked in: the protocol of user-space WireGuards
//! (<https://www.wireguard.com/xplatform/>), as much of it as the node uses.
//!
//! One thing differs on purpose: the private key is never given out; the own public key is, as `own_public_key`.
//! A peer is always said as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write};
use std::time::{Duration, SystemTime};

use tortie_net::PublicKey;
use tortie_netlink::{PrivateKey, WireguardChange, WireguardPeer, WireguardPeerState, WireguardState};

/// What a process can be asked.
#[derive(Debug)]
pub enum Asked {
    /// How its device is.
    State,
    /// To change it.
    Change(WireguardChange),
}

/// Reads a request: lines up to an empty one. The error says which line is wrong.
pub fn asked(text: &str) -> Result<Asked, String> {
    let mut lines = text.lines().take_while(|line| !line.is_empty());
    match lines.next() {
        Some("get=1") => Ok(Asked::State),
        Some("set=1") => parse_change(lines).map(Asked::Change),
        other => Err(format!("{:?}: expected get=1 or set=1", other.unwrap_or_default())),
    }
}

/// A peer while its lines are read.
#[derive(Default)]
struct Part {
    remove: bool,
    replace: bool,
    endpoint: Option<std::net::SocketAddr>,
    keepalive_secs: u16,
    allowed: BTreeSet<ipnet::IpNet>,
}

fn parse_change<'a>(lines: impl Iterator<Item = &'a str>) -> Result<WireguardChange, String> {
    let mut change = WireguardChange::default();
    let mut peers: BTreeMap<PublicKey, Part> = BTreeMap::new();
    let mut current: Option<PublicKey> = None;
    for line in lines {
        let wrong =
            || format!("{}: no such setting, or no such value of it", line.split('=').next().unwrap_or_default());
        let (key, value) = line.split_once('=').ok_or_else(wrong)?;
        if key == "public_key" {
            let key = PublicKey(unhex(value).ok_or_else(wrong)?);
            peers.insert(key, Part::default());
            current = Some(key);
            continue;
        }
        match current.as_ref().and_then(|key| peers.get_mut(key)) {
            None => match key {
                "private_key" => change.private_key = Some(PrivateKey::from_bytes(unhex(value).ok_or_else(wrong)?)),
                "listen_port" => change.port = Some(value.parse().map_err(|_| wrong())?),
                "fwmark" => change.mark = Some(value.parse().map_err(|_| wrong())?),
                _ => return Err(wrong()),
            },
            Some(part) => match key {
                "remove" if value == "true" => part.remove = true,
                "replace_allowed_ips" if value == "true" => part.replace = true,
                "endpoint" => part.endpoint = Some(value.parse().map_err(|_| wrong())?),
                "persistent_keepalive_interval" => part.keepalive_secs = value.parse().map_err(|_| wrong())?,
                "allowed_ip" => drop(part.allowed.insert(value.parse().map_err(|_| wrong())?)),
                _ => return Err(wrong()),
            },
        }
    }
    for (key, Part { remove, replace, endpoint, keepalive_secs, allowed }) in peers {
        let peer = match (remove, replace, endpoint) {
            (true, _, _) => None,
            (false, true, Some(endpoint)) => Some(WireguardPeer { endpoint, allowed, keepalive_secs }),
            (false, _, _) => {
                return Err(format!("public_key {key}: expected remove, or endpoint and replace_allowed_ips"));
            }
        };
        change.peers.insert(key, peer);
    }
    Ok(change)
}

/// A change as a request.
pub fn print_change(change: &WireguardChange) -> String {
    let WireguardChange { private_key, port, mark, peers } = change;
    let mut text = "set=1\n".to_owned();
    let mut line = |key: &str, value: &dyn Display| text += &format!("{key}={value}\n");
    if let Some(key) = private_key {
        line("private_key", &hex(key.bytes()));
    }
    if let Some(port) = port {
        line("listen_port", port);
    }
    if let Some(mark) = mark {
        line("fwmark", mark);
    }
    for (key, peer) in peers {
        line("public_key", &hex(&key.0));
        let Some(WireguardPeer { endpoint, allowed, keepalive_secs }) = peer else {
            line("remove", &true);
            continue;
        };
        line("replace_allowed_ips", &true);
        line("endpoint", endpoint);
        line("persistent_keepalive_interval", keepalive_secs);
        allowed.iter().for_each(|net| line("allowed_ip", net));
    }
    text.push('\n');
    text
}

/// A device's state as an answer.
pub fn print_state(state: &WireguardState) -> String {
    let WireguardState { public_key, port, mark, peers } = state;
    let mut text = String::new();
    let mut line = |key: &str, value: &dyn Display| text += &format!("{key}={value}\n");
    if let Some(key) = public_key {
        line("own_public_key", &hex(&key.0));
    }
    line("listen_port", port);
    line("fwmark", mark);
    for (key, peer) in peers {
        let WireguardPeerState { endpoint, allowed, keepalive_secs, last_handshake, rx_bytes, tx_bytes } = peer;
        line("public_key", &hex(&key.0));
        if let Some(endpoint) = endpoint {
            line("endpoint", endpoint);
        }
        line("persistent_keepalive_interval", keepalive_secs);
        allowed.iter().for_each(|net| line("allowed_ip", net));
        let since = last_handshake.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        if let Some(since) = since {
            line("last_handshake_time_sec", &since.as_secs());
            line("last_handshake_time_nsec", &since.subsec_nanos());
        }
        line("rx_bytes", rx_bytes);
        line("tx_bytes", tx_bytes);
    }
    text += "errno=0\n\n";
    text
}

/// Reads a device's state from an answer; what is not known in it is left out. The error: the process's own.
pub fn parse_state(text: &str) -> Result<WireguardState, i32> {
    let mut state = WireguardState::default();
    let mut current: Option<PublicKey> = None;
    let mut errno = None;
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        if key == "errno" {
            errno = value.parse().ok();
        } else if key == "public_key" {
            current = unhex(value).map(PublicKey);
            if let Some(key) = current {
                state.peers.insert(key, WireguardPeerState::default());
            }
        } else if let Some(peer) = current.as_ref().and_then(|key| state.peers.get_mut(key)) {
            read_peer(peer, key, value);
        } else {
            match key {
                "own_public_key" => state.public_key = unhex(value).map(PublicKey),
                "listen_port" => state.port = value.parse().unwrap_or_default(),
                "fwmark" => state.mark = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
    }
    match errno {
        Some(0) => Ok(state),
        other => Err(other.unwrap_or(libc::EPROTO)),
    }
}

fn read_peer(peer: &mut WireguardPeerState, key: &str, value: &str) {
    let number = || value.parse::<u64>().unwrap_or_default();
    match key {
        "endpoint" => peer.endpoint = value.parse().ok(),
        "persistent_keepalive_interval" => peer.keepalive_secs = value.parse().unwrap_or_default(),
        "allowed_ip" => peer.allowed.extend(value.parse::<ipnet::IpNet>()),
        "last_handshake_time_sec" => {
            peer.last_handshake = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(number()));
        }
        "last_handshake_time_nsec" => {
            let more = |at: SystemTime| at.checked_add(Duration::from_nanos(number().min(999_999_999)));
            peer.last_handshake = peer.last_handshake.and_then(more);
        }
        "rx_bytes" => peer.rx_bytes = number(),
        "tx_bytes" => peer.tx_bytes = number(),
        _ => {}
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = |at: usize| text.get(2 * at..2 * at + 2).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits(at)?, 16).ok()?;
    }
    (text.len() == 64).then_some(bytes)
}
