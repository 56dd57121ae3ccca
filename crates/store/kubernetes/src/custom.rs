//! Custom resources <-> facts.

use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Map, Value as Json, json};
use tortie_api::ipam::{Affinity, Block, Handle, IpamConfig, Newer};
use tortie_api::{API_VERSION, IpamConfiguration, IpamConfigurationSpec, Kind, Metadata, Resource, keep_unknown};
use tortie_facts::{AffinityKey, Key, OwnerKind, Value};

use crate::interest::Faces;
use crate::types::Type;
use crate::{Group, meta, names};

/// What one object says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    /// A fact.
    Put(Key, Value),
    /// The object is marked as deleted: no reader may see it any more.
    Marked(Key),
    /// A fact that can't be read.
    Invalid {
        /// The text of its key, as far as it can be told.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// What a custom resource says, as the faces that are wanted.
pub(crate) fn read(kind: Kind, group: Group, object: &Json, faces: Faces) -> Vec<Told> {
    let mut told = Vec::new();
    if faces.ipam
        && let Some(fact) = ipam(kind, object)
    {
        let fact = fact.map_err(|reason| (unreadable_path(kind, object), reason));
        told.push(match fact {
            Ok((key, _)) if marked(object) => Told::Marked(key),
            Ok((key, value)) => Told::Put(key, value),
            Err((path, reason)) => match Key::from_path(&path) {
                Ok(key) if marked(object) => Told::Marked(key),
                Ok(_) | Err(_) => Told::Invalid { path, reason },
            },
        });
    }
    if faces.resource {
        told.push(resource(kind, group, object));
    }
    told
}

/// Whether an object of address management is on its way out: upstream marks it before it deletes it, since there was
/// no compare-and-delete.
pub(crate) fn marked(object: &Json) -> bool {
    let flag = &object["spec"]["deleted"];
    flag == true || flag == "true"
}

/// Marks an object as deleted.
pub(crate) fn mark(kind: Kind, group: Group, object: &mut Json) {
    object["spec"]["deleted"] =
        if (kind, group) == (Kind::BlockAffinity, Group::V1) { json!("true") } else { json!(true) };
}

fn name_of(object: &Json) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The fact of address management in an object, if its kind has one.
fn ipam(kind: Kind, object: &Json) -> Option<Result<(Key, Value), String>> {
    let spec = &object["spec"];
    match kind {
        Kind::IpamBlock => Some(block(spec).map(|(cidr, block)| (Key::Block(cidr), Value::Block(Arc::new(block))))),
        Kind::IpamHandle => {
            let handle = serde_json::from_value::<Handle>(without(spec, &["handleID"]));
            let handle = handle.map_err(|error| format!("spec: {error}"));
            Some(handle.map(|handle| (Key::Handle(handle_id(object)), Value::Handle(Arc::new(handle)))))
        }
        Kind::BlockAffinity => {
            Some(affinity(spec).map(|(key, affinity)| (Key::Affinity(key), Value::Affinity(affinity))))
        }
        Kind::IpamConfiguration if name_of(object) == "default" => {
            let spec = serde_json::from_value::<IpamConfigurationSpec>(known_members(spec));
            let config = spec.map(|spec| (Key::IpamConfig, Value::IpamConfig(IpamConfig::from(&spec))));
            Some(config.map_err(|error| format!("spec: {error}")))
        }
        _ => None,
    }
}

/// The handle as its owner spelt it.
fn handle_id(object: &Json) -> String {
    object["spec"]["handleID"].as_str().unwrap_or_else(|| name_of(object)).to_owned()
}

/// The settings without members of newer versions.
fn known_members(spec: &Json) -> Json {
    let known = serde_json::to_value(IpamConfigurationSpec {
        max_blocks_per_host: 1,
        kube_virt_vm_address_persistence: Some(tortie_api::VmAddressPersistence::default()),
        ip_cooldown_seconds: 1,
        ..IpamConfigurationSpec::default()
    });
    let known = known.unwrap_or_default();
    let members = spec.as_object().into_iter().flatten().filter(|(name, _)| known.get(name.as_str()).is_some());
    Json::Object(members.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// The specification without members that say nothing beside the key, or are always the same.
fn without(spec: &Json, names: &[&str]) -> Json {
    let mut spec = spec.clone();
    if let Some(members) = spec.as_object_mut() {
        members.retain(|name, _| !names.contains(&name.as_str()));
    }
    spec
}

fn block(spec: &Json) -> Result<(IpNet, Block), String> {
    let mut spec = without(spec, &["strictAffinity"]);
    if let Some(members) = spec.as_object_mut()
        && let Some(time) = members.remove("affinityClaimTime")
    {
        members.insert("affinity_claim_time".into(), time);
    }
    let block: Block = serde_json::from_value(spec).map_err(|error| format!("spec: {error}"))?;
    let cidr =
        block.cidr.net().ok_or_else(|| format!("spec.cidr: {:?}: expected an IP prefix", block.cidr.as_str()))?;
    Ok((cidr, block))
}

fn affinity(spec: &Json) -> Result<(AffinityKey, Affinity), String> {
    let text = |name: &str| spec[name].as_str().unwrap_or_default();
    let cidr: IpNet =
        text("cidr").parse().map_err(|_| format!("spec.cidr: {}: expected an IP prefix", spec["cidr"]))?;
    let kind = match text("type") {
        "" | "host" => OwnerKind::Host,
        "virtual" => OwnerKind::Virtual,
        other => return Err(format!("spec.type: {other:?}: expected host or virtual")),
    };
    let deleted = match &spec["deleted"] {
        Json::Null => false,
        Json::Bool(deleted) => *deleted,
        Json::String(text) if ["", "false", "true"].contains(&text.as_str()) => text == "true",
        other => return Err(format!("spec.deleted: {other}: expected true or false")),
    };
    let mut state = without(spec, &["node", "type", "cidr"]);
    (state["state"], state["deleted"]) = (text("state").into(), deleted.into());
    let affinity = serde_json::from_value(state).map_err(|error| format!("spec.state: {error}"))?;
    let owner = text("node");
    if owner.is_empty() {
        return Err("spec.node: expected the name of the owner".to_owned());
    }
    Ok((AffinityKey { kind, owner: owner.to_owned(), cidr }, affinity))
}

/// The best guess at the key of what can't be read: it has to be the one under which it was readable before.
fn unreadable_path(kind: Kind, object: &Json) -> String {
    let name = name_of(object);
    match kind {
        Kind::IpamBlock => match names::to_cidr(name) {
            Some(cidr) => Key::Block(cidr).path(),
            None => format!("/calico/ipam/v2/assignment/ipv4/block/{name}"),
        },
        Kind::BlockAffinity => match names::to_affinity(name) {
            Some(key) => Key::Affinity(key).path(),
            None => format!("/calico/ipam/v2/host/{name}"),
        },
        Kind::IpamHandle => Key::Handle(handle_id(object)).path(),
        Kind::IpamConfiguration => Key::IpamConfig.path(),
        other => Key::resource(other, "", name).path(),
    }
}

/// The resource that an object stands for, as a JSON document of the v3 API without what the server owns.
fn document(kind: Kind, group: Group, object: &Json) -> Result<Json, String> {
    let mut members = object.as_object().cloned().ok_or("it is no object")?;
    let metadata = members.get("metadata").and_then(Json::as_object).cloned().unwrap_or_default();
    let mut metadata = match group {
        Group::V1 => meta::from_object(kind, &metadata, object["spec"]["tier"].as_str().unwrap_or_default())?,
        Group::V3 => metadata,
    };
    for field in ["resourceVersion", "managedFields", "selfLink"] {
        metadata.remove(field);
    }
    members.insert("metadata".into(), metadata.into());
    members.insert("kind".into(), kind.name().into());
    members.insert("apiVersion".into(), API_VERSION.into());
    if let (Kind::BlockAffinity, Some(spec)) = (kind, members.get_mut("spec").and_then(Json::as_object_mut))
        && let Some(Json::String(text)) = spec.get("deleted")
    {
        let deleted = text == "true";
        spec.insert("deleted".into(), deleted.into());
    }
    Ok(Json::Object(members))
}

fn resource(kind: Kind, group: Group, object: &Json) -> Told {
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str().unwrap_or_default();
    let invalid = |reason| Told::Invalid { path: Key::resource(kind, namespace, name_of(object)).path(), reason };
    let document = match document(kind, group, object) {
        Ok(document) => document,
        Err(reason) => return invalid(reason),
    };
    let name = name_of(&document).to_owned();
    match Resource::from_stored_json(&document.to_string()) {
        Ok((resource, _)) => Told::Put(Key::resource(kind, namespace, &name), Value::resource(resource)),
        Err(error) => Told::Invalid { path: Key::resource(kind, namespace, &name).path(), reason: error.to_string() },
    }
}

/// The object that stands for a resource. With the object that is there now, what this version does not know of it
/// stays.
pub(crate) fn write_resource(group: Group, resource: &Resource, current: Option<&Json>) -> Result<Json, String> {
    let kind = resource.kind();
    let mut wanted = resource.to_value();
    if let Some(current) = current {
        let stored = document(kind, group, current)?;
        // What can't be read is replaced as a whole.
        if let Ok((known, _)) = Resource::from_stored_json(&stored.to_string()) {
            wanted = keep_unknown(&stored, &known.to_value(), wanted);
        }
    }
    let metadata = wanted["metadata"].as_object().cloned().unwrap_or_default();
    let mut object = match wanted {
        Json::Object(members) => members,
        _ => Map::new(),
    };
    let mut metadata = match group {
        Group::V1 => meta::to_object(kind, &metadata),
        Group::V3 => metadata,
    };
    for field in ["uid", "resourceVersion", "managedFields", "generation"] {
        metadata.remove(field);
    }
    if let Some(name) = current.map(name_of) {
        metadata.insert("name".into(), name.into());
    }
    object.insert("metadata".into(), metadata.into());
    object.insert("kind".into(), Type::object_kind(kind, group).into());
    object.insert("apiVersion".into(), group.api_version().into());
    let mut object = Json::Object(object);
    if (kind, group) == (Kind::BlockAffinity, Group::V1) {
        let deleted = object["spec"]["deleted"] == true;
        object["spec"]["deleted"] = deleted.to_string().into();
    }
    Ok(object)
}

/// The object that stands for a block, an affinity or a handle; `None` for other facts.
pub(crate) fn write_ipam(group: Group, key: &Key, value: &Value) -> Option<Json> {
    let (kind, spec, labels) = match (key, value) {
        (Key::Block(cidr), Value::Block(block)) => (Kind::IpamBlock, block_spec(*cidr, block), Map::new()),
        (Key::Handle(id), Value::Handle(handle)) => {
            let Handle { block, deleted, newer } = &**handle;
            let spec = json!({"handleID": id, "block": block, "deleted": deleted});
            (Kind::IpamHandle, with(spec, newer), Map::new())
        }
        (Key::Affinity(key), Value::Affinity(affinity)) => {
            let Affinity { state, deleted, newer } = affinity;
            let deleted = match group {
                Group::V1 => json!(deleted.to_string()),
                Group::V3 => json!(deleted),
            };
            let cidr = key.cidr.to_string();
            let spec =
                json!({"state": state, "node": key.owner, "type": key.kind.word(), "cidr": cidr, "deleted": deleted});
            let labels = names::affinity_labels(key).map(|(name, value)| (name.to_owned(), Json::from(value)));
            (Kind::BlockAffinity, with(spec, newer), labels.into_iter().collect())
        }
        _ => return None,
    };
    let mut metadata = Map::new();
    metadata.insert("name".into(), object_name(key)?.into());
    if !labels.is_empty() {
        metadata.insert("labels".into(), labels.into());
    }
    let metadata = match group {
        Group::V1 => meta::to_object(kind, &metadata),
        Group::V3 => metadata,
    };
    let kind = Type::object_kind(kind, group);
    Some(json!({"apiVersion": group.api_version(), "kind": kind, "metadata": metadata, "spec": spec}))
}

fn block_spec(cidr: IpNet, block: &Block) -> Json {
    let Block {
        cidr: _,
        affinity,
        affinity_claim_time,
        allocations,
        unallocated,
        attributes,
        sequence_number,
        sequence_number_for_allocation,
        deleted,
        host_affinity,
        newer,
    } = block;
    // The older spelling of the owner has no place in the object.
    let affinity = affinity.clone().or_else(|| host_affinity.as_ref().map(|host| format!("host:{host}")));
    let mut spec = json!({
        "cidr": cidr.trunc().to_string(),
        "allocations": allocations,
        "unallocated": unallocated,
        "attributes": attributes,
        "sequenceNumber": sequence_number,
        "sequenceNumberForAllocation": sequence_number_for_allocation,
        "deleted": deleted,
        "strictAffinity": false,
    });
    if let Some(affinity) = affinity {
        spec["affinity"] = affinity.into();
    }
    if let Some(time) = affinity_claim_time {
        spec["affinityClaimTime"] = json!(time);
    }
    with(spec, newer)
}

/// The specification with what newer versions wrote into it.
fn with(mut spec: Json, newer: &Newer) -> Json {
    if let Some(members) = spec.as_object_mut() {
        members.extend(newer.clone());
    }
    spec
}

/// The name of the object that holds a key; `None` where no object can.
pub(crate) fn object_name(key: &Key) -> Option<String> {
    let name = match key {
        Key::Resource { kind: _, namespace, name } if namespace.is_empty() || names::usable(namespace) => name.clone(),
        Key::Resource { .. } | Key::Status(_) | Key::Foreign(_) => return None,
        Key::Block(cidr) => names::of_cidr(*cidr),
        Key::Affinity(key) => names::of_affinity(key),
        Key::Handle(id) => names::of_handle(id),
        Key::IpamConfig => "default".to_owned(),
    };
    names::usable(&name).then_some(name)
}

/// The settings of address management as the resource that holds them here.
pub(crate) fn settings_resource(config: &IpamConfig) -> Result<Resource, String> {
    let spec = IpamConfigurationSpec::try_from(config).map_err(|error| error.to_string())?;
    Ok(Resource::from(IpamConfiguration { metadata: Metadata::named("default"), spec }))
}
