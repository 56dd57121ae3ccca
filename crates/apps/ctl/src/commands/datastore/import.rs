//! `calicoctl datastore migrate import`: everything is read and judged first, then written into a locked datastore.

use anyhow::{Context, Result, anyhow, bail};
use tortie_api::{ClusterInformation, Kind, Resource, manifest};
use tortie_facts::{Filter, Key};
use tortie_store::{Expect, Reader, Store, Write};

use super::ipam::Ipam;
use super::{BORDER, KINDS, KUBERNETES_OWN, OF_KUBERNETES, change_cluster};
use crate::session::Session;
use crate::write::{self, BATCH, Done, Verb, ensure_initialized, is_protected};

/// What an export holds.
struct Parts {
    resources: Vec<Resource>,
    info: Box<ClusterInformation>,
    ipam: Vec<Write>,
}

pub(super) fn import(session: &mut Session<'_, '_>, filename: &str) -> Result<()> {
    let text = text(session, filename).context("error while reading migration file")?;
    let Parts { resources, info, mut ipam } = split(filename, &text)?;
    // As upstream, whatever the version: the datastore is about to get another one.
    let store = session.open()?;
    must_be_empty(&*store)?;
    ensure_initialized(&*store).context("unable to initialize cluster information for the datastore migration")?;
    change_cluster(&*store, |info| info.spec.datastore_ready = Some(false))
        .context("error while attempting to lock the datastore for import")?;
    let Done { handled, wrote: _, problems, conflict: _ } =
        write::write(&*store, Verb::Apply, resources).context("failed to import v3 resources")?;
    if !problems.is_empty() {
        bail!("failed to import v3 resources: {}", problems.join("\n"));
    }
    session.say(&format!("Successfully applied {handled} resource(s)\n"))?;
    change_cluster(&*store, |stored| {
        stored.spec.cluster_guid.clone_from(&info.spec.cluster_guid);
        stored.spec.calico_version.clone_from(&info.spec.calico_version);
        stored.spec.cluster_type.clone_from(&info.spec.cluster_type);
    })
    .context("failed to update cluster information")?;
    session.say("Importing IPAM resources\n")?;
    let mut done = 0;
    for write in ipam.iter_mut().filter(|write| write.key == Key::IpamConfig) {
        // The settings came with their resource already.
        write.expect =
            Reader::get(&*store, &write.key)?.map_or(Expect::Absent, |entry| Expect::Revision(entry.revision));
    }
    for batch in ipam.chunks(BATCH) {
        match store.write_all(batch) {
            Ok(_) => done += batch.len(),
            Err(error) => bail!("hit error(s) after {done} of {} IPAM resources: {error}", ipam.len()),
        }
    }
    session.say(&format!(
        "Successfully applied {done} IPAM resource(s)\nDatastore information successfully imported. Please refer to the \
         datastore migration documentation for next steps.\n"
    ))
}

fn text(session: &mut Session<'_, '_>, filename: &str) -> Result<String> {
    if filename == "-" {
        let mut text = String::new();
        session.io.stdin.read_to_string(&mut text).context("can't read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(filename).with_context(|| filename.to_owned())
}

fn split(filename: &str, text: &str) -> Result<Parts> {
    let Ok([resources, info, ipam]) = <[&str; 3]>::try_from(text.split(BORDER).collect::<Vec<_>>()) else {
        bail!(
            "imported file: {filename} is improperly formatted: expected three parts between lines of '==='. Try \
             recreating with 'calicoctl datastore migrate export'"
        );
    };
    let mut resources = manifest::parse(filename, resources)?;
    for resource in &mut resources {
        let kind = resource.kind();
        if !KINDS.contains(&kind) && !KUBERNETES_OWN.contains(&kind) {
            bail!("{filename}: {kind}({}): an export holds no such kind", resource.metadata().name);
        }
    }
    let info = match Resource::from_json(info).map_err(|error| anyhow!("{error}")) {
        Ok(Resource::ClusterInformation(info)) => info,
        Ok(other) => bail!("{filename}: the second part: {}: expected a ClusterInformation", other.kind()),
        Err(error) => return Err(error.context("error reading exported cluster info for migration")),
    };
    let ipam: Ipam =
        serde_json::from_str(ipam).with_context(|| format!("{filename}: failed to read IPAM resources"))?;
    let ipam = ipam.writes().with_context(|| format!("{filename}: failed to read IPAM resources"))?;
    Ok(Parts { resources, info, ipam })
}

/// What an import must not mix with. Nodes may be there: Kubernetes has them of its own.
fn must_be_empty(store: &dyn Store) -> Result<()> {
    let occupied = |what: String| {
        anyhow!("datastore already has Calico resources: found existing {what}. Import into an empty datastore")
    };
    for kind in KINDS.iter().chain(&KUBERNETES_OWN).filter(|kind| **kind != Kind::Node) {
        let listing = store.list(&Filter::Kind(*kind))?;
        let of_a_cluster = |key: &&Key| match key {
            Key::Resource { kind: Kind::Tier, name, .. } => !is_protected(name),
            Key::Resource { kind: Kind::NetworkPolicy, name, .. } => !name.starts_with(OF_KUBERNETES),
            _ => true,
        };
        let mut keys = listing.entries.iter().map(|entry| &entry.key);
        if let Some(key) = keys.find(of_a_cluster) {
            return Err(occupied(format!("Calico {key} resource")));
        }
    }
    if !Ipam::is_absent(store)? {
        return Err(occupied("IPAM resources".to_owned()));
    }
    Ok(())
}
