//! Addresses of the node's tunnel devices: given by IPAM, published in the Node resource, given back when no pool
//! wants them.
//!
//! Invariant: what the Node resource says is held under the node's own handle; a crash in between is mended by the
//! next look. The MTU that pods get follows from the same pools.

mod kind;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tortie_api::{FelixConfigurationSpec, IpPoolSpec, Kind, Node, Resource};
use tortie_facts::{Filter, Key, Update, Value};
use tortie_ipam::block;
use tortie_net::{Family, IpNet};
use tortie_netlink::Event;
use tortie_store::{Reader, Store, resource};
use tracing::{info, warn};

use crate::cni::{Ask, Service};
use crate::host;
use crate::lock;
use kind::Kind as Tunnel;

/// After a failure, and for pools that ran full, the next look comes this much later.
const RETRY: Duration = Duration::from_secs(10);

/// Who looks after the addresses.
pub struct TunnelAddresses {
    store: Arc<dyn Store>,
    service: Arc<Service>,
    felix: FelixConfigurationSpec,
    wireguard: Wireguard,
    /// The pools as they were looked at last.
    pools: Vec<IpPoolSpec>,
    /// The largest packets that pass to all other nodes, where that is less than interfaces take; IPv4 first.
    path_mtu: [Option<u32>; 2],
}

/// What the task hears.
enum Heard {
    /// Pools or the node's own resource changed.
    Facts,
    /// WireGuard is so now.
    Wireguard(Wireguard),
    /// An interface changed its MTU, or came or went.
    Links,
    /// The largest packets that pass to all other nodes.
    PathMtu([Option<u32>; 2]),
}

/// What the agent knows of WireGuard; families IPv4 first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wireguard {
    /// Whether it is on.
    pub enabled: [bool; 2],
    /// The keys of its devices, to be published, empty where there is none; `None`: nobody knows now, and what is
    /// published stays.
    pub keys: [Option<String>; 2],
}

/// Tells the addresses' task of changes; ends it when dropped.
pub struct Bell {
    node: String,
    sender: Sender<Heard>,
    told: Wireguard,
    /// MTUs of interfaces that are up, as far as anything was heard of them.
    mtus: BTreeMap<u32, Option<u32>>,
}

impl Bell {
    /// Wakes the task if one of the changes concerns it: pools, and this node's own resource.
    pub fn observe(&self, updates: &[Update]) {
        let concerns = |update: &Update| match &update.key {
            Key::Resource { kind: Kind::IpPool, namespace: _, name: _ } => true,
            Key::Resource { kind: Kind::Node, namespace: _, name } => *name == self.node,
            _ => false,
        };
        if updates.iter().any(concerns) {
            // The task ends only with the process.
            let _ = self.sender.send(Heard::Facts);
        }
    }

    /// Wakes the task if the MTU of an interface that may be the host's own changed, or that interface came or went.
    pub fn on_event(&mut self, event: &Event) {
        let (link, mtu) = match event {
            Event::LinkSet(link) => (link, link.up.then_some(link.mtu)),
            Event::LinkGone(link) => (link, None),
            Event::Resync => {
                // Nobody knows what was missed.
                self.mtus.clear();
                let _ = self.sender.send(Heard::Links);
                return;
            }
            Event::AddressSet(_)
            | Event::AddressGone(_)
            | Event::RouteSet(_)
            | Event::RouteGone(_)
            | Event::NeighbourSet(_)
            | Event::NeighbourGone(_) => return,
        };
        let counts = !link.loopback && !link.name.starts_with("cali");
        if counts && self.mtus.insert(link.index, mtu) != Some(mtu) {
            let _ = self.sender.send(Heard::Links);
        }
    }

    /// Tells the task how large packets to other nodes may be.
    pub fn path_mtu(&self, path: [Option<u32>; 2]) {
        let _ = self.sender.send(Heard::PathMtu(path));
    }

    /// Wakes the task if WireGuard is not as it was told before. A key that nobody knows now stays the one that was told:
    /// others send in the clear to a node without a key.
    pub fn wireguard(&mut self, mut now: Wireguard) {
        for (now, told) in now.keys.iter_mut().zip(&self.told.keys) {
            *now = now.take().or_else(|| told.clone());
        }
        if self.told != now {
            self.told = now.clone();
            let _ = self.sender.send(Heard::Wireguard(now));
        }
    }
}

impl TunnelAddresses {
    /// For the node of this service.
    pub fn new(store: Arc<dyn Store>, service: Arc<Service>, felix: &FelixConfigurationSpec) -> TunnelAddresses {
        let enabled = [felix.wireguard_enabled, felix.wireguard_enabled_v6].map(|on| on == Some(true));
        TunnelAddresses {
            store,
            service,
            felix: felix.clone(),
            wireguard: Wireguard { enabled, keys: [None, None] },
            pools: Vec::new(),
            path_mtu: [None; 2],
        }
    }

    /// Looks once, then whenever the bell rings. The first look is over when this returns: what it found is in the
    /// store before the node reads that.
    pub fn start(mut self) -> Result<Bell> {
        let (sender, receiver) = channel();
        let node = self.service.node.clone();
        let settled = self.look();
        let told = self.wireguard.clone();
        std::thread::Builder::new()
            .name("tunnel-addresses".to_owned())
            .spawn(move || self.run(&receiver, settled))
            .context("can't start a thread")?;
        Ok(Bell { node, sender, told, mtus: BTreeMap::new() })
    }

    fn run(mut self, bell: &Receiver<Heard>, mut settled: bool) {
        loop {
            let heard = if settled {
                bell.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                bell.recv_timeout(RETRY)
            };
            let first = match heard {
                Ok(heard) => heard,
                Err(RecvTimeoutError::Timeout) => Heard::Facts,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut facts = false;
            for heard in std::iter::once(first).chain(bell.try_iter()) {
                match heard {
                    Heard::Facts => facts = true,
                    Heard::Wireguard(now) => (self.wireguard, facts) = (now, true),
                    Heard::Links => {}
                    Heard::PathMtu(path) => self.path_mtu = path,
                }
            }
            if facts {
                settled = self.look();
            } else if let Err(error) = self.set_mtu() {
                warn!("the MTU for pods stays as it is: {error:#}");
            }
        }
    }

    fn look(&mut self) -> bool {
        let done = self.settle();
        if let Err(error) = &done {
            warn!("the addresses of the node's tunnels are not settled: {error:#}");
        }
        done.is_ok()
    }

    fn settle(&mut self) -> Result<()> {
        if lock::is_locked(&*self.store)? {
            bail!("the datastore is locked");
        }
        self.pools = self.pools()?;
        self.set_mtu()?;
        let key = Key::resource(Kind::Node, "", &self.service.node);
        let entry = Reader::get(&*self.store, &key)?;
        let Some(Resource::Node(node)) = entry.as_ref().and_then(|e| e.value.as_resource()).map(|r| &**r) else {
            return Ok(());
        };
        // Pools select nodes by labels, which IPAM must know before the first look at the whole store.
        let entry = entry.as_ref().expect("it was found");
        let update = Update { key: key.clone(), value: Some(entry.value.clone()), revision: entry.revision };
        self.service.addresses.observe(&[update]);
        for tunnel in Tunnel::ALL {
            let has_underlay = node.spec.bgp.as_ref().is_some_and(|bgp| match tunnel.family() {
                Family::V4 => !bgp.ipv4_address.is_empty(),
                Family::V6 => !bgp.ipv6_address.is_empty(),
            });
            let usable =
                |pool: &&IpPoolSpec| has_underlay && !pool.disabled && tunnel.carries(pool, self.wireguard.enabled);
            let ranges: Vec<IpNet> = self.pools.iter().filter(usable).filter_map(|pool| pool.cidr.net()).collect();
            let wanted = self.address(tunnel, &ranges).with_context(|| tunnel.to_string())?;
            self.publish(&key, tunnel, wanted)?;
        }
        self.publish_keys(&key, &self.wireguard.keys)
    }

    /// The address that the device should have: the one that is held if a pool still has it, else a new one.
    fn address(&self, tunnel: Tunnel, ranges: &[IpNet]) -> Result<Option<IpAddr>> {
        let handle = tunnel.handle(&self.service.node);
        let held = self.held(&handle)?;
        if let Some(held) = held.filter(|held| ranges.iter().any(|range| range.contains(held))) {
            return Ok(Some(held));
        }
        let fault = |error: tortie_cni::spec::CniError| anyhow!("{error}");
        if self.service.addresses.holds(&handle).map_err(fault)? {
            self.service.addresses.release(&handle, None).map_err(fault)?;
            info!(%tunnel, "gave the address of the tunnel device back");
        }
        if ranges.is_empty() {
            return Ok(None);
        }
        let ask = Ask::tunnel(handle, tunnel.attribute(), tunnel.family(), ranges);
        let given = self.service.addresses.assign(&ask, None).map_err(fault)?;
        let given = given.first().copied().context("IPAM gave no address")?;
        info!(%tunnel, address = %given, "the tunnel device has an address");
        Ok(Some(given))
    }

    /// The address that is held under a handle.
    fn held(&self, handle: &str) -> Result<Option<IpAddr>> {
        let Some(entry) = Reader::get(&*self.store, &Key::Handle(handle.to_owned()))? else { return Ok(None) };
        let Some(record) = entry.value.as_handle() else { return Ok(None) };
        for cidr in record.block.keys().filter_map(|text| text.parse::<IpNet>().ok()) {
            let Some(entry) = Reader::get(&*self.store, &Key::Block(cidr))? else { continue };
            let Some(found) = entry.value.as_block() else { continue };
            let is_ours = |slot: &Option<usize>| {
                let holder = slot.and_then(|index| found.attributes.get(index));
                holder.is_some_and(|holder| holder.handle_id.as_deref() == Some(handle) && holder.released_at.is_none())
            };
            if let Some(ordinal) = found.allocations.iter().position(is_ours) {
                return Ok(Some(block::address(cidr, ordinal)));
            }
        }
        Ok(None)
    }

    fn publish(&self, key: &Key, tunnel: Tunnel, addr: Option<IpAddr>) -> Result<()> {
        let text = addr.map(|addr| addr.to_string()).unwrap_or_default();
        let change = |stored: Option<&Resource>| {
            let mut node = match stored {
                Some(Resource::Node(node)) => (**node).clone(),
                _ => Node { metadata: tortie_api::Metadata::named(self.service.node.as_str()), ..Node::default() },
            };
            tunnel.set_address(&mut node, &text);
            node.into()
        };
        resource::update(&*self.store, key, change).context("can't publish it in the Node resource")?;
        Ok(())
    }

    fn publish_keys(&self, key: &Key, [v4, v6]: &[Option<String>; 2]) -> Result<()> {
        if v4.is_none() && v6.is_none() {
            return Ok(());
        }
        let change = |stored: Option<&Resource>| {
            let mut node = match stored {
                Some(Resource::Node(node)) => (**node).clone(),
                _ => Node { metadata: tortie_api::Metadata::named(self.service.node.as_str()), ..Node::default() },
            };
            let status = &mut node.status;
            for (published, key) in [(&mut status.wireguard_public_key, v4), (&mut status.wireguard_public_key_v6, v6)]
            {
                if let Some(key) = key {
                    published.clone_from(key);
                }
            }
            node.into()
        };
        resource::update(&*self.store, key, change).context("can't publish WireGuard's keys in the Node resource")?;
        Ok(())
    }

    fn pools(&self) -> Result<Vec<IpPoolSpec>> {
        let listing = self.store.list(&Filter::Kind(Kind::IpPool))?;
        let spec = |value: &Value| match &**value.as_resource()? {
            Resource::IpPool(pool) => Some(pool.spec.clone()),
            _ => None,
        };
        Ok(listing.entries.iter().filter_map(|entry| spec(&entry.value)).collect())
    }

    fn set_mtu(&self) -> Result<()> {
        self.service.set_mtu(self.pod_mtu()?);
        Ok(())
    }

    /// What pods may send in one packet, whatever way it goes.
    fn pod_mtu(&self) -> Result<u32> {
        let interfaces = host::mtu(&self.felix.mtu_iface_pattern)?;
        Ok(pod_mtu(interfaces, self.path_mtu, &self.pools, self.wireguard.enabled, &self.felix))
    }
}

/// The MTU of pods over interfaces that take so much. What was found of the way takes no family away from them.
fn pod_mtu(
    interfaces: u32,
    path: [Option<u32>; 2],
    pools: &[IpPoolSpec],
    encrypted: [bool; 2],
    felix: &FelixConfigurationSpec,
) -> u32 {
    let most = |base: u32| {
        let limit = |tunnel: Tunnel| {
            let used = pools.iter().any(|pool| tunnel.carries(pool, encrypted));
            let room = base.saturating_sub(tunnel.overhead());
            used.then(|| tunnel.configured_mtu(felix).map_or(room, |mtu| mtu.min(room)))
        };
        Tunnel::ALL.into_iter().filter_map(limit).chain([base]).min().expect("one at least")
    };
    let families = pools.iter().filter_map(|pool| pool.cidr.family());
    let least = families.map(Family::least_mtu).max().unwrap_or(Family::V4.least_mtu());
    let path = path.into_iter().flatten().min();
    most(interfaces).min(path.map_or(u32::MAX, |path| most(path).max(least)))
}

#[cfg(test)]
mod tests {
    use tortie_api::EncapMode;

    use super::*;

    #[test]
    fn a_way_leaves_pods_what_their_families_need() {
        let pool = |cidr: &str, mode| IpPoolSpec { cidr: cidr.into(), vxlan_mode: Some(mode), ..IpPoolSpec::default() };
        let v4 = [pool("10.0.0.0/16", EncapMode::Always)];
        let dual = [pool("10.0.0.0/16", EncapMode::Always), pool("fd00::/48", EncapMode::Never)];
        let felix = FelixConfigurationSpec::default();
        for (pools, interfaces, path, mtu) in [
            (&v4[..], 1500, [None, None], 1450),
            (&v4[..], 1500, [Some(1400), None], 1350),
            (&v4[..], 1500, [Some(1300), None], 1250),
            (&v4[..], 1500, [Some(128), None], 576),
            (&dual[..], 1500, [Some(1300), None], 1280),
            (&dual[..], 1500, [None, Some(1400)], 1350),
            // The interfaces' own MTU is no guess.
            (&dual[..], 1300, [Some(1290), None], 1250),
        ] {
            assert_eq!(pod_mtu(interfaces, path, pools, [false; 2], &felix), mtu, "{interfaces} {path:?} {pools:?}");
        }
    }

    #[test]
    fn a_key_stays_told_until_it_is_another_or_withdrawn() {
        let (sender, receiver) = channel();
        let mut bell = Bell { node: "node1".to_owned(), sender, told: Wireguard::default(), mtus: BTreeMap::new() };
        let mut heard = |keys: [Option<&str>; 2]| {
            bell.wireguard(Wireguard { enabled: [true; 2], keys: keys.map(|key| key.map(str::to_owned)) });
            receiver.try_iter().last().map(|heard| match heard {
                Heard::Wireguard(now) => now.keys,
                Heard::Facts | Heard::Links | Heard::PathMtu(_) => panic!("WireGuard is what was told of"),
            })
        };
        let keys = |v4: Option<&str>, v6: Option<&str>| Some([v4, v6].map(|key| key.map(str::to_owned)));
        assert_eq!(heard([None, None]), keys(None, None), "a start while nobody knows: what is published stays");
        assert_eq!(heard([Some("one"), Some("two")]), keys(Some("one"), Some("two")));
        assert_eq!(heard([None, Some("two")]), None, "the same as before");
        assert_eq!(heard([None, None]), None);
        assert_eq!(heard([None, Some("")]), keys(Some("one"), Some("")), "withdrawn");
        assert_eq!(heard([Some("three"), None]), keys(Some("three"), Some("")), "another");
    }
}
