//! What is written back to a Pod: the addresses of its endpoint, as annotations.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tortie_api::WorkloadEndpoint;

use crate::pod_annotations::{CONTAINER_ID, POD_IP, POD_IPS};

/// The patch of the Pod's `status` subresource for an endpoint that was written, tied to the pod's uid; `None` for an
/// endpoint without addresses. Annotations come sooner than the addresses that kubelet writes.
pub fn pod_patch(endpoint: &WorkloadEndpoint) -> Option<Value> {
    let spec = &endpoint.spec;
    let first = spec.ip_networks.first()?;
    let all: Vec<&str> = spec.ip_networks.iter().map(tortie_api::IpNetText::as_str).collect();
    let mut annotations = BTreeMap::from([(POD_IP, first.as_str().to_owned()), (POD_IPS, all.join(","))]);
    if !spec.container_id.is_empty() {
        annotations.insert(CONTAINER_ID, spec.container_id.clone());
    }
    Some(patch(&annotations, &endpoint.metadata.uid))
}

/// The patch of the Pod's `status` subresource for an endpoint that goes: addresses become empty, the container's id
/// stays so that later calls can tell which instance they see. An empty `uid` ties it to no instance.
pub fn pod_removal_patch(uid: &str) -> Value {
    patch(&BTreeMap::from([(POD_IP, String::new()), (POD_IPS, String::new())]), uid)
}

fn patch(annotations: &BTreeMap<&str, String>, uid: &str) -> Value {
    let mut metadata = json!({ "annotations": annotations });
    if !uid.is_empty() {
        metadata["uid"] = Value::String(uid.to_owned());
    }
    json!({ "metadata": metadata })
}
