//! What a node asks of the Kubernetes around it that is no fact of the network: what a pod asks for in its annotations,
//! and the condition of the node's own Node. It serves nodes whose facts are elsewhere, too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tortie_api::{LabelMap, Timestamp};
use tortie_kubernetes::{KubernetesNode, Namespace, Pod};
use tortie_store::StoreError;

use crate::api::{Api, Ask};
use crate::fault::{Fault, Verb};
use crate::limit::Urgency;
use crate::types::Type;
use crate::{Group, Options, Recent, read};

/// A client of the API server for such questions. Cheap to make: nothing is asked before the first call.
pub struct Cluster {
    pub(crate) runtime: Runtime,
    pub(crate) api: Arc<Api>,
}

/// A pod and the namespace that it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodOf {
    /// The pod.
    pub pod: Pod,
    /// Labels of its namespace.
    pub namespace_labels: LabelMap,
    /// Annotations of its namespace.
    pub namespace_annotations: BTreeMap<String, String>,
}

impl PodOf {
    fn new(pod: Pod, namespace: &Namespace) -> PodOf {
        let Namespace { metadata } = namespace;
        PodOf { pod, namespace_labels: metadata.labels.clone(), namespace_annotations: metadata.annotations.clone() }
    }
}

impl Cluster {
    /// A client with these settings.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn open(options: Options) -> std::io::Result<Cluster> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("cluster").enable_all().build()?;
        Ok(Cluster { runtime, api: Api::new(options) })
    }

    /// A pod with its namespace; `None` if either is not there. Where the watches of a store tell of pods, the pod of
    /// this uid is what they told last; an empty uid is always asked for.
    ///
    /// # Errors
    /// If the API server can't be asked, may not be asked, or answers with something else.
    pub fn pod(&self, namespace: &str, name: &str, uid: &str) -> Result<Option<PodOf>, StoreError> {
        let told = self.api.recent().and_then(|recent| Some((recent, recent.pod(namespace, name)?.object)));
        if let Some((recent, pod)) = told.filter(|(_, pod)| !uid.is_empty() && pod.metadata.uid == uid) {
            return Ok(self.namespace(recent, namespace)?.map(|space| PodOf::new((*pod).clone(), &space)));
        }
        self.runtime.block_on(async {
            let pod = self.object::<Pod>(Type::Pod, namespace, name);
            let space = self.object::<Namespace>(Type::Namespace, "", namespace);
            let (pod, space) = futures_util::future::join(pod, space).await;
            Ok(match (pod?, space?) {
                (Some(pod), Some(space)) => Some(PodOf::new(pod, &space)),
                (_, _) => None,
            })
        })
    }

    /// A namespace as watches told of it last, or as the server has it.
    fn namespace(&self, recent: &Recent, name: &str) -> Result<Option<Arc<Namespace>>, StoreError> {
        let mark = match recent.namespace(name) {
            Ok(space) => return Ok(Some(space)),
            Err(mark) => mark,
        };
        let found = self.runtime.block_on(self.object::<Namespace>(Type::Namespace, "", name))?;
        Ok(found.map(|space| {
            recent.keep_namespace(&space, &mark);
            Arc::new(space)
        }))
    }

    /// The ranges that the cluster gave to a Node for its pods; none if it gave none, or there is no such Node.
    ///
    /// # Errors
    /// If the API server can't be asked, may not be asked, or answers with something else.
    pub fn pod_cidrs(&self, node: &str) -> Result<Vec<String>, StoreError> {
        let found = self.runtime.block_on(self.object::<KubernetesNode>(Type::Node, "", node))?;
        Ok(found.map(|node| node.spec.pod_cidrs).unwrap_or_default())
    }

    async fn object<T: DeserializeOwned>(
        &self,
        ty: Type,
        namespace: &str,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        let path = format!("{}/{name}", ty.path(Group::V1, namespace));
        let body = read::object(&self.api, ty, path).await.map_err(|fault| fault.of_read(ty, Group::V1))?;
        let parse = |body: bytes::Bytes| {
            serde_json::from_slice(&body)
                .map_err(|error| StoreError::Unavailable(format!("the API server's answer can't be read: {error}")))
        };
        body.map(parse).transpose()
    }

    /// Says on a Node, in its condition NetworkUnavailable, whether its pods have a network, and if not, why.
    ///
    /// # Errors
    /// If the API server can't be asked or refuses.
    pub fn set_network(&self, node: &str, available: bool, why: &str) -> Result<(), StoreError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let now = i64::try_from(now).ok().and_then(Timestamp::from_unix_seconds);
        let ask = Ask {
            verb: Verb::PatchLists,
            ty: Some(Type::Node),
            path: format!("{}/{node}/status", Type::Node.path(Group::V1, "")),
            body: Some(condition(available, why, now).to_string().into_bytes()),
            urgency: Urgency::Other,
        };
        match self.runtime.block_on(self.api.send(ask)) {
            Ok(_) => Ok(()),
            Err(Fault::NotFound { no_type: _ }) => Err(StoreError::Unusable(format!("there is no Node {node}"))),
            Err(fault) => Err(fault.of_read(Type::Node, Group::V1)),
        }
    }
}

/// The patch of the condition, with upstream's reasons.
fn condition(available: bool, why: &str, now: Option<Timestamp>) -> serde_json::Value {
    let (status, reason, message) = match available {
        true => ("False", "CalicoIsUp", "the network of this node is up"),
        false => ("True", "CalicoIsDown", why),
    };
    json!({ "status": { "conditions": [{
        "type": "NetworkUnavailable",
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now,
        "lastHeartbeatTime": now,
    }] } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_is_that_of_kubernetes() {
        let now = Timestamp::from_unix_seconds(1_700_000_000);
        let up = condition(true, "", now);
        let said = &up["status"]["conditions"][0];
        assert_eq!((said["type"].as_str(), said["status"].as_str()), (Some("NetworkUnavailable"), Some("False")));
        assert_eq!(said["lastTransitionTime"], "2023-11-14T22:13:20Z");
        let down = condition(false, "no store", now);
        let said = &down["status"]["conditions"][0];
        assert_eq!((said["status"].as_str(), said["message"].as_str()), (Some("True"), Some("no store")));
    }
}
