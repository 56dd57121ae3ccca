//! The KubeControllersConfiguration: made where there is none, followed while it changes, reported as it is in force.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::{Context, Result, anyhow};
use tortie_api::{Kind, Resource};
use tortie_control::{Running, default_configuration};
use tortie_store::{Store, resource};

use crate::picture::{Picture, default_of};

/// What is in force by the picture, before anything is written. A cluster without configuration has the default one.
pub(crate) fn running(picture: &Picture, env: &BTreeMap<String, OsString>, kubernetes: bool) -> Result<Running> {
    let stored = match picture.resource(&default_of(Kind::KubeControllersConfiguration)) {
        Some((Resource::KubeControllersConfiguration(found), _)) => found.spec.clone(),
        _ => default_configuration().spec,
    };
    let variable = |name: &str| env.get(name).map(|value| value.to_string_lossy().into_owned());
    Running::new(&stored, variable, kubernetes).map_err(|error| anyhow!("{error}"))
}

/// Makes the configuration where there is none, and reports what is in force.
pub(crate) fn publish(store: &dyn Store, picture: &Picture, running: &Running) -> Result<()> {
    let key = default_of(Kind::KubeControllersConfiguration);
    let status = running.status();
    if picture.has_unreadable(Kind::KubeControllersConfiguration) {
        return Ok(());
    }
    if let Some((Resource::KubeControllersConfiguration(found), _)) = picture.resource(&key)
        && found.status == status
    {
        return Ok(());
    }
    let done = resource::update(store, &key, |stored| match stored {
        Some(Resource::KubeControllersConfiguration(found)) => {
            let mut next = (**found).clone();
            next.status = status.clone();
            next.into()
        }
        _ => {
            let mut next = default_configuration();
            next.status = status.clone();
            next.into()
        }
    });
    done.map(drop).context("KubeControllersConfiguration(default)")
}
