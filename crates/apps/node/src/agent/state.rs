//! The node's state as JSON, for `calicoctl node status` and for people.

use std::sync::Arc;

use serde_json::{Value, json};
use tortie_net::Family;

use super::{Agent, Local};

impl Agent {
    /// WireGuard's devices: key, what is wrong, and each peer with the age of its last handshake in seconds.
    fn wireguard_state(&mut self) -> Value {
        let mut devices = serde_json::Map::new();
        for family in Family::ALL {
            let standing = self.wireguard.peers(family);
            let report = self.wireguard.report();
            let Some(wanted) = self.wireguard.wanted(family) else { continue };
            let peers = wanted.peers.iter().map(|(node, peer)| {
                let state = standing.get(&peer.key);
                let age = state.and_then(|state| state.last_handshake?.elapsed().ok()).map(|age| age.as_secs());
                json!({"node": &**node, "endpoint": peer.endpoint, "programmed": state.is_some(), "handshakeSecsAgo": age})
            });
            let device = json!({
                "device": report.places.get(&family),
                "publicKey": report.keys.get(&family).copied().flatten().map(|key| key.to_string()),
                "fault": report.faults.get(&family),
                "peers": peers.collect::<Vec<_>>(),
                "unencrypted": wanted.plain.iter().map(ToString::to_string).collect::<Vec<_>>(),
            });
            devices.insert(wanted.name.to_string(), device);
        }
        Value::Object(devices)
    }

    /// The node's endpoints and their interfaces, once the kernel holds the first picture.
    pub(super) fn local_endpoints(&self) -> Option<Vec<Local>> {
        if !self.first_pass_done {
            return None;
        }
        let workloads = self.tables.endpoints.iter().map(|(id, endpoint)| Local::Workload {
            id: id.clone(),
            interface: endpoint.interface.clone(),
            programmed: self.rules_current,
        });
        let interfaces_of = |name: &Arc<str>| {
            let governed = self.tables.host_endpoints.iter().filter(|(_, endpoint)| endpoint.name == *name);
            governed.map(|(interface, _)| interface.clone()).collect()
        };
        let hosts = self.calculator.host_endpoints();
        let hosts = hosts.map(|name| Local::Host { name: name.clone(), interfaces: interfaces_of(name) });
        Some(workloads.chain(hosts).collect())
    }

    pub(super) fn state(&mut self) -> Value {
        let wireguard = self.wireguard_state();
        let bgp = self.bgp.as_ref().map(crate::bgp::Bgp::status).unwrap_or_default();
        let problems: serde_json::Map<String, serde_json::Value> =
            self.told.standing().iter().map(|(key, lines)| (key.path(), json!(lines))).collect();
        let fault = |why: Option<String>| {
            why.map(|why| if self.last_tunnels.is_empty() { why } else { self.last_tunnels.clone() })
        };
        let tunnels = self.tunnels.state().into_iter().map(|(device, why)| (device.name(), json!(fault(why))));
        let tunnels: serde_json::Map<String, Value> = tunnels.map(|(name, why)| (name.to_owned(), why)).collect();
        json!({
            "version": crate::VERSION,
            "inSync": self.first_pass_done,
            "rulesFault": self.rules_fault,
            "unsupported": self.told.not_supported(),
            "rulesBackend": self.rules.name(),
            "rulesOwned": self.rules.is_owned(),
            "endpoints": self.tables.endpoints.len(),
            "policies": self.tables.policies.len(),
            "sets": self.tables.sets.len(),
            "routes": self.tables.routes.len(),
            "problems": problems,
            "datastore": self.told.trouble(),
            "tunnels": tunnels,
            "wireguard": wireguard,
            "unreachable": (!self.unreachable.is_empty()).then_some(&self.unreachable),
            "bandwidth": (!self.last_shaping.is_empty()).then_some(&self.last_shaping),
            "selfTest": self.self_test.as_ref().map(crate::self_test::SelfTest::state),
            "bgp": bgp,
        })
    }
}
