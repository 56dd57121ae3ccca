//! Facts that are no custom resources: what Kubernetes' own objects say.

use serde::de::DeserializeOwned;
use tortie_api::{Kind, wep::EndpointName};
use tortie_facts::{Key, Revision, Value};
use tortie_kubernetes as k8s;
use tortie_kubernetes::{ConversionError, Converted};
use tortie_store::Entry;

use crate::api::Api;
use crate::custom::Told;
use crate::fault::Fault;
use crate::object::{self, Lens};
use crate::types::Type;
use crate::{names, read};

/// What an object of Kubernetes says.
pub(crate) fn read(lens: &Lens, ty: Type, text: &str) -> Vec<Told> {
    let converted = match ty {
        Type::Namespace => with(text, k8s::namespace),
        Type::ServiceAccount => with(text, k8s::service_account),
        Type::NetworkPolicy => with(text, k8s::network_policy),
        Type::ClusterNetworkPolicy => with(text, k8s::cluster_network_policy),
        Type::Service => with(text, k8s::service),
        Type::EndpointSlice => with(text, k8s::endpoint_slice),
        Type::Node => with(text, |node: &k8s::KubernetesNode| k8s::node(node, lens.pod_cidrs)),
        Type::Pod => match parse::<k8s::Pod>(text) {
            Ok(pod) => match k8s::pod(&pod, &lens.interface_prefix) {
                Ok(None) => return Vec::new(),
                Ok(Some(converted)) => Ok(converted),
                Err(error) => Err(error.to_string()),
            },
            Err(reason) => Err(reason),
        },
        Type::Custom(_) => return Vec::new(),
    };
    vec![match converted {
        Ok(converted) => put(converted),
        Err(reason) => Told::Invalid { path: path(ty, text), reason },
    }]
}

fn put(converted: Converted) -> Told {
    let Converted { mut resource, problems } = converted;
    for problem in problems {
        tracing::warn!(%problem, "a part of an object is not understood and left out");
    }
    let metadata = resource.metadata_mut();
    metadata.resource_version.clear();
    let key = Key::resource(resource.kind(), &resource.metadata().namespace, &resource.metadata().name);
    Told::Put(key, Value::resource(resource))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn with<T: DeserializeOwned>(
    text: &str,
    convert: impl Fn(&T) -> Result<Converted, ConversionError>,
) -> Result<Converted, String> {
    convert(&parse(text)?).map_err(|error| error.to_string())
}

/// The key under which an object that can't be converted would be.
fn path(ty: Type, text: &str) -> String {
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Part {
        name: String,
        namespace: String,
        node_name: String,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    struct Named {
        metadata: Part,
        spec: Part,
    }
    let Named { metadata: Part { name, namespace, node_name: _ }, spec } = parse(text).unwrap_or_default();
    let (kind, name) = match ty {
        Type::Namespace => return Key::resource(Kind::Profile, "", &k8s::namespace_profile_name(&name)).path(),
        Type::ServiceAccount => {
            let profile = k8s::service_account_profile_name(&namespace, &name);
            return Key::resource(Kind::Profile, "", &profile).path();
        }
        Type::Pod => {
            let endpoint = k8s::endpoint_name(&spec.node_name, &namespace, &name).unwrap_or(name);
            (Kind::WorkloadEndpoint, endpoint)
        }
        Type::Node => (Kind::Node, name),
        Type::NetworkPolicy => (Kind::KubernetesNetworkPolicy, name),
        Type::ClusterNetworkPolicy => (Kind::KubernetesClusterNetworkPolicy, name),
        Type::Service => (Kind::KubernetesService, name),
        Type::EndpointSlice => (Kind::KubernetesEndpointSlice, name),
        Type::Custom(kind) => (kind, name),
    };
    Key::resource(kind, &namespace, &name).path()
}

/// The object that a fact comes from: its type, namespace and name; `None` where no object can have made it.
pub(crate) fn source(key: &Key) -> Option<(Type, String, String)> {
    let Key::Resource { kind, namespace, name } = key else { return None };
    let (ty, namespace, name) = match kind {
        Kind::Profile => match (name.strip_prefix("kns."), name.strip_prefix("ksa.")) {
            (Some(namespace), _) => (Type::Namespace, "", namespace.to_owned()),
            (None, Some(account)) => {
                let (namespace, account) = account.split_once('.')?;
                (Type::ServiceAccount, namespace, account.to_owned())
            }
            (None, None) => return None,
        },
        Kind::WorkloadEndpoint => {
            let endpoint = EndpointName::split(name).filter(|endpoint| endpoint.orchestrator == "k8s")?;
            (Type::Pod, namespace.as_str(), endpoint.workload)
        }
        kind => (*Type::of_kind(*kind).first()?, namespace.as_str(), name.clone()),
    };
    let placed = namespace.is_empty() || names::usable(namespace);
    (placed && names::usable(&name)).then(|| (ty, namespace.to_owned(), name))
}

/// The endpoint of a pod as watches told of it last; `None` if they did not.
pub(crate) fn recent(api: &Api, lens: &Lens, key: &Key) -> Option<Entry> {
    let (_, namespace, name) = source(key).filter(|(ty, _, _)| *ty == Type::Pod)?;
    let seen = api.recent()?.pod(&namespace, &name)?;
    let converted = k8s::pod(&seen.object, &lens.interface_prefix).ok()??;
    let Told::Put(found, value) = put(converted) else { return None };
    let revision = Revision(seen.revision);
    api.saw_pod(key, revision, &seen.object.metadata.uid);
    (found == *key).then_some(Entry { key: found, value, revision })
}

/// The fact under a key, or why it can't be read.
pub(crate) async fn get(api: &Api, lens: &Lens, key: &Key) -> Result<Option<Result<Entry, String>>, Fault> {
    let Some((ty, namespace, name)) = source(key) else { return Ok(None) };
    let path = format!("{}/{name}", ty.path(lens.group, &namespace));
    let Some(body) = read::object(api, ty, path).await? else { return Ok(None) };
    let text = String::from_utf8_lossy(&body);
    let revision = Revision(object::revision(&text).unwrap_or_default());
    let found = read(lens, ty, &text).into_iter().find_map(|told| match told {
        Told::Put(found, value) if found == *key => Some(Ok(Entry { key: found, value, revision })),
        Told::Invalid { path, reason } if path == key.path() => Some(Err(reason)),
        Told::Put(_, _) | Told::Invalid { .. } | Told::Marked(_) => None,
    });
    if let (Type::Pod, Some(Ok(entry))) = (ty, &found)
        && let Some(endpoint) = entry.value.as_resource()
    {
        api.saw_pod(key, revision, &endpoint.metadata().uid);
    }
    Ok(found)
}
