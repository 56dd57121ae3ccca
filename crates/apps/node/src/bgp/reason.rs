//! Why a session is not up, in words that say what to do.
//!
//! A wrong password and a wrong TTL both look like silence; the kernel's counters tell them apart.

use serde::{Deserialize, Serialize};
use tortie_bgp::message::notification::Notification;
use tortie_bgp::{ConnectError, PeerConfig, PeerState, PeerStatus, SessionEnd};

/// A reason and its remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// One of: `no-route`, `refused`, `filtered`, `silent`, `password`, `ttl`, `wrong-as`, `hold-timer`, `capability`,
    /// `identifier`, `max-prefixes`, `bfd`, `closed`, `configuration`, `waiting`, `other`.
    pub code: String,
    /// What happened.
    pub what: String,
    /// What to look at.
    pub hint: String,
}

impl Reason {
    pub(super) fn new(code: &str, what: impl Into<String>, hint: impl Into<String>) -> Reason {
        Reason { code: code.to_owned(), what: what.into(), hint: hint.into() }
    }
}

/// Segments that the kernel dropped before any socket saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Drops {
    /// Because of a missing, unexpected or wrong password.
    pub(super) password: u64,
    /// Because of too low a TTL.
    pub(super) ttl: u64,
}

impl Drops {
    /// The counters of this network namespace; zero if they can't be read.
    pub(super) fn read() -> Drops {
        std::fs::read_to_string("/proc/thread-self/net/netstat").map(|text| Drops::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &str) -> Drops {
        let mut drops = Drops::default();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("TcpExt:")).collect();
        let [names, values] = lines.as_slice() else { return drops };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            let value: u64 = value.parse().unwrap_or(0);
            match name {
                "TCPMD5NotFound" | "TCPMD5Unexpected" | "TCPMD5Failure" => drops.password += value,
                "TCPMinTTLDrop" => drops.ttl += value,
                _ => {}
            }
        }
        drops
    }

    pub(super) fn since(self, before: Drops) -> Drops {
        Drops { password: self.password.saturating_sub(before.password), ttl: self.ttl.saturating_sub(before.ttl) }
    }
}

/// Why the peer has no session; `None` if it has one. `drops`: of late.
pub(super) fn reason(peer: &PeerStatus, config: Option<&PeerConfig>, drops: Drops) -> Option<Reason> {
    if peer.state == PeerState::Established {
        return None;
    }
    let passive = config.is_some_and(|config| config.passive);
    let with_password = config.is_some_and(|config| config.password.is_some());
    let with_ttl = config.and_then(|config| config.ttl_hops);
    Some(match &peer.last_end {
        // A dial that hangs tells nothing by itself.
        Some(SessionEnd::NotConnected(ConnectError::TimedOut)) | None if drops.password > 0 => password(with_password),
        Some(SessionEnd::NotConnected(ConnectError::TimedOut)) | None if with_ttl.is_some() && drops.ttl > 0 => {
            let hops = with_ttl.unwrap_or_default();
            Reason::new(
                "ttl",
                format!("the peer's packets passed more than {hops} routers, or it does not send them with TTL 255"),
                "compare ttlSecurity with the way to the peer, and switch TTL security on there",
            )
        }
        None if passive => Reason::new("waiting", "the peer has not connected", "its side must open the session"),
        None => Reason::new("waiting", "the first attempt is under way", "ask again in a few seconds"),
        Some(SessionEnd::NotConnected(error)) => not_connected(error, with_password || with_ttl.is_some()),
        Some(SessionEnd::Lost | SessionEnd::Replaced) => Reason::new(
            "closed",
            "the peer closed the connection without a word",
            "does it know this node's address as a neighbour, and is its process running?",
        ),
        Some(SessionEnd::Reconfigured) => {
            Reason::new("configuration", "the configuration changed here", "ask again in a few seconds")
        }
        Some(SessionEnd::Sent(notification)) => told(notification, "this node", peer),
        Some(SessionEnd::Received(notification)) => told(notification, "the peer", peer),
    })
}

fn password(ours: bool) -> Reason {
    let what = if ours {
        "the peer's packets carry no password or another one"
    } else {
        "the peer's packets carry a password, and none is configured here"
    };
    Reason::new("password", what, "compare the BGPPeer's password with the peer's")
}

fn not_connected(error: &ConnectError, guarded: bool) -> Reason {
    match error {
        ConnectError::Refused => Reason::new(
            "refused",
            "the host answers, but nobody listens on the port",
            "is the peer's BGP process running, and does it listen on this address and port?",
        ),
        ConnectError::NoRoute => Reason::new(
            "no-route",
            "there is no way to the peer, or its neighbour can't be resolved",
            "look at `ip route get ADDRESS`; reachableBy makes a route through a gateway",
        ),
        ConnectError::TimedOut if guarded => Reason::new(
            "silent",
            "nothing came back",
            "a packet filter on the way, the password or the TTL: the peer drops what does not fit, without a word",
        ),
        ConnectError::TimedOut => Reason::new(
            "filtered",
            "nothing came back",
            "a packet filter on the way drops TCP to the port, or the peer wants a password",
        ),
        ConnectError::Other(text) => {
            Reason::new("other", text.clone(), "is the source address one of this node's? See sourceAddress")
        }
    }
}

fn told(notification: &Notification, who: &str, peer: &PeerStatus) -> Reason {
    let what = format!("{who} ended the session: {notification}");
    match (notification.code, notification.subcode) {
        (2, 2) => Reason::new(
            "wrong-as",
            what,
            format!(
                "AS {} is configured here for the peer; it must be the peer's own, and ours must be right there",
                peer.remote_as
            ),
        ),
        (2, 3) => Reason::new("identifier", what, "two routers have one BGP identifier: see CALICO_ROUTER_ID"),
        (2, 7) => {
            Reason::new("capability", what, "the sides share no address family: enable the session's family there")
        }
        (2, _) => Reason::new("capability", what, "the OPEN was not to its liking: see the peer's log"),
        (4, _) => Reason::new(
            "hold-timer",
            what,
            "packets are lost on the way, or one side is overloaded; large ones get lost if MTUs differ",
        ),
        (6, 1) => {
            Reason::new("max-prefixes", what, "more prefixes than allowed; the session is tried again in a minute")
        }
        (6, 10) => Reason::new("bfd", what, "BFD packets are lost; does the peer still speak BFD?"),
        (6, 2 | 4) => Reason::new("configuration", what, "somebody shut the session down"),
        (6, 3 | 5) => Reason::new("configuration", what, "the peer does not have this node as a neighbour"),
        (6, _) => Reason::new("configuration", what, "it comes back by itself"),
        _ => Reason::new("other", what, "see both logs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "TcpExt: A TCPMD5NotFound TCPMD5Failure TCPMinTTLDrop\nTcpExt: 1 2 3 4\nIpExt: X\nIpExt: 9\n";
        assert_eq!(Drops::parse(text), Drops { password: 5, ttl: 4 });
        assert_eq!(Drops::parse("nonsense"), Drops::default());
    }
}
