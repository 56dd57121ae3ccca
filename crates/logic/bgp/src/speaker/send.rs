//! Routes out: who must hear of a change, and UPDATEs made as there is room for them.
//!
//! Invariant: a connection never has more unwritten UPDATE bytes than `SEND_WINDOW` plus one batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use tortie_desired::{BgpFilter, BgpPolicy};
use tortie_net::{Family, IpNet};

use super::event::Action;
use super::peer::Peer;
use super::{Speaker, origin_of};
use crate::attribute::Attributes;
use crate::config::PeerId;
use crate::export::{self, pack};
use crate::family::{AfiSafi, Families};
use crate::message::route_refresh::{self, Refresh};
use crate::message::update::end_of_rib;
use crate::policy::{self, Subject, Verdict};
use crate::rib::SourceId;
use crate::rib::adj_out::Queue;
use crate::session::ConnId;

/// Unwritten bytes above which a connection gets no further UPDATE.
const SEND_WINDOW: usize = 256 * 1024;
/// An action carries about this much.
const CHUNK: usize = 32 * 1024;
/// Prefixes looked at before the bytes are counted again.
const BATCH: usize = 4096;

/// A route's attributes towards one peer.
struct Ready {
    /// As filters see them.
    seen: Attributes,
    /// As they are sent if no filter changes them.
    sent: Arc<Attributes>,
}

/// The attributes with the communities that every peer gets; `None` if there are none for this prefix.
fn with_communities(policy: &BgpPolicy, prefix: IpNet, seen: &Attributes) -> Option<Attributes> {
    let mut communities = policy::communities(policy, prefix).peekable();
    communities.peek()?;
    let mut out = seen.clone();
    communities.for_each(|community| policy::add(&mut out, community));
    Some(out)
}

impl Speaker {
    /// Bytes of `Action::Send` were written to the socket.
    pub fn handle_sent(&mut self, conn: ConnId, bytes: usize) {
        let Some(id) = self.owners.get(&conn).copied() else { return };
        if let Some(conn) = self.peer_mut(id).and_then(|peer| peer.conn_mut(conn)) {
            conn.outstanding = conn.outstanding.saturating_sub(bytes);
            if conn.is_established() {
                self.ready.insert(id);
            }
        }
    }

    /// The best path of a prefix may have changed: the kernel and the peers that it concerns shall look.
    pub(crate) fn note_change(&mut self, prefix: IpNet) {
        let best = self.rib.touch(prefix);
        self.note_best(prefix, best);
    }

    /// The same towards the peers alone, of a prefix whose best path is of this source.
    pub(crate) fn note_best(&mut self, prefix: IpNet, best: Option<SourceId>) {
        let from = best.filter(|source| self.may_tell(*source));
        let origin = from.and_then(|source| self.export_origin(source));
        let holds = self.told.holders(prefix);
        for peer in self.slots.iter_mut().flatten() {
            let Some(target) = peer.target else { continue };
            let Some(session) = peer.session_mut() else { continue };
            let wanted = origin.is_some_and(|origin| export::allowed(&origin, &target));
            if wanted || holds(target.id) {
                session.out.pending.insert(prefix);
                self.ready.insert(target.id);
            }
        }
    }

    /// Makes a peer hear of every route that is for it, as at the start of a session.
    pub(crate) fn queue_all(&mut self, id: SourceId) {
        let Some(target) = self.peer(id).and_then(|peer| peer.target) else { return };
        let mut cache: BTreeMap<SourceId, bool> = BTreeMap::new();
        let mut prefixes = Vec::new();
        for (prefix, path) in self.rib.iter() {
            let source = path.source;
            let wanted = *cache.entry(source).or_insert_with(|| {
                let origin = self.export_origin(source).filter(|_| self.may_tell(source));
                origin.is_some_and(|origin| export::allowed(&origin, &target))
            });
            if wanted && target.families.contains(Family::of_net(prefix)) {
                prefixes.push(prefix);
            }
        }
        if let Some(session) = self.peer_mut(id).and_then(Peer::session_mut) {
            session.out.pending.extend(prefixes);
            self.ready.insert(id);
        }
    }

    /// Looks anew at all that a peer was told or might be told.
    pub(crate) fn requeue(&mut self, id: SourceId) {
        let Speaker { slots, config, told, .. } = self;
        let Some(peer) = slots.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let local = peer.established().map(|(conn, _)| conn.local);
        peer.target = local.map(|local| peer.export_target(config, local));
        if let Some(session) = peer.session_mut() {
            session.out.pending.extend(told.of(id).map(|(prefix, _)| prefix));
        }
        self.queue_all(id);
    }

    /// The same for every peer.
    pub(crate) fn requeue_all(&mut self) {
        let ids: Vec<SourceId> = self.by_address.values().copied().collect();
        ids.into_iter().for_each(|id| self.requeue(id));
    }

    /// While we recover from a restart, only our own routes are certain.
    fn may_tell(&self, source: SourceId) -> bool {
        !self.defers() || source == SourceId::LOCAL
    }

    /// The next UPDATEs for a peer, if it has room and there are any.
    pub(crate) fn produce(&mut self, id: SourceId) -> Option<Action> {
        let peer = self.peer_mut(id)?;
        let target = peer.target?;
        let (conn, outstanding) = peer.established().map(|(conn, _)| (conn.id, conn.outstanding))?;
        if outstanding >= SEND_WINDOW {
            return None;
        }
        let filters = peer.config.filters.clone();
        let session = peer.session_mut()?;
        let as4 = session.negotiated.four_byte_as;
        let mut out = std::mem::take(&mut session.out);
        let mut bytes = Vec::new();
        for family in std::mem::take(&mut out.begin_due).iter() {
            route_refresh::write(AfiSafi::unicast(family), Refresh::Begin, &mut bytes);
        }
        self.fill(&mut out, &target, &filters, as4, &mut bytes);
        let recovered = !self.defers();
        let more = !out.pending.is_empty();
        if !more && recovered {
            out.end_of_rib_due.iter().for_each(|family| end_of_rib(family, &mut bytes));
            out.end_of_rib_due = Families::NONE;
            for family in std::mem::take(&mut out.end_due).iter() {
                route_refresh::write(AfiSafi::unicast(family), Refresh::End, &mut bytes);
            }
        }
        let peer = self.peer_mut(id)?;
        peer.session_mut()?.out = out;
        peer.conn_mut(conn)?.outstanding += bytes.len();
        if more {
            self.ready.insert(id);
        }
        (!bytes.is_empty()).then_some(Action::Send { conn, bytes })
    }

    fn fill(
        &mut self,
        out: &mut Queue,
        target: &export::Target,
        filters: &[Arc<BgpFilter>],
        as4: bool,
        bytes: &mut Vec<u8>,
    ) {
        let mut cache: BTreeMap<(Family, SourceId, *const Attributes), Option<Ready>> = BTreeMap::new();
        let recovering = self.defers();
        while !out.pending.is_empty() && bytes.len() < CHUNK {
            let prefixes = out.pending.take(BATCH);
            self.rib.foresee(prefixes.iter().copied());
            self.told.foresee(prefixes.iter().copied());
            let route = |prefix: IpNet| {
                let family = Family::of_net(prefix);
                let path = self.rib.best(prefix).filter(|_| target.families.contains(family))?;
                let source = path.source;
                if recovering && source != SourceId::LOCAL {
                    return None;
                }
                let mut rules = policy::export_rules(filters, family).peekable();
                let told = || policy::tells(&self.policy, prefix, path.attributes.preference());
                if rules.peek().is_none() && !told() {
                    return None;
                }
                let key = (family, source, Arc::as_ptr(&path.attributes));
                let entry = cache.entry(key).or_insert_with(|| {
                    let seen = origin_of(&self.slots, &self.rib, &self.config, source)
                        .filter(|origin| export::allowed(origin, target))
                        .and_then(|origin| export::transform(family, &path.attributes, &origin, target))?;
                    let sent = self.attributes.intern(export::finished(seen.clone(), target));
                    Some(Ready { seen, sent })
                });
                let Ready { seen, sent } = entry.as_ref()?;
                let learned = source != SourceId::LOCAL;
                let interface = if learned {
                    policy::interface(&self.links, path.attributes.next_hop)
                } else {
                    self.own.get(&prefix).and_then(Option::as_deref)
                };
                let subject = Subject { prefix, learned, interface, internal: !target.external };
                let changed = match policy::judge(rules, subject, seen) {
                    Verdict::Reject => return None,
                    Verdict::Accept(changed) => changed,
                    Verdict::Undecided if !told() => return None,
                    Verdict::Undecided => with_communities(&self.policy, prefix, seen),
                };
                Some(match changed {
                    None => Arc::clone(sent),
                    Some(changed) => self.attributes.intern(export::finished(changed, target)),
                })
            };
            pack::flush(prefixes, (&mut self.told, target.id), as4, route, bytes);
        }
    }

    /// Queues a control message.
    pub(crate) fn send_now(&mut self, id: SourceId, conn: ConnId, bytes: Vec<u8>) {
        if let Some(conn) = self.peer_mut(id).and_then(|peer| peer.conn_mut(conn)) {
            conn.outstanding += bytes.len();
        }
        self.actions.push_back(Action::Send { conn, bytes });
    }

    /// The peer wants a family again (RFC 2918).
    pub(crate) fn refresh(&mut self, id: SourceId, family: Family) {
        let Speaker { slots, told, ready, .. } = self;
        let peer = slots.get_mut(id.index()).and_then(Option::as_mut);
        if let Some(session) = peer.and_then(Peer::session_mut) {
            let marked = session.negotiated.enhanced_refresh;
            session.out.begin_due.set(family, marked);
            session.out.end_due.set(family, marked);
            session.out.pending.extend(told.doubt(id, family));
            ready.insert(id);
        }
    }

    /// Asks a peer for all its routes again; false if it has no session or does not understand that.
    pub fn ask_again(&mut self, peer: PeerId) -> bool {
        let Some(id) = self.by_address.get(&peer).copied() else { return false };
        let session = self.peer(id).and_then(Peer::established);
        let Some((conn, state)) = session.filter(|(_, state)| state.negotiated.route_refresh) else { return false };
        let (conn, families) = (conn.id, state.negotiated.families);
        for family in families.iter() {
            self.send_now(id, conn, route_refresh::encode(AfiSafi::unicast(family)));
        }
        true
    }
}
