//! The node's own resource: its addresses, which no other node may have.
//!
//! Invariant: of nodes that claim one address, however close together they start, one at most goes on, unless they are
//! told not to look (`DISABLE_NODE_IP_CHECK`): each writes its claim before it looks for others', so at least the later of
//! two looks sees the other's.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tortie_api::{IpNetText, Kind, Metadata, Node, NodeAddress, NodeBgpSpec, Resource};
use tortie_facts::{Filter, Key};
use tortie_net::IpNet;
use tortie_store::{Reader, Store, resource};
use tracing::warn;

use crate::environment::Environment;
use crate::startup::Identity;

/// How long a node waits for another that claims its address in the same moment to give way.
const GIVE_WAY: Duration = Duration::from_secs(3);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);

/// Writes the node's addresses into its resource. An error, and the resource as it was, if another node has one of them,
/// unless the environment says not to look.
pub fn register(store: &dyn Store, environment: &Environment, identity: &Identity) -> Result<()> {
    if !environment.check_addresses {
        return write(store, environment, identity);
    }
    refuse(identity, rival(store, identity)?)?;
    let key = Key::resource(Kind::Node, "", &identity.name);
    let entry = Reader::get(store, &key)?;
    let before = entry.as_ref().and_then(|entry| entry.value.as_resource()).and_then(|found| match &**found {
        Resource::Node(node) => Some((**node).clone()),
        _ => None,
    });
    write(store, environment, identity)?;
    let Some(found) = rival(store, identity)? else { return Ok(()) };
    // Both may have seen each other: the one whose name comes later gives way, the other waits for that. One that does
    // not give way was there before.
    let until = Instant::now() + GIVE_WAY;
    let mut other = Some(found);
    while other.as_ref().is_some_and(|other| other.name > identity.name) && Instant::now() < until {
        sleep(LOOK);
        other = rival(store, identity)?;
    }
    if other.is_some() {
        take_back(store, identity, before.as_ref());
    }
    refuse(identity, other)
}

fn write(store: &dyn Store, environment: &Environment, identity: &Identity) -> Result<()> {
    let Identity { name, ipv4, ipv6 } = identity;
    // Of equal addresses the text stays as somebody wrote it.
    let put = |text: &mut IpNetText, net: Option<IpNet>| {
        if text.interface() != net {
            *text = net.map(IpNetText::from).unwrap_or_default();
        }
    };
    resource::update(store, &Key::resource(Kind::Node, "", name), |stored| {
        let mut node = match stored {
            Some(Resource::Node(node)) => (**node).clone(),
            _ => Node { metadata: Metadata::named(name.as_str()), ..Node::default() },
        };
        let bgp = node.spec.bgp.get_or_insert_with(NodeBgpSpec::default);
        put(&mut bgp.ipv4_address, *ipv4);
        put(&mut bgp.ipv6_address, *ipv6);
        if environment.asn.is_some() {
            bgp.as_number = environment.asn;
        }
        let own = |net: &IpNet| NodeAddress { address: net.to_string(), address_type: "CalicoNodeIP".to_owned() };
        node.spec.addresses.retain(|address| address.address_type != "CalicoNodeIP");
        node.spec.addresses.extend(ipv4.iter().chain(ipv6).map(own));
        node.into()
    })
    .with_context(|| format!("can't register the node {name}"))?;
    Ok(())
}

/// Makes the claim undone: the addresses are again those of before, or none.
fn take_back(store: &dyn Store, identity: &Identity, before: Option<&Node>) {
    let bgp = before.and_then(|node| node.spec.bgp.clone());
    let old = before.map(|node| node.spec.addresses.clone()).unwrap_or_default();
    let done = resource::update(store, &Key::resource(Kind::Node, "", &identity.name), |stored| {
        let mut node = match stored {
            Some(Resource::Node(node)) => (**node).clone(),
            _ => Node { metadata: Metadata::named(identity.name.as_str()), ..Node::default() },
        };
        let claimed = node.spec.bgp.get_or_insert_with(NodeBgpSpec::default);
        let (ipv4, ipv6) =
            bgp.as_ref().map(|bgp| (bgp.ipv4_address.clone(), bgp.ipv6_address.clone())).unwrap_or_default();
        (claimed.ipv4_address, claimed.ipv6_address) = (ipv4, ipv6);
        node.spec.addresses.retain(|address| address.address_type != "CalicoNodeIP");
        node.spec.addresses.extend(old.iter().filter(|address| address.address_type == "CalicoNodeIP").cloned());
        node.into()
    });
    if let Err(error) = done {
        warn!(%error, node = identity.name, "the claim of an address that another node has can't be taken back");
    }
}

/// Another node that has an address of this one.
struct Rival {
    name: String,
    address: IpAddr,
}

fn rival(store: &dyn Store, identity: &Identity) -> Result<Option<Rival>> {
    let listing = store.list(&Filter::Kind(Kind::Node))?;
    let mine = [identity.ipv4, identity.ipv6];
    for entry in &listing.entries {
        let Some(Resource::Node(node)) = entry.value.as_resource().map(|r| &**r) else { continue };
        let Some(bgp) = node.spec.bgp.as_ref().filter(|_| node.metadata.name != identity.name) else { continue };
        for theirs in [&bgp.ipv4_address, &bgp.ipv6_address] {
            if let Some(address) = theirs.addr().filter(|addr| mine.iter().flatten().any(|net| net.addr() == *addr)) {
                return Ok(Some(Rival { name: node.metadata.name.clone(), address }));
            }
        }
    }
    Ok(None)
}

/// Two nodes with one address would take each other's traffic: refuse to be the second.
fn refuse(identity: &Identity, rival: Option<Rival>) -> Result<()> {
    let Some(Rival { name, address }) = rival else { return Ok(()) };
    bail!(
        "the node {name} has the address {address} already: two nodes can't share one, so {} does not take it. \
         If that node is gone, delete it (calicoctl delete node {name}); else set IP for this one",
        identity.name
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use tortie_store::MemoryStore;

    use super::*;

    fn environment() -> Environment {
        Environment::read(&std::collections::BTreeMap::new(), tortie_datastore::Felix::Last).expect("nothing is set")
    }

    fn identity(name: &str, addr: &str) -> Identity {
        Identity { name: name.into(), ipv4: Some(addr.parse().expect("a literal")), ipv6: None }
    }

    #[test]
    fn an_address_of_another_node_is_refused() {
        let store = MemoryStore::new();
        register(&store, &environment(), &identity("a", "10.0.0.1/24")).expect("the first");
        let error =
            register(&store, &environment(), &identity("b", "10.0.0.1/24")).expect_err("the second").to_string();
        assert!(error.contains("the node a has the address 10.0.0.1"), "{error}");
        assert!(Reader::get(&store, &Key::resource(Kind::Node, "", "b")).expect("it works").is_none());
    }

    #[test]
    fn an_address_of_another_node_is_taken_if_nobody_is_to_look() {
        let store = MemoryStore::new();
        register(&store, &environment(), &identity("a", "10.0.0.1/24")).expect("the first");
        let vars = [("DISABLE_NODE_IP_CHECK".to_owned(), "true".to_owned())].into();
        let unchecked = Environment::read(&vars, tortie_datastore::Felix::Last).expect("upstream's variable");
        register(&store, &unchecked, &identity("b", "10.0.0.1/24")).expect("nobody looks");
        assert!(Reader::get(&store, &Key::resource(Kind::Node, "", "b")).expect("it works").is_some());
    }

    #[test]
    fn of_nodes_that_claim_an_address_in_one_moment_one_goes_on() {
        for round in 0..40 {
            let store = MemoryStore::new();
            register(&store, &environment(), &identity("c", "10.0.0.3/24")).expect("it had another before");
            let barrier = Barrier::new(3);
            let started: Vec<bool> = std::thread::scope(|scope| {
                let start = |name: &'static str| {
                    let (store, barrier) = (&store, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        register(store, &environment(), &identity(name, "10.0.0.1/24")).is_ok()
                    })
                };
                ["a", "b", "c"].map(start).map(|thread| thread.join().expect("no panic")).to_vec()
            });
            assert_eq!(started.iter().filter(|one| **one).count(), 1, "round {round}: {started:?}");
            let has = |name: &str| {
                let entry = Reader::get(&store, &Key::resource(Kind::Node, "", name)).expect("it works")?;
                match &**entry.value.as_resource()? {
                    Resource::Node(node) => node.spec.bgp.as_ref()?.ipv4_address.addr(),
                    _ => None,
                }
            };
            let held = ["a", "b", "c"].map(|name| has(name) == Some("10.0.0.1".parse().expect("a literal")));
            assert_eq!(held.to_vec(), started, "round {round}: who does not go on has taken its claim back");
        }
    }
}
