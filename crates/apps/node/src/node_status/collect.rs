//! From the speaker's state and the kernel's routes to what the classes of a CalicoNodeStatus hold.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tortie_api::{
    BgpDaemonState, BgpDaemonStatus, BgpPeerType, BgpSessionState, CalicoNodeAgentStatus, CalicoNodeBgpRouteStatus,
    CalicoNodeBgpStatus, CalicoNodePeer, CalicoNodeRoute, CalicoNodeRouteLearnedFrom, CalicoNodeRouteSourceType,
    CalicoNodeRouteType, CalicoNodeStatusStatus, NodeStatusClassType, Timestamp,
};
use tortie_net::{Family, IpNet};
use tortie_netlink::{Route, RouteKind, RouteProtocol};

use crate::bgp::{PeerState, Status};
use tortie_desired::PeerOrigin;

/// Where upstream has no address to tell.
const NOWHERE: &str = "N/A";

/// A route that a peer tells.
pub(super) struct Learned {
    pub(super) peer: IpAddr,
    pub(super) mesh: bool,
    pub(super) prefix: IpNet,
    pub(super) next_hop: Option<IpAddr>,
    /// Whether it is the one in use.
    pub(super) best: bool,
}

impl Learned {
    fn from(&self) -> CalicoNodeRouteLearnedFrom {
        let source = if self.mesh { CalicoNodeRouteSourceType::NodeMesh } else { CalicoNodeRouteSourceType::BgpPeer };
        CalicoNodeRouteLearnedFrom { source_type: Some(source), peer_ip: self.peer.to_string() }
    }
}

/// All that reports are made of.
pub(super) struct Picture {
    pub(super) bgp: Status,
    pub(super) learned: Vec<Learned>,
    pub(super) routes: Vec<Route>,
    pub(super) links: BTreeMap<u32, String>,
}

pub(super) fn is_mesh(peer: &PeerState) -> bool {
    peer.kind == PeerOrigin::Mesh.text()
}

impl Picture {
    /// Puts one class into a status.
    pub(super) fn fill(&self, class: NodeStatusClassType, status: &mut CalicoNodeStatusStatus) {
        match class {
            NodeStatusClassType::Agent => status.agent = self.agent(),
            NodeStatusClassType::Bgp => status.bgp = self.sessions(),
            NodeStatusClassType::Routes => {
                let [routes_v4, routes_v6] = Family::ALL.map(|family| self.routes(family));
                status.routes = CalicoNodeBgpRouteStatus { routes_v4, routes_v6 };
            }
        }
    }

    /// One speaker is both of upstream's daemons; that of a family in which the node has no address is not ready.
    fn agent(&self) -> CalicoNodeAgentStatus {
        let Status { running, fault, router_id, families, started, reconfigured, peers: _ } = &self.bgp;
        let [bird_v4, bird_v6] = Family::ALL.map(|family| {
            if !*running || fault.is_some() || !families[family as usize] {
                return BgpDaemonStatus { state: Some(BgpDaemonState::NotReady), ..BgpDaemonStatus::default() };
            }
            BgpDaemonStatus {
                state: Some(BgpDaemonState::Ready),
                version: format!("Tortie {}", crate::VERSION),
                router_id: router_id.map(|id| id.to_string()).unwrap_or_default(),
                last_boot_time: time(*started),
                last_reconfiguration_time: time(*reconfigured),
            }
        });
        CalicoNodeAgentStatus { bird_v4, bird_v6 }
    }

    fn sessions(&self) -> CalicoNodeBgpStatus {
        let [v4, v6] = Family::ALL.map(|family| {
            let peers = self.bgp.peers.iter().filter(|peer| Family::of(peer.address) == family);
            peers.map(session).collect::<Vec<_>>()
        });
        let count = |peers: &[CalicoNodePeer], up: bool| {
            let is_up = |peer: &&CalicoNodePeer| (peer.state == Some(BgpSessionState::Established)) == up;
            i64::try_from(peers.iter().filter(is_up).count()).unwrap_or(i64::MAX)
        };
        CalicoNodeBgpStatus {
            number_established_v4: count(&v4, true),
            number_not_established_v4: count(&v4, false),
            number_established_v6: count(&v6, true),
            number_not_established_v6: count(&v6, false),
            peers_v4: v4,
            peers_v6: v6,
        }
    }

    /// What the kernel has, and what peers tell beside that.
    fn routes(&self, family: Family) -> Vec<CalicoNodeRoute> {
        let ours = self.routes.iter().filter(|route| Family::of_net(route.net) == family);
        let used: Vec<CalicoNodeRoute> = ours.map(|route| self.in_use(route)).collect();
        let spare = self.learned.iter().filter(|learned| !learned.best && Family::of_net(learned.prefix) == family);
        let spare = spare.map(|learned| CalicoNodeRoute {
            route_type: Some(CalicoNodeRouteType::Rib),
            destination: learned.prefix.to_string(),
            gateway: learned.next_hop.map_or_else(|| NOWHERE.to_owned(), |hop| hop.to_string()),
            interface: String::new(),
            learned_from: learned.from(),
        });
        used.into_iter().chain(spare).collect()
    }

    fn in_use(&self, route: &Route) -> CalicoNodeRoute {
        let hop = route.hops.first();
        let interface = match route.kind {
            RouteKind::Unicast | RouteKind::Local => hop.and_then(|hop| self.links.get(&hop.interface)).cloned(),
            RouteKind::Blackhole => Some("blackhole".to_owned()),
            RouteKind::Unreachable => Some("unreachable".to_owned()),
            RouteKind::Prohibit => Some("prohibit".to_owned()),
            RouteKind::Throw | RouteKind::Other(_) => None,
        };
        let told = self.learned.iter().find(|learned| learned.best && learned.prefix == route.net);
        let source =
            |source_type| CalicoNodeRouteLearnedFrom { source_type: Some(source_type), peer_ip: String::new() };
        let learned_from = match (route.protocol, told) {
            (RouteProtocol::BIRD, Some(told)) => told.from(),
            (RouteProtocol::KERNEL, _) => source(CalicoNodeRouteSourceType::Direct),
            (RouteProtocol::CALICO | RouteProtocol::BIRD, _) if route.kind == RouteKind::Blackhole => {
                source(CalicoNodeRouteSourceType::Static)
            }
            _ => source(CalicoNodeRouteSourceType::Kernel),
        };
        CalicoNodeRoute {
            route_type: Some(CalicoNodeRouteType::Fib),
            destination: route.net.to_string(),
            gateway: hop.and_then(|hop| hop.via).map_or_else(|| NOWHERE.to_owned(), |via| via.to_string()),
            interface: interface.unwrap_or_default(),
            learned_from,
        }
    }
}

fn session(peer: &PeerState) -> CalicoNodePeer {
    let kinds = [
        (PeerOrigin::Mesh, BgpPeerType::NodeMesh),
        (PeerOrigin::Global, BgpPeerType::GlobalPeer),
        (PeerOrigin::Node, BgpPeerType::NodePeer),
        // Upstream has no word for these.
        (PeerOrigin::Workload, BgpPeerType::NodePeer),
    ];
    let word = peer.info.split(' ').next().unwrap_or_default();
    let state = BgpSessionState::ALL.iter().copied().find(|state| state.as_str() == word);
    CalicoNodePeer {
        peer_ip: peer.address.to_string(),
        peer_type: kinds.iter().find(|(origin, _)| origin.text() == peer.kind).map(|(_, kind)| *kind),
        // Whoever only waits to be called is Active too.
        state: Some(state.unwrap_or(BgpSessionState::Active)),
        since: time(peer.since),
    }
}

/// As BIRD writes times, in UTC.
fn time(seconds: i64) -> String {
    let text = Timestamp::from_unix_seconds(seconds).map(|time| time.to_string()).unwrap_or_default();
    text.trim_end_matches('Z').replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tortie_netlink::NextHop;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a literal")
    }

    fn picture() -> Picture {
        let peer = |address: &str, kind: &str, info: &str| {
            let text = json!({"address": address, "name": "", "kind": kind, "state": "start", "since": 1_700_000_000,
                "info": info, "asn": 1, "external": false, "families": [], "capabilities": [], "received": 0, "filtered": 0,
                "sent": 0, "keepsStale": false, "faultyUpdates": 0});
            serde_json::from_value(text).expect("a peer")
        };
        let peers = vec![
            peer("10.0.0.2", "node-to-node mesh", "Established"),
            peer("10.0.0.9", "global", "Passive"),
            peer("fd00::9", "node specific", "Connect Socket: Connection refused"),
        ];
        let learned = |peer: [u8; 4], prefix: &str, mesh, best| Learned {
            peer: peer.into(),
            mesh,
            prefix: net(prefix),
            next_hop: Some(peer.into()),
            best,
        };
        let via = NextHop::via([10, 0, 0, 2].into(), 2);
        Picture {
            bgp: Status {
                running: true,
                fault: None,
                router_id: Some([10, 0, 0, 1].into()),
                families: [true, false],
                started: 1_700_000_000,
                reconfigured: 1_700_000_060,
                peers,
            },
            learned: vec![
                learned([10, 0, 0, 2], "192.168.2.0/26", true, true),
                learned([10, 0, 0, 9], "192.168.2.0/26", false, false),
            ],
            routes: vec![
                Route::link(net("10.0.0.0/24"), 2, RouteProtocol::KERNEL),
                Route::blackhole(net("192.168.1.0/26"), RouteProtocol::CALICO),
                Route::link(net("192.168.1.5/32"), 7, RouteProtocol::BOOT),
                Route::via(net("192.168.2.0/26"), vec![via], RouteProtocol::BIRD),
            ],
            links: BTreeMap::from([(2, "eth0".to_owned()), (7, "cali1".to_owned())]),
        }
    }

    #[test]
    fn only_what_is_asked_is_filled() {
        let mut status = CalicoNodeStatusStatus::default();
        picture().fill(NodeStatusClassType::Agent, &mut status);
        let v4 = &status.agent.bird_v4;
        assert_eq!((v4.state, v4.router_id.as_str()), (Some(BgpDaemonState::Ready), "10.0.0.1"));
        assert_eq!(v4.last_boot_time, "2023-11-14 22:13:20");
        assert_eq!(status.agent.bird_v6.state, Some(BgpDaemonState::NotReady));
        assert_eq!((status.bgp, status.routes), Default::default());
    }

    #[test]
    fn sessions_are_counted_and_named() {
        let mut status = CalicoNodeStatusStatus::default();
        picture().fill(NodeStatusClassType::Bgp, &mut status);
        let CalicoNodeBgpStatus {
            number_established_v4,
            number_not_established_v4,
            number_established_v6,
            number_not_established_v6,
            peers_v4,
            peers_v6,
        } = status.bgp;
        assert_eq!((number_established_v4, number_not_established_v4), (1, 1));
        assert_eq!((number_established_v6, number_not_established_v6), (0, 1));
        let seen = |peer: &CalicoNodePeer| (peer.peer_type, peer.state);
        assert_eq!(seen(&peers_v4[0]), (Some(BgpPeerType::NodeMesh), Some(BgpSessionState::Established)));
        assert_eq!(seen(&peers_v4[1]), (Some(BgpPeerType::GlobalPeer), Some(BgpSessionState::Active)));
        assert_eq!(seen(&peers_v6[0]), (Some(BgpPeerType::NodePeer), Some(BgpSessionState::Connect)));
    }

    #[test]
    fn routes_say_where_they_come_from() {
        let mut status = CalicoNodeStatusStatus::default();
        picture().fill(NodeStatusClassType::Routes, &mut status);
        let line = |route: &CalicoNodeRoute| {
            let CalicoNodeRoute { route_type, destination, gateway, interface, learned_from } = route;
            let source = learned_from.source_type.map_or("", CalicoNodeRouteSourceType::as_str);
            let table = route_type.map_or("", CalicoNodeRouteType::as_str);
            format!("{table} {destination} {gateway} {interface} {source} {}", learned_from.peer_ip)
        };
        let lines: Vec<String> = status.routes.routes_v4.iter().map(line).collect();
        let wanted = [
            "FIB 10.0.0.0/24 N/A eth0 Direct ",
            "FIB 192.168.1.0/26 N/A blackhole Static ",
            "FIB 192.168.1.5/32 N/A cali1 Kernel ",
            "FIB 192.168.2.0/26 10.0.0.2 eth0 NodeMesh 10.0.0.2",
            "RIB 192.168.2.0/26 10.0.0.9  BGPPeer 10.0.0.9",
        ];
        assert_eq!(lines, wanted);
        assert!(status.routes.routes_v6.is_empty());
    }
}
