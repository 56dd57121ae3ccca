//! The speaker: all peers, one table, and the queues out.
//!
//! Contract for the I/O layer: read before you run timers (bytes that wait in a socket prove that the peer is
//! alive), drain `poll_action` after every call, and report every write by `handle_sent`: UPDATEs are made only while
//! a connection has fewer than `SEND_WINDOW` unwritten bytes.
//!
//! Invariant: what is queued is bounded by peers and prefixes, never by how long a peer is slow.

mod configure;
mod connections;
pub(crate) mod event;
mod import;
mod linger;
pub(crate) mod peer;
mod ranges;
mod restart;
mod send;
pub(crate) mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tortie_desired::BgpPolicy;
use tortie_net::IpNet;

use self::event::{Action, Learned, RouteChange};
use self::peer::Peer;
use self::restart::Recovery;
use crate::attribute::AttributeStore;
use crate::config::{PeerConfig, PeerId, SpeakerConfig};
use crate::export;
use crate::rib::adj_out::AdjOut;
use crate::rib::{Leads, Path, Rib, SourceId};
use crate::session::ConnId;

/// A BGP speaker without I/O.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    /// By `SourceId`; index 0 is the speaker itself and stays empty.
    slots: Vec<Option<Peer>>,
    by_address: BTreeMap<PeerId, SourceId>,
    owners: BTreeMap<ConnId, SourceId>,
    next_conn: u64,
    rib: Rib,
    /// What peers hold from us.
    told: AdjOut,
    /// Prefixes that we originate, and the interfaces that they lead to.
    own: BTreeMap<IpNet, Option<Arc<str>>>,
    /// What may be told to peers; at first nothing.
    policy: Arc<BgpPolicy>,
    /// Where next hops are reached: prefixes and interfaces, for filters that look at interfaces.
    links: BTreeMap<IpNet, Arc<str>>,
    /// Who may connect without being configured by its address.
    ranges: BTreeMap<IpNet, PeerConfig>,
    /// Who gets no session at present, whatever ranges are around.
    barred: BTreeSet<IpNet>,
    /// Peers that a range let in.
    dynamic: BTreeSet<SourceId>,
    attributes: AttributeStore,
    actions: VecDeque<Action>,
    /// Peers that have something to be told and, as far as known, room for it.
    ready: BTreeSet<SourceId>,
    /// Set while a restart is being recovered from.
    recovery: Option<Recovery>,
    stopped: bool,
}

impl Speaker {
    /// A speaker without peers, which tells nothing before `set_policy`. With `restarting`, recovery starts now and ends at the earliest with `set_peers`.
    pub fn new(config: SpeakerConfig, now: Instant) -> Speaker {
        let recovery = config.restarting.then(|| Recovery::start(now, config.restart_time_secs));
        Speaker {
            config,
            slots: vec![None],
            by_address: BTreeMap::new(),
            owners: BTreeMap::new(),
            next_conn: 0,
            rib: Rib::default(),
            told: AdjOut::default(),
            own: BTreeMap::new(),
            policy: Arc::default(),
            links: BTreeMap::new(),
            ranges: BTreeMap::new(),
            barred: BTreeSet::new(),
            dynamic: BTreeSet::new(),
            attributes: AttributeStore::default(),
            actions: VecDeque::new(),
            ready: BTreeSet::new(),
            recovery,
            stopped: false,
        }
    }

    /// The next thing to do for the I/O layer.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        self.forget_strangers();
        while let Some(id) = self.ready.pop_first() {
            if let Some(action) = self.produce(id) {
                return Some(action);
            }
        }
        None
    }

    /// The next prefix whose best path may have changed, in its newest form, in the order of the changes. Changes merge
    /// until they are told; what changes while others are being told comes after them.
    pub fn poll_route_change(&mut self) -> Option<RouteChange> {
        let (prefix, leads) = self.rib.next_change()?;
        Some(RouteChange { prefix, best: leads.and_then(|leads| self.learned_from(leads)) })
    }

    /// Where a prefix leads: the best path and its equals; `None` if unknown or our own.
    pub fn learned(&self, prefix: IpNet) -> Option<Learned> {
        self.learned_from(self.rib.leads(prefix)?)
    }

    fn learned_from(&self, Leads { best, next_hops }: Leads) -> Option<Learned> {
        let Path { attributes, source, .. } = best;
        let from = self.peer(source)?.address;
        Some(Learned { from, next_hop: attributes.next_hop, next_hops, attributes })
    }

    /// When to call `handle_timeout`; `None`: not before the next input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.stopped {
            return None;
        }
        let peers = self.slots.iter().flatten().flat_map(|peer| {
            let conns = peer.conns.iter().filter_map(|conn| conn.deadline());
            let settles = peer.established().and_then(|(_, session)| session.settles_at);
            let lingers = peer.leaving.map(|leaving| leaving.look_at).into_iter().chain(peer.client_until);
            let lingers = lingers.chain(peer.shut_until);
            conns
                .chain(peer.retry.at)
                .chain(settles)
                .chain(lingers)
                .chain(peer.stale.as_ref().map(|stale| stale.deadline))
        });
        let recovery =
            self.recovery.iter().flat_map(|recovery| recovery.open_until.into_iter().chain([recovery.deadline]));
        peers.chain(recovery).min()
    }

    /// Stops: closes every connection without a NOTIFICATION, so that peers keep our routes until we are back.
    /// All later inputs are ignored.
    pub fn shutdown(&mut self, _now: Instant) {
        self.stopped = true;
        self.actions.clear();
        for peer in self.slots.iter_mut().flatten() {
            self.actions.extend(peer.conns.drain(..).map(|conn| Action::Close { conn: conn.id }));
        }
        self.owners.clear();
        self.ready.clear();
    }

    fn peer(&self, id: SourceId) -> Option<&Peer> {
        self.slots.get(id.index())?.as_ref()
    }

    fn peer_mut(&mut self, id: SourceId) -> Option<&mut Peer> {
        self.slots.get_mut(id.index())?.as_mut()
    }

    fn new_conn(&mut self, owner: SourceId) -> ConnId {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        self.owners.insert(conn, owner);
        conn
    }

    /// How export sees the source of a path.
    fn export_origin(&self, id: SourceId) -> Option<export::Origin> {
        origin_of(&self.slots, &self.rib, &self.config, id)
    }
}

/// How export sees a source. Apart from `Speaker`, so that its other fields can be borrowed meanwhile.
fn origin_of(slots: &[Option<Peer>], rib: &Rib, config: &SpeakerConfig, id: SourceId) -> Option<export::Origin> {
    if id == SourceId::LOCAL {
        return Some(export::Origin { id, external: false, cluster: None, router_id: config.router_id });
    }
    let source = rib.source(id)?;
    let cluster = slots.get(id.index())?.as_ref()?.config.reflector_cluster;
    Some(export::Origin { id, external: source.external, cluster, router_id: source.router_id })
}
