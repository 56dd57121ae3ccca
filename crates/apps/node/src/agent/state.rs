//! The node's state as JSON, for `calicoctl node status` and for people.

use serde_json::{Value, json};

use super::Agent;

impl Agent {
    pub(super) fn state(&self) -> Value {
        let bgp = self.bgp.as_ref().map(crate::bgp::Bgp::status).unwrap_or_default();
        let problems: serde_json::Map<String, serde_json::Value> =
            self.told.standing().iter().map(|(key, lines)| (key.path(), json!(lines))).collect();
        json!({
            "version": crate::VERSION,
            "inSync": self.first_pass_done,
            "rulesFault": self.rules_fault,
            "rulesOwned": self.rules.is_owned(),
            "endpoints": self.tables.endpoints.len(),
            "policies": self.tables.policies.len(),
            "sets": self.tables.sets.len(),
            "routes": self.tables.routes.len(),
            "problems": problems,
            "datastore": self.told.trouble(),
            "bgp": bgp,
        })
    }
}
