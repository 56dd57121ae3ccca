//! What may be written to Kubernetes' own objects: a pod's addresses and what a node publishes of itself.
//!
//! Kubelet writes to both all the time, so an object's revision says little of our part of it. A pod's annotations
//! have one writer by construction, the node on which it runs; a write that expects a revision is tied to the pod that
//! had it by then, by its identity. What a node publishes is tied to the revision, as it has several writers.

use serde_json::{Value as Json, json};
use tortie_api::{Kind, Node, Resource};
use tortie_facts::{Key, Revision, Value};
use tortie_kubernetes as k8s;
use tortie_store::{Expect, Write, WriteError, judge};

use crate::Group;
use crate::api::Api;
use crate::derived::{self, source};
use crate::fault::{Fault, Verb};
use crate::read::revision_of;
use crate::types::Type;
use crate::write::send;

/// How often a write starts over when others are faster.
const ATTEMPTS: u32 = 10;

/// Writes to an object of Kubernetes.
pub(crate) async fn write(api: &Api, group: Group, ty: Type, write: &Write) -> Result<Revision, WriteError> {
    let Write { key, expect, value } = write;
    let name = key.to_string();
    let resource = value.as_ref().and_then(Value::as_resource);
    match (ty, resource.map(|resource| &**resource)) {
        (Type::Pod, None) => pod(api, group, key, *expect, None).await,
        (Type::Pod, Some(Resource::WorkloadEndpoint(endpoint))) => pod(api, group, key, *expect, Some(endpoint)).await,
        (Type::Node, Some(Resource::Node(wanted))) => node(api, group, key, *expect, wanted).await,
        (Type::Node, None) => {
            Err(WriteError::Invalid(format!("{name}: nodes are deleted with kubectl here: they are Kubernetes' own")))
        }
        _ => {
            let from = match key {
                Key::Resource { kind: Kind::Profile, .. } => "namespaces and service accounts".to_owned(),
                _ => ty.full_name(group),
            };
            Err(WriteError::Invalid(format!("{name} can't be written: here it comes from {from}; change it there")))
        }
    }
}

async fn pod(
    api: &Api,
    group: Group,
    key: &Key,
    expect: Expect,
    endpoint: Option<&tortie_api::WorkloadEndpoint>,
) -> Result<Revision, WriteError> {
    let name = key.to_string();
    let Some((ty, namespace, pod)) = source(key) else {
        return Err(WriteError::Invalid(format!("{name}: here only pods have endpoints")));
    };
    let path = format!("{}/{pod}", ty.path(group, &namespace));
    let uid = pod_uid(api, key, &name, &path, expect, endpoint.is_none()).await.map_err(|missed| match missed {
        Missed::Error(error) => error,
        Missed::Fault(fault) => fault.of_write(&name, ty, group),
    })?;
    let patch = match endpoint {
        Some(endpoint) => {
            let mut endpoint = endpoint.clone();
            endpoint.metadata.uid = uid;
            match k8s::pod_patch(&endpoint) {
                Some(patch) => patch,
                // Without an address there is nothing to note.
                None => json!({"metadata": {"uid": endpoint.metadata.uid}}),
            }
        }
        None => k8s::pod_removal_patch(&uid),
    };
    match send(api, ty, Verb::Patch, format!("{path}/status"), Some(&patch)).await {
        Ok(answer) => {
            let revision = Revision(revision_of(&answer));
            if let Some(recent) = api.recent() {
                recent.wrote_pod(&answer.to_string(), revision.0);
            }
            api.saw_pod(key, revision, answer["metadata"]["uid"].as_str().unwrap_or_default());
            Ok(revision)
        }
        // It is another pod of the same name by now.
        Err(Fault::Conflict | Fault::NotFound { no_type: false }) => Err(WriteError::Missing(name)),
        Err(Fault::Refused(text)) if text.contains("metadata.uid") => Err(WriteError::Missing(name)),
        Err(fault) => Err(fault.of_write(&name, ty, group)),
    }
}

enum Missed {
    Error(WriteError),
    Fault(Fault),
}

impl From<Fault> for Missed {
    fn from(fault: Fault) -> Missed {
        Missed::Fault(fault)
    }
}

/// The identity of the pod that a write means.
async fn pod_uid(
    api: &Api,
    key: &Key,
    name: &str,
    path: &str,
    expect: Expect,
    deletes: bool,
) -> Result<String, Missed> {
    if let Expect::Revision(revision) = expect
        && let Some(uid) = api.pod_seen(key, revision)
    {
        return Ok(uid);
    }
    let lens = api.lens().await?;
    let found = match derived::get(api, &lens, key).await? {
        Some(Ok(entry)) => Some(entry),
        Some(Err(_)) | None => None,
    };
    if found.is_none() && expect == Expect::Absent && !deletes {
        return Err(Missed::Error(WriteError::Invalid(format!(
            "{name}: there is no pod {path} with a network of its own on a node, and no endpoint without a pod"
        ))));
    }
    judge(name, expect, deletes, found.as_ref().map(|entry| entry.revision)).map_err(Missed::Error)?;
    let uid = found.and_then(|entry| Some(entry.value.as_resource()?.metadata().uid.clone()));
    uid.ok_or_else(|| Missed::Error(WriteError::Missing(name.to_owned())))
}

async fn node(api: &Api, group: Group, key: &Key, expect: Expect, wanted: &Node) -> Result<Revision, WriteError> {
    let (ty, name) = (Type::Node, key.to_string());
    let path = format!("{}/{}", ty.path(group, ""), wanted.metadata.name);
    let patch = k8s::node_patch(wanted).map_err(|error| WriteError::Invalid(error.to_string()))?;
    for _ in 0..ATTEMPTS {
        let revision = match expect {
            Expect::Revision(revision) => Some(revision.0),
            Expect::Any => None,
            Expect::Absent => {
                let there = crate::read::object(api, ty, path.clone()).await;
                let there = there.map_err(|fault| fault.of_write(&name, ty, group))?;
                let found = there.and_then(|body| crate::object::revision(&String::from_utf8_lossy(&body)));
                judge(&name, expect, false, found.map(Revision))?;
                return Err(WriteError::Invalid(format!("{name}: kubelet registers nodes here; there is none yet")));
            }
        };
        let mut patch: Json = patch.clone();
        if let Some(revision) = revision {
            patch["metadata"]["resourceVersion"] = revision.to_string().into();
        }
        match send(api, ty, Verb::Patch, format!("{path}/status"), Some(&patch)).await {
            Ok(answer) => return Ok(Revision(revision_of(&answer))),
            Err(Fault::Conflict) => {
                let there = crate::read::object(api, ty, path.clone()).await;
                let there = there.map_err(|fault| fault.of_write(&name, ty, group))?;
                let found = there.and_then(|body| crate::object::revision(&String::from_utf8_lossy(&body)));
                judge(&name, expect, false, found.map(Revision))?;
            }
            Err(fault) => return Err(fault.of_write(&name, ty, group)),
        }
    }
    Err(Fault::Conflict.of_write(&name, ty, group))
}
