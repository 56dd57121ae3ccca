//! IPAM's part of an export: keys as in etcd, values as stored, as upstream's program writes and reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tortie_facts::{AffinityKey, Filter, Foreign, Key, OwnerKind, Value};
use tortie_store::{Entry, Expect, Reader, Store, Write};

use super::export::Renamed;

/// Handles of tunnels, which end in the node's name.
const TUNNELS: [&str; 3] = ["ipip-tunnel-addr-", "vxlan-tunnel-addr-", "wireguard-tunnel-addr-"];

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ipam {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    block_affinities: Vec<Pair>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocks: Vec<Pair>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    handles: Vec<Pair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Pair>,
    /// What other programs keep; upstream's import knows no such part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<Pair>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Pair {
    key: String,
    value: Json,
    #[serde(default, rename = "TTL")]
    ttl: i64,
}

impl Pair {
    fn of(key: &Key, value: &Value) -> Result<Pair> {
        Ok(Pair { key: key.path(), value: serde_json::from_str(&value.to_json())?, ttl: 0 })
    }

    fn write(self) -> Result<Write> {
        let Pair { key, value, ttl: _ } = self;
        // Upstream's own keys may lack the leading part that tells whose they are; all known ones are read here.
        let parsed = Key::from_path(&key).with_context(|| format!("IPAM key {key:?}"))?;
        let value = Value::from_json(&parsed, &value.to_string())?;
        Ok(Write { key: parsed, expect: Expect::Absent, value: Some(value) })
    }
}

fn filter() -> Filter {
    Filter::Any(vec![
        Filter::Blocks,
        Filter::Handles,
        Filter::AllAffinities(OwnerKind::Host),
        Filter::AllAffinities(OwnerKind::Virtual),
    ])
}

impl Ipam {
    /// All of it, with nodes under their new names.
    pub(super) fn read(store: &dyn Store, renamed: &Renamed) -> Result<Ipam> {
        let listing = store.list(&filter())?;
        if let Some(invalid) = listing.invalid.first() {
            bail!("{}: can't be read, and would be missing: {}", invalid.path, invalid.reason);
        }
        let mut ipam = Ipam::default();
        for Entry { key, value, revision: _ } in listing.entries {
            match (&key, value) {
                (Key::Block(_), Value::Block(block)) => {
                    let value = Value::Block(Arc::new(block_of(&block, renamed)));
                    ipam.blocks.push(Pair::of(&key, &value)?);
                }
                (Key::Affinity(AffinityKey { kind, owner, cidr }), value) => {
                    let owner = if *kind == OwnerKind::Host { renamed.get(owner).unwrap_or(owner) } else { owner };
                    let key = Key::Affinity(AffinityKey { kind: *kind, owner: owner.clone(), cidr: *cidr });
                    ipam.block_affinities.push(Pair::of(&key, &value)?);
                }
                (Key::Handle(id), value) => ipam.handles.push(Pair::of(&Key::Handle(handle(id, renamed)), &value)?),
                (key, _) => bail!("{key}: holds something else"),
            }
        }
        if let Some(entry) = Reader::get(store, &Key::IpamConfig)? {
            ipam.config = Some(Pair::of(&Key::IpamConfig, &entry.value)?);
        }
        Ok(ipam)
    }

    /// Adds what other programs keep, but for what expires.
    pub(super) fn add_others(&mut self, store: &dyn Store) -> Result<()> {
        let listing = store.list(&Filter::Foreign)?;
        if let Some(invalid) = listing.invalid.first() {
            bail!("{}: can't be read, and would be missing: {}", invalid.path, invalid.reason);
        }
        for Entry { key, value, revision: _ } in listing.entries {
            if !matches!(key, Key::Foreign(Foreign::Election { region: _ })) {
                self.others.push(Pair::of(&key, &value)?);
            }
        }
        Ok(())
    }

    /// Whether a datastore holds none of it.
    pub(super) fn is_absent(store: &dyn Store) -> Result<bool> {
        let listing = store.list(&filter())?;
        Ok(listing.entries.is_empty() && listing.invalid.is_empty() && Reader::get(store, &Key::IpamConfig)?.is_none())
    }

    /// The writes that bring it into a datastore without IPAM.
    pub(super) fn writes(self) -> Result<Vec<Write>> {
        let Ipam { block_affinities, blocks, handles, config, others } = self;
        let ipam = block_affinities.into_iter().chain(blocks).chain(handles).chain(config);
        ipam.chain(others).map(Pair::write).collect()
    }
}

fn handle(id: &str, renamed: &Renamed) -> String {
    let new = TUNNELS.iter().find_map(|prefix| {
        let name = renamed.get(id.strip_prefix(prefix)?)?;
        Some(format!("{prefix}{name}"))
    });
    new.unwrap_or_else(|| id.to_owned())
}

fn block_of(old: &tortie_api::ipam::Block, renamed: &Renamed) -> tortie_api::ipam::Block {
    let rename = |attributes: &mut BTreeMap<String, String>| {
        if let Some(node) = attributes.get_mut("node")
            && let Some(name) = renamed.get(node)
        {
            node.clone_from(name);
        }
    };
    let mut block = old.clone();
    for attribute in &mut block.attributes {
        rename(&mut attribute.secondary);
        rename(&mut attribute.alternate_owner_attrs);
        if let Some(id) = &mut attribute.handle_id {
            *id = handle(id, renamed);
        }
    }
    let owner = block.affinity.as_deref().and_then(|affinity| affinity.strip_prefix("host:"));
    if let Some(name) = owner.and_then(|owner| renamed.get(owner)) {
        block.affinity = Some(format!("host:{name}"));
    }
    block
}
