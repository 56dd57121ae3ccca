//! The old resources (`apiVersion: v1`: profile, policy, ipPool, hostEndpoint, bgpPeer, workloadEndpoint, node, tier) as
//! resources of `projectcalico.org/v3`, field by field and name by name as upstream's converter does it.
//!
//! Invariant: nothing is lost in silence. What v3 says otherwise is said that way; what it can't say is in the notes.

mod endpoints;
mod names;
mod network;
mod policy;
mod rule;
mod values;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tortie_api::{FieldError, Resource, manifest};

/// The apiVersion of the old resources.
pub const API_VERSION: &str = "v1";

/// The old kinds, as v1 spells them; their case does not matter.
pub const KINDS: [&str; 8] =
    ["bgpPeer", "hostEndpoint", "ipPool", "node", "policy", "profile", "tier", "workloadEndpoint"];

/// An old resource in its new form.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The new form, without defaults and unchecked.
    pub resource: Resource,
    /// What the reader of the old form would not expect: a changed name, a field without a counterpart.
    pub notes: Vec<String>,
}

/// Whether this is an old resource, or a list of such.
pub fn is_old(value: &Value) -> bool {
    value["apiVersion"].as_str() == Some(API_VERSION)
        && value["kind"].as_str().is_some_and(|kind| old_kind(kind).is_some())
}

/// The old kind of this name; of its items, if it is the name of a list.
fn old_kind(name: &str) -> Option<&'static str> {
    let known = |name: &str| KINDS.into_iter().find(|kind| kind.eq_ignore_ascii_case(name));
    known(name).or_else(|| {
        let cut = name.len().checked_sub("List".len())?;
        let (item, list) = (name.get(..cut)?, name.get(cut..)?);
        list.eq_ignore_ascii_case("List").then(|| known(item)).flatten()
    })
}

/// Converts an old resource or all of a list. `None`: it is none.
///
/// # Errors
/// A field that v1 has not, a value that it does not allow, or one that has no meaning in v3; with its path in the old
/// form.
pub fn convert(value: &Value) -> Option<Result<Vec<Converted>, FieldError>> {
    if !is_old(value) {
        return None;
    }
    let name = value["kind"].as_str()?;
    let kind = old_kind(name)?;
    if name.len() == kind.len() {
        return Some(one(kind, value).map(|converted| vec![converted]));
    }
    let no_items = Vec::new();
    let items = match &value["items"] {
        Value::Array(items) => items,
        Value::Null => &no_items,
        other => return Some(Err(values::wrong("items", other, "a list of resources"))),
    };
    let each = items.iter().enumerate().map(|(i, item)| {
        one(kind, item).map_err(|error| FieldError { path: format!("items[{i}].{}", error.path), ..error })
    });
    Some(each.collect())
}

fn one(kind: &str, value: &Value) -> Result<Converted, FieldError> {
    match kind {
        "bgpPeer" => network::bgp_peer(read(value)?),
        "hostEndpoint" => endpoints::host(read(value)?),
        "ipPool" => network::ip_pool(read(value)?),
        "node" => network::node(read(value)?),
        "policy" => policy::policy(read(value)?),
        "profile" => policy::profile(read(value)?),
        "tier" => policy::tier(read(value)?),
        "workloadEndpoint" => endpoints::workload(read(value)?),
        other => unreachable!("{other} is none of KINDS"),
    }
}

/// An old resource: the fields of its kind and nothing else.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Old<M, S> {
    #[serde(default, rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(default, rename = "kind")]
    _kind: Option<String>,
    metadata: M,
    #[serde(default)]
    spec: S,
}

fn read<T: DeserializeOwned>(value: &Value) -> Result<T, FieldError> {
    manifest::read_fields(value.clone())
}

/// The new form, with a note if a name had to change.
fn converted(resource: impl Into<Resource>, old_name: Option<&str>) -> Converted {
    let resource = resource.into();
    let (kind, name) = (resource.kind(), &resource.metadata().name);
    let renamed = old_name.filter(|old| old != name);
    let notes = renamed.map(|old| format!("{kind}({name}): was named {old:?}, which no v3 name can be"));
    Converted { notes: notes.into_iter().collect(), resource }
}
