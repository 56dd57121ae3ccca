//! `calicoctl ipam split`: a pool becomes several of equal size.
//!
//! All of it is one write of whole blocks, so unlike upstream's this needs no locked datastore: whoever assigns an
//! address meanwhile finds its block in the old pool or in one of the new.

use std::sync::Arc;

use anyhow::{Result, bail};
use ipnet::IpNet;
use tortie_api::{IpPool, Kind, Metadata, Resource};
use tortie_facts::{Filter, Key, Revision};
use tortie_store::{Expect, Store, Write, resource as stored};

use crate::session::Session;

/// Most pools that one becomes.
const MOST: u32 = 65_536;

pub(super) fn split(session: &mut Session<'_, '_>, number: u32, cidr: Option<&str>, name: Option<&str>) -> Result<()> {
    if !number.is_power_of_two() || !(2..=MOST).contains(&number) {
        bail!("number to split CIDR into is not a valid power of 2: {number}: expected 2, 4, 8 and so on up to {MOST}");
    }
    let store = session.store()?;
    let (pool, revision) = find(&*store, cidr, name)?;
    let parts = parts(&pool, number)?;
    let old = &pool.metadata.name;
    let mut writes = Vec::new();
    let mut said = format!("IP Pool {old} was successfully split into {number} smaller pools.\n");
    for (i, part) in parts.into_iter().enumerate() {
        let new = format!("split-{}-{i}", &old[..old.floor_char_boundary(240)]);
        said.push_str(&format!("Created {new} with CIDR {part}.\n"));
        let mut one = IpPool { metadata: Metadata::named(new), ..(*pool).clone() };
        one.metadata.labels.clone_from(&pool.metadata.labels);
        one.metadata.annotations.clone_from(&pool.metadata.annotations);
        one.spec.cidr = part.into();
        one.spec.disabled = false;
        writes.push(stored::create(one.into()));
    }
    // The old one last: a store that does one write after the other never loses the range.
    writes.push(Write { key: Key::resource(Kind::IpPool, "", old), expect: Expect::Revision(revision), value: None });
    store.write_all(&writes)?;
    session.say(&said)
}

fn find(store: &dyn Store, cidr: Option<&str>, name: Option<&str>) -> Result<(Arc<IpPool>, Revision)> {
    for entry in store.list(&Filter::Kind(Kind::IpPool))?.entries {
        let Some(Resource::IpPool(pool)) = entry.value.as_resource().map(|resource| &**resource) else { continue };
        let meant = match name {
            Some(name) => pool.metadata.name == name,
            None => cidr == Some(pool.spec.cidr.as_str()),
        };
        if meant {
            return Ok((Arc::new((**pool).clone()), entry.revision));
        }
    }
    bail!(
        "unable to find IP pool {} covering the specified CIDR {}",
        name.unwrap_or_default(),
        cidr.unwrap_or_default()
    )
}

fn parts(pool: &IpPool, number: u32) -> Result<Vec<IpNet>> {
    let Some(cidr) = pool.spec.cidr.net() else { bail!("the CIDR {} is no range", pool.spec.cidr) };
    let length = u32::from(cidr.prefix_len()) + number.trailing_zeros();
    match u8::try_from(length).ok().filter(|length| *length <= pool.spec.block_size) {
        Some(length) => Ok(cidr.subnets(length)?.collect()),
        None => bail!(
            "the CIDR {cidr} is not large enough to be split into {number} parts of one block (/{}) each",
            pool.spec.block_size
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_splits_down_to_its_blocks() {
        let mut pool = IpPool::default();
        pool.spec.cidr = "10.0.0.0/24".parse::<IpNet>().expect("a literal").into();
        pool.spec.block_size = 26;
        let found = parts(&pool, 4).expect("four blocks");
        assert_eq!(
            found.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" "),
            "10.0.0.0/26 10.0.0.64/26 10.0.0.128/26 10.0.0.192/26"
        );
        assert!(parts(&pool, 8).is_err());
    }
}
