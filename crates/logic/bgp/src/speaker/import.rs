//! UPDATEs in: from bytes to the table.
//!
//! Invariant: a broken attribute costs the routes of its UPDATE, not the session (RFC 7606).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use tortie_net::{AsNumber, Family, IpNet};

use super::Speaker;
use super::peer::Peer;
use crate::attribute::Attributes;
use crate::attribute::parse::{self, Context, Parsed};
use crate::export;
use crate::family::{AfiSafi, Families};
use crate::message::notification::Notification;
use crate::message::update::Update;
use crate::nlri::Nlri;
use crate::policy::{self, Subject, Verdict};
use crate::rib::raw::{Raw, RawPath};
use crate::rib::{Announced, SourceId};

/// What import must know about a session.
struct Import {
    context: Context,
    families: Families,
    own: [Option<IpAddr>; 2],
    our_as: [AsNumber; 2],
    allowed_local_as: u8,
}

impl Speaker {
    /// Applies one UPDATE. The error is what to send before closing.
    pub(crate) fn import(&mut self, now: Instant, id: SourceId, body: &[u8]) -> Result<(), Notification> {
        self.apply_update(now, id, body)?;
        let Some(peer) = self.peer(id) else { return Ok(()) };
        match peer.config.max_prefixes {
            Some(limit) if peer.announced() > limit as usize => {
                let families = peer.established().map(|(_, state)| state.negotiated.families).unwrap_or_default();
                let family = families.iter().next().unwrap_or(Family::V4);
                Err(Notification::too_many_prefixes(AfiSafi::unicast(family), limit))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn apply_update(&mut self, now: Instant, id: SourceId, body: &[u8]) -> Result<(), Notification> {
        let Some(session) = self.import_context(id) else { return Ok(()) };
        let update = Update::split(body)?;
        if session.families.contains(Family::V4) {
            self.withdraw_all(id, update.withdrawn);
        }
        if update.attributes.is_empty() {
            if update.withdrawn.is_empty() && update.announced.is_empty() {
                self.end_of_rib(now, id, Family::V4);
            }
            self.refuse(id, update.announced, "attributes are missing");
            return Ok(());
        }
        if let Some(attributes) = self.repeated_list(id, update.attributes) {
            self.announce_all(id, update.announced, &attributes);
            return Ok(());
        }
        let parsed = parse::parse(update.attributes, session.context)?;
        let v4 = session.families.contains(Family::V4);
        self.apply(now, id, &session, &parsed, if v4 { Some(update.announced) } else { None }, update.attributes);
        Ok(())
    }

    fn apply(
        &mut self,
        now: Instant,
        id: SourceId,
        session: &Import,
        parsed: &Parsed<'_>,
        classic: Option<Nlri<'_>>,
        list: &[u8],
    ) {
        if let Some(unreach) = parsed.unreach.filter(|prefixes| session.families.contains(prefixes.family())) {
            if unreach.is_empty() && parsed.count() == 1 && classic.is_none_or(|nlri| nlri.is_empty()) {
                self.end_of_rib(now, id, unreach.family());
            }
            self.withdraw_all(id, unreach);
        }
        if let Some(reach) = parsed.reach.filter(|reach| session.families.contains(reach.prefixes.family())) {
            match parsed.announce_fault(false) {
                Some(fault) => self.refuse(id, reach.prefixes, &fault.to_string()),
                None => {
                    self.learn(id, session, parsed, reach.next_hop, reach.prefixes);
                }
            }
        }
        let Some(classic) = classic.filter(|prefixes| !prefixes.is_empty()) else { return };
        match (parsed.announce_fault(true), parsed.next_hop) {
            (None, Some(next_hop)) => {
                let learned = self.learn(id, session, parsed, IpAddr::V4(next_hop), classic);
                let plain = parsed.reach.is_none() && parsed.unreach.is_none();
                if let Some(attributes) = learned.filter(|_| plain)
                    && let Some(session) = self.peer_mut(id).and_then(Peer::session_mut)
                {
                    session.last_list = Some((list.to_vec(), attributes));
                }
            }
            (Some(fault), _) => self.refuse(id, classic, &fault.to_string()),
            (None, None) => self.refuse(id, classic, "the next hop is missing"),
        }
    }

    fn import_context(&self, id: SourceId) -> Option<Import> {
        let peer = self.peer(id)?;
        let (_, session) = peer.established()?;
        let target = peer.target.as_ref()?;
        Some(Import {
            context: Context { as4: session.negotiated.four_byte_as, external: target.external },
            families: session.negotiated.families,
            own: [target.own_v4, target.own_v6],
            our_as: [target.local_as, self.config.local_as],
            allowed_local_as: peer.config.allowed_local_as,
        })
    }

    /// The meaning of an attribute list that is the same as the last one.
    fn repeated_list(&self, id: SourceId, list: &[u8]) -> Option<Arc<Attributes>> {
        let (_, session) = self.peer(id)?.established()?;
        session.last_list.as_ref().filter(|(last, _)| last == list).map(|(_, attributes)| Arc::clone(attributes))
    }

    /// Peers, and so what counts as a loop, may have changed: attribute lists must be looked at again.
    pub(crate) fn forget_lists(&mut self) {
        self.slots.iter_mut().flatten().filter_map(Peer::session_mut).for_each(|session| session.last_list = None);
    }

    /// Learns prefixes with their attributes; a route that came round in a loop, or leads to ourselves, is withdrawn.
    fn learn(
        &mut self,
        id: SourceId,
        session: &Import,
        parsed: &Parsed<'_>,
        next_hop: IpAddr,
        prefixes: Nlri<'_>,
    ) -> Option<Arc<Attributes>> {
        let mut attributes = Attributes { next_hop, ..parsed.attributes.clone() };
        if session.context.external {
            attributes.local_pref = None;
        }
        let clusters: Vec<Ipv4Addr> =
            self.slots.iter().flatten().filter_map(|peer| peer.config.reflector_cluster).collect();
        let own_next_hop = next_hop.is_unspecified() || session.own.contains(&Some(next_hop));
        let our_as = if session.our_as[0] == session.our_as[1] { &session.our_as[..1] } else { &session.our_as[..] };
        if own_next_hop
            || export::is_loop(&attributes, our_as, session.allowed_local_as, self.config.router_id, &clusters)
        {
            self.withdraw_all(id, prefixes);
            return None;
        }
        let attributes = self.attributes.intern(attributes);
        self.announce_all(id, prefixes, &attributes);
        Some(attributes)
    }

    fn announce_all(&mut self, id: SourceId, prefixes: Nlri<'_>, attributes: &Arc<Attributes>) {
        if self.peer(id).is_some_and(|peer| peer.raw.is_some()) {
            for prefix in prefixes {
                self.with_raw(id, |raw| raw.put(prefix, attributes));
                self.admit(id, prefix, attributes, false);
            }
            return;
        }
        self.rib.foresee(prefixes);
        let mut new = 0;
        for prefix in prefixes {
            match self.rib.announce(id, prefix, attributes) {
                (Announced::New, best) => {
                    new += 1;
                    self.note_best(prefix, best);
                }
                (Announced::Changed, best) => self.note_best(prefix, best),
                (Announced::Same, _) => {}
            }
        }
        if let Some(peer) = self.peer_mut(id) {
            peer.received += new;
        }
    }

    /// Puts a received path through the peer's filters and into the table, or takes it out.
    fn admit(&mut self, id: SourceId, prefix: IpNet, attributes: &Arc<Attributes>, stale: bool) {
        let Some(peer) = self.peer(id) else { return };
        let internal = !peer.external(&self.config);
        let interface = policy::interface(&self.links, attributes.next_hop);
        let subject = Subject { prefix, learned: true, interface, internal };
        let rules = policy::import_rules(&peer.config.filters, Family::of_net(prefix));
        let verdict = policy::judge(rules, subject, attributes);
        let admitted = match verdict {
            Verdict::Undecided | Verdict::Accept(None) => Arc::clone(attributes),
            Verdict::Accept(Some(changed)) => self.attributes.intern(changed),
            Verdict::Reject => {
                if self.rib.withdraw(id, prefix) {
                    self.note_dropped(id, &[prefix]);
                }
                return;
            }
        };
        let (announced, _) = self.rib.announce(id, prefix, &admitted);
        if stale && let Some(path) = self.rib.path_mut(id, prefix) {
            path.stale = true;
        }
        if announced != Announced::Same {
            self.note_change(prefix);
        }
        if announced == Announced::New
            && let Some(peer) = self.peer_mut(id)
        {
            peer.received += 1;
        }
    }

    /// The peer's filters changed: what it sent goes through them again. The peer notices nothing.
    pub(crate) fn refilter(&mut self, id: SourceId) {
        let before = match self.peer_mut(id).map(|peer| peer.raw.take()) {
            None => return,
            Some(Some(raw)) => raw,
            // Without filters until now, the table holds what the peer sent.
            Some(None) => Raw(self.rib.paths_of(id).map(|(prefix, path)| (prefix, RawPath::of(path))).collect()),
        };
        for (prefix, RawPath { attributes, stale }) in before.0.iter() {
            self.admit(id, prefix, attributes, *stale);
        }
        if let Some(peer) = self.peer_mut(id)
            && peer.config.filters_imports()
        {
            peer.raw = Some(before);
        }
    }

    fn withdraw_all(&mut self, id: SourceId, prefixes: Nlri<'_>) {
        self.with_raw(id, |raw| prefixes.for_each(|prefix| raw.0.remove(prefix)));
        self.rib.foresee(prefixes);
        let dropped: Vec<IpNet> = prefixes.filter(|prefix| self.rib.withdraw(id, *prefix)).collect();
        self.note_dropped(id, &dropped);
    }

    /// Treat-as-withdraw.
    fn refuse(&mut self, id: SourceId, prefixes: Nlri<'_>, why: &str) {
        if prefixes.is_empty() {
            return;
        }
        self.withdraw_all(id, prefixes);
        if let Some(peer) = self.peer_mut(id) {
            peer.faults += 1;
            peer.last_fault = Some(why.to_owned());
        }
    }

    /// Paths of a source are gone from the table: count, and let all others know.
    pub(crate) fn note_dropped(&mut self, id: SourceId, prefixes: &[IpNet]) {
        if let Some(peer) = self.peer_mut(id) {
            peer.received -= prefixes.len();
        }
        for prefix in prefixes {
            self.note_change(*prefix);
        }
    }
}
