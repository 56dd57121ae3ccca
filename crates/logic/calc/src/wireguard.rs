//! Which WireGuard devices does this node have, and who is behind them?
//!
//! One for each family that settings turn on and the node has an address of. Behind a node with a key are its blocks,
//! the addresses that it borrowed, those of its tunnels and, with host encryption, its own. What two nodes claim the
//! first has; a key that two nodes claim is nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_desired::{Wireguard as Desired, WireguardPeer};
use tortie_net::{Family, IpNet, PublicKey, host_net};

/// A node's side of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Side {
    /// The node's own address.
    pub(crate) underlay: Option<IpAddr>,
    /// The key that it publishes.
    pub(crate) key: Option<PublicKey>,
    /// The address of its device.
    pub(crate) address: Option<IpAddr>,
    /// Addresses of its tunnels, that one included.
    pub(crate) addresses: BTreeSet<IpAddr>,
}

/// A node's sides, IPv4 first.
pub(crate) type Sides = [Side; 2];

/// Settings of WireGuard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireguardSettings {
    /// By family, IPv4 first.
    pub(crate) families: [FamilySettings; 2],
    pub(crate) host_encryption: bool,
    pub(crate) priority: u32,
    pub(crate) keepalive_secs: u16,
    pub(crate) threaded: bool,
}

/// Settings of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FamilySettings {
    pub(crate) enabled: bool,
    pub(crate) name: Arc<str>,
    pub(crate) port: u16,
    pub(crate) mtu: Option<u32>,
}

impl Default for WireguardSettings {
    fn default() -> Self {
        let of = |family: Family, port| FamilySettings {
            enabled: false,
            name: Arc::from(Desired::default_place(family).0),
            port,
            mtu: None,
        };
        let families = [of(Family::V4, 51820), of(Family::V6, 51821)];
        WireguardSettings { families, host_encryption: false, priority: 99, keepalive_secs: 0, threaded: false }
    }
}

/// The sides of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Wireguard {
    nodes: BTreeMap<Arc<str>, Sides>,
    settings: WireguardSettings,
    dirty: bool,
}

impl Wireguard {
    pub(crate) fn set_node(&mut self, name: &str, node: Option<Sides>) {
        let changed = self.nodes.get(name) != node.as_ref();
        match node {
            Some(node) => self.nodes.insert(Arc::from(name), node),
            None => self.nodes.remove(name),
        };
        self.dirty |= changed;
    }

    pub(crate) fn set_settings(&mut self, settings: WireguardSettings) {
        if self.settings != settings {
            (self.settings, self.dirty) = (settings, true);
        }
    }

    /// The devices anew, if nodes, settings or blocks may have changed since the last call.
    pub(crate) fn take(
        &mut self,
        me: &str,
        blocks_changed: bool,
        held: impl Fn() -> Vec<(IpNet, Arc<str>)>,
    ) -> Option<BTreeMap<Family, Desired>> {
        let enabled = self.settings.families.iter().any(|family| family.enabled);
        let news = std::mem::take(&mut self.dirty) || (blocks_changed && enabled);
        news.then(|| {
            let held = if enabled { held() } else { Vec::new() };
            let devices = Family::ALL.into_iter().enumerate();
            devices.filter_map(|(at, family)| Some((family, self.device(me, family, at, &held)?))).collect()
        })
    }

    fn device(&self, me: &str, family: Family, at: usize, held: &[(IpNet, Arc<str>)]) -> Option<Desired> {
        let WireguardSettings { families, host_encryption, priority, keepalive_secs, threaded } = &self.settings;
        let FamilySettings { enabled, name, port, mtu } = &families[at];
        let own = &self.nodes.get(me)?[at];
        let underlay = own.underlay.filter(|_| *enabled)?;
        let owners = self.owners(at, family, *host_encryption, held);
        let mut peers: BTreeMap<Arc<str>, WireguardPeer> = BTreeMap::new();
        let mut plain = BTreeSet::new();
        for (net, node) in owners {
            let side = self.nodes.get(&node).map(|sides| &sides[at]).filter(|_| *node != *me);
            let end = side.and_then(|side| side.key.zip(side.underlay)).filter(|(key, _)| self.is_unique(*key, at));
            match end {
                Some((key, endpoint)) => {
                    let address = side.and_then(|side| side.address);
                    let new = || WireguardPeer { key, endpoint, address, allowed: BTreeSet::new() };
                    peers.entry(node).or_insert_with(new).allowed.insert(net);
                }
                None => drop(plain.insert(net)),
            }
        }
        // Without host encryption the nodes' own addresses are never looked for here.
        Some(Desired {
            name: name.clone(),
            port: *port,
            table: Desired::default_place(family).1,
            priority: *priority,
            underlay,
            address: own.address.or_else(|| host_encryption.then_some(underlay)),
            mtu: *mtu,
            keepalive_secs: *keepalive_secs,
            threaded: *threaded,
            peers,
            plain,
        })
    }

    /// Who has each prefix: blocks and single addresses first, tunnels' and nodes' own after.
    fn owners(&self, at: usize, family: Family, hosts: bool, held: &[(IpNet, Arc<str>)]) -> BTreeMap<IpNet, Arc<str>> {
        let mut owners = BTreeMap::new();
        for (net, node) in held.iter().filter(|(net, _)| Family::of_net(*net) == family) {
            owners.entry(*net).or_insert_with(|| node.clone());
        }
        for (node, sides) in &self.nodes {
            let Side { underlay, key: _, address: _, addresses } = &sides[at];
            for addr in addresses.iter().chain(underlay.iter().filter(|_| hosts)) {
                owners.entry(host_net(*addr)).or_insert_with(|| node.clone());
            }
        }
        owners
    }

    fn is_unique(&self, key: PublicKey, at: usize) -> bool {
        self.nodes.values().filter(|sides| sides[at].key == Some(key)).count() == 1
    }
}
