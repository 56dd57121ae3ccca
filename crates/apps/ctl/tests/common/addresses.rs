//! Addresses that pods have, without a node.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use tortie_facts::{Filter, Key};
use tortie_ipam::{
    Answer, Ask, Assign, Client, Expect, Fact, Holder, Machine, Now, Outcome, Request, Settings, View, block,
};
use tortie_store::{Entry, Expect as StoreExpect, Reader, Store, StoreError, Write};

use super::Cluster;

/// Gives addresses to a pod.
pub fn assign(cluster: &Cluster, node: &str, handle: &str, count: usize) {
    assign_with(cluster, node, handle, count, &[("pod", "web"), ("namespace", "prod"), ("node", node)]);
}

/// Gives addresses to whom the attributes say.
pub fn assign_with(cluster: &Cluster, node: &str, handle: &str, count: usize, attrs: &[(&str, &str)]) {
    let store = cluster.store();
    let listing = store.list(&Settings::filter()).expect("listed");
    let settings = Arc::new(Settings::from_facts(listing.entries.iter().map(|e| (&e.key, &e.value))));
    for _ in 0..count {
        let holder = Holder {
            handle: Some(handle.to_owned()),
            attrs: attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>(),
        };
        let request = Request::one(Client::workload(node), holder, tortie_net::Family::V4);
        let mut machine = Machine::new(Assign::new(request, settings.clone(), Now(1)), View::default());
        tortie_ipam::drive(&mut machine, |ask| answer(&store, ask)).expect("read").expect("assigned");
    }
}

fn answer(store: &dyn Store, ask: Ask) -> Result<Answer, StoreError> {
    let fact = |Entry { key, value, revision }: Entry| Fact { key, value, revision };
    Ok(match ask {
        Ask::Get(keys) => {
            let got = keys.iter().map(|key| Ok(Reader::get(store, key)?.map(fact)));
            Answer::Got(got.collect::<Result<_, StoreError>>()?)
        }
        Ask::List(filter) => Answer::Listed(store.list(&filter)?.entries.into_iter().map(fact).collect()),
        Ask::Write(writes) => {
            let expect = |expect| match expect {
                Expect::Absent => StoreExpect::Absent,
                Expect::Revision(revision) => StoreExpect::Revision(revision),
            };
            let writes: Vec<Write> = writes
                .into_iter()
                .map(|write| Write { key: write.key, expect: expect(write.expect), value: write.value })
                .collect();
            let results = store.write(&writes).into_iter();
            Answer::Wrote(results.map(|result| Outcome::Done(result.expect("nobody else writes"))).collect())
        }
    })
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
