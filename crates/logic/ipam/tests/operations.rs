//! What operations ask, write and answer, one at a time.

mod common;

use std::net::IpAddr;
use std::sync::Arc;

use common::{Memory, NOW, holder, later, pool, settings};
use tortie_facts::{Key, Value};
use tortie_ipam::{
    AddressesOf, Assign, AssignAt, Claimed, Client, Collect, IpamError, Owner, Release, ReleaseAffinities,
    ReleaseHandle, Request, Reserved, Scope, Settings, View, WhoHas,
};
use tortie_net::Family;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("a literal")
}

#[test]
fn an_add_with_a_known_block_is_one_batch_and_no_read() {
    let settings = Arc::new(settings(vec![pool("a", "10.0.0.0/16", 26)]));
    let mut store = Memory::default();
    let first = store.assign(&settings, "n1", "net.1", 1).expect("free");
    assert_eq!(store.writes.len(), 2, "affinity and block, then confirmation, handle and block: {:?}", store.writes);

    let owner = Owner::host("n1");
    let mut view = View::default();
    store.all().into_iter().for_each(|fact| view.hint(fact));
    view.hint_all_affinities(&owner);
    view.hint_no_handle("net.2");
    (store.reads, store.writes) = (0, Vec::new());
    let request = Request::one(Client::workload("n1"), holder("n1", "net.2"), Family::V4);
    let second = store.run_with(Assign::new(request, Arc::clone(&settings), NOW), view).expect("free");
    assert_eq!(store.reads, 0);
    let block = second.addresses[0].block;
    assert_eq!(store.writes, vec![vec![Key::Handle("net.2".into()), Key::Block(block)]]);
    assert_eq!(first.addresses[0].block, block);
    assert_ne!(first.addresses[0].address, second.addresses[0].address);
}

#[test]
fn an_add_on_old_knowledge_reads_again() {
    let settings = Arc::new(settings(vec![pool("a", "10.0.0.0/16", 26)]));
    let mut store = Memory::default();
    store.assign(&settings, "n1", "net.1", 1).expect("free");
    let old = store.all();
    store.assign(&settings, "n1", "net.2", 62).expect("free");
    let mut view = View::default();
    old.into_iter().for_each(|fact| view.hint(fact));
    view.hint_all_affinities(&Owner::host("n1"));
    let request = Request { count: 2, ..Request::one(Client::workload("n1"), holder("n1", "net.3"), Family::V4) };
    let got = store.run_with(Assign::new(request, Arc::clone(&settings), NOW), view).expect("free");
    assert_eq!(got.addresses.len(), 2);
    assert_ne!(got.addresses[0].block, got.addresses[1].block, "one address was left in the first block");
    let handle = store.facts[&Key::Handle("net.3".into())].0.as_handle().expect("a handle").clone();
    assert_eq!(handle.block.values().copied().collect::<Vec<_>>(), vec![1, 1]);
}

#[test]
fn exhaustion_says_what_is_full() {
    let mut strict = settings(vec![pool("small", "10.0.0.0/30", 31)]);
    strict.config.strict_affinity = true;
    let strict = Arc::new(strict);
    let mut store = Memory::default();
    store.assign(&strict, "n1", "h1", 3).expect("free");
    let error = store.assign(&strict, "n2", "h2", 1).expect_err("both blocks are n1's");
    assert_eq!(
        error.to_string(),
        "no free address for n2 (strictAffinity is on, so it can't borrow): pool small (10.0.0.0/30): 3 of 4 \
         addresses in use, 2 of 2 blocks claimed"
    );
    let loose = Arc::new(settings(vec![pool("small", "10.0.0.0/30", 31)]));
    let borrowed = store.assign(&loose, "n2", "h2", 2).expect("one is left");
    assert_eq!(borrowed.addresses.len(), 1);
    assert!(matches!(borrowed.shortfall, Some(IpamError::Exhausted { .. })));
    let blocks = store.all();
    let blocks = blocks.iter().filter_map(|fact| match &fact.key {
        Key::Block(cidr) => Some((*cidr, &**fact.value.as_block().expect("a block"))),
        _ => None,
    });
    let (found, unclear) = tortie_ipam::borrowed(blocks);
    assert_eq!((found.len(), unclear), (1, 0));
    assert_eq!((found[0].node.as_str(), found[0].owner.as_str(), found[0].holder.as_str()), ("n2", "n1", "prod/web"));
}

#[test]
fn no_pool_says_why_each_was_refused() {
    let mut labelled = pool("rack", "10.1.0.0/16", 26);
    labelled.node_selector = "rack == 'r1'".into();
    let mut tenant = pool("tenant", "10.2.0.0/16", 26);
    tenant.namespace_selector = "team == 'x'".into();
    let mut manual = pool("manual", "10.3.0.0/16", 26);
    manual.manual = true;
    let mut closed = pool("closed", "10.4.0.0/16", 26);
    closed.closed = Some("it is disabled".into());
    let mut tunnel = pool("tunnel", "10.5.0.0/16", 26);
    tunnel.uses = vec![tortie_api::IpPoolAllowedUse::Tunnel];
    let tiny = pool("tiny", "10.6.0.0/28", 26);
    let settings = Arc::new(settings(vec![labelled, tenant, manual, closed, tunnel, tiny]));
    let mut store = Memory::default();
    let text = store.assign(&settings, "n1", "h", 1).expect_err("none fits").to_string();
    for part in [
        "rack (10.1.0.0/16): its nodeSelector \"rack == 'r1'\" does not match the node (which has no labels)",
        "tenant (10.2.0.0/16): its namespaceSelector",
        "manual (10.3.0.0/16): its assignmentMode is Manual",
        "closed (10.4.0.0/16): it is disabled",
        "tunnel (10.5.0.0/16): it is not for Workload (allowedUses: Tunnel)",
        "tiny (10.6.0.0/28): it is smaller than one of its blocks (blockSize 26)",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }

    let mut client = Client::workload("n1");
    client.node_labels.insert("rack", "r1");
    let mut request = Request::one(client, holder("n1", "h"), Family::V4);
    let got = store.run(Assign::new(request.clone(), Arc::clone(&settings), NOW)).expect("rack fits");
    assert!("10.1.0.0/16".parse::<ipnet::IpNet>().expect("literal").contains(&got.addresses[0].address));
    request.pools = vec!["10.3.0.0/16".parse().expect("literal")];
    let got = store.run(Assign::new(request.clone(), Arc::clone(&settings), NOW)).expect("manual was asked for");
    assert!("10.3.0.0/16".parse::<ipnet::IpNet>().expect("literal").contains(&got.addresses[0].address));
    request.pools = vec!["10.9.0.0/16".parse().expect("literal")];
    let error = store.run(Assign::new(request, Arc::clone(&settings), NOW)).expect_err("no such pool");
    assert!(matches!(error, IpamError::UnknownPool { .. }), "{error}");
}

#[test]
fn a_given_address_is_assigned_once() {
    let settings = Arc::new(settings(vec![pool("a", "10.0.0.0/24", 26)]));
    let mut store = Memory::default();
    let mut at = |node: &str, handle: &str, address: &str| {
        let plan = AssignAt::new(Client::workload(node), holder(node, handle), ip(address), Arc::clone(&settings), NOW);
        store.run(plan)
    };
    let got = at("n1", "h1", "10.0.0.70").expect("free");
    assert_eq!(got.block.to_string(), "10.0.0.64/26");
    assert_eq!(at("n1", "h1", "10.0.0.70").expect("its own"), got);
    let error = at("n2", "h2", "10.0.0.70").expect_err("in use");
    assert_eq!(error.to_string(), "10.0.0.70 is in use by pod prod/web on n1 (handle h1)");
    assert_eq!(
        at("n2", "h2", "10.9.0.1").expect_err("no pool").to_string(),
        "10.9.0.1 is not in a pool; pools: a (10.0.0.0/24)"
    );
    at("n2", "h2", "10.0.0.71").expect("borrowed");
    let mut strict = Settings::clone(&settings);
    strict.config.strict_affinity = true;
    let plan = AssignAt::new(Client::workload("n2"), holder("n2", "h3"), ip("10.0.0.72"), Arc::new(strict), NOW);
    assert!(matches!(store.run(plan), Err(IpamError::NotAffine { .. })));
}

#[test]
fn a_release_needs_evidence_that_still_fits() {
    let settings = Arc::new(settings(vec![pool("a", "10.0.0.0/24", 26)]));
    let mut store = Memory::default();
    let got = store.assign(&settings, "n1", "h1", 1).expect("free").addresses[0];
    let claim = |handle: &str, sequence: u64| Claimed {
        address: got.address,
        handle: Some(handle.to_owned()),
        sequence: Some(sequence),
    };
    let mut release = |claimed: Claimed| store.run(Release::new(vec![claimed], Arc::clone(&settings), NOW));
    assert!(matches!(release(claim("h2", got.sequence)), Err(IpamError::BadHandle { .. })));
    assert!(matches!(release(claim("h1", got.sequence + 1)), Err(IpamError::BadSequence { .. })));
    assert_eq!(release(claim("h1", got.sequence)).expect("fits").released, vec![got.address]);
    assert!(!store.facts.contains_key(&Key::Handle("h1".into())));
    let error = store.run(ReleaseHandle::new("h1", 0, NOW)).expect_err("gone");
    assert!(matches!(error, IpamError::UnknownHandle(_)));
    assert_eq!(store.run(WhoHas::new(got.address, Arc::clone(&settings))), Ok(None));
}

#[test]
fn released_addresses_cool_down_and_then_go_to_the_end_of_the_queue() {
    let mut cooling = settings(vec![pool("a", "10.0.0.0/30", 30)]);
    cooling.config.ip_cooldown_seconds = 10;
    let settings = Arc::new(cooling);
    let mut store = Memory::default();
    let got = store.assign(&settings, "n1", "h1", 4).expect("free").addresses;
    store.run(ReleaseHandle::new("h1", 10, NOW)).expect("known");
    assert!(matches!(store.assign(&settings, "n1", "h2", 1), Err(IpamError::Exhausted { .. })));
    let request = Request::one(Client::workload("n1"), holder("n1", "h2"), Family::V4);
    let again = store.run(Assign::new(request, Arc::clone(&settings), later(10))).expect("cooled");
    assert_eq!(again.addresses[0].address, got[0].address);
    assert!(again.addresses[0].sequence > got[0].sequence);
    store.run(ReleaseHandle::new("h2", 10, later(11))).expect("known");
    let done = store.run(Collect::new(Arc::clone(&settings), later(60), Default::default(), None)).expect("collects");
    assert_eq!(done.thawed, 1);
    assert_eq!(store.block("10.0.0.0/30").unallocated.last(), Some(&0));
}

#[test]
fn reservations_are_skipped_and_limits_kept() {
    let mut limited = settings(vec![pool("a", "10.0.0.0/28", 30)]);
    limited.reserved =
        Reserved::new(["10.0.0.0/29".parse().expect("literal"), "10.0.0.8/32".parse().expect("literal")]);
    limited.config.strict_affinity = true;
    limited.config.max_blocks_per_host = 1;
    let settings = Arc::new(limited);
    let mut store = Memory::default();
    let got = store.assign(&settings, "n1", "h1", 8).expect("some");
    assert!(got.addresses.iter().all(|one| !settings.reserved.contains(one.address)));
    assert!(matches!(got.shortfall, Some(IpamError::BlockLimit { limit: 1, owned: 1, .. })));
    let usage =
        tortie_ipam::usage(&settings, [(got.addresses[0].block, store.block(&got.addresses[0].block.to_string()))]);
    let whole = &usage[0];
    assert_eq!((whole.capacity, whole.reserved, whole.in_use), (16, 9, got.addresses.len() as u128));
    assert_eq!(whole.available, 16 - 9 - got.addresses.len() as u128);
}

#[test]
fn a_handle_with_a_limit_gets_what_it_holds() {
    let settings = Arc::new(settings(vec![pool("a", "10.0.0.0/24", 26)]));
    let mut store = Memory::default();
    let request = Request { max_per_handle: 1, ..Request::one(Client::workload("n1"), holder("n1", "vm"), Family::V4) };
    let first = store.run(Assign::new(request.clone(), Arc::clone(&settings), NOW)).expect("free");
    let again = store.run(Assign::new(request, Arc::clone(&settings), NOW)).expect("reused");
    assert_eq!(first.addresses, again.addresses);
    assert_eq!(store.run(AddressesOf::new("vm")).expect("known"), first.addresses);
}

#[test]
fn both_families_and_large_v6_pools_work() {
    let settings = Arc::new(settings(vec![pool("v6", "fd00::/48", 122), pool("v4", "10.0.0.0/16", 26)]));
    let mut store = Memory::default();
    for family in Family::ALL {
        let request = Request::one(Client::workload("n1"), holder("n1", "h"), family);
        let got = store.run(Assign::new(request, Arc::clone(&settings), NOW)).expect("free");
        assert_eq!(Family::of(got.addresses[0].address), family);
    }
    assert_eq!(store.run(ReleaseHandle::new("h", 0, NOW)).expect("known").released.len(), 2);
    let scope = Scope::Owner(Owner::host("n1"));
    let released = store.run(ReleaseAffinities::new(scope, true, Arc::clone(&settings), NOW)).expect("empty");
    assert_eq!(released.len(), 2);
    assert!(store.facts.is_empty());
}

#[test]
fn affinities_are_released_with_or_without_addresses_in_use() {
    let settings = Arc::new(settings(vec![pool("a", "10.0.0.0/24", 26)]));
    let mut store = Memory::default();
    let got = store.assign(&settings, "n1", "h1", 1).expect("free").addresses[0];
    let run = |store: &mut Memory, scope: Scope, empty: bool| {
        store.run(ReleaseAffinities::new(scope, empty, Arc::clone(&settings), NOW))
    };
    let owner = Owner::host("n1");
    assert_eq!(run(&mut store, Scope::Owner(owner.clone()), true), Ok(vec![]));
    assert_eq!(store.affinities(), 1);
    let small = "10.0.0.0/27".parse().expect("literal");
    assert!(matches!(run(&mut store, Scope::Range(owner, small), true), Err(IpamError::BadRange { .. })));
    assert_eq!(run(&mut store, Scope::Pool(settings.pools[0].cidr), false), Ok(vec![got.block]));
    assert_eq!((store.affinities(), store.block(&got.block.to_string()).affinity.clone()), (0, None));
    store.run(ReleaseHandle::new("h1", 0, NOW)).expect("known");
    assert!(store.facts.is_empty(), "an empty block of nobody goes with its last address");
}

#[test]
fn what_newer_versions_wrote_survives_giving_out_and_taking_back() {
    use tortie_api::ipam::{Affinity, AffinityState, Block, Handle, Newer};
    let settings = Arc::new(settings(vec![pool("a", "10.0.0.0/24", 26)]));
    let mut store = Memory::default();
    let block = store.assign(&settings, "n1", "h1", 2).expect("free").addresses[0].block;
    let newer: Newer = [("newer".to_owned(), serde_json::json!([1]))].into();
    for (value, _) in store.facts.values_mut() {
        match value {
            Value::Block(block) => {
                let block = Arc::make_mut(block);
                (block.newer, block.attributes[0].newer) = (newer.clone(), newer.clone());
            }
            Value::Handle(handle) => Arc::make_mut(handle).newer = newer.clone(),
            // As if the claim had been left half way.
            Value::Affinity(affinity) => {
                *affinity = Affinity { state: AffinityState::Pending, newer: newer.clone(), ..Affinity::default() };
            }
            other => panic!("{other:?}"),
        }
    }
    let more = store.assign(&settings, "n1", "h1", 1).expect("free").addresses[0].address;
    let released = Claimed { address: more, handle: None, sequence: None };
    store.run(Release::new(vec![released], Arc::clone(&settings), NOW)).expect("it is ours");
    let held: Block = store.block(&block.to_string()).clone();
    assert_eq!((&held.newer, &held.attributes[0].newer), (&newer, &newer));
    let handle: &Handle = store.facts[&Key::Handle("h1".into())].0.as_handle().expect("a handle");
    assert_eq!(handle.newer, newer);
    let affinity = store.facts[&Key::host_affinity("n1", block)].0.as_affinity().expect("an affinity");
    assert_eq!((affinity.state, &affinity.newer), (AffinityState::Confirmed, &newer));
}

#[test]
fn a_damaged_block_is_named_and_left_alone() {
    let settings = Arc::new(settings(vec![pool("a", "10.0.0.0/25", 26)]));
    let mut store = Memory::default();
    let got = store.assign(&settings, "n1", "h1", 1).expect("free").addresses[0];
    let key = Key::Block(got.block);
    let (value, revision) = store.facts[&key].clone();
    let mut block = tortie_api::ipam::Block::clone(value.as_block().expect("a block"));
    block.attributes.clear();
    store.facts.insert(key.clone(), (Value::Block(Arc::new(block.clone())), revision));
    let other = store.assign(&settings, "n1", "h2", 1).expect("another block").addresses[0];
    assert_ne!(other.block, got.block);
    let claimed = Claimed { address: got.address, handle: None, sequence: None };
    let error = store.run(Release::new(vec![claimed], Arc::clone(&settings), NOW)).expect_err("damaged");
    assert!(error.to_string().contains("names attribute 0 of 0"), "{error}");
    let report = tortie_ipam::check(&settings, &store.all(), None);
    assert!(report.problems.iter().any(|p| matches!(p, tortie_ipam::Problem::BrokenBlock { .. })));
    assert_eq!(store.facts[&key].0.as_block().expect("a block").as_ref(), &block);
}
