//! What the types check but do not say: fields that must be there, bounds, and rules over several fields.
//!
//! These are the checks of `tortie-api` that a server can make as well, so that `kubectl` hears of a fault at once. A
//! check that is here and not there, or the other way round, is told by nobody but the reader: keep them side by side.

use serde_json::{Value, json};
use tortie_api::Kind;

/// Adds the limits of a kind to the schema of its `spec`.
pub(crate) fn add(kind: Kind, spec: &mut Value) {
    match kind {
        Kind::IpPool => {
            require(spec, &["cidr"]);
            bound(spec, "blockSize", 0, 128);
            for field in ["cidr", "blockSize"] {
                rule(&mut spec["properties"][field], "self == oldSelf", &format!("{field} is fixed once created"));
            }
            let both =
                "!has(self.ipipMode) || !has(self.vxlanMode) || self.ipipMode == 'Never' || self.vxlanMode == 'Never'";
            rule(spec, both, "ipipMode and vxlanMode can't both be on");
        }
        Kind::IpReservation
        | Kind::BgpConfiguration
        | Kind::BgpFilter
        | Kind::ClusterInformation
        | Kind::FelixConfiguration
        | Kind::KubeControllersConfiguration
        | Kind::CalicoNodeStatus
        | Kind::NetworkSet
        | Kind::GlobalNetworkSet
        | Kind::Profile
        | Kind::Node
        | Kind::WorkloadEndpoint
        | Kind::KubernetesNetworkPolicy
        | Kind::KubernetesClusterNetworkPolicy
        | Kind::KubernetesEndpointSlice
        | Kind::KubernetesService => {}
        Kind::BgpPeer => {
            let one = |a: &str, b: &str| {
                format!("!(has(self.{a}) && size(self.{a}) > 0 && has(self.{b}) && size(self.{b}) > 0)")
            };
            rule(spec, &one("node", "nodeSelector"), "node and nodeSelector exclude each other");
            rule(spec, &one("peerIP", "peerSelector"), "peerIP and peerSelector exclude each other");
        }
        Kind::HostEndpoint => require(spec, &["node"]),
        Kind::IpamBlock => require(spec, &["cidr", "allocations", "unallocated", "attributes"]),
        Kind::IpamHandle => require(spec, &["handleID", "block"]),
        Kind::BlockAffinity => require(spec, &["cidr", "node", "state"]),
        Kind::IpamConfiguration => {
            bound(spec, "maxBlocksPerHost", 0, 1_000_000);
            bound(spec, "ipCooldownSeconds", 0, 1200);
        }
        Kind::Tier => spec["properties"]["defaultAction"]["enum"] = json!(["Pass", "Deny"]),
        Kind::NetworkPolicy
        | Kind::GlobalNetworkPolicy
        | Kind::StagedNetworkPolicy
        | Kind::StagedGlobalNetworkPolicy
        | Kind::StagedKubernetesNetworkPolicy => policy(spec),
    }
}

fn policy(spec: &mut Value) {
    let Some(fields) = spec["properties"].as_object_mut() else { return };
    for (name, field) in fields {
        match name.as_str() {
            "ingress" | "egress" => field["maxItems"] = json!(1024),
            "selector" | "namespaceSelector" | "serviceAccountSelector" => field["maxLength"] = json!(1024),
            _ => {}
        }
    }
}

fn require(spec: &mut Value, fields: &[&str]) {
    spec["required"] = json!(fields);
}

fn bound(spec: &mut Value, field: &str, low: i64, high: i64) {
    spec["properties"][field]["minimum"] = json!(low);
    spec["properties"][field]["maximum"] = json!(high);
}

fn rule(schema: &mut Value, rule: &str, message: &str) {
    let rules = &mut schema["x-kubernetes-validations"];
    if rules.is_null() {
        *rules = json!([]);
    }
    if let Some(rules) = rules.as_array_mut() {
        rules.push(json!({ "rule": rule, "message": message }));
    }
}
