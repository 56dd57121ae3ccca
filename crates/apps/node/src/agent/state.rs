//! The node's state as JSON, for `calicoctl node status` and for people.

use serde_json::{Value, json};

use super::Agent;

impl Agent {
    pub(super) fn state(&self) -> Value {
        let bgp = self.bgp.as_ref().map(crate::bgp::Bgp::status).unwrap_or_default();
        json!({
            "version": crate::VERSION,
            "inSync": self.first_pass_done,
            "rulesFault": self.rules_fault,
            "rulesOwned": self.rules.is_owned(),
            "endpoints": self.tables.endpoints.len(),
            "policies": self.tables.policies.len(),
            "sets": self.tables.sets.len(),
            "routes": self.tables.routes.len(),
            "bgp": bgp,
        })
    }
}
