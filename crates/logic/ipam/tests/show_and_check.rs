//! Usage and consistency over listings.

mod common;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use common::{Memory, NOW, pool, settings};
use tortie_api::ipam::{Affinity, Block, Handle};
use tortie_facts::{Key, Revision, Value};
use tortie_ipam::{Problem, Release, Reserved, check, usage};

fn blocks(store: &Memory) -> Vec<(ipnet::IpNet, Arc<Block>)> {
    let of = |(key, (value, _)): (&Key, &(Value, Revision))| match (key, value) {
        (Key::Block(cidr), Value::Block(block)) => Some((*cidr, Arc::clone(block))),
        _ => None,
    };
    store.facts.iter().filter_map(of).collect()
}

#[test]
fn usage_counts_each_address_once_and_lists_blocks_of_no_pool() {
    let before = Arc::new(settings(vec![pool("a", "10.0.0.0/25", 26), pool("old", "10.9.0.0/26", 26)]));
    let mut store = Memory::default();
    store.assign(&before, "n1", "h1", 70).expect("free");
    let mut now = settings(vec![pool("a", "10.0.0.0/25", 26), pool("empty", "fd00::/64", 122)]);
    now.reserved = Reserved::new(["10.0.0.120/29".parse().expect("a literal")]);
    store.assign(&before, "n1", "h2", 64).expect("free");
    let listed = blocks(&store);
    let found = usage(&now, listed.iter().map(|(cidr, block)| (*cidr, &**block)));
    assert_eq!(found.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>(), ["a", "empty", ""]);
    let whole = &found[0];
    assert_eq!((whole.capacity, whole.reserved), (128, 8));
    assert_eq!(whole.in_use + found[2].in_use, 134);
    assert_eq!(whole.blocks.iter().map(|block| block.in_use).sum::<u128>(), whole.in_use);
    assert_eq!((found[1].capacity, found[1].available), (1 << 64, 1 << 64));
}

#[test]
fn a_check_finds_each_kind_of_damage_and_says_how_to_repair_leaks() {
    let settings = Arc::new(settings(vec![pool("a", "10.0.0.0/24", 26)]));
    let mut store = Memory::default();
    let a = store.assign(&settings, "n1", "a", 1).expect("free").addresses[0];
    let b = store.assign(&settings, "n1", "b", 1).expect("free").addresses[0];
    let user = |who: &str| vec![who.to_owned()];
    let good: BTreeMap<IpAddr, Vec<String>> = [(a.address, user("pod a")), (b.address, user("pod b"))].into();
    assert_eq!(check(&settings, &store.all(), Some(&good)).problems, vec![]);

    let handle = |count: u32| {
        Value::Handle(Arc::new(Handle { block: [(a.block.to_string(), count)].into(), ..Handle::default() }))
    };
    store.facts.insert(Key::Handle("a".into()), (handle(3), Revision(900)));
    store.facts.remove(&Key::Handle("b".into()));
    store.facts.insert(Key::Handle("c".into()), (handle(1), Revision(901)));
    let stale = Key::host_affinity("n9", a.block);
    store.facts.insert(stale, (Value::Affinity(Affinity::default()), Revision(902)));
    let odd: IpAddr = "10.0.0.255".parse().expect("a literal");
    let far: IpAddr = "192.0.2.1".parse().expect("a literal");
    let used = [(b.address, user("pod b")), (odd, vec!["pod x".to_owned(), "pod y".to_owned()]), (far, user("pod z"))];
    let report = check(&settings, &store.all(), Some(&used.into()));
    let expected = [
        Problem::Leaked { address: a.address, holder: "pod prod/web on n1 (handle a)".into() },
        Problem::NotAssigned { address: odd, users: vec!["pod x".into(), "pod y".into()] },
        Problem::Shared { address: odd, users: vec!["pod x".into(), "pod y".into()] },
        Problem::NotInPool { address: far, users: user("pod z") },
        Problem::LeakedHandle { handle: "c".into() },
        Problem::MissingHandle { handle: "b".into(), block: a.block },
        Problem::WrongCount { handle: "a".into(), block: a.block, counted: 3, held: 1 },
        Problem::StaleAffinity { owner: "host:n9".into(), block: a.block },
    ];
    assert_eq!(report.problems, expected);
    assert_eq!((report.assigned, report.handles, report.blocks), (2, 2, 1));

    let released =
        store.run(Release::new(report.leaks, Arc::clone(&settings), NOW)).expect("nothing changed meanwhile");
    assert_eq!(released.released, vec![a.address]);
    store.run(tortie_ipam::Collect::new(Arc::clone(&settings), NOW, Default::default(), None)).expect("collects");
    let used = [(b.address, user("pod b"))].into();
    assert_eq!(check(&settings, &store.all(), Some(&used)).problems, vec![], "what was left was repaired");
}
