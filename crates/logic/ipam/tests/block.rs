//! The arithmetic of a block against a slow model, and its JSON.

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use common::NOW;
use ipnet::IpNet;
use proptest::prelude::*;
use tortie_ipam::block::{self, Claimed, Holder};
use tortie_ipam::{IpamError, Now, Owner, Reserved};

/// A block as a list of who has what, and a queue.
struct Slow {
    held: BTreeMap<usize, (String, u64)>,
    cooling: BTreeMap<usize, u64>,
    queue: VecDeque<usize>,
    sequence: u64,
}

impl Slow {
    fn thaw(&mut self, secs: u64, cooldown: u64) {
        let due: Vec<usize> =
            self.cooling.iter().filter(|(_, at)| **at + cooldown <= secs).map(|(ordinal, _)| *ordinal).collect();
        for ordinal in due {
            self.cooling.remove(&ordinal);
            self.queue.push_back(ordinal);
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Assign { handle: usize, count: usize },
    At { handle: usize, ordinal: usize },
    Release { ordinal: usize, late: bool, wrong: bool },
    ReleaseHandle { handle: usize },
    Wait { secs: u64 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..5usize, 1..5usize).prop_map(|(handle, count)| Act::Assign { handle, count }),
        (0..5usize, 0..10usize).prop_map(|(handle, ordinal)| Act::At { handle, ordinal }),
        (0..8usize, any::<bool>(), any::<bool>()).prop_map(|(ordinal, late, wrong)| Act::Release {
            ordinal,
            late,
            wrong
        }),
        (0..5usize).prop_map(|handle| Act::ReleaseHandle { handle }),
        (0..8u64).prop_map(|secs| Act::Wait { secs }),
    ]
}

proptest! {
    #[test]
    fn a_block_does_as_the_slow_model(
        acts in proptest::collection::vec(act(), 1..60),
        cooldown in prop_oneof![Just(0u64), 1..6u64],
        reserve in any::<bool>(),
    ) {
        let cidr: IpNet = "10.0.0.8/29".parse().expect("a literal");
        let reserved = Reserved::new(reserve.then(|| "10.0.0.10/31".parse().expect("a literal")));
        let mut real = block::new(cidr, Some(&Owner::host("n")), NOW);
        let mut slow = Slow { held: BTreeMap::new(), cooling: BTreeMap::new(), queue: (0..8).collect(), sequence: NOW.0 };
        let mut secs = NOW.0 / 1_000_000_000;
        for act in acts {
            let now = Now(secs * 1_000_000_000);
            block::thaw(&mut real, now, cooldown as i64);
            slow.thaw(secs, cooldown);
            match act {
                Act::Assign { handle, count } => {
                    let holder = Holder { handle: Some(format!("h{handle}")), attrs: BTreeMap::new() };
                    let got = block::assign(cidr, &mut real, count, &holder, &reserved);
                    let fits: Vec<usize> = slow
                        .queue
                        .iter()
                        .copied()
                        .filter(|ordinal| !(reserve && (2..4).contains(ordinal)))
                        .take(count)
                        .collect();
                    slow.queue.retain(|ordinal| !fits.contains(ordinal));
                    fits.iter().for_each(|o| drop(slow.held.insert(*o, (format!("h{handle}"), slow.sequence))));
                    prop_assert_eq!(got, fits.iter().map(|o| block::address(cidr, *o)).collect::<Vec<IpAddr>>());
                }
                Act::At { handle, ordinal } => {
                    let addr: IpAddr = std::net::Ipv4Addr::new(10, 0, 0, 8 + ordinal as u8).into();
                    let holder = Holder { handle: Some(format!("h{handle}")), attrs: BTreeMap::new() };
                    let got = block::assign_at(cidr, &mut real, addr, &holder);
                    if slow.queue.contains(&ordinal) {
                        slow.queue.retain(|free| *free != ordinal);
                        slow.held.insert(ordinal, (format!("h{handle}"), slow.sequence));
                        prop_assert_eq!(got, Ok(()));
                    } else if slow.cooling.contains_key(&ordinal) {
                        prop_assert_eq!(got, Err(IpamError::Cooling { address: addr }));
                    } else {
                        prop_assert!(got.is_err());
                    }
                }
                Act::Release { ordinal, late, wrong } => {
                    let (handle, sequence) = slow.held.get(&ordinal).cloned().unwrap_or_default();
                    let given = Claimed {
                        address: block::address(cidr, ordinal),
                        handle: Some(if wrong { "other".to_owned() } else { handle }),
                        sequence: Some(sequence + u64::from(late)),
                    };
                    let got = block::release(cidr, &mut real, &[given], now, cooldown as i64);
                    if slow.held.contains_key(&ordinal) && !late && !wrong {
                        slow.held.remove(&ordinal);
                        slow.cooling.insert(ordinal, secs);
                        slow.thaw(secs, cooldown);
                        prop_assert_eq!(got.expect("fits").released.len(), 1);
                    } else {
                        prop_assert!(got.is_err() || got.is_ok_and(|freed| freed.released.is_empty()));
                    }
                }
                Act::ReleaseHandle { handle } => {
                    let id = format!("h{handle}");
                    let got = block::release_handle(cidr, &mut real, &id, now, cooldown as i64);
                    let mine: Vec<usize> =
                        slow.held.iter().filter(|(_, (h, _))| *h == id).map(|(ordinal, _)| *ordinal).collect();
                    for ordinal in &mine {
                        slow.held.remove(ordinal);
                        slow.cooling.insert(*ordinal, secs);
                    }
                    slow.thaw(secs, cooldown);
                    prop_assert_eq!(got, mine.iter().map(|o| block::address(cidr, *o)).collect::<Vec<IpAddr>>());
                }
                Act::Wait { secs: more } => secs += more,
            }
            prop_assert_eq!(block::fault(cidr, &real), None);
            prop_assert_eq!(real.unallocated.clone(), slow.queue.iter().copied().collect::<Vec<_>>());
            for ordinal in 0..8 {
                let held = block::holder(&real, ordinal).map(|a| a.handle_id.clone().expect("given"));
                prop_assert_eq!(held.as_ref(), slow.held.get(&ordinal).map(|(handle, _)| handle));
                if let Some((_, sequence)) = slow.held.get(&ordinal) {
                    prop_assert_eq!(block::sequence(&real, ordinal), *sequence);
                }
            }
            prop_assert_eq!(block::is_empty(&real), slow.held.is_empty() && slow.cooling.is_empty());
            real.sequence_number += 1;
            slow.sequence += 1;
        }
    }

    #[test]
    fn ordinals_and_addresses_are_inverse(base in any::<u128>(), size in 116u8..=128, far in any::<usize>()) {
        let net = IpNet::new(IpAddr::from(std::net::Ipv6Addr::from(base)), size).expect("in range").trunc();
        let ordinal = far % block::size(net);
        let addr = block::address(net, ordinal);
        prop_assert_eq!(block::ordinal(net, addr), Some(ordinal));
        prop_assert_eq!(block::containing(addr, size), Some(net));
    }

    #[test]
    fn any_block_that_can_be_read_is_judged_without_panic(
        allocations in proptest::collection::vec(proptest::option::of(0usize..6), 0..6),
        unallocated in proptest::collection::vec(0usize..8, 0..6),
        attributes in 0usize..4,
    ) {
        let cidr: IpNet = "10.0.0.0/30".parse().expect("a literal");
        let mut bad = block::new(cidr, None, NOW);
        bad.allocations = allocations;
        bad.unallocated = unallocated;
        bad.attributes = vec![Default::default(); attributes];
        let _ = (block::counts(&bad), block::is_empty(&bad), block::ordinals_of(&bad, "h"));
        if block::fault(cidr, &bad).is_none() {
            let got = block::assign(cidr, &mut bad, 9, &Holder::default(), &Reserved::default());
            prop_assert!(got.len() <= 4 && bad.allocations.iter().all(Option::is_some));
            prop_assert_eq!(block::fault(cidr, &bad), None);
        }
    }
}

#[test]
fn a_block_is_written_as_upstream_writes_it() {
    let cidr: IpNet = "10.0.0.4/30".parse().expect("a literal");
    let mut block = block::new(cidr, Some(&Owner::host("n1")), NOW);
    let holder = Holder {
        handle: Some("net.abc".into()),
        attrs: [("pod", "web"), ("namespace", "prod"), ("node", "n1")].map(|(k, v)| (k.into(), v.into())).into(),
    };
    block::assign(cidr, &mut block, 2, &holder, &Reserved::default());
    block.sequence_number += 1;
    let one = Claimed { address: "10.0.0.4".parse().expect("a literal"), handle: None, sequence: None };
    block::release(cidr, &mut block, &[one], NOW, 30).expect("held");
    assert_eq!(
        serde_json::to_string(&block).expect("plain"),
        concat!(
            r#"{"cidr":"10.0.0.4/30","affinity":"host:n1","affinity_claim_time":"2023-11-14T22:13:20Z","#,
            r#""allocations":[1,0,null,null],"unallocated":[2,3],"#,
            r#""attributes":[{"handle_id":"net.abc","secondary":{"namespace":"prod","node":"n1","pod":"web"}},"#,
            r#"{"releasedAt":"2023-11-14T22:13:20Z"}],"sequenceNumber":1700000000000000001,"#,
            r#""sequenceNumberForAllocation":{"0":1700000000000000001,"1":1700000000000000000},"deleted":false}"#
        )
    );
}

#[test]
fn what_a_first_add_leaves_is_upstreams_json() {
    let settings = std::sync::Arc::new(common::settings(vec![common::pool("a", "10.0.0.0/30", 30)]));
    let mut store = common::Memory::default();
    store.assign(&settings, "n1", "net.abc", 1).expect("free");
    let text: Vec<(String, String)> =
        store.facts.iter().map(|(key, (value, _))| (key.path(), value.to_json())).collect();
    let expected = [
        (
            "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30",
            concat!(
                r#"{"cidr":"10.0.0.0/30","affinity":"host:n1","affinity_claim_time":"2023-11-14T22:13:20Z","#,
                r#""allocations":[0,null,null,null],"unallocated":[1,2,3],"attributes":[{"handle_id":"net.abc","#,
                r#""secondary":{"namespace":"prod","node":"n1","pod":"web"}}],"sequenceNumber":1700000000000000001,"#,
                r#""sequenceNumberForAllocation":{"0":1700000000000000000},"deleted":false}"#
            ),
        ),
        ("/calico/ipam/v2/host/n1/ipv4/block/10.0.0.0-30", r#"{"state":"confirmed","deleted":false}"#),
        ("/calico/ipam/v2/handle/net.abc", r#"{"block":{"10.0.0.0/30":1},"deleted":false}"#),
    ];
    assert_eq!(text, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}
