//! Sessions that end without a gap: those of a mesh that gives way to elected reflectors, and of reflectors that do.
//!
//! A peer that is to go stays until every route that it told is told by another peer as well; then TCP just ends, so that
//! the other side, which may not be there yet, keeps our routes for its restart time. A client that is to be none any more
//! stays one for a while, in which it meets the others. Invariant: nothing lingers for longer than `MOST`.

use std::time::{Duration, Instant};

use super::Speaker;
use super::event::SessionEnd;
use super::peer::Peer;
use crate::config::{PeerConfig, PeerId};
use crate::rib::SourceId;

/// The longest that anything lingers.
const MOST: Duration = Duration::from_secs(60);
/// How often a peer that is to go is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A peer that is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    until: Instant,
    pub(crate) look_at: Instant,
}

impl Speaker {
    /// Lets a peer go without a gap, if it lingers and has a session, or routes of one that was lost; `false`: it is to
    /// be removed at once.
    pub(crate) fn let_go(&mut self, now: Instant, address: PeerId) -> bool {
        let Some(id) = self.by_address.get(&address).copied() else { return false };
        let held = |peer: &&mut Peer| peer.established().is_some() || peer.stale.is_some();
        let Some(peer) = self.peer_mut(id).filter(|peer| peer.config.lingers).filter(held) else {
            return false;
        };
        peer.leaving.get_or_insert(Leaving { until: now + MOST, look_at: now + LOOK });
        true
    }

    /// What a changed configuration means now: a client that is to be none any more stays one for a while.
    pub(crate) fn lingering(&mut self, now: Instant, id: SourceId, config: PeerConfig) -> PeerConfig {
        let Some(peer) = self.peer_mut(id) else { return config };
        let ends = config.reflector_cluster.is_none() && peer.config.reflector_cluster.is_some();
        let begins = ends && peer.client_until.is_none() && (peer.config.lingers || config.lingers);
        if begins && peer.established().is_some() {
            peer.client_until = Some(now + MOST);
        }
        if !ends {
            peer.client_until = None;
        }
        match peer.client_until {
            Some(_) => PeerConfig { reflector_cluster: peer.config.reflector_cluster, ..config },
            None => config,
        }
    }

    /// Looks at a peer that lingers, if it is time to.
    pub(crate) fn linger(&mut self, now: Instant, id: SourceId) {
        let Some(peer) = self.peer_mut(id) else { return };
        if peer.client_until.take_if(|until| *until <= now).is_some() {
            peer.config.reflector_cluster = None;
            self.requeue_all();
        }
        let Some(leaving) = self.peer_mut(id).and_then(|peer| peer.leaving.as_mut()) else { return };
        if leaving.look_at > now {
            return;
        }
        leaving.look_at = now + LOOK;
        if leaving.until <= now || self.is_covered(id) {
            for conn in self.conns_of(id) {
                self.end(now, id, conn, SessionEnd::Reconfigured);
            }
            self.forget_peer(id);
        }
    }

    /// Whether others that stay tell every route that this peer does.
    fn is_covered(&self, id: SourceId) -> bool {
        let stays = |peer: &Peer| peer.leaving.is_none() && peer.established().is_some();
        self.rib.paths_of(id).all(|(prefix, _)| {
            let mut others = self.rib.paths(prefix).filter(|path| path.source != id && !path.stale);
            others.any(|path| path.source == SourceId::LOCAL || self.peer(path.source).is_some_and(stays))
        })
    }
}
