//! A node comes up in a cluster of many endpoints: with many network sets, or with many policies by label.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use anyhow::Result;
use serde_json::json;
use tortie_facts::Update;

use super::Seen;
use super::facts::{LOCAL, default_tier, endpoint, fact, snapshot};

const NAMESPACES: usize = 100;
const LOCAL_PODS: usize = 200;
const RULES: usize = 5;

/// Labels that one endpoint in about thirty carries; some twice as often.
const MARKERS: [&str; 31] = [
    "FOO_BAR",
    "FOO_BAR",
    "BIFF_BOP",
    "calico/FizzBuzz",
    "calico/BoffBip",
    "calico/Bazzle",
    "calico/Razzle",
    "calico/DoopDeeDoo",
    "calico/SOME_LABEL",
    "calico/BORED_NOW",
    "MyMarkerLabel",
    "xFOO_BAR",
    "xBIFF_BOP",
    "xcalico/FizzBuzz",
    "xcalico/BoffBip",
    "xcalico/Bazzle",
    "xcalico/Razzle",
    "xcalico/DoopDeeDoo",
    "xcalico/SOME_LABEL",
    "xcalico/BORED_NOW",
    "yxMyMarkerLabel",
    "yxFOO_BAR",
    "yxBIFF_BOP",
    "yxcalico/FizzBuzz",
    "yxcalico/BoffBip",
    "yxcalico/Bazzle",
    "yxcalico/Razzle",
    "yxcalico/DoopDeeDoo",
    "yxcalico/SOME_LABEL",
    "yxcalico/BORED_NOW",
    "yxMyMarkerLabel",
];

/// Network sets of 1 to 1,000 addresses, each admitted by a policy of its own.
pub fn network_sets() -> Result<Seen> {
    snapshot(|| {
        let mut facts = vec![default_tier()?];
        namespaces(&mut facts)?;
        endpoints(&mut facts, "remotehost", 0, 10_000)?;
        let mut next = 0x0a00_0001_u32;
        for n in 0..1_000 {
            let size = [1, 1, 1, 1, 2, 3, 4, 5, 100, 1000][n % 10];
            let nets: Vec<String> = (next..next + size).map(|one| Ipv4Addr::from(one).to_string()).collect();
            next += size;
            let name = format!("network-set-{n}");
            let labels = BTreeMap::from([("network-set-name".to_owned(), name.clone())]);
            facts.push(fact("GlobalNetworkSet", "", &name, labels, json!({ "nets": nets }))?);
            let spec = json!({
                "tier": "default", "selector": "all()", "types": ["Ingress"],
                "ingress": [{ "action": "Allow", "source": { "selector": format!("network-set-name == '{name}'") } }],
            });
            facts.push(fact("GlobalNetworkPolicy", "", &format!("network-set-pol-{n}"), BTreeMap::new(), spec)?);
        }
        endpoints(&mut facts, LOCAL, 10_000, LOCAL_PODS)?;
        Ok(facts)
    })
}

/// Policies by label over a quarter of a million endpoints.
pub fn labels() -> Result<Seen> {
    snapshot(|| {
        let mut facts = vec![default_tier()?];
        for n in 0..10_000 {
            let marker = |at: usize| format!("has({})", MARKERS[at % MARKERS.len()]);
            let rule = |j: usize| json!({ "action": "Allow", "source": { "selector": marker(n + j) } });
            let rules: Vec<_> = (0..RULES).map(rule).collect();
            let spec = json!({ "tier": "default", "selector": marker(n), "types": ["Ingress"], "ingress": rules });
            facts.push(fact("GlobalNetworkPolicy", "", &format!("tag-pol-{n}"), BTreeMap::new(), spec)?);
        }
        namespaces(&mut facts)?;
        endpoints(&mut facts, "remotehost", 0, 250_000)?;
        endpoints(&mut facts, LOCAL, 250_000, LOCAL_PODS)?;
        Ok(facts)
    })
}

fn namespaces(facts: &mut Vec<Update>) -> Result<()> {
    for n in 0..NAMESPACES {
        let spec = json!({ "labelsToApply": { "pcns.projectcalico.org/name": format!("namespace-{n}") } });
        facts.push(fact("Profile", "", &format!("kns.namespace-{n}"), BTreeMap::new(), spec)?);
    }
    Ok(())
}

fn endpoints(facts: &mut Vec<Update>, node: &str, first: usize, count: usize) -> Result<()> {
    for n in first..first + count {
        let seed = n + 1;
        let mut labels: BTreeMap<String, String> = [10, 11, 20, 30, 40]
            .into_iter()
            .map(|of| (format!("one-in-{of}"), format!("value-{}", seed % of)))
            .collect();
        labels.insert(MARKERS[seed % MARKERS.len()].to_owned(), "true".to_owned());
        let namespace = format!("namespace-{}", n % NAMESPACES);
        facts.push(endpoint(node, n, &namespace, &format!("kns.{namespace}"), labels)?);
    }
    Ok(())
}
