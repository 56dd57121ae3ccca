//! Dynamic neighbours: hosts of a range that connect to us.
//!
//! Invariant: a host that nobody configured exists only from its connection to the end of what it told, or of the time for
//! which it is kept out, and there are at most `MOST` of them, so strangers can't fill the memory.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use tortie_net::IpNet;

use super::Speaker;
use super::peer::Peer;
use crate::config::PeerConfig;
use crate::message::notification::Notification;
use crate::rib::SourceId;

/// Hosts that may be connected at once without being configured by their addresses.
const MOST: usize = 1024;

impl Speaker {
    /// Makes the ranges exactly these. Hosts are never dialled; of several ranges the narrowest counts.
    pub fn set_ranges(&mut self, now: Instant, ranges: BTreeMap<IpNet, PeerConfig>) {
        self.ranges = ranges.into_iter().map(|(net, config)| (net, PeerConfig { passive: true, ..config })).collect();
        for id in self.dynamic.clone() {
            let Some(address) = self.peer(id).map(|peer| peer.address) else { continue };
            match self.range_of(address) {
                Some((net, config)) => {
                    self.change_peer(now, id, config);
                    if let Some(peer) = self.peer_mut(id) {
                        peer.range = Some(net);
                    }
                }
                None => self.remove_peer(now, address, Notification::PEER_DECONFIGURED),
            }
        }
        self.forget_lists();
    }

    /// Makes the peers and ranges that can have no session at present, as what they need is not known, exactly these: no
    /// range lets them in that is not narrower. To be said before `set_ranges` and `set_peers`, which apply it.
    pub fn set_barred(&mut self, barred: BTreeSet<IpNet>) {
        self.barred = barred;
    }

    fn range_of(&self, address: IpAddr) -> Option<(IpNet, PeerConfig)> {
        let around = self.ranges.iter().filter(|(net, _)| net.contains(&address));
        let (net, config) = around.max_by_key(|(net, _)| net.prefix_len())?;
        let mut barred = self.barred.iter().filter(|barred| barred.contains(&address));
        let open = barred.all(|barred| barred.prefix_len() < net.prefix_len());
        open.then(|| (*net, config.clone()))
    }

    /// Lets a host in that connects and is not known; `None` if no range has it.
    pub(crate) fn let_in(&mut self, now: Instant, address: IpAddr) -> Option<SourceId> {
        let (net, config) = self.range_of(address).filter(|_| self.dynamic.len() < MOST)?;
        let id = self.add_peer(now, address, config);
        self.peer_mut(id)?.range = Some(net);
        self.dynamic.insert(id);
        self.forget_lists();
        if let Some(recovery) = &mut self.recovery {
            recovery.saw_host(now);
        }
        Some(id)
    }

    /// Forgets hosts that are gone with all that they told.
    pub(crate) fn forget_strangers(&mut self) {
        let is_gone = |peer: &Peer| peer.conns.is_empty() && peer.stale.is_none() && peer.shut_until.is_none();
        let gone = |id: &&SourceId| self.peer(**id).is_none_or(is_gone);
        let gone: Vec<SourceId> = self.dynamic.iter().filter(gone).copied().collect();
        for id in gone {
            self.forget_peer(id);
        }
    }
}
