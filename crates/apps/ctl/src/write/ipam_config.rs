//! The settings of IPAM, which live in two places: the resource IPAMConfiguration, and the key that assignment reads.
//!
//! Invariant: a write of one through this program is a write of both, in one call.

use anyhow::{Result, bail};
use tortie_api::ipam::IpamConfig;
use tortie_api::{IpamConfiguration, IpamConfigurationSpec, Kind, Resource};
use tortie_facts::{Key, Value};
use tortie_ipam::{check_config, default_config};
use tortie_store::{Entry, Expect, Reader, Store, Write, WriteError, resource as stored};

fn put(entry: Option<&Entry>, mut config: IpamConfig) -> Option<Write> {
    if let Some(Value::IpamConfig(old)) = entry.map(|entry| &entry.value) {
        config.newer.clone_from(&old.newer);
    }
    let value = Value::IpamConfig(config);
    if entry.is_some_and(|entry| entry.value == value) {
        return None;
    }
    let expect = entry.map_or(Expect::Absent, |entry| Expect::Revision(entry.revision));
    Some(Write { key: Key::IpamConfig, expect, value: Some(value) })
}

/// What else to write when this resource is written.
pub(super) fn also(store: &dyn Store, resource: &Resource) -> Result<Option<Write>> {
    let Resource::IpamConfiguration(wanted) = resource else { return Ok(None) };
    Ok(put(Reader::get(store, &Key::IpamConfig)?.as_ref(), IpamConfig::from(&wanted.spec)))
}

/// What else to write when the resource is deleted: without it, the defaults are in force.
pub(super) fn removal(store: &dyn Store) -> Result<Option<Write>> {
    let entry = Reader::get(store, &Key::IpamConfig)?;
    Ok(entry.map(|entry| Write { key: Key::IpamConfig, expect: Expect::Revision(entry.revision), value: None }))
}

/// The settings that are in force, with the entry that holds them.
pub(crate) fn settings(store: &dyn Store) -> Result<(IpamConfig, Option<Entry>)> {
    let entry = Reader::get(store, &Key::IpamConfig)?;
    let config = match entry.as_ref().map(|entry| &entry.value) {
        Some(Value::IpamConfig(config)) => config.clone(),
        _ => default_config(),
    };
    Ok((config, entry))
}

/// Changes the settings.
pub(crate) fn configure(store: &dyn Store, change: impl Fn(&mut IpamConfig)) -> Result<()> {
    let mut last = WriteError::NotTried;
    for _ in 0..super::ATTEMPTS {
        let (mut config, entry) = settings(store)?;
        change(&mut config);
        if let Err(reason) = check_config(&config) {
            bail!("{reason}");
        }
        let mut writes: Vec<Write> = put(entry.as_ref(), config.clone()).into_iter().collect();
        let key = Key::resource(Kind::IpamConfiguration, "", "default");
        if let Some(entry) = Reader::get(store, &key)?
            && let Some(old) = entry.value.as_resource()
            && let Resource::IpamConfiguration(inner) = &**old
        {
            let spec = IpamConfigurationSpec::try_from(&config)?;
            if inner.spec != spec {
                let new = IpamConfiguration { metadata: inner.metadata.clone(), spec };
                writes.push(stored::replace(new.into(), old, entry.revision));
            }
        }
        match store.write_all(&writes) {
            Ok(_) => return Ok(()),
            Err(error @ WriteError::Conflict { .. }) => last = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.into())
}
