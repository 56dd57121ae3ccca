//! The definitions themselves.

use serde_json::{Map, Value, json};
use tortie_api::{Kind, Resource, schema, to_yaml};

use crate::names::{SERVED, Served, older};
use crate::{limits, structural};

/// Upstream's two groups; a cluster has one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `crd.projectcalico.org/v1`: what upstream's manifests install.
    CrdV1,
    /// `projectcalico.org/v3`: the kinds by the names that calicoctl uses.
    V3,
}

impl Group {
    /// Every group.
    pub const ALL: [Group; 2] = [Group::CrdV1, Group::V3];

    fn name(self) -> &'static str {
        match self {
            Group::CrdV1 => "crd.projectcalico.org",
            Group::V3 => "projectcalico.org",
        }
    }

    fn version(self) -> &'static str {
        match self {
            Group::CrdV1 => "v1",
            Group::V3 => "v3",
        }
    }

    /// The file below `manifests` that holds the definitions of the group.
    pub fn file(self) -> &'static str {
        match self {
            Group::CrdV1 => "crds.yaml",
            Group::V3 => "v3-crds.yaml",
        }
    }
}

/// All definitions of a group, as Kubernetes takes them.
pub fn definitions(group: Group) -> Vec<Value> {
    SERVED.iter().map(|served| definition(group, *served)).collect()
}

/// All definitions of a group as one YAML file.
pub fn manifest(group: Group) -> String {
    let head = format!(
        "# The kinds of {}/{}. Made by `cargo xtask manifests` from the types in crates/model/api; don't edit.\n",
        group.name(),
        group.version()
    );
    definitions(group).iter().fold(head, |text, definition| text + "---\n" + &to_yaml(definition))
}

fn definition(group: Group, served: Served) -> Value {
    let Served { kind, short, status, tiered } = served;
    let (name, plural) = match group {
        Group::CrdV1 => older(kind),
        Group::V3 => (kind.name(), kind.plural()),
    };
    let mut names = json!({
        "kind": name,
        "listKind": format!("{name}List"),
        "plural": plural,
        "singular": name.to_ascii_lowercase(),
    });
    if group == Group::V3 && !short.is_empty() {
        names["shortNames"] = json!(short);
    }
    let mut version = json!({
        "name": group.version(),
        "served": true,
        "storage": true,
        "schema": { "openAPIV3Schema": schema_of(group, kind) },
    });
    if status {
        version["subresources"] = json!({ "status": {} });
    }
    if tiered && group == Group::V3 {
        version["selectableFields"] = json!([{ "jsonPath": ".spec.tier" }]);
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{}", group.name()) },
        "spec": {
            "group": group.name(),
            "names": names,
            "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
            "versions": [version],
        },
    })
}

fn schema_of(group: Group, kind: Kind) -> Value {
    let schema::Parts { spec, status } = schema::parts(kind);
    let mut spec = structural::structural(&spec.to_value());
    limits::add(kind, &mut spec);
    if kind == Kind::BlockAffinity && group == Group::CrdV1 {
        // Upstream's older group keeps this flag as text.
        spec["properties"]["deleted"]["type"] = json!("string");
    }
    defaults(kind, &mut spec);
    let mut properties = json!({
        "apiVersion": { "type": "string" },
        "kind": { "type": "string" },
        "metadata": { "type": "object" },
        "spec": spec,
    });
    if let Some(status) = status {
        properties["status"] = structural::structural(&status.to_value());
    }
    json!({ "type": "object", "properties": properties })
}

/// Fills in what this program fills in for an empty object, where it does not depend on other fields.
fn defaults(kind: Kind, spec: &mut Value) {
    let Some(before) = empty(kind) else { return };
    let mut after = before.clone();
    after.apply_defaults();
    let fields = |resource: &Resource| match &resource.to_value()["spec"] {
        Value::Object(fields) => fields.clone(),
        _ => Map::new(),
    };
    let (before, after) = (fields(&before), fields(&after));
    for (name, value) in after.iter().filter(|(name, value)| before.get(*name) != Some(*value)) {
        // A policy's types follow from its rules.
        if !matches!(name.as_str(), "types" | "policyTypes") {
            spec["properties"][name]["default"] = value.clone();
        }
    }
}

fn empty(kind: Kind) -> Option<Resource> {
    Resource::from_value(json!({ "kind": kind.name(), "apiVersion": tortie_api::API_VERSION })).ok()
}
