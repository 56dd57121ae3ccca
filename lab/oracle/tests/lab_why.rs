//! `tortie why` against real packets: its verdict is the packet's, and the change that it proposes, in the kernel,
//! turns the packet.

mod support;

use support::{changed, owner, question};
use tortie_oracle::place::NODE;
use tortie_oracle::{Flow, Network, NftablesBackend, Trial, facts, flows};
use tortie_why::{Report, World, explain_flow};

const CASES: usize = 600;
/// So many flows of each world at most.
const EACH: usize = 12;

/// Only this node is real: what another one does to the packet is not seen.
fn is_here(world: &World, flow: &Flow) -> bool {
    [flow.packet.src, flow.packet.dst]
        .into_iter()
        .all(|addr| owner(world.facts(), addr).is_none_or(|wep| wep.spec.node == NODE))
}

#[test]
#[ignore = "needs root"]
fn why_says_what_the_packet_does_and_its_change_turns_the_packet() {
    let network = Network::new().expect("namespaces");
    let backend = NftablesBackend::open(network.node()).expect("nf_tables");
    let mut trial = Trial::new(network, backend);
    let (mut cases, mut allowed, mut turned) = (0, 0, 0);
    for seed in 1.. {
        let mut world = World::new(facts(seed));
        let some: Vec<(Flow, tortie_why::Flow)> = flows(seed, 60)
            .into_iter()
            .filter(|flow| is_here(&world, flow))
            .filter_map(|flow| Some((flow, question(&world, &flow)?)))
            .take(EACH)
            .collect();
        let reports: Vec<Report> = some.iter().map(|(_, asked)| explain_flow(&mut world, asked)).collect();
        let packets: Vec<Flow> = some.iter().map(|(flow, _)| *flow).collect();
        trial.load(world.facts()).expect("the kernel takes it");
        let arrived = trial.arrivals(&packets, |at| reports[at].allowed).expect("packets are sent");
        for (((flow, _), report), arrived) in some.iter().zip(reports).zip(arrived) {
            assert_eq!(report.allowed, arrived, "world {seed}: {flow}");
            cases += 1;
            allowed += usize::from(arrived);
            let Some(after) = changed(world.facts(), &report) else { continue };
            trial.load(&after).expect("the kernel takes it");
            let now = trial.arrivals(&[*flow], |_| !arrived).expect("packets are sent");
            assert_eq!(now, [!arrived], "world {seed}: {flow} after {:?}", report.change);
            turned += 1;
        }
        if cases >= CASES {
            break;
        }
    }
    println!("{cases} packets fared as told, {allowed} of them allowed; {turned} fared otherwise after the change");
    assert!((cases - turned) * 100 <= cases, "too few changes are found");
}
