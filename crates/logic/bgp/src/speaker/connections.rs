//! Connections: dialling, accepting, bytes in, timers, and collisions.
//!
//! Collision (RFC 4271 section 6.8), looked at when an OPEN comes in: against a connection in OpenConfirm, the router
//! with the higher id keeps the one that it dialled. Against an established one, the new connection is held: if the
//! peer confirms it nonetheless, the peer no longer knows the old one, which is then replaced (RFC 4724 section 4.2).
//! Invariant: every connection ends by `end` or `drop_conn`, so that the owner map and the peer agree.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::Speaker;
use super::event::{Action, ConnectError, SessionEnd};
use super::restart::UNMARKED_PATIENCE;
use crate::config::PeerId;
use crate::message::notification::Notification;
use crate::message::route_refresh::Refresh;
use crate::message::{keepalive, split_frame};
use crate::rib::{Source, SourceId};
use crate::session::connect::Connect;
use crate::session::open_sent::OpenSent;
use crate::session::{ConnId, Connection, Phase, Step};

/// How long a peer that sent too many prefixes is kept out.
const SHUT: Duration = Duration::from_secs(60);

/// Connections that one peer may have at once; more are refused.
const MAX_CONNS: usize = 4;

impl Speaker {
    /// A dial succeeded; `local` is our end.
    pub fn handle_connected(&mut self, now: Instant, conn: ConnId, local: SocketAddr) {
        let Some(id) = self.owners.get(&conn).copied() else { return };
        self.start_session(now, id, conn, local);
    }

    /// A connection was accepted from `remote`; `local` is our end. `None`: close it, nobody expects it.
    pub fn handle_accepted(&mut self, now: Instant, remote: IpAddr, local: SocketAddr) -> Option<(PeerId, ConnId)> {
        let address = remote.to_canonical();
        if self.stopped {
            return None;
        }
        let known = self.by_address.get(&address).copied();
        let id = known.or_else(|| self.let_in(now, address))?;
        let peer = self.peer(id)?;
        if peer.conns.len() >= MAX_CONNS || peer.shut_until.is_some_and(|until| until > now) {
            return None;
        }
        let conn = self.add_conn(now, id, true);
        self.start_session(now, id, conn, local);
        Some((address, conn))
    }

    /// A dial failed.
    pub fn handle_connect_failed(&mut self, now: Instant, conn: ConnId, error: ConnectError) {
        let Some(id) = self.owners.get(&conn).copied() else { return };
        self.drop_conn(now, id, conn, SessionEnd::NotConnected(error));
    }

    /// TCP was closed or reset by the other side, or broke.
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId) {
        let Some(id) = self.owners.get(&conn).copied() else { return };
        self.drop_conn(now, id, conn, SessionEnd::Lost);
    }

    /// Bytes came in, cut anywhere.
    pub fn handle_bytes(&mut self, now: Instant, conn: ConnId, bytes: &[u8]) {
        let Some(id) = self.owners.get(&conn).copied() else { return };
        let Some(state) = self.peer_mut(id).and_then(|peer| peer.conn_mut(conn)) else { return };
        let mut buffer = std::mem::take(&mut state.input);
        let used = if buffer.is_empty() {
            self.read_frames(now, id, conn, bytes).map(|used| buffer.extend_from_slice(&bytes[used..]))
        } else {
            buffer.extend_from_slice(bytes);
            self.read_frames(now, id, conn, &buffer).map(|used| drop(buffer.drain(..used)))
        };
        if used.is_some()
            && !buffer.is_empty()
            && let Some(state) = self.peer_mut(id).and_then(|peer| peer.conn_mut(conn))
        {
            state.input = buffer;
        }
    }

    /// Runs whatever is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.stopped {
            return;
        }
        let ids: Vec<SourceId> = self.by_address.values().copied().collect();
        for id in ids {
            let Some(peer) = self.peer(id) else { continue };
            let due = |conn: &&Connection| conn.deadline().is_some_and(|at| at <= now);
            let conns: Vec<ConnId> = peer.conns.iter().filter(due).map(|conn| conn.id).collect();
            for conn in conns {
                let step = self.peer_mut(id).and_then(|peer| peer.conn_mut(conn)).map(|conn| conn.on_timeout(now));
                if let Some(step) = step {
                    self.take_step(now, id, conn, step);
                }
            }
            if let Some(stale) = self.peer(id).and_then(|peer| peer.stale.as_ref())
                && stale.deadline <= now
            {
                self.stale_timeout(now, id);
            }
            if let Some(peer) = self.peer_mut(id) {
                peer.shut_until.take_if(|until| *until <= now);
                if let Some(session) = peer.session_mut() {
                    session.settles_at.take_if(|at| *at <= now);
                }
            }
            self.dial_if_due(now, id);
            self.linger(now, id);
        }
        self.check_recovery(now);
    }

    /// Dials if it is time to and no other connection is on its way.
    pub(crate) fn dial_if_due(&mut self, now: Instant, id: SourceId) {
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.retry.at.is_none_or(|at| at > now) {
            return;
        }
        if peer.leaving.is_some() {
            // Who goes is not called back.
            peer.retry.at = None;
            return;
        }
        peer.retry.at = None;
        if !peer.conns.is_empty() {
            return;
        }
        let (peer, port, local) = (peer.address, peer.config.port, peer.config.local);
        let conn = self.add_conn(now, id, false);
        self.actions.push_back(Action::Connect { peer, conn, port, local });
    }

    fn add_conn(&mut self, now: Instant, id: SourceId, inbound: bool) -> ConnId {
        let conn = self.new_conn(id);
        let phase = Phase::Connect(Connect::start(now));
        let state = Connection { id: conn, inbound, local: None, phase, input: Vec::new(), outstanding: 0 };
        if let Some(peer) = self.peer_mut(id) {
            // Nearly all peers have one, and there are hundreds of peers.
            peer.conns.reserve_exact(1);
            peer.conns.push(state);
            peer.refresh_state(now);
        }
        conn
    }

    /// TCP is up: OPEN goes out at once, whoever dialled.
    fn start_session(&mut self, now: Instant, id: SourceId, conn: ConnId, local: SocketAddr) {
        let restarted = self.defers();
        let Speaker { slots, config, .. } = self;
        let Some(peer) = slots.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let open = peer.local_side(config, restarted).open().encode();
        let Some(state) = peer.conn_mut(conn).filter(|conn| matches!(conn.phase, Phase::Connect(_))) else { return };
        state.local = Some(local);
        state.phase = Phase::OpenSent(OpenSent::start(now));
        peer.refresh_state(now);
        self.send_now(id, conn, open);
    }

    /// Feeds whole messages in; returns the bytes used, or `None` if the connection is gone.
    fn read_frames(&mut self, now: Instant, id: SourceId, conn: ConnId, stream: &[u8]) -> Option<usize> {
        let restarted = self.defers();
        let mut used = 0;
        loop {
            let step = match split_frame(&stream[used..]) {
                Ok(None) => return Some(used),
                Err(notification) => Step::Fault(notification),
                Ok(Some((frame, size))) => {
                    used += size;
                    let Speaker { slots, config, .. } = self;
                    let peer = slots.get_mut(id.index())?.as_mut()?;
                    let local = peer.local_side(config, restarted);
                    peer.conn_mut(conn)?.on_frame(now, frame, &local)
                }
            };
            self.take_step(now, id, conn, step);
            self.owners.get(&conn)?;
        }
    }

    fn take_step(&mut self, now: Instant, id: SourceId, conn: ConnId, step: Step<'_>) {
        match step {
            Step::Stay => {}
            Step::Opened => self.on_opened(now, id, conn),
            Step::Up => self.on_up(now, id, conn),
            Step::Update(body) => {
                if let Err(notification) = self.import(now, id, body) {
                    self.end(now, id, conn, SessionEnd::Sent(notification));
                }
            }
            Step::Refresh(family, Refresh::Request) => self.refresh(id, family),
            Step::Refresh(family, Refresh::Begin) => self.refresh_mark(id, family, true),
            Step::Refresh(family, Refresh::End) => self.refresh_mark(id, family, false),
            Step::SendKeepalive => self.send_now(id, conn, keepalive()),
            Step::DialTimedOut => {
                self.actions.push_back(Action::Close { conn });
                self.drop_conn(now, id, conn, SessionEnd::NotConnected(ConnectError::TimedOut));
            }
            Step::Fault(notification) => self.end(now, id, conn, SessionEnd::Sent(notification)),
            Step::Ended(notification) => {
                self.actions.push_back(Action::Close { conn });
                self.drop_conn(now, id, conn, SessionEnd::Received(notification));
            }
        }
    }

    /// The peer's OPEN on `conn` is fine: settle collisions, then confirm unless held.
    fn on_opened(&mut self, now: Instant, id: SourceId, conn: ConnId) {
        let own = (self.config.router_id, self.config.local_as);
        let Some(peer) = self.peer_mut(id) else { return };
        let remote_as = peer.config.remote_as;
        let Some(new) = peer.conns.iter().find(|other| other.id == conn) else { return };
        let Some(remote_id) = new.negotiated().map(|negotiated| negotiated.remote_router_id) else { return };
        let keep_inbound = own < (remote_id, remote_as);
        let new_inbound = new.inbound;
        let mut losers = Vec::new();
        let mut held = false;
        for other in peer.conns.iter().filter(|other| other.id != conn) {
            match &other.phase {
                Phase::Connect(_) | Phase::OpenSent(_) => {}
                Phase::Established(_) => held = true,
                // Two of one direction: the peer has dialled anew, so the older one is dead.
                Phase::OpenConfirm(_) if other.inbound == new_inbound => losers.push(other.id),
                Phase::OpenConfirm(_) => losers.push(if keep_inbound == new_inbound { other.id } else { conn }),
            }
        }
        let lost = losers.contains(&conn);
        if let Some(Phase::OpenConfirm(state)) = peer.conn_mut(conn).map(|conn| &mut conn.phase) {
            state.held = held;
        }
        peer.refresh_state(now);
        for loser in losers {
            self.end(now, id, loser, SessionEnd::Sent(Notification::COLLISION));
        }
        if !lost && !held {
            self.send_now(id, conn, keepalive());
        }
    }

    /// `conn` is established: all others of the peer are over, except inbound ones that the peer may still prefer.
    fn on_up(&mut self, now: Instant, id: SourceId, conn: ConnId) {
        let Some(peer) = self.peer(id) else { return };
        let others: Vec<(ConnId, bool, bool)> = peer
            .conns
            .iter()
            .filter(|other| other.id != conn)
            .map(|other| (other.id, other.is_established(), other.inbound))
            .collect();
        for (other, established, inbound) in others {
            if established || !inbound {
                self.actions.push_back(Action::Close { conn: other });
                self.drop_conn(now, id, other, SessionEnd::Replaced);
            }
        }
        let recovering = self.recovery.is_some();
        let Speaker { slots, config, rib, .. } = self;
        let Some(peer) = slots.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let Some((state, session)) = peer.established() else { return };
        let target = peer.export_target(config, state.local);
        let (router_id, owes) = (session.negotiated.remote_router_id, session.owes_keepalive);
        let has_restart = session.negotiated.graceful_restart.is_some();
        rib.set_source(id, Some(Source { address: peer.address, router_id, external: target.external }));
        peer.target = Some(target);
        peer.was_up = true;
        peer.since = now;
        peer.retry.succeeded();
        peer.refresh_state(now);
        if let Some(session) = peer.session_mut() {
            session.owes_keepalive = false;
            session.settles_at = (recovering && !session.marks_its_end()).then_some(now + UNMARKED_PATIENCE);
            session.out.end_of_rib_due = if has_restart { session.negotiated.families } else { Default::default() };
        }
        if owes {
            self.send_now(id, conn, keepalive());
        }
        self.session_back(now, id);
        self.queue_all(id);
        self.check_recovery(now);
    }

    /// Ends a connection from our side; with a NOTIFICATION if that is the reason.
    pub(crate) fn end(&mut self, now: Instant, id: SourceId, conn: ConnId, end: SessionEnd) {
        let connected = self.peer_mut(id).and_then(|peer| peer.conn_mut(conn)).is_some_and(|conn| conn.local.is_some());
        if let (SessionEnd::Sent(notification), true) = (&end, connected) {
            self.send_now(id, conn, notification.encode());
        }
        self.actions.push_back(Action::Close { conn });
        self.drop_conn(now, id, conn, end);
    }

    /// Forgets a connection and draws the consequences.
    fn drop_conn(&mut self, now: Instant, id: SourceId, conn: ConnId, end: SessionEnd) {
        self.owners.remove(&conn);
        let Speaker { slots, told, .. } = self;
        let Some(peer) = slots.get_mut(id.index()).and_then(Option::as_mut) else { return };
        let Some(at) = peer.conns.iter().position(|other| other.id == conn) else { return };
        let dropped = peer.conns.remove(at);
        let replaced = end == SessionEnd::Replaced;
        if dropped.is_established() {
            // A replaced session's successor is established already, but its target is not computed yet.
            peer.target = None;
            told.forget(id);
        }
        if !replaced {
            peer.last_end = Some(end.clone());
        }
        if peer.conns.is_empty() && !peer.config.passive {
            peer.retry.wait(now);
        }
        if matches!(&end, SessionEnd::Sent(notification) if notification.is_prefix_limit()) {
            peer.shut_until = Some(now + SHUT);
            peer.retry.at = (!peer.config.passive).then_some(now + SHUT);
        }
        peer.refresh_state(now);
        if let Phase::Established(session) = &dropped.phase {
            self.session_lost(now, id, session, &end);
            self.confirm_held(id);
        }
    }

    /// The established session is gone: a connection that was held because of it may go on.
    fn confirm_held(&mut self, id: SourceId) {
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.established().is_some() {
            return;
        }
        let mut freed = Vec::new();
        for conn in &mut peer.conns {
            if let Phase::OpenConfirm(state) = &mut conn.phase
                && std::mem::replace(&mut state.held, false)
            {
                freed.push(conn.id);
            }
        }
        for conn in freed {
            self.send_now(id, conn, keepalive());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_unknown_until_configured() {
        let now = Instant::now();
        let config = crate::SpeakerConfig::new([10, 0, 0, 1].into(), tortie_net::AsNumber(64512));
        let mut speaker = Speaker::new(config, now);
        let local = SocketAddr::from(([10, 0, 0, 1], 179));
        assert_eq!(speaker.handle_accepted(now, IpAddr::from([10, 0, 0, 2]), local), None);
        assert!(speaker.peers().is_empty());
    }
}
