//! `calicoctl datastore`: lock and unlock, move what a datastore holds into another, new names for old policies.

mod export;
mod import;
mod ipam;
mod names;

use anyhow::{Context, Result};
use tortie_api::{ClusterInformation, Kind, Metadata, Resource};
use tortie_facts::Key;
use tortie_store::{Store, resource as stored};

use crate::cli::{Datastore, Migrate};
use crate::session::Session;
use crate::write::ensure_initialized;

/// The line between the parts of an export: resources, the cluster's information, IPAM.
const BORDER: &str = "===\n";

/// Kinds in the order in which upstream exports them: tiers before policies, nodes before what names them.
const KINDS: [Kind; 17] = [
    Kind::IpPool,
    Kind::BgpPeer,
    Kind::Tier,
    Kind::GlobalNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
    Kind::GlobalNetworkSet,
    Kind::HostEndpoint,
    Kind::KubeControllersConfiguration,
    Kind::NetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedKubernetesNetworkPolicy,
    Kind::NetworkSet,
    Kind::Node,
    Kind::BgpConfiguration,
    Kind::FelixConfiguration,
    Kind::IpReservation,
    Kind::BgpFilter,
];

/// Kinds that Kubernetes has of its own, and that any other datastore has to be given.
const KUBERNETES_OWN: [Kind; 4] =
    [Kind::Profile, Kind::WorkloadEndpoint, Kind::IpamConfiguration, Kind::CalicoNodeStatus];

/// How policies are named that stand for Kubernetes' own.
const OF_KUBERNETES: &str = "knp.default.";

pub(crate) fn datastore(session: &mut Session<'_, '_>, command: &Datastore) -> Result<()> {
    match command {
        Datastore::Migrate { command: Migrate::Export { complete } } => export::export(session, *complete),
        Datastore::Migrate { command: Migrate::Import { filename } } => import::import(session, filename),
        Datastore::Migrate { command: Migrate::Lock } => {
            let store = session.store()?;
            ensure_initialized(&*store)
                .context("unable to initialize cluster information for the datastore migration")?;
            change_cluster(&*store, |info| info.spec.datastore_ready = Some(false))?;
            session.say("Datastore locked.\n")
        }
        Datastore::Migrate { command: Migrate::Unlock } => {
            let store = session.store()?;
            ensure_initialized(&*store)?;
            change_cluster(&*store, |info| info.spec.datastore_ready = Some(true))?;
            session.say("Datastore unlocked.\n")
        }
        Datastore::MigratePolicyNames => names::migrate(session),
    }
}

/// Changes what the cluster says about itself.
fn change_cluster(store: &dyn Store, change: impl Fn(&mut ClusterInformation)) -> Result<()> {
    stored::update(store, &Key::resource(Kind::ClusterInformation, "", "default"), |found| {
        let mut info = match found {
            Some(Resource::ClusterInformation(info)) => (**info).clone(),
            _ => ClusterInformation { metadata: Metadata::named("default"), ..ClusterInformation::default() },
        };
        change(&mut info);
        info.into()
    })?;
    Ok(())
}
