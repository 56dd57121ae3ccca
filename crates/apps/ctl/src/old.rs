//! Resources of v1 that are given where those of v3 are expected: they are taken in their new form, and it is said so.

use anyhow::Result;
use tortie_api::{Kind, Resource};
use tortie_facts::Filter;

use crate::files::Loaded;
use crate::session::Session;

/// Tells what was converted.
pub(crate) fn tell(session: &mut Session<'_, '_>, loaded: &Loaded) {
    let Loaded { resources: _, old, notes } = loaded;
    if old.is_empty() {
        return;
    }
    session.notice(&format!(
        "{} resource(s) of the old apiVersion v1 are taken as {}; calicoctl convert shows them so",
        old.len(),
        tortie_api::API_VERSION
    ));
    notes.iter().for_each(|note| session.notice(note));
}

/// Tells what was converted, and gives old pools the names that they have in the store: v1 knows them by their range.
pub(crate) fn settle(session: &mut Session<'_, '_>, loaded: &mut Loaded) -> Result<()> {
    tell(session, loaded);
    let Loaded { resources, old, notes: _ } = loaded;
    let pools: Vec<usize> = old.iter().copied().filter(|&at| resources[at].kind() == Kind::IpPool).collect();
    if pools.is_empty() {
        return Ok(());
    }
    let stored = session.store()?.list(&Filter::Kind(Kind::IpPool))?.entries;
    let name_of = |wanted: &Resource| {
        let Resource::IpPool(wanted) = wanted else { return None };
        stored.iter().find_map(|entry| match entry.value.as_resource().map(|resource| &**resource) {
            Some(Resource::IpPool(pool)) if pool.spec.cidr.net() == wanted.spec.cidr.net() => {
                Some(pool.metadata.name.clone())
            }
            _ => None,
        })
    };
    for at in pools {
        let pool = &mut resources[at];
        if let Some(name) = name_of(pool).filter(|name| *name != pool.metadata().name) {
            session.notice(&format!("IPPool({}): its range is that of IPPool({name})", pool.metadata().name));
            pool.metadata_mut().name = name;
        }
    }
    Ok(())
}
