//! `calicoctl ipam release`: one address, or what reports of `ipam check` agree to be unused.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use tortie_facts::{Key, Revision};
use tortie_ipam::{Claimed, Release, WhoHas};
use tortie_store::{Expect, Store, Write, WriteError};

use super::check::{InUse, users};
use super::report::Report;
use super::{blocks, cluster, is_locked, parse_address};
use crate::session::Session;
use crate::{VERSION, drive};

pub(super) fn release(session: &mut Session<'_, '_>, ip: Option<&str>, reports: &[String], force: bool) -> Result<()> {
    let address = ip.map(parse_address).transpose()?;
    let store = session.store()?;
    if !reports.is_empty() {
        return from_reports(session, &*store, reports, force);
    }
    let Some(address) = address else { return Ok(()) };
    if let Some(users) = live(&*store)?.get(&address) {
        if !force {
            bail!(
                "IP address {address} is in use by {}: released, it would be given to another as well; --force \
                 releases it all the same",
                users.join(", ")
            );
        }
        session.warn(&format!("IP address {address} is in use by {}", users.join(", ")));
    }
    let claimed = Claimed { address, handle: None, sequence: None };
    let released = drive::run(&*store, Release::new(vec![claimed], drive::settings(&*store)?, drive::now()))?;
    if !released.idle.is_empty() {
        bail!("IP address {address} is not assigned");
    }
    session.say(&format!("Successfully released IP address {address}\n"))
}

/// Who uses which address now.
fn live(store: &dyn Store) -> Result<InUse> {
    users(store, &blocks(store)?)
}

fn read(path: &str) -> Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read the report {path}"))?;
    serde_json::from_str(&text).with_context(|| format!("{path}: expected a report of calicoctl ipam check"))
}

fn from_reports(session: &mut Session<'_, '_>, store: &dyn Store, paths: &[String], force: bool) -> Result<()> {
    let (info, revision) = cluster(store)?;
    let mut reports = Vec::new();
    for path in paths {
        let report = read(path)?;
        if report.cluster_guid != info.spec.cluster_guid {
            bail!(
                "{path}: the report is of another cluster: {:?}, this one is {:?}",
                report.cluster_guid,
                info.spec.cluster_guid
            );
        }
        if report.version != VERSION {
            if !force {
                bail!(
                    "{path}: the report was made by version {}, this is {VERSION}; --force takes it all the same",
                    report.version
                );
            }
            session.warn(&format!("{path} was made by version {}, this is {VERSION}", report.version));
        }
        reports.push(report);
    }
    if !reports.iter().any(|report| report.cluster_info_revision == revision) {
        bail!("the provided reports are all stale: lock the datastore, run ipam check again and use its report");
    }
    if !is_locked(&info) {
        if !force {
            bail!("the datastore is not locked: lock it first, or release all the same with --force");
        }
        session.warn("the datastore is not locked");
    }
    let (claimed, handles) = unused(&reports);
    release_addresses(session, store, claimed)?;
    delete_handles(session, store, handles)?;
    session.say("You may now unlock the data store.\n")
}

/// Addresses and handles that every report found unused, with the evidence of the last.
fn unused(reports: &[Report]) -> (Vec<Claimed>, BTreeMap<String, String>) {
    let mut addresses: Option<BTreeMap<String, Claimed>> = None;
    let mut handles: Option<BTreeMap<String, String>> = None;
    for report in reports {
        let mut here = BTreeMap::new();
        for one in report.allocations.values().flatten().filter(|one| !one.in_use && !one.cooling_down) {
            let Ok(address) = one.ip.parse() else { continue };
            if addresses.as_ref().is_none_or(|before| before.contains_key(&one.ip)) {
                let handle = (!one.handle.is_empty()).then(|| one.handle.clone());
                here.insert(one.ip.clone(), Claimed { address, handle, sequence: one.sequence_number });
            }
        }
        addresses = Some(here);
        let leaked = report.leaked_handles.iter().map(|one| (one.id.clone(), one.revision.clone()));
        let before = handles.take();
        handles =
            Some(leaked.filter(|(id, revision)| before.as_ref().is_none_or(|b| b.get(id) == Some(revision))).collect());
    }
    (addresses.unwrap_or_default().into_values().collect(), handles.unwrap_or_default())
}

fn release_addresses(session: &mut Session<'_, '_>, store: &dyn Store, claimed: Vec<Claimed>) -> Result<()> {
    if claimed.is_empty() {
        return session.say("Report didn't contain any leaked IPs to clean up.\n");
    }
    session.say(&format!("Releasing {} old IPs...\n", claimed.len()))?;
    let (mut released, mut idle) = (0, 0);
    let settings = drive::settings(store)?;
    let in_use = live(store)?;
    // One by one, so that evidence that no longer fits keeps one address only.
    for one in claimed {
        if let Some(users) = in_use.get(&one.address) {
            session.warn(&format!("{} is kept: it is in use by {} by now", one.address, users.join(", ")));
            continue;
        }
        if drive::run(store, WhoHas::new(one.address, settings.clone()))?.is_none() {
            idle += 1;
            continue;
        }
        match drive::run(store, Release::new(vec![one], settings.clone(), drive::now())) {
            Ok(result) => {
                released += result.released.len();
                idle += result.idle.len();
            }
            Err(error) => session.warn(&format!("{error:#}")),
        }
    }
    session.say(&format!("Released {released} IPs successfully\n"))?;
    if idle > 0 {
        session.say(&format!("{idle} of them had been released already.\n"))?;
    }
    Ok(())
}

fn delete_handles(session: &mut Session<'_, '_>, store: &dyn Store, handles: BTreeMap<String, String>) -> Result<()> {
    if handles.is_empty() {
        return session.say("Report didn't contain any handles to clean up.\n");
    }
    let (mut deleted, mut skipped) = (0, 0);
    for (id, revision) in handles {
        let Ok(revision) = revision.parse().map(Revision) else {
            skipped += 1;
            continue;
        };
        match store.write_one(Write { key: Key::Handle(id), expect: Expect::Revision(revision), value: None }) {
            Ok(_) => deleted += 1,
            Err(WriteError::Conflict { .. } | WriteError::Missing(_)) => skipped += 1,
            Err(error) => return Err(error.into()),
        }
    }
    session.say(&format!("Released {deleted} handles; {skipped} skipped, since they changed meanwhile.\n"))
}
