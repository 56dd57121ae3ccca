//! What decides who may get which address: pools, reservations, IPAM settings.

use ipnet::IpNet;
use tortie_api::ipam::IpamConfig;
use tortie_api::{AssignmentMode, IpPool, IpPoolAllowedUse, Kind, Resource};
use tortie_facts::{Filter, Key, Value};
use tortie_net::{Family, IpAddr};

use crate::block;
use crate::machine::{CasWrite, Fact};
use crate::reserved::Reserved;

/// A pool as far as assignment needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Name of the IPPool.
    pub name: String,
    /// Its range.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_size: u8,
    /// Nodes that may use it; empty means all.
    pub node_selector: String,
    /// Namespaces that may use it; empty means all.
    pub namespace_selector: String,
    /// What its addresses are for.
    pub uses: Vec<IpPoolAllowedUse>,
    /// Whether it is used only where a request names it.
    pub manual: bool,
    /// Why no new addresses may be taken from it, if so.
    pub closed: Option<String>,
}

impl Pool {
    /// Reads an IPPool. `None` if its range can't be read, which validation excludes.
    pub fn from_resource(pool: &IpPool) -> Option<Pool> {
        let spec = &pool.spec;
        let cidr = spec.cidr.net()?;
        let block_size = match (spec.block_size, Family::of_net(cidr)) {
            (0, Family::V4) => 26,
            (0, Family::V6) => 122,
            (given, _) => given,
        };
        let condition = pool.status.iter().flat_map(|status| &status.conditions);
        let refused = condition.into_iter().find(|c| c.kind == "Allocatable" && c.status == "False");
        let closed = match (spec.disabled, &pool.metadata.deletion_timestamp, refused) {
            (true, _, _) => Some("it is disabled".to_owned()),
            (_, Some(_), _) => Some("it is being deleted".to_owned()),
            (_, _, Some(condition)) => Some(format!("it is not allocatable ({})", condition.reason)),
            (false, None, None) => None,
        };
        let uses = match spec.allowed_uses.as_slice() {
            [] => vec![IpPoolAllowedUse::Workload, IpPoolAllowedUse::Tunnel],
            uses => uses.to_vec(),
        };
        Some(Pool {
            name: pool.metadata.name.clone(),
            cidr,
            block_size,
            node_selector: spec.node_selector.clone(),
            namespace_selector: spec.namespace_selector.clone(),
            uses,
            manual: spec.assignment_mode == Some(AssignmentMode::Manual),
            closed,
        })
    }

    /// Whether its range can hold a block at all.
    pub fn holds_blocks(&self) -> bool {
        self.block_size >= self.cidr.prefix_len() && self.block_size <= self.cidr.max_prefix_len()
    }

    /// The block of the pool that the address lies in.
    pub fn block_of(&self, addr: IpAddr) -> Option<IpNet> {
        if self.cidr.contains(&addr) && self.holds_blocks() { block::containing(addr, self.block_size) } else { None }
    }
}

/// Everything that decides about assignment, besides the request.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// All pools, sorted by name.
    pub pools: Vec<Pool>,
    /// All reservations.
    pub reserved: Reserved,
    /// The settings of IPAM.
    pub config: IpamConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { pools: Vec::new(), reserved: Reserved::default(), config: default_config() }
    }
}

/// The settings of IPAM when none are stored: borrowing allowed, blocks claimed when needed, no cooldown.
pub fn default_config() -> IpamConfig {
    IpamConfig { auto_allocate_blocks: true, ..IpamConfig::default() }
}

impl Settings {
    /// What has to be listed for [`Settings::from_facts`], besides a get of `Key::IpamConfig`.
    pub fn filter() -> Filter {
        Filter::Any(vec![Filter::Kind(Kind::IpPool), Filter::Kind(Kind::IpReservation)])
    }

    /// Picks what matters out of any facts.
    pub fn from_facts<'a>(facts: impl IntoIterator<Item = (&'a Key, &'a Value)>) -> Settings {
        let mut settings = Settings::default();
        let mut nets = Vec::new();
        for (_, value) in facts {
            match value {
                Value::Resource(resource) => match &**resource {
                    Resource::IpPool(pool) => settings.pools.extend(Pool::from_resource(pool)),
                    Resource::IpReservation(reservation) => {
                        nets.extend(reservation.spec.reserved_cidrs.iter().filter_map(|text| text.net()));
                    }
                    _ => {}
                },
                Value::IpamConfig(config) => settings.config = config.clone(),
                Value::Block(_) | Value::Affinity(_) | Value::Handle(_) | Value::Status(_) => {}
            }
        }
        settings.pools.sort_by(|a, b| a.name.cmp(&b.name));
        settings.reserved = Reserved::new(nets);
        settings
    }

    /// The pool that an address lies in; the one with the longest prefix if they overlap.
    pub fn pool_of(&self, addr: IpAddr) -> Option<&Pool> {
        self.pools.iter().filter(|pool| pool.cidr.contains(&addr)).max_by_key(|pool| pool.cidr.prefix_len())
    }

    /// How many blocks an owner may have, per family.
    pub fn block_limit(&self, requested: usize) -> usize {
        let global = usize::try_from(self.config.max_blocks_per_host).unwrap_or(0);
        match (requested, global) {
            (0, 0) => 20,
            (0, limit) | (limit, 0) => limit,
            (requested, global) => requested.min(global),
        }
    }
}

/// A change of the settings of IPAM, checked as upstream checks it.
pub fn check_config(config: &IpamConfig) -> Result<(), String> {
    if !config.strict_affinity && !config.auto_allocate_blocks {
        return Err("strictAffinity: false needs autoAllocateBlocks: true, since without blocks of their own nodes \
                    could only borrow"
            .to_owned());
    }
    if config.max_blocks_per_host > 0 && !config.strict_affinity {
        return Err(format!(
            "maxBlocksPerHost: {} needs strictAffinity: true, since a node at its limit could still borrow",
            config.max_blocks_per_host
        ));
    }
    if !(0..=1200).contains(&config.ip_cooldown_seconds) {
        return Err(format!("ipCooldownSeconds: {} is not within 0 to 1200", config.ip_cooldown_seconds));
    }
    Ok(())
}

/// The change of the settings as one write over what was read.
pub fn configure(seen: Option<&Fact>, config: IpamConfig) -> Result<CasWrite, String> {
    check_config(&config)?;
    let expect = seen.map_or(crate::Expect::Absent, |fact| crate::Expect::Revision(fact.revision));
    Ok(CasWrite { key: Key::IpamConfig, expect, value: Some(Value::IpamConfig(config)) })
}
