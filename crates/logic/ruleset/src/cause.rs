//! Why a packet ends, and the short text that says so in the kernel's log of packets (NFLOG).
//!
//! For policies and profiles the text is upstream's, so that its readers understand it: `D`, then `P`olicy or
//! p`R`ofile, `I`ngress or `E`gress, the rule's number, `|` and who. What upstream does not log has `X` in the place of
//! the owner. Invariant: different causes never have one text, and a text that was not hashed reads back.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tortie_desired::{PolicyId, PolicyKind};

use crate::model::Direction;

/// Upstream's NFLOG group of what was denied or allowed towards an endpoint.
pub const INGRESS_GROUP: u16 = 1;
/// Upstream's NFLOG group of what was denied or allowed from an endpoint.
pub const EGRESS_GROUP: u16 = 2;

/// From this length on a text is hashed, bytes; upstream's limit, which is that of iptables.
const HASHED_FROM: usize = 63;
/// How much of its start and end a hashed text keeps, bytes.
const KEPT: usize = 10;

/// Whose rules decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CauseOwner {
    /// A policy.
    Policy(PolicyId),
    /// A profile.
    Profile(Arc<str>),
}

impl fmt::Display for CauseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CauseOwner::Policy(id) => write!(f, "{id}"),
            CauseOwner::Profile(name) => write!(f, "pro/{name}"),
        }
    }
}

/// What ends packets beside policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Beside {
    /// The source is not one that the workload may use.
    Spoofed,
    /// Connection tracking can't make sense of the packet.
    Invalid,
    /// IPv6, which is not managed, so that workloads have none.
    Ipv6Off,
    /// The interface has a workload's name, but belongs to no endpoint.
    UnknownInterface,
    /// A workload's own VXLAN.
    Vxlan,
    /// A workload's own IPIP.
    Ipip,
    /// From a workload to its own node, which the settings forbid.
    ToHost,
    /// Above the workload's rate of packets.
    PacketRate,
    /// Above the workload's number of connections.
    Connections,
    /// To a service's address that nobody translated.
    ServiceLoop,
    /// VXLAN or IPIP to the node from who is no node of the cluster.
    ForeignTunnel,
    /// Its flow is one that policy has come to deny.
    Revoked,
}

impl Beside {
    /// All of them.
    pub const ALL: [Beside; 12] = [
        Beside::Spoofed,
        Beside::Invalid,
        Beside::Ipv6Off,
        Beside::UnknownInterface,
        Beside::Vxlan,
        Beside::Ipip,
        Beside::ToHost,
        Beside::PacketRate,
        Beside::Connections,
        Beside::ServiceLoop,
        Beside::ForeignTunnel,
        Beside::Revoked,
    ];

    /// One word for it.
    pub fn word(self) -> &'static str {
        match self {
            Beside::Spoofed => "spoofed",
            Beside::Invalid => "invalid",
            Beside::Ipv6Off => "ipv6-off",
            Beside::UnknownInterface => "unknown-interface",
            Beside::Vxlan => "vxlan",
            Beside::Ipip => "ipip",
            Beside::ToHost => "to-host",
            Beside::PacketRate => "packet-rate",
            Beside::Connections => "connections",
            Beside::ServiceLoop => "service-loop",
            Beside::ForeignTunnel => "foreign-tunnel",
            Beside::Revoked => "revoked",
        }
    }
}

/// Why a packet ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A rule says so.
    Rule {
        /// Whose rule.
        owner: CauseOwner,
        /// The direction, as seen from the endpoint.
        direction: Direction,
        /// Its number in the list of that direction, from 0.
        index: usize,
    },
    /// The endpoint lists a policy or profile that is not there.
    Missing {
        /// What is missing.
        owner: CauseOwner,
        /// The direction, as seen from the endpoint.
        direction: Direction,
    },
    /// A tier had policies for the endpoint, and none of them decided.
    EndOfTier {
        /// The tier.
        tier: Arc<str>,
        /// The direction, as seen from the endpoint.
        direction: Direction,
        /// Whether the endpoint is one of the host.
        host: bool,
    },
    /// No policy or profile decided.
    NothingMatched {
        /// The direction, as seen from the endpoint.
        direction: Direction,
        /// Whether the endpoint is one of the host.
        host: bool,
    },
    /// Something beside policy.
    Beside {
        /// What.
        what: Beside,
        /// The direction, as seen from the endpoint.
        direction: Direction,
    },
}

/// What follows the name of the tier in the text of a host endpoint. No tier has such a name.
const OF_HOST: &str = "|host";

impl Cause {
    /// The direction, as seen from the endpoint.
    pub fn direction(&self) -> Direction {
        match self {
            Cause::Rule { owner: _, direction, index: _ }
            | Cause::Missing { owner: _, direction }
            | Cause::EndOfTier { tier: _, direction, host: _ }
            | Cause::NothingMatched { direction, host: _ }
            | Cause::Beside { what: _, direction } => *direction,
        }
    }

    /// The NFLOG group that tells of it.
    pub fn group(&self) -> u16 {
        match self.direction() {
            Direction::Ingress => INGRESS_GROUP,
            Direction::Egress => EGRESS_GROUP,
        }
    }

    /// One word for the kind of cause.
    pub fn word(&self) -> &'static str {
        match self {
            Cause::Rule { owner: _, direction: _, index: _ } => "rule",
            Cause::Missing { owner: _, direction: _ } => "missing",
            Cause::EndOfTier { tier: _, direction: _, host: _ } => "end-of-tier",
            Cause::NothingMatched { direction: _, host: _ } => "nothing-matched",
            Cause::Beside { what, direction: _ } => what.word(),
        }
    }

    /// The text, shorter than 64 bytes.
    pub fn prefix(&self) -> String {
        let text = self.text();
        if text.len() < HASHED_FROM {
            return text;
        }
        let room = HASHED_FROM - 2 * KEPT - 2;
        let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()));
        let start = text.floor_char_boundary(KEPT);
        let end = text.ceil_char_boundary(text.len() - KEPT);
        format!("{}_{}_{}", &text[..start], &hash[..room], &text[end..])
    }

    /// Whether the text had to be hashed.
    pub fn is_hashed(&self) -> bool {
        self.text().len() >= HASHED_FROM
    }

    fn text(&self) -> String {
        let way = match self.direction() {
            Direction::Ingress => 'I',
            Direction::Egress => 'E',
        };
        let letter = |owner: &CauseOwner| match owner {
            CauseOwner::Policy(_) => 'P',
            CauseOwner::Profile(_) => 'R',
        };
        match self {
            Cause::Rule { owner, direction: _, index } => format!("D{}{way}{index}|{owner}", letter(owner)),
            Cause::Missing { owner, direction: _ } => format!("D{}{way}|{owner}", letter(owner)),
            Cause::EndOfTier { tier, direction: _, host } => {
                format!("DP{way}|{tier}{}", if *host { OF_HOST } else { "" })
            }
            Cause::NothingMatched { direction: _, host } => format!("DR{way}{}", if *host { OF_HOST } else { "" }),
            Cause::Beside { what, direction: _ } => format!("DX{way}|{}", what.word()),
        }
    }

    /// Reads a text back; `None` if it is none of ours, or was hashed.
    pub fn parse(text: &str) -> Option<Cause> {
        let (head, rest) = match text.split_once('|') {
            Some((head, rest)) => (head, Some(rest)),
            None => (text, None),
        };
        let mut letters = head.chars();
        let ('D', kind, way) = (letters.next()?, letters.next()?, letters.next()?) else { return None };
        let direction = match way {
            'I' => Direction::Ingress,
            'E' => Direction::Egress,
            _ => return None,
        };
        let number = letters.as_str();
        let index = if number.is_empty() { None } else { Some(number.parse().ok()?) };
        let cause = match (kind, index, rest) {
            ('X', None, Some(word)) => {
                let what = Beside::ALL.into_iter().find(|what| what.word() == word)?;
                Cause::Beside { what, direction }
            }
            ('P', None, Some(rest)) if !rest.contains('/') => {
                let (tier, host) = rest.strip_suffix(OF_HOST).map_or((rest, false), |tier| (tier, true));
                Cause::EndOfTier { tier: Arc::from(tier), direction, host }
            }
            ('R', None, None) => Cause::NothingMatched { direction, host: false },
            ('R', None, Some("host")) => Cause::NothingMatched { direction, host: true },
            ('P' | 'R', index, Some(rest)) => {
                let owner = owner(kind, rest)?;
                match index {
                    Some(index) => Cause::Rule { owner, direction, index },
                    None => Cause::Missing { owner, direction },
                }
            }
            _ => return None,
        };
        (cause.text() == text && !cause.is_hashed()).then_some(cause)
    }
}

fn owner(kind: char, text: &str) -> Option<CauseOwner> {
    if kind == 'R' {
        return text.strip_prefix("pro/").map(|name| CauseOwner::Profile(Arc::from(name)));
    }
    let (short, rest) = text.split_once('/')?;
    let kind = PolicyKind::ALL.into_iter().find(|kind| kind.short() == short)?;
    let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
    Some(CauseOwner::Policy(PolicyId { name: Arc::from(name), namespace: Arc::from(namespace), kind }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn causes() -> impl Strategy<Value = Cause> {
        let name = "[a-z][a-z0-9.-]{0,40}";
        let policy = (select(PolicyKind::ALL.to_vec()), name, prop_oneof![Just(String::new()), name.prop_map(|n| n)])
            .prop_map(|(kind, name, namespace)| {
                CauseOwner::Policy(PolicyId { name: name.into(), namespace: namespace.into(), kind })
            });
        let owner = prop_oneof![policy, name.prop_map(|name| CauseOwner::Profile(name.into()))];
        let direction = select(vec![Direction::Ingress, Direction::Egress]);
        (owner, direction, 0usize..2000, name, any::<bool>(), select(Beside::ALL.to_vec()), 0..5).prop_map(
            |(owner, direction, index, tier, host, what, kind)| match kind {
                0 => Cause::Rule { owner, direction, index },
                1 => Cause::Missing { owner, direction },
                2 => Cause::EndOfTier { tier: tier.into(), direction, host },
                3 => Cause::NothingMatched { direction, host },
                _ => Cause::Beside { what, direction },
            },
        )
    }

    proptest! {
        #[test]
        fn a_text_reads_back_unless_it_was_hashed(cause in causes()) {
            let text = cause.prefix();
            prop_assert!(text.len() < 64, "{text}");
            prop_assert_eq!(Cause::parse(&text), (!cause.is_hashed()).then_some(cause));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,70}", ours in "[DAP][PRX][IE][0-9]{0,25}[|a-z/]{0,12}") {
            for text in [text, ours] {
                if let Some(cause) = Cause::parse(&text) {
                    prop_assert_eq!(cause.prefix(), text);
                }
            }
        }
    }

    #[test]
    fn the_texts_are_upstreams() {
        let policy = |name: &str| {
            CauseOwner::Policy(PolicyId {
                name: name.into(),
                namespace: "shop".into(),
                kind: PolicyKind::NetworkPolicy,
            })
        };
        let direction = Direction::Ingress;
        assert_eq!(Cause::Rule { owner: policy("web"), direction, index: 3 }.prefix(), "DPI3|np/shop/web");
        assert_eq!(Cause::EndOfTier { tier: "default".into(), direction, host: false }.prefix(), "DPI|default");
        assert_eq!(Cause::NothingMatched { direction: Direction::Egress, host: false }.prefix(), "DRE");
        // Upstream hashes the whole text: SHA-256, base64 without padding, cut; the ends stay.
        let long = Cause::Rule { owner: policy(&"x".repeat(60)), direction, index: 0 }.prefix();
        assert_eq!((long.len(), &long[..11], &long[52..]), (63, "DPI0|np/sh_", "_xxxxxxxxxx"));
    }
}
