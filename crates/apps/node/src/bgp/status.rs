//! The speaker's state for people and programs.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tortie_bgp::attribute::Attributes;
use tortie_bgp::{PeerStatus, Seen, Speaker, Told};
use tortie_desired::{BgpPeer, Community};
use tortie_net::{Family, IpNet};

use super::reason::Reason;

/// Most routes of one direction in one answer.
const MOST_ROUTES: usize = 5000;

/// One peer's state, as `calicoctl node status` shows it, and more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerState {
    /// Address of the peer.
    pub address: IpAddr,
    /// Name of the node or of the BGPPeer.
    pub name: String,
    /// Such as `node-to-node mesh`.
    pub kind: String,
    /// `up` or `start`.
    pub state: String,
    /// When the state was entered, seconds since 1970.
    pub since: i64,
    /// Such as `Established`.
    pub info: String,
    /// Its AS number, as configured.
    pub asn: u32,
    /// Whether that is another than ours.
    pub external: bool,
    /// Its BGP identifier, once it told it.
    pub router_id: Option<Ipv4Addr>,
    /// The hold time agreed on, seconds.
    pub hold_secs: Option<u64>,
    /// Families that both sides speak, such as `IPv4`.
    pub families: Vec<String>,
    /// Capabilities that both sides have.
    pub capabilities: Vec<String>,
    /// Prefixes from the peer.
    pub received: usize,
    /// Prefixes from the peer that filters keep out.
    pub filtered: usize,
    /// Prefixes that the peer was told.
    pub sent: usize,
    /// Routes of a lost session are kept for its return.
    pub keeps_stale: bool,
    /// UPDATEs whose routes were refused because they were malformed.
    pub faulty_updates: u64,
    /// Why the last of them was.
    pub last_fault: Option<String>,
    /// Why there is no session.
    pub reason: Option<Reason>,
    /// Whether BFD sees it; absent without BFD.
    pub bfd: Option<String>,
}

/// All of the speaker's state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether this node speaks BGP.
    pub running: bool,
    /// What keeps it from listening, if something does.
    pub fault: Option<String>,
    /// Its BGP identifier.
    #[serde(default)]
    pub router_id: Option<Ipv4Addr>,
    /// Whether it has an address of a family, IPv4 first.
    #[serde(default)]
    pub families: [bool; 2],
    /// When it was started, seconds since 1970.
    #[serde(default)]
    pub started: i64,
    /// When what is wanted of it changed last, the same.
    #[serde(default)]
    pub reconfigured: i64,
    /// The peers.
    pub peers: Vec<PeerState>,
}

/// A route as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteState {
    /// The prefix.
    pub prefix: IpNet,
    /// Where it leads.
    pub next_hop: Option<IpAddr>,
    /// The ASes on the way.
    pub as_path: String,
    /// LOCAL_PREF, if there is one.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC, if there is one.
    pub med: Option<u32>,
    /// Communities of both kinds.
    pub communities: Vec<String>,
    /// `best`, `filtered`, `stale`.
    pub marks: Vec<String>,
}

/// What one peer tells and is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// What it tells.
    pub received: Vec<RouteState>,
    /// What it is told.
    pub sent: Vec<RouteState>,
    /// Whether there are more than these.
    pub truncated: bool,
}

impl Routes {
    pub(super) fn of(speaker: &Speaker, peer: IpAddr) -> Option<Routes> {
        let (seen, told) = (speaker.seen(peer)?, speaker.told(peer)?);
        Some(Routes {
            truncated: seen.len().max(told.len()) > MOST_ROUTES,
            received: seen.iter().take(MOST_ROUTES).map(received).collect(),
            sent: told.iter().take(MOST_ROUTES).map(sent).collect(),
        })
    }
}

fn received(seen: &Seen) -> RouteState {
    let Seen { prefix, attributes, filtered, best, stale } = seen;
    let marks = [("best", *best), ("filtered", *filtered), ("stale", *stale)];
    let marks = marks.iter().filter(|(_, set)| *set).map(|(word, _)| (*word).to_owned()).collect();
    RouteState { marks, ..route(*prefix, attributes) }
}

fn sent(told: &Told) -> RouteState {
    let Told { prefix, attributes } = told;
    attributes.as_ref().map_or_else(|| route(*prefix, &Attributes::default()), |attributes| route(*prefix, attributes))
}

fn route(prefix: IpNet, attributes: &Attributes) -> RouteState {
    let standard = attributes.communities.iter().map(|value| Community::Standard(*value));
    let large = attributes.large_communities.iter().map(|value| Community::Large(*value));
    RouteState {
        prefix,
        next_hop: Some(attributes.next_hop).filter(|hop| !hop.is_unspecified()),
        as_path: attributes.as_path.to_string(),
        local_pref: attributes.local_pref,
        med: attributes.med,
        communities: standard.chain(large).map(|community| community.to_string()).collect(),
        marks: Vec::new(),
    }
}

/// A peer that gets no session because it has no password.
pub(super) fn unusable(address: IpAddr, peer: &BgpPeer, problem: &str) -> PeerState {
    PeerState {
        address,
        name: peer.name.to_string(),
        kind: peer.origin.text().to_owned(),
        state: "start".to_owned(),
        since: 0,
        info: "Idle Password missing".to_owned(),
        asn: peer.asn.0,
        external: false,
        router_id: None,
        hold_secs: None,
        families: Vec::new(),
        capabilities: Vec::new(),
        received: 0,
        filtered: 0,
        sent: 0,
        keeps_stale: false,
        faulty_updates: 0,
        last_fault: None,
        reason: Some(Reason::new("password", format!("its password can't be read: {problem}"), "see spec.password")),
        bfd: None,
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

pub(super) fn peer_state(peer: &PeerStatus, name: &str, reason: Option<Reason>) -> PeerState {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = now.saturating_sub(peer.since.elapsed()).as_secs();
    let session = peer.negotiated.as_ref();
    let capabilities = session.map_or_else(Vec::new, |session| {
        let all = [
            ("4-byte AS", session.four_byte_as),
            ("route refresh", session.route_refresh),
            ("enhanced route refresh", session.enhanced_refresh),
            ("graceful restart", session.graceful_restart.is_some()),
            ("long-lived graceful restart", session.long_lived_secs != [0; 2]),
        ];
        all.iter().filter(|(_, has)| *has).map(|(name, _)| (*name).to_owned()).collect()
    });
    let families = session.into_iter().flat_map(|session| session.families.iter());
    PeerState {
        address: peer.address,
        name: name.to_owned(),
        kind: peer.kind.clone(),
        state: peer.word().to_owned(),
        since: i64::try_from(since).unwrap_or(i64::MAX),
        info: peer.info(),
        asn: peer.remote_as.0,
        external: peer.external,
        router_id: session.map(|session| session.remote_router_id),
        hold_secs: session.map(|session| session.hold_time.as_secs()),
        families: families.map(|family: Family| family.to_string()).collect(),
        capabilities,
        received: peer.prefixes_received,
        filtered: peer.prefixes_filtered,
        sent: peer.prefixes_sent,
        keeps_stale: peer.keeps_stale,
        faulty_updates: peer.faulty_updates,
        last_fault: peer.last_fault.clone(),
        reason,
        bfd: None,
    }
}
