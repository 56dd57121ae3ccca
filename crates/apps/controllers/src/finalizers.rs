//! Finalizers and conditions of pools and tiers, where the API server keeps resources as `projectcalico.org/v3`.

use std::sync::Arc;

use anyhow::{Context, Result};
use tortie_api::{IpPool, Resource, Tier};
use tortie_control::finalizers::{PoolTask, counted, pool_tasks, tier_change, tiers_filter};
use tortie_datastore::ipam;
use tortie_facts::Key;
use tortie_ipam::{ReleaseAffinities, Scope, Settings};
use tortie_store::mirror::{Mirror, Options};
use tortie_store::{Reader, Store, WriteError, resource};
use tortie_store_kubernetes::{Group, KubernetesStore};
use tracing::info;

use crate::picture::Picture;

/// Pools are of the picture that all controllers share; tiers and policies are followed here alone.
pub(crate) struct Finalizers {
    mirror: Mirror,
    picture: Picture,
}

impl Finalizers {
    /// Starts where there is something to do: with the facts in an API server that has them as `v3`.
    pub(crate) fn start(api: &Arc<KubernetesStore>) -> Result<Option<Finalizers>> {
        if api.group().context("the API's groups")? != Group::V3 {
            return Ok(None);
        }
        let reader: Arc<dyn Reader> = api.clone();
        let mirror = Mirror::spawn(reader, tiers_filter(), Options::default()).context("no thread")?;
        Ok(Some(Finalizers { mirror, picture: Picture::default() }))
    }

    /// Takes in what happened to tiers and policies; whether anything did.
    pub(crate) fn take_in(&mut self) -> bool {
        self.picture.apply(self.mirror.take())
    }

    /// Writes what differs. One write that fails does not stop the others.
    pub(crate) fn turn(&self, store: &dyn Store, facts: &Picture) -> Result<()> {
        let now = ipam::now().timestamp();
        let pools: Vec<&IpPool> = facts
            .resources()
            .filter_map(|one| if let Resource::IpPool(one) = one { Some(&**one) } else { None })
            .collect();
        let blocks: Vec<_> =
            facts.facts().filter_map(|(key, _)| if let Key::Block(cidr) = key { Some(*cidr) } else { None }).collect();
        let mut failed = None;
        for task in pool_tasks(&pools, &blocks, Some(now)) {
            let done = match task {
                PoolTask::Put(wanted) => put(store, facts, (*wanted).into()),
                PoolTask::Free(cidr) => {
                    let settings = Arc::new(Settings::from_facts(facts.facts()));
                    let plan = ReleaseAffinities::new(Scope::Pool(cidr), false, settings, ipam::now());
                    ipam::run(store, plan).map_err(Into::into).and_then(|done| done.map(drop).map_err(Into::into))
                }
            };
            failed = done.err().or(failed);
        }
        if self.picture.in_sync() {
            failed = self.tiers(store).err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    fn tiers(&self, store: &dyn Store) -> Result<()> {
        let now = Some(ipam::now().timestamp());
        for tier in self.picture.resources() {
            let Resource::Tier(tier) = tier else { continue };
            let Some(wanted) = tier_change(tier, self.picture.resources(), now) else { continue };
            if tier.metadata.deletion_timestamp.is_some() && !self.may_go(store, tier)? {
                continue;
            }
            put(store, &self.picture, wanted.into())?;
        }
        Ok(())
    }

    /// Whether a tier that is being deleted is as the picture has it by a fresh listing, too.
    fn may_go(&self, store: &dyn Store, tier: &Tier) -> Result<bool> {
        if counted().into_iter().any(|kind| self.picture.has_unreadable(kind)) {
            return Ok(false);
        }
        let listing = store.list(&tiers_filter())?;
        let fresh = listing.entries.iter().filter_map(|entry| entry.value.as_resource()).map(|one| &**one);
        let same = tier_change(tier, fresh, None).map(|tier| tier.metadata.finalizers);
        let seen = tier_change(tier, self.picture.resources(), None).map(|tier| tier.metadata.finalizers);
        Ok(listing.invalid.is_empty() && same == seen)
    }
}

fn put(store: &dyn Store, picture: &Picture, wanted: Resource) -> Result<()> {
    let key = Key::resource(wanted.kind(), "", &wanted.metadata().name);
    let Some((stored, revision)) = picture.resource(&key) else { return Ok(()) };
    match store.write_one(resource::replace(wanted, stored, revision)) {
        Ok(_) => info!("{key} is as it should be"),
        // Somebody was faster, or it went with its last finalizer: the picture will tell.
        Err(WriteError::Conflict { .. } | WriteError::Missing(_)) => {}
        Err(error) => return Err(anyhow::Error::from(error).context(key.to_string())),
    }
    Ok(())
}
