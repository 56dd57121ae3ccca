//! Kubernetes objects in YAML as facts.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tortie_api::Resource;
use tortie_kubernetes as k8s;

/// The documents of a text, separated by lines of `---`.
pub fn documents(text: &str) -> Vec<Value> {
    let parts = text.split("\n---\n").map(|part| part.trim().trim_start_matches("---\n"));
    let parts = parts.filter(|part| part.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')));
    parts.map(|part| serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{part}: {error}"))).collect()
}

/// The fact that an object is; an error for one that is none or not wholly understood.
pub fn resource(object: &Value) -> Result<Resource, String> {
    let converted = match object["kind"].as_str().unwrap_or_default() {
        "Pod" => k8s::pod(&read(object)?, "cali").map(|found| found.expect("a pod with a network of its own")),
        "Namespace" => k8s::namespace(&read(object)?),
        "ServiceAccount" => k8s::service_account(&read(object)?),
        "NetworkPolicy" => k8s::network_policy(&read(object)?),
        "ClusterNetworkPolicy" => k8s::cluster_network_policy(&read(object)?),
        "EndpointSlice" => k8s::endpoint_slice(&read(object)?),
        "Service" => k8s::service(&read(object)?),
        other => return Err(format!("{other:?} is no kind that is read here")),
    };
    let k8s::Converted { resource, problems } = converted.map_err(|error| error.to_string())?;
    match problems.first() {
        None => Ok(resource),
        Some(problem) => Err(problem.to_string()),
    }
}

fn read<T: DeserializeOwned>(object: &Value) -> Result<T, String> {
    serde_json::from_value(object.clone()).map_err(|error| format!("{object}: {error}"))
}
