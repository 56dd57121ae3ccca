//! Endpoints that are written beside the block of their address.

use tortie_api::ipam::{Attribute, Block};
use tortie_api::{Kind, WorkloadEndpoint, WorkloadEndpointSpec};

use super::*;

fn key() -> Key {
    Key::resource(Kind::WorkloadEndpoint, "default", "e")
}

fn endpoint(addresses: &[IpAddr]) -> Write {
    let ip_networks = addresses.iter().map(|addr| tortie_net::host_net(*addr).into()).collect();
    let spec = WorkloadEndpointSpec { ip_networks, ..WorkloadEndpointSpec::default() };
    let endpoint = WorkloadEndpoint { metadata: Metadata::in_namespace("default", "e"), spec };
    let value = Some(Value::resource(Resource::from(endpoint)));
    Write { key: key(), expect: StoreExpect::Absent, value }
}

/// The addresses of the endpoint that is there.
fn recorded(store: &OneByOne) -> Option<Vec<IpAddr>> {
    let entry = store.store.get(&key()).expect("read")?;
    let Some(Resource::WorkloadEndpoint(endpoint)) = entry.value.as_resource().map(|resource| &**resource) else {
        panic!("an endpoint's key has an endpoint: {entry:?}");
    };
    Some(
        endpoint
            .spec
            .ip_networks
            .iter()
            .map(|net| net.0.parse::<tortie_net::IpNet>().expect("a prefix").addr())
            .collect(),
    )
}

fn is_endpoint(at: &Key) -> bool {
    *at == key()
}

/// Gives one more; what was given, and how often blocks and endpoint were written by the time of `begin` and in all.
fn add(addresses: &Addresses, store: &OneByOne) -> ((String, Vec<IpAddr>), [usize; 3]) {
    let blocks = store.wrote(is_block);
    let given = addresses.begin(&ask(7), Some(&endpoint)).expect("there is room");
    let counts = [store.wrote(is_block) - blocks, store.wrote(is_endpoint)];
    addresses.finish(&given).expect("nothing is in the way");
    if let Some(handle) = &given.handle {
        assert!(store.store.get(&handle.key).expect("read").is_some());
    }
    ((ask(7).handle, given.addresses), [counts[0], counts[1], store.wrote(is_endpoint)])
}

#[test]
fn who_is_alone_has_the_endpoint_as_soon_as_the_address() {
    let store = OneByOne::with_pool(|_, _| {});
    let (addresses, mut results) = proven(&store);
    let (given, counts) = add(&addresses, &store);
    assert_eq!(counts, [1, 1, 1]);
    assert_eq!(recorded(&store).as_ref(), Some(&given.1));
    results.push(given);
    all_hold(&store, &results);
}

#[test]
fn who_waits_with_others_has_it_written_once_after_the_block() {
    let store = OneByOne::with_pool(|_, _| {});
    let (addresses, mut results) = proven(&store);
    let given = addresses.give(&[ask(7), ask(8)], Some(&endpoint));
    assert_eq!(store.wrote(is_endpoint), 0, "whose it is is not known");
    for (number, given) in [7, 8].into_iter().zip(given) {
        let given = given.expect("there is room");
        addresses.finish(&given).expect("the handle is written");
        results.push((ask(number).handle, given.addresses));
    }
    all_hold(&store, &results);
}

/// Takes the first address that is free, as a node that borrows it.
fn borrow(store: &MemoryStore, at: &Key) {
    let entry = store.get(at).expect("read").expect("it is there");
    let Key::Block(cidr) = at else { panic!("a block: {at}") };
    let mut block: Block = (**entry.value.as_block().expect("a block")).clone();
    let ordinal = block.unallocated.remove(0);
    block.allocations[ordinal] = Some(block.attributes.len());
    block.attributes.push(Attribute { handle_id: Some("net.other".into()), ..Attribute::default() });
    let value = Some(Value::Block(block.into()));
    store.write_one(Write { key: entry.key, expect: StoreExpect::Any, value }).expect("written");
    let handle = Handle { block: BTreeMap::from([(cidr.to_string(), 1)]), ..Handle::default() };
    let key = Key::Handle("net.other".into());
    let handle = Write { key, expect: StoreExpect::Absent, value: Some(Value::Handle(handle.into())) };
    store.write_one(handle).expect("written");
}

#[test]
fn an_endpoint_whose_address_another_took_is_written_again_with_the_one_that_is_given() {
    for takes in [true, false] {
        let armed = Arc::new(AtomicBool::new(false));
        let store = OneByOne::with_pool({
            let armed = armed.clone();
            move |store, write| {
                if !is_block(&write.key) || !armed.swap(false, Ordering::SeqCst) {
                    return;
                }
                if takes {
                    borrow(store, &write.key);
                } else {
                    // Somebody wrote the block without taking anything.
                    write_again(store, &write.key);
                }
            }
        });
        let (addresses, mut results) = proven(&store);
        armed.store(true, Ordering::SeqCst);
        let (given, counts) = add(&addresses, &store);
        assert!(!armed.load(Ordering::SeqCst));
        assert_eq!(counts, [2, 1, if takes { 2 } else { 1 }], "{takes}");
        assert_eq!(recorded(&store).as_ref(), Some(&given.1), "{takes}");
        results.push(given);
        if takes {
            let of_other = store.held().into_iter().find(|(_, handle)| handle == "net.other").expect("it is held");
            results.push((of_other.1, vec![of_other.0]));
        }
        all_hold(&store, &results);
    }
}

#[test]
fn an_endpoint_of_an_address_that_was_not_given_does_not_stay() {
    let store = OneByOne::with_pool(|_, _| {});
    let (addresses, results) = proven(&store);
    store.loses.store(true, Ordering::SeqCst);
    assert!(addresses.begin(&ask(7), Some(&endpoint)).is_err());
    assert_eq!((store.wrote(is_endpoint), recorded(&store)), (2, None), "written, and taken back");
    all_hold(&store, &results);
}

#[test]
fn an_address_whose_endpoint_cannot_be_written_goes_back() {
    let store = OneByOne::with_pool(|_, _| {});
    let (addresses, results) = proven(&store);
    let refused = |given: &[IpAddr]| Write { expect: StoreExpect::Revision(Revision(9)), ..endpoint(given) };
    assert!(addresses.assign(&ask(7), Some(&refused)).is_err());
    assert_eq!((store.wrote(is_endpoint), recorded(&store)), (2, None), "tried twice");
    all_hold(&store, &results);
}
