//! Configuration in: peers and routes of our own.
//!
//! Invariant: applying the same configuration twice changes nothing; a session is bounced only if its own peer changed.

use std::collections::BTreeMap;
use std::time::Instant;

use tortie_net::{Family, IpNet};

use super::Speaker;
use super::event::SessionEnd;
use super::peer::Peer;
use crate::attribute::Attributes;
use crate::config::{LocalRoute, PeerConfig, PeerId};
use crate::message::notification::Notification;
use crate::rib::{Announced, SourceId};

impl Speaker {
    /// Makes the peers exactly these: new ones are dialled, missing ones told "de-configured" and forgotten with their
    /// routes, changed ones restarted.
    pub fn set_peers(&mut self, now: Instant, peers: BTreeMap<PeerId, PeerConfig>) {
        if self.stopped {
            return;
        }
        let gone: Vec<PeerId> =
            self.by_address.keys().filter(|address| !peers.contains_key(address)).copied().collect();
        for address in gone {
            self.remove_peer(now, address, Notification::PEER_DECONFIGURED);
        }
        for (address, config) in peers {
            let existing = self.by_address.get(&address).and_then(|id| self.slots.get_mut(id.index())?.as_mut());
            match existing {
                Some(peer) if peer.config.same_session(&config) => peer.config = config,
                Some(_) => {
                    self.remove_peer(now, address, Notification::CONFIGURATION_CHANGED);
                    self.add_peer(now, address, config);
                }
                None => self.add_peer(now, address, config),
            }
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.configured = true;
        }
        self.check_recovery(now);
    }

    fn add_peer(&mut self, now: Instant, address: PeerId, config: PeerConfig) {
        let free = self.slots.iter().skip(1).position(Option::is_none).map(|at| at + 1);
        let index = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let id = SourceId(u32::try_from(index).expect("peers fit 32 bits"));
        self.slots[index] = Some(Peer::new(now, id, address, config, &self.config));
        self.by_address.insert(address, id);
        self.dial_if_due(now, id);
    }

    fn remove_peer(&mut self, now: Instant, address: PeerId, reason: Notification) {
        let Some(id) = self.by_address.remove(&address) else { return };
        let conns: Vec<_> = self.peer(id).map_or_else(Vec::new, |peer| peer.conns.iter().map(|conn| conn.id).collect());
        for conn in conns {
            self.end(now, id, conn, SessionEnd::Sent(reason.clone()));
        }
        for family in Family::ALL {
            let dropped = self.rib.drop_family(id, family);
            self.note_dropped(id, &dropped);
        }
        self.rib.set_source(id, None);
        self.slots[id.index()] = None;
        self.ready.remove(&id);
    }

    /// Makes the routes that we originate exactly these. Peers get our own address as their next hop.
    pub fn set_local_routes(&mut self, _now: Instant, routes: BTreeMap<IpNet, LocalRoute>) {
        if self.stopped {
            return;
        }
        let own = routes.keys().map(|prefix| prefix.trunc()).collect();
        let old = std::mem::replace(&mut self.own, own);
        let gone: Vec<IpNet> = old.difference(&self.own).copied().collect();
        for prefix in gone {
            if self.rib.withdraw(SourceId::LOCAL, prefix) {
                self.note_change(prefix);
            }
        }
        for (prefix, route) in routes {
            let prefix = prefix.trunc();
            let LocalRoute { communities, large_communities, local_pref, med } = route;
            let attributes = self.attributes.intern(Attributes {
                communities: communities.into(),
                large_communities: large_communities.into(),
                local_pref,
                med,
                ..Attributes::default()
            });
            if self.rib.announce(SourceId::LOCAL, prefix, &attributes) != Announced::Same {
                self.note_change(prefix);
            }
        }
    }
}
