//! Shapes that tests of what lies in a store share, judged without the code that writes them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

/// A little of everything that people write.
pub const POLICIES: &str = "
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: platform}
spec: {order: 100}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec: {selector: app == 'web', ingress: [{action: Allow, protocol: TCP, destination: {ports: [80, '8000:8100']}}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: platform.base}
spec: {tier: platform, selector: all(), types: [Ingress], ingress: [{action: Pass}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: outside, labels: {zone: b}}
spec: {nets: [198.51.100.0/24]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: uplink}
spec: {node: node1, interfaceName: eth7}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: rack}
spec: {peerIP: 192.0.2.9, asNumber: 64999, nodeSelector: '!all()'}
";

/// The names of an object's members.
fn members(value: &Json) -> BTreeSet<&str> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys().map(String::as_str).collect()
}

/// An object has all of `must`, and besides at most what is in `may`.
#[track_caller]
pub fn only(value: &Json, must: &[&str], may: &[&str]) {
    let found = members(value);
    assert!(must.iter().all(|name| found.contains(name)), "{must:?}: {value}");
    let strange: Vec<_> = found.iter().filter(|name| !must.contains(name) && !may.contains(name)).collect();
    assert!(strange.is_empty(), "{strange:?} in {value}");
}

/// How many addresses each handle holds in a block of this range; `claim_time`: how the store spells that member.
pub fn block(cidr: &str, value: &Json, claim_time: &str) -> BTreeMap<String, u64> {
    let must = ["cidr", "affinity", "allocations", "unallocated", "attributes", "sequenceNumber", "deleted"];
    only(value, &must, &[claim_time, "sequenceNumberForAllocation", "hostAffinity", "strictAffinity"]);
    assert_eq!(value["cidr"], cidr);
    let (address, length) = cidr.split_once('/').unwrap();
    let bits = if address.contains(':') { 128 } else { 32 } - length.parse::<u32>().unwrap();
    let (slots, attributes) = (value["allocations"].as_array().unwrap(), value["attributes"].as_array().unwrap());
    assert_eq!(slots.len(), 1 << bits);
    let mut free: BTreeSet<u64> = BTreeSet::new();
    for ordinal in value["unallocated"].as_array().unwrap() {
        assert!(free.insert(ordinal.as_u64().unwrap()), "{ordinal} is free twice");
    }
    let mut held = BTreeMap::new();
    for (ordinal, slot) in (0_u64..).zip(slots) {
        assert_eq!(slot.is_null(), free.contains(&ordinal), "{ordinal} of {cidr}");
        if let Some(at) = slot.as_u64() {
            let attribute = &attributes[usize::try_from(at).unwrap()];
            only(attribute, &[], &["handle_id", "secondary", "alternateOwnerAttrs", "releasedAt"]);
            assert!(value["sequenceNumberForAllocation"][ordinal.to_string()].is_u64(), "{ordinal} of {cidr}");
            *held.entry(attribute["handle_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    held
}
