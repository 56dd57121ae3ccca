//! Addresses that pods have, without a node.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use tortie_datastore::ipam;
use tortie_facts::{Filter, Key};
use tortie_ipam::{Assign, Client, Holder, Now, Request, block};
use tortie_store::Reader;

use super::Cluster;

/// Gives addresses to a pod.
pub fn assign(cluster: &Cluster, node: &str, handle: &str, count: usize) {
    assign_with(cluster, node, handle, count, &[("pod", "web"), ("namespace", "prod"), ("node", node)]);
}

/// Gives addresses to whom the attributes say.
pub fn assign_with(cluster: &Cluster, node: &str, handle: &str, count: usize, attrs: &[(&str, &str)]) {
    let store = cluster.store();
    let settings = ipam::settings(&store).expect("read");
    for _ in 0..count {
        let holder = Holder {
            handle: Some(handle.to_owned()),
            attrs: attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
        };
        let request = Request::one(Client::workload(node), holder, tortie_net::Family::V4);
        ipam::run(&store, Assign::new(request, settings.clone(), Now(1))).expect("read").expect("assigned");
    }
}

/// The assigned addresses of a handle.
pub fn addresses(cluster: &Cluster, handle: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for entry in cluster.store().list(&Filter::Blocks).expect("listed").entries {
        let (Key::Block(cidr), Some(one)) = (&entry.key, entry.value.as_block()) else { continue };
        for ordinal in 0..one.allocations.len() {
            if block::attribute(one, ordinal).is_some_and(|held| held.handle_id.as_deref() == Some(handle)) {
                found.push(block::address(*cidr, ordinal));
            }
        }
    }
    found
}

/// Some address that is assigned.
pub fn first_address(cluster: &Cluster) -> IpAddr {
    let listing = cluster.store().list(&Filter::Blocks).expect("listed");
    let found = listing.entries.iter().find_map(|entry| {
        let (Key::Block(cidr), Some(one)) = (&entry.key, entry.value.as_block()) else { return None };
        let at = one.allocations.iter().position(Option::is_some)?;
        Some(block::address(*cidr, at))
    });
    found.expect("one is assigned")
}
