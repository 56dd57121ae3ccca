//! `calicoctl ipam show`.

use anyhow::Result;
use tortie_ipam::WhoHas;
use tortie_store::Store;

use super::{as_blocks, blocks, parse_address};
use crate::drive;
use crate::print::{Align, BoxTable, g5};
use crate::session::Session;
use crate::write::ipam_settings;

pub(super) fn address(session: &mut Session<'_, '_>, text: &str) -> Result<()> {
    let address = parse_address(text)?;
    let store = session.store()?;
    let Some(holder) = drive::run(&*store, WhoHas::new(address, drive::settings(&*store)?))? else {
        return session.say(&format!("{address} is not assigned\n"));
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
    session.say(&shown)
}

/// Pools, and the blocks in them if asked for.
pub(super) fn utilization(session: &mut Session<'_, '_>, with_blocks: bool) -> Result<()> {
    let store = session.store()?;
    let text = utilization_table(&*store, with_blocks)?;
    session.say(&text)
}

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

pub(super) fn borrowed(session: &mut Session<'_, '_>) -> Result<()> {
    let store = session.store()?;
    let entries = blocks(&*store)?;
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
    session.say(&shown)
}

pub(super) fn configuration(session: &mut Session<'_, '_>) -> Result<()> {
    let store = session.store()?;
    let (config, _) = ipam_settings(&*store)?;
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
    session.say(&table.render())
}
