//! Addresses of the node's tunnel devices: given by IPAM, published in the Node resource, given back when no pool
//! wants them.
//!
//! Invariant: what the Node resource says is held under the node's own handle; a crash in between is mended by the
//! next look. The MTU that pods get follows from the same pools.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tortie_api::{EncapMode, FelixConfigurationSpec, IpPoolSpec, Kind, Node, Resource};
use tortie_desired::TunnelDevice;
use tortie_facts::{Filter, Key, Update, Value};
use tortie_ipam::block;
use tortie_net::{Family, IpNet};
use tortie_store::{Reader, Store, resource};
use tracing::{info, warn};

use crate::cni::{Ask, Service};
use crate::host;
use crate::lock;

/// After a failure, and for pools that ran full, the next look comes this much later.
const RETRY: Duration = Duration::from_secs(10);

/// Who looks after the addresses.
pub struct TunnelAddresses {
    store: Arc<dyn Store>,
    service: Arc<Service>,
    /// MTU of the devices by configuration, IPv4 first; `None` leaves it to the host.
    configured: [Option<u32>; 2],
    /// Which interfaces are the host's own (`mtuIfacePattern`).
    mtu_pattern: String,
}

/// Tells the addresses' task of changes; ends it when dropped.
pub struct Bell {
    node: String,
    sender: Sender<()>,
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
            let _ = self.sender.send(());
        }
    }
}

impl TunnelAddresses {
    /// For the node of this service.
    pub fn new(store: Arc<dyn Store>, service: Arc<Service>, felix: &FelixConfigurationSpec) -> TunnelAddresses {
        let mtu = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0);
        let configured = [mtu(felix.vxlan_mtu), mtu(felix.vxlan_mtu_v6)];
        TunnelAddresses { store, service, configured, mtu_pattern: felix.mtu_iface_pattern.clone() }
    }

    /// Looks once, then whenever the bell rings. The first look is over when this returns: what it found is in the
    /// store before the node reads that.
    pub fn start(self) -> Result<Bell> {
        let (sender, receiver) = channel();
        let node = self.service.node.clone();
        let settled = self.look();
        std::thread::Builder::new()
            .name("tunnel-addresses".to_owned())
            .spawn(move || self.run(&receiver, settled))
            .context("can't start a thread")?;
        Ok(Bell { node, sender })
    }

    fn run(&self, bell: &Receiver<()>, mut settled: bool) {
        loop {
            let heard = if settled {
                bell.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                bell.recv_timeout(RETRY)
            };
            if heard == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            bell.try_iter().for_each(drop);
            settled = self.look();
        }
    }

    fn look(&self) -> bool {
        let done = self.settle();
        if let Err(error) = &done {
            warn!("the addresses of the node's tunnels are not settled: {error:#}");
        }
        done.is_ok()
    }

    fn settle(&self) -> Result<()> {
        if lock::is_locked(&*self.store)? {
            bail!("the datastore is locked");
        }
        let pools = self.pools()?;
        self.service.set_mtu(self.pod_mtu(&pools)?);
        let key = Key::resource(Kind::Node, "", &self.service.node);
        let entry = Reader::get(&*self.store, &key)?;
        let Some(Resource::Node(node)) = entry.as_ref().and_then(|e| e.value.as_resource()).map(|r| &**r) else {
            return Ok(());
        };
        // Pools select nodes by labels, which IPAM must know before the first look at the whole store.
        let entry = entry.as_ref().expect("it was found");
        let update = Update { key: key.clone(), value: Some(entry.value.clone()), revision: entry.revision };
        self.service.addresses.observe(&[update]);
        for family in Family::ALL {
            let has_underlay = node.spec.bgp.as_ref().is_some_and(|bgp| match family {
                Family::V4 => !bgp.ipv4_address.is_empty(),
                Family::V6 => !bgp.ipv6_address.is_empty(),
            });
            let usable = |pool: &&IpPoolSpec| has_underlay && !pool.disabled && encapsulated(pool, family);
            let ranges: Vec<IpNet> = pools.iter().filter(usable).filter_map(|pool| pool.cidr.net()).collect();
            let wanted = self.address(family, &ranges).with_context(|| format!("{family}"))?;
            self.publish(&key, family, wanted)?;
        }
        Ok(())
    }

    /// The address that the device should have: the one that is held if a pool still has it, else a new one.
    fn address(&self, family: Family, ranges: &[IpNet]) -> Result<Option<IpAddr>> {
        let handle = handle(family, &self.service.node);
        let held = self.held(&handle)?;
        if let Some(held) = held.filter(|held| ranges.iter().any(|range| range.contains(held))) {
            return Ok(Some(held));
        }
        let fault = |error: tortie_cni::spec::CniError| anyhow!("{error}");
        if self.service.addresses.holds(&handle).map_err(fault)? {
            self.service.addresses.release(&handle, None).map_err(fault)?;
            info!(%family, "gave the address of the tunnel device back");
        }
        if ranges.is_empty() {
            return Ok(None);
        }
        let kind = match family {
            Family::V4 => "vxlanTunnelAddress",
            Family::V6 => "vxlanV6TunnelAddress",
        };
        let ask = Ask::tunnel(handle, kind, family, ranges);
        let given = self.service.addresses.assign(&ask, None).map_err(fault)?;
        let given = given.first().copied().context("IPAM gave no address")?;
        info!(%family, address = %given, "the tunnel device has an address");
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

    fn publish(&self, key: &Key, family: Family, addr: Option<IpAddr>) -> Result<()> {
        let text = addr.map(|addr| addr.to_string()).unwrap_or_default();
        let change = |stored: Option<&Resource>| {
            let mut node = match stored {
                Some(Resource::Node(node)) => (**node).clone(),
                _ => Node { metadata: tortie_api::Metadata::named(self.service.node.as_str()), ..Node::default() },
            };
            match family {
                Family::V4 => node.spec.ipv4_vxlan_tunnel_addr.clone_from(&text),
                Family::V6 => node.spec.ipv6_vxlan_tunnel_addr.clone_from(&text),
            }
            node.into()
        };
        resource::update(&*self.store, key, change).context("can't publish it in the Node resource")?;
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

    /// What pods may send in one packet, whatever way it goes.
    fn pod_mtu(&self, pools: &[IpPoolSpec]) -> Result<u32> {
        let base = host::mtu(&self.mtu_pattern)?;
        let limit = |family: Family, configured: Option<u32>| {
            let used = pools.iter().any(|pool| encapsulated(pool, family));
            let room = base.saturating_sub(TunnelDevice::vxlan(family).overhead());
            used.then(|| configured.map_or(room, |mtu| mtu.min(room)))
        };
        let limits = Family::ALL.into_iter().zip(self.configured).filter_map(|(family, mtu)| limit(family, mtu));
        Ok(limits.chain([base]).min().expect("one at least"))
    }
}

fn encapsulated(pool: &IpPoolSpec, family: Family) -> bool {
    let vxlan = matches!(pool.vxlan_mode, Some(EncapMode::Always | EncapMode::CrossSubnet));
    vxlan && pool.cidr.family() == Some(family)
}

/// The handle under which the address is held, as upstream's.
fn handle(family: Family, node: &str) -> String {
    match family {
        Family::V4 => format!("vxlan-tunnel-addr-{node}"),
        Family::V6 => format!("vxlan-v6-tunnel-addr-{node}"),
    }
}
