//! Many tenants, each with a namespace, one pod with fifteen labels, and a policy that admits the tenant's own pods.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::json;
use tortie_facts::Update;

use super::Seen;
use super::facts::{LOCAL, default_tier, endpoint, fact, snapshot};

const LOCAL_PODS: usize = 100;

/// All of it from nothing to the first batch.
pub fn run(count: usize) -> Result<Seen> {
    snapshot(|| facts(count))
}

fn facts(count: usize) -> Result<Vec<Update>> {
    let mut facts = vec![default_tier()?];
    for n in 0..count {
        let own = format!("pcns.projectcalico.org/name == 'customer-{n}'");
        let spec = json!({
            "tier": "default", "selector": own, "types": ["Ingress", "Egress"],
            "ingress": [{ "action": "Allow", "source": { "selector": own } }],
            "egress": [
                { "action": "Allow", "destination": { "selector": own } },
                { "action": "Allow", "protocol": "UDP", "destination": { "nets": ["10.96.0.10/32"], "ports": [53] } },
            ],
        });
        facts.push(fact("GlobalNetworkPolicy", "", &format!("customer-{n}-isolation"), BTreeMap::new(), spec)?);
    }
    for n in 0..count {
        let labels = json!({
            "pcns.projectcalico.org/name": format!("customer-{n}"), "namespace-id": text(n, 20),
            "production": (n % 2 == 0).to_string(),
        });
        let spec = json!({ "labelsToApply": labels });
        facts.push(fact("Profile", "", &format!("kns.customer-{n}"), BTreeMap::new(), spec)?);
    }
    let stride = (count / LOCAL_PODS).max(1);
    let is_local = |n: usize| n.is_multiple_of(stride) && n / stride < LOCAL_PODS;
    for local in [false, true] {
        for n in (0..count).filter(|n| is_local(*n) == local) {
            let node = if local { LOCAL } else { "remotehost" };
            facts.push(endpoint(node, n, &format!("customer-{n}"), &format!("kns.customer-{n}"), labels(n))?);
        }
    }
    Ok(facts)
}

fn labels(n: usize) -> BTreeMap<String, String> {
    let pick = |of: &[&str]| of[n % of.len()].to_owned();
    let pairs = [
        ("pod-id", text(n * 5, 20)),
        ("instance-id", text(n * 5 + 1, 20)),
        ("short-id", text(n * 5 + 2, 10)),
        ("config-hash", text(n * 5 + 3, 20)),
        ("version-tag", text(n * 5 + 4, 8)),
        ("enabled", (n % 2).to_string()),
        ("debug", (n / 2 % 2).to_string()),
        ("canary", (n / 4 % 2).to_string()),
        ("managed", (n / 8 % 2).to_string()),
        ("environment", pick(&["dev", "staging", "prod"])),
        ("tier", pick(&["frontend", "backend", "middleware", "data"])),
        ("region", pick(&["us-east", "us-west", "eu-west", "ap-south"])),
        ("team", pick(&["platform", "payments", "identity", "growth", "infra"])),
        ("managed-by", "saas-controller".to_owned()),
        ("tenant-id", text(n % 5000, 10)),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A text that is the same for the same number in every run.
fn text(number: usize, length: usize) -> String {
    const CHARACTERS: &[u8] = b"abcdef0123456789";
    let mut state = (number as u64).wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        let character = CHARACTERS[usize::try_from(state % 16).unwrap_or_default()];
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(character)
    };
    (0..length).map(|_| next()).collect()
}
