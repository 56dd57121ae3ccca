//! Changing what a pod's endpoint says, where each store has it: in the WorkloadEndpoint, or in the pod that Kubernetes keeps.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::kubernetes::ask;
use crate::pod::Pod;
use crate::topology::Store;

const SOURCES: &str = "cni.projectcalico.org/allowedSourcePrefixes";
const LIMITS: &str = "qos.projectcalico.org/";
/// The limits that a pod may have, by their names in `qosControls`, which are those of the annotations.
const NAMES: [&str; 15] = [
    "dscp",
    "egressBandwidth",
    "egressBurst",
    "egressMaxConnections",
    "egressMinburst",
    "egressPacketBurst",
    "egressPacketRate",
    "egressPeakrate",
    "ingressBandwidth",
    "ingressBurst",
    "ingressMaxConnections",
    "ingressMinburst",
    "ingressPacketBurst",
    "ingressPacketRate",
    "ingressPeakrate",
];

impl Pod {
    /// Applies a merge patch (RFC 7386) to its WorkloadEndpoint. A Kubernetes API has none: there the pod's own labels and
    /// annotations are patched so that its endpoint becomes the same.
    pub fn change(&self, patch: &Value) -> Result<()> {
        let record = self.record();
        let view = self.node()?.view();
        if self.store() != Store::Kubernetes {
            let (name, text) = (self.endpoint_name(), patch.to_string());
            let args = ["patch", "workloadendpoint", &name, "-n", &record.namespace, "-p", &text];
            let output = view.command("calicoctl", false)?.args(args).output().context("run calicoctl")?;
            if !output.status.success() {
                bail!("calicoctl patch workloadendpoint {name}: {}", String::from_utf8_lossy(&output.stderr));
            }
            return Ok(());
        }
        let text = of_pod(patch)?.to_string();
        ask(&view, &["patch", "pod", &record.name, "-n", &record.namespace, "--type=merge", "-p", &text], "")?;
        Ok(())
    }
}

/// The patch of a pod that does what this one does to its endpoint.
fn of_pod(patch: &Value) -> Result<Value> {
    let none = Map::new();
    let fields = |value: &Value| value.as_object().cloned().with_context(|| format!("{value} is no object"));
    let mut metadata = Map::new();
    for (name, value) in fields(patch)? {
        match name.as_str() {
            "metadata" => metadata.extend(fields(&value)?),
            "spec" => {
                metadata
                    .insert("annotations".to_owned(), Value::Object(annotations(value.as_object().unwrap_or(&none))?));
            }
            _ => bail!("a pod has no {name}"),
        }
    }
    Ok(json!({ "metadata": metadata }))
}

fn annotations(spec: &Map<String, Value>) -> Result<Map<String, Value>> {
    let text = |value: &Value| match value {
        Value::Null => Value::Null,
        Value::String(text) => json!(text),
        other => json!(other.to_string()),
    };
    let mut out = Map::new();
    for (name, value) in spec {
        match (name.as_str(), value) {
            ("allowSpoofedSourcePrefixes", value) => {
                out.insert(SOURCES.to_owned(), text(value));
            }
            ("qosControls", Value::Null) => out.extend(NAMES.map(|name| (format!("{LIMITS}{name}"), Value::Null))),
            ("qosControls", Value::Object(limits)) => {
                out.extend(limits.iter().map(|(name, value)| (format!("{LIMITS}{name}"), text(value))));
            }
            _ => bail!("no annotation of a pod says spec.{name}: {value}"),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_of_an_endpoint_becomes_one_of_its_pod() {
        let patch = json!({ "metadata": { "labels": { "a": "b", "c": null } }, "spec": {
            "allowSpoofedSourcePrefixes": ["10.99.0.0/16"], "qosControls": { "egressBurst": 5, "dscp": "EF", "egressPeakrate": null },
        } });
        let annotations = json!({
            SOURCES: r#"["10.99.0.0/16"]"#, "qos.projectcalico.org/egressBurst": "5", "qos.projectcalico.org/dscp": "EF",
            "qos.projectcalico.org/egressPeakrate": null,
        });
        let wanted = json!({ "metadata": { "labels": { "a": "b", "c": null }, "annotations": annotations } });
        assert_eq!(of_pod(&patch).unwrap(), wanted);
        let all = of_pod(&json!({ "spec": { "qosControls": null } })).unwrap();
        assert_eq!(all["metadata"]["annotations"].as_object().unwrap().len(), NAMES.len());
        assert!(of_pod(&json!({ "spec": { "profiles": ["p"] } })).is_err());
    }
}
