//! Random resources that the API accepts: a world follows from its seed.
//!
//! Each family of resources is one function of [`FAMILIES`], so that a new one is one line more.

mod endpoints;
mod entity;
mod hosts;
mod kubernetes;
mod policies;

use std::collections::BTreeMap;

use tortie_api::{FelixConfiguration, FelixConfigurationSpec, Metadata, Resource, Tier, TierSpec};
use tortie_facts::{Key, Value};

pub(crate) use self::entity::{ICMP_TYPES, ICMPV6_TYPES, NUMBERS, PORTS};
use crate::rng::Rng;

/// What a store would hold.
pub type Facts = BTreeMap<Key, Value>;

/// Adds resources of one family.
type Generator = fn(&mut Rng, &mut Facts);

/// The families of resources, by name.
pub const FAMILIES: [(&str, Generator); 11] = [
    ("settings", settings),
    ("tiers", tiers),
    ("endpoints", endpoints::endpoints),
    ("network sets", endpoints::network_sets),
    ("profiles", policies::profiles),
    ("policies", policies::policies),
    ("services", kubernetes::services),
    ("kubernetes policies", kubernetes::policies),
    ("staged policies", kubernetes::staged),
    ("host endpoints", hosts::hosts),
    ("narrow policies", policies::narrow),
];

/// The world of a seed.
pub fn facts(seed: u64) -> Facts {
    let mut facts = Facts::new();
    for (at, (_, generate)) in FAMILIES.iter().enumerate() {
        // A family's numbers are its own: more of one leaves the others as they were.
        generate(&mut Rng::new(seed.wrapping_mul(64).wrapping_add(at as u64)), &mut facts);
    }
    facts
}

/// Adds a resource with upstream's defaults. One of the same name is replaced, as in a store.
fn put(facts: &mut Facts, resource: impl Into<Resource>) {
    let mut resource = resource.into();
    resource.apply_defaults();
    if let Err(errors) = resource.validate() {
        panic!("the generator made what the API refuses: {errors:?} in {}", resource.to_json());
    }
    let metadata = resource.metadata();
    let key = Key::resource(resource.kind(), &metadata.namespace, &metadata.name);
    facts.insert(key, Value::resource(resource));
}

fn settings(rng: &mut Rng, facts: &mut Facts) {
    let spec = FelixConfigurationSpec {
        // Else packets that are no beginning of a connection, as most ICMP types, never get to the rules.
        disable_conntrack_invalid_check: rng.pick(&[Some(true), Some(true), Some(true), Some(false), None]),
        default_endpoint_to_host_action: rng.pick(&["", "Drop", "Accept", "Accept", "Return"]).to_owned(),
        nftables_filter_deny_action: rng.pick(&["", "", "Drop", "Reject"]).to_owned(),
        ipv6_support: rng.percent(5).then_some(false),
        ..FelixConfigurationSpec::default()
    };
    put(facts, FelixConfiguration { metadata: Metadata::named("default"), spec });
}

fn tiers(rng: &mut Rng, facts: &mut Facts) {
    use tortie_api::Action::{Deny, Pass};
    for name in ["first", "second"] {
        // One that is missing comes last, and denies.
        if rng.percent(90) {
            let order = rng.pick(&[None, Some(10.0), Some(20.0), Some(2_000_000.0)]);
            let spec = TierSpec { order, default_action: rng.pick(&[None, Some(Deny), Some(Pass), Some(Pass)]) };
            put(facts, Tier { metadata: Metadata::named(name), spec, status: Default::default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_accepts_every_world_and_a_seed_always_means_the_same() {
        for seed in 0..1000 {
            let world = facts(seed);
            assert!(world.len() > 3);
            if seed % 100 == 0 {
                assert_eq!(facts(seed), world);
            }
        }
    }
}
