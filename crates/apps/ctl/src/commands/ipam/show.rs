//! `calicoctl ipam show`.

use std::net::IpAddr;

use anyhow::Result;
use serde_json::{Value as Json, json};
use tortie_api::ipam::IpamConfig;
use tortie_ipam::{BlockUse, Borrowed, PoolUse, WhoHas};
use tortie_store::Store;

use super::{as_blocks, blocks};
use crate::cli::StatusFormat;
use crate::drive;
use crate::print::{Align, BoxTable, g5};
use crate::session::Session;
use crate::write::ipam_settings;

/// What is asked for.
pub(super) enum What {
    /// Who has an address.
    Address(IpAddr),
    /// How full the pools are, and the blocks in them if asked for.
    Use {
        /// Blocks too.
        blocks: bool,
    },
    /// Addresses that nodes have from blocks of others.
    Borrowed,
    /// The settings.
    Configuration,
}

/// Shows it as tables, or as JSON with the words of the resources.
pub(super) fn show(session: &mut Session<'_, '_>, what: &What, format: StatusFormat) -> Result<()> {
    let store = session.store()?;
    let text = match (what, format) {
        (What::Address(address), StatusFormat::Table) => address_text(&*store, *address)?,
        (What::Use { blocks }, StatusFormat::Table) => utilization_table(&*store, *blocks)?,
        (What::Borrowed, StatusFormat::Table) => borrowed_table(&*store)?,
        (What::Configuration, StatusFormat::Table) => configuration_table(&*store)?,
        (_, StatusFormat::Json) => format!("{:#}\n", json(&*store, what)?),
    };
    session.say(&text)
}

/// Numbers are text, as those of IPv6 are larger than a number of JSON may be.
fn json(store: &dyn Store, what: &What) -> Result<Json> {
    let counts = |capacity: u128, [in_use, reserved, free]: [u128; 3]| {
        let [total, in_use, reserved, free] = [capacity, in_use, reserved, free].map(|count| count.to_string());
        json!({"total": total, "inUse": in_use, "reserved": reserved, "free": free})
    };
    Ok(match what {
        What::Address(address) => {
            let holder = drive::run(store, WhoHas::new(*address, drive::settings(store)?))?;
            json!({"ip": address, "inUse": holder.is_some(), "allocation": holder})
        }
        What::Use { blocks: with_blocks } => {
            let (settings, entries) = (drive::settings(store)?, blocks(store)?);
            let pools = tortie_ipam::usage(&settings, as_blocks(&entries)).into_iter().map(|pool| {
                let PoolUse { name, cidr, capacity, in_use, reserved, available, blocks } = pool;
                let blocks = blocks.into_iter().map(|block| {
                    let BlockUse { cidr, capacity, in_use, reserved, available } = block;
                    json!({"cidr": cidr, "ips": counts(capacity, [in_use, reserved, available])})
                });
                let blocks = with_blocks.then(|| blocks.collect::<Vec<_>>());
                json!({
                    "name": name, "cidr": cidr, "ips": counts(capacity, [in_use, reserved, available]), "blocks": blocks,
                })
            });
            json!({"pools": pools.collect::<Vec<_>>()})
        }
        What::Borrowed => {
            let entries = blocks(store)?;
            let (found, unclear) = tortie_ipam::borrowed(as_blocks(&entries));
            let found = found.into_iter().map(|one| {
                let Borrowed { address, node, block, owner, kind, holder } = one;
                json!({
                    "ip": address, "borrowingNode": node, "block": block, "blockOwner": owner, "type": kind,
                    "allocatedTo": holder,
                })
            });
            json!({"borrowed": found.collect::<Vec<_>>(), "withoutNode": unclear})
        }
        What::Configuration => {
            let IpamConfig {
                strict_affinity,
                auto_allocate_blocks,
                max_blocks_per_host,
                kube_virt_vm_address_persistence,
                ip_cooldown_seconds,
                // What this version does not know it can't show.
                newer: _,
            } = ipam_settings(store)?.0;
            json!({
                "strictAffinity": strict_affinity,
                "autoAllocateBlocks": auto_allocate_blocks,
                "maxBlocksPerHost": max_blocks_per_host,
                "kubeVirtVMAddressPersistence": kube_virt_vm_address_persistence,
                "ipCooldownSeconds": ip_cooldown_seconds,
            })
        }
    })
}

fn address_text(store: &dyn Store, address: IpAddr) -> Result<String> {
    let Some(holder) = drive::run(store, WhoHas::new(address, drive::settings(store)?))? else {
        return Ok(format!("{address} is not assigned\n"));
    };
    let mut shown = format!("IP {address} is in use\n");
    let handle = holder.handle_id.as_deref().unwrap_or("<none>");
    shown.push_str(&format!("Handle ID: {handle}\n"));
    if let Some(released) = holder.released_at {
        shown.push_str(&format!("Released at: {released}, cooling down\n"));
    }
    if holder.secondary.is_empty() {
        shown.push_str("No Active Owner attributes defined\n");
    }
    for (title, attributes) in
        [("Active Owner Attributes", &holder.secondary), ("Alternate Owner Attributes", &holder.alternate_owner_attrs)]
    {
        if !attributes.is_empty() {
            shown.push_str(&format!("{title}:\n"));
            attributes.iter().for_each(|(key, value)| shown.push_str(&format!("  {key}: {value}\n")));
        }
    }
    Ok(shown)
}

/// Pools, and the blocks in them if asked for.
#[allow(clippy::cast_precision_loss, reason = "five digits are shown")]
pub(super) fn utilization_table(store: &dyn Store, with_blocks: bool) -> Result<String> {
    let settings = drive::settings(store)?;
    let entries = blocks(store)?;
    let mut table = BoxTable::new(&[
        ("GROUPING", Align::Left),
        ("CIDR", Align::Left),
        ("IPS TOTAL", Align::Right),
        ("IPS IN USE", Align::Right),
        ("IPS RESERVED", Align::Right),
        ("IPS FREE", Align::Right),
    ]);
    let mut row = |kind: &str, cidr: String, capacity: u128, counts: [u128; 3]| {
        let total = capacity as f64;
        let share = |count: u128| format!("{} ({:.0}%)", g5(count as f64), 100.0 * count as f64 / total);
        let [in_use, reserved, free] = counts.map(share);
        table.whole(vec![kind.to_owned(), cidr, g5(total), in_use, reserved, free]);
    };
    for pool in tortie_ipam::usage(&settings, as_blocks(&entries)) {
        if let Some(cidr) = pool.cidr {
            row("IP Pool", cidr.to_string(), pool.capacity, [pool.in_use, pool.reserved, pool.available]);
        }
        for block in pool.blocks.iter().filter(|_| with_blocks) {
            row("Block", block.cidr.to_string(), block.capacity, [block.in_use, block.reserved, block.available]);
        }
    }
    Ok(table.render())
}

fn borrowed_table(store: &dyn Store) -> Result<String> {
    let entries = blocks(store)?;
    let (found, unclear) = tortie_ipam::borrowed(as_blocks(&entries));
    let headings = ["IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO"];
    let mut table = BoxTable::new(&headings.map(|heading| (heading, Align::Left)));
    for one in found {
        let block = one.block.to_string();
        table.whole(vec![one.address.to_string(), one.node, block, one.owner, one.kind, one.holder]);
    }
    let mut shown = table.render();
    if unclear > 0 {
        shown.push_str(&format!(
            "\nNote: of {unclear} addresses no node is recorded, so whether they are borrowed is not known.\n"
        ));
    }
    Ok(shown)
}

fn configuration_table(store: &dyn Store) -> Result<String> {
    let (config, _) = ipam_settings(store)?;
    let persistence = config.kube_virt_vm_address_persistence.map_or("<nil>".to_owned(), |choice| choice.to_string());
    let mut table = BoxTable::new(&[("PROPERTY", Align::Left), ("VALUE", Align::Left)]);
    for (property, value) in [
        ("StrictAffinity", config.strict_affinity.to_string()),
        ("AutoAllocateBlocks", config.auto_allocate_blocks.to_string()),
        ("MaxBlocksPerHost", config.max_blocks_per_host.to_string()),
        ("KubeVirtVMAddressPersistence", persistence),
        ("IPCooldownSeconds", config.ip_cooldown_seconds.to_string()),
    ] {
        table.whole(vec![property.to_owned(), value]);
    }
    Ok(table.render())
}
