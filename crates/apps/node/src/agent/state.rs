//! The node's state as JSON, for `calicoctl node status` and for people.

use serde_json::{Value, json};

use super::Agent;

impl Agent {
    pub(super) fn state(&self) -> Value {
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
            "rulesBackend": self.rules.name(),
            "rulesOwned": self.rules.is_owned(),
            "endpoints": self.tables.endpoints.len(),
            "policies": self.tables.policies.len(),
            "sets": self.tables.sets.len(),
            "routes": self.tables.routes.len(),
            "problems": problems,
            "datastore": self.told.trouble(),
            "tunnels": tunnels,
            "bgp": bgp,
        })
    }
}
