//! Reading: one object, and consistent listings of several types.
//!
//! The first type's listing fixes a revision; every other type is listed at exactly that revision. So a listing is one
//! picture of the whole store, and its revision is where each type's watch goes on.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use tortie_api::Kind;
use tortie_facts::{Filter, Key, Revision};
use tortie_store::{Entry, InvalidEntry, Listing, StoreError};

use crate::api::{Api, Ask};
use crate::custom::{self, Told};
use crate::fault::{Fault, Verb};
use crate::interest::{Interest, Scope, type_of};
use crate::limit::Urgency;
use crate::object::Lens;
use crate::types::Type;
use crate::{Group, derived, names, object, write};

/// How often a listing starts over when its revision is compacted away under it.
const ATTEMPTS: u32 = 3;

/// How much requests about this type are in a hurry.
pub(crate) fn urgency(ty: Type) -> Urgency {
    match ty {
        Type::Custom(
            Kind::IpamBlock | Kind::IpamHandle | Kind::BlockAffinity | Kind::IpamConfiguration | Kind::IpPool,
        ) => Urgency::Pod,
        Type::Pod => Urgency::Pod,
        Type::Custom(_)
        | Type::Namespace
        | Type::ServiceAccount
        | Type::Node
        | Type::NetworkPolicy
        | Type::ClusterNetworkPolicy
        | Type::Service
        | Type::EndpointSlice => Urgency::Other,
    }
}

/// The object of a path; `None` if there is none.
pub(crate) async fn object(api: &Api, ty: Type, path: String) -> Result<Option<Bytes>, Fault> {
    let ask = Ask { verb: Verb::Get, ty: Some(ty), path, body: None, urgency: urgency(ty) };
    match api.send(ask).await {
        Ok(body) => Ok(Some(body)),
        Err(Fault::NotFound { no_type: false }) => Ok(None),
        Err(other) => Err(other),
    }
}

/// A custom resource and its revision. A policy may be stored with the prefix that older versions gave it.
pub(crate) async fn custom_object(
    api: &Api,
    group: Group,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> Result<Option<Json>, Fault> {
    let ty = Type::Custom(kind);
    let path = ty.path(group, namespace);
    let mut body = object(api, ty, format!("{path}/{name}")).await?;
    let policy = matches!(
        kind,
        Kind::NetworkPolicy | Kind::GlobalNetworkPolicy | Kind::StagedNetworkPolicy | Kind::StagedGlobalNetworkPolicy
    );
    if body.is_none() && policy && group == Group::V1 && !name.starts_with("default.") {
        body = object(api, ty, format!("{path}/default.{name}")).await?;
    }
    let parse = |body: Bytes| {
        serde_json::from_slice(&body).map_err(|error| Fault::Unavailable(format!("an answer that is no JSON: {error}")))
    };
    body.map(parse).transpose()
}

/// The revision of an object as it stands in its metadata.
pub(crate) fn revision_of(object: &Json) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The fact under a key.
pub(crate) async fn get(api: &Api, key: &Key) -> Result<Option<Entry>, StoreError> {
    let Some((ty, faces)) = type_of(key) else { return Ok(None) };
    let Some(name) = custom::object_name(key) else { return Ok(None) };
    let namespace = match key {
        Key::Resource { kind: _, namespace, name: _ } => namespace.as_str(),
        Key::Block(_) | Key::Affinity(_) | Key::Handle(_) | Key::IpamConfig | Key::Status(_) | Key::Foreign(_) => "",
    };
    let lens = api.lens().await.map_err(|fault| fault.of_read(ty, Group::V1))?;
    let group = lens.group;
    let Type::Custom(kind) = ty else {
        let found = derived::get(api, &lens, key).await.map_err(|fault| fault.of_read(ty, group))?;
        return found.transpose().map_err(|reason| StoreError::Invalid(format!("{key}: {reason}")));
    };
    let found = custom_object(api, group, kind, namespace, &name).await.map_err(|fault| fault.of_read(ty, group))?;
    let Some(object) = found else { return Ok(None) };
    let revision = Revision(revision_of(&object));
    for told in custom::read(kind, group, &object, faces) {
        match told {
            Told::Put(found, value) if found == *key => return Ok(Some(Entry { key: found, value, revision })),
            Told::Invalid { path: _, reason } => return Err(StoreError::Invalid(format!("{key}: {reason}"))),
            // Whoever deleted it may have died on the way. That this fails is no matter: nobody sees it.
            Told::Marked(found) if found == *key => {
                let _ = write::finish_deletion(api, group, kind, &object).await;
            }
            // Two handles may differ in case alone; only one of them can be there.
            Told::Put(_, _) | Told::Marked(_) => {}
        }
    }
    Ok(None)
}

/// Everything that a filter covers.
pub(crate) async fn list(api: &Api, filter: &Filter) -> Result<Listing, StoreError> {
    let interest = Interest::of(filter);
    let fallback = Type::Custom(Kind::ClusterInformation);
    let lens = api.lens().await.map_err(|fault| fault.of_read(fallback, Group::V1))?;
    let mut attempt = 1;
    loop {
        match list_once(api, &lens, &interest).await {
            Err((Fault::Expired, _)) if attempt < ATTEMPTS => attempt += 1,
            Err((fault, ty)) => return Err(fault.of_read(ty, lens.group)),
            Ok(listing) => return Ok(listing),
        }
    }
}

async fn list_once(api: &Api, lens: &Lens, interest: &Interest) -> Result<Listing, (Fault, Type)> {
    let group = lens.group;
    let mut revision = None;
    let (mut entries, mut invalid) = (Vec::new(), Vec::new());
    let alone = interest.types.len() == 1;
    for (ty, scope) in &interest.types {
        let mut take = |text: &str| {
            let Some(at) = object::revision(text) else { return };
            object::listed(object::read(lens, *ty, text, scope.faces), Revision(at), &mut entries, &mut invalid);
        };
        match list_type(api, group, *ty, scope, revision, &mut take).await {
            Ok(at) => revision = Some(at),
            // A server that does not know a type has no objects of it: older versions had fewer.
            Err(fault) => match api.settled(*ty, fault).await {
                Fault::NotFound { no_type: true } if !alone => {
                    tracing::warn!(resource = ty.full_name(group), "the API server does not know it: taken as empty");
                }
                fault => return Err((fault, *ty)),
            },
        }
    }
    let revision = match revision {
        Some(revision) => revision,
        None => now(api, group, Type::Namespace).await.map_err(|fault| (fault, Type::Namespace))?,
    };
    entries.retain(|entry: &Entry| interest.covers(&entry.key.path()));
    invalid.retain(|invalid: &InvalidEntry| interest.covers(&invalid.path));
    entries.sort_by_cached_key(|entry| entry.key.path());
    invalid.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Listing { entries, invalid, revision: Revision(revision) })
}

#[derive(Deserialize)]
struct Page<'a> {
    metadata: PageMetadata,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    resource_version: String,
    #[serde(default, rename = "continue")]
    more: String,
}

/// Lists one type page by page, now or at a revision; the revision that it was listed at.
async fn list_type(
    api: &Api,
    group: Group,
    ty: Type,
    scope: &Scope,
    at: Option<u64>,
    take: &mut impl FnMut(&str),
) -> Result<u64, Fault> {
    let path = ty.path(group, &scope.namespace);
    let exact = at.map(|at| format!("&resourceVersion={at}&resourceVersionMatch=Exact")).unwrap_or_default();
    let mut query = format!("limit={}{exact}", ty.page());
    loop {
        let body = page(api, ty, format!("{path}?{query}")).await?;
        let unreadable = |error: &dyn std::fmt::Display| {
            Fault::Unavailable(format!("the list of {} can't be read: {error}", ty.full_name(group)))
        };
        let Page { metadata: PageMetadata { resource_version, more }, items } =
            serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
        items.into_iter().flatten().for_each(|item| take(item.get()));
        if more.is_empty() {
            let listed = resource_version.parse().map_err(|error| unreadable(&error))?;
            return Ok(at.unwrap_or(listed));
        }
        query = format!("limit={}&continue={}", ty.page(), names::escaped(&more));
    }
}

async fn page(api: &Api, ty: Type, path: String) -> Result<Bytes, Fault> {
    api.send(Ask { verb: Verb::List, ty: Some(ty), path, body: None, urgency: urgency(ty) }).await
}

/// The revision of the store at this moment, or a little later.
pub(crate) async fn now(api: &Api, group: Group, ty: Type) -> Result<u64, Fault> {
    #[derive(Deserialize)]
    struct Head {
        metadata: PageMetadata,
    }
    let body = page(api, ty, format!("{}?limit=1", ty.path(group, ""))).await?;
    let head: Option<Head> = serde_json::from_slice(&body).ok();
    let revision = head.and_then(|head| head.metadata.resource_version.parse().ok());
    revision.ok_or_else(|| Fault::Unavailable("a list without a revision".to_owned()))
}
