//! The blocks and their owners, as one look at the datastore tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tortie_api::ipam::{Attribute, Block};
use tortie_facts::{AffinityKey, Filter, Key, OwnerKind, Value};
use tortie_ipam::block;

/// One address that is given out, and the evidence by which exactly this giving-out is meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allocation {
    /// The block that it lies in.
    pub block: IpNet,
    /// The address.
    pub address: IpAddr,
    /// The handle that holds it.
    pub handle: String,
    /// The block's sequence number when it was given out.
    pub sequence: u64,
}

/// All blocks, and all nodes that own or claim one.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Blocks whose structure is sound.
    pub blocks: BTreeMap<IpNet, Arc<Block>>,
    /// Nodes that have an affinity, or own a block.
    pub owners: BTreeSet<String>,
}

impl Ledger {
    /// What has to be listed.
    pub fn filter() -> Filter {
        Filter::Any(vec![Filter::Blocks, Filter::AllAffinities(OwnerKind::Host)])
    }

    /// What these facts tell; facts of other kinds say nothing. A damaged block is left alone.
    pub fn new<'a>(facts: impl IntoIterator<Item = (&'a Key, &'a Value)>) -> Ledger {
        let mut ledger = Ledger::default();
        for (key, value) in facts {
            match (key, value) {
                (Key::Block(cidr), Value::Block(found)) if !found.deleted && block::fault(*cidr, found).is_none() => {
                    let owner = block::owner(found).filter(|owner| owner.kind == OwnerKind::Host);
                    ledger.owners.extend(owner.map(|owner| owner.name));
                    ledger.blocks.insert(*cidr, Arc::clone(found));
                }
                (Key::Affinity(AffinityKey { kind: OwnerKind::Host, owner, cidr: _ }), _) => {
                    ledger.owners.insert(owner.clone());
                }
                _ => {}
            }
        }
        ledger
    }

    /// Every address that somebody holds under a handle, with what is recorded of them.
    pub fn allocations(&self) -> impl Iterator<Item = (Allocation, &Attribute)> {
        self.blocks.iter().flat_map(|(cidr, found)| {
            (0..found.allocations.len()).filter_map(|at| {
                let attribute = block::holder(found, at)?;
                let handle = block::handle_text(attribute.handle_id.as_deref()?).to_owned();
                let (address, sequence) = (block::address(*cidr, at), block::sequence(found, at));
                Some((Allocation { block: *cidr, address, handle, sequence }, attribute))
            })
        })
    }
}
