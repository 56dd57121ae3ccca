//! Writing: one compare-and-swap is one request, or as few as upstream's protocol needs.
//!
//! state there + expectation -> requests:
//! absent, none -> create. At the revision -> replace. Whatever -> read, then create or replace, again while others
//! are faster. Deleting in address management -> mark as deleted, then delete; of other objects -> delete, with
//! identity and revision as conditions.

use serde_json::{Value as Json, json};
use tortie_api::Kind;
use tortie_facts::{Key, Revision, Value};
use tortie_store::{Expect, TextWrite, Write, WriteError, encode, judge};

use crate::api::{Api, Ask};
use crate::custom;
use crate::fault::{Fault, Verb};
use crate::interest::type_of;
use crate::read::{self, custom_object, revision_of, urgency};
use crate::types::Type;
use crate::{Group, derived_write};

/// How often a write starts over when others are faster.
const ATTEMPTS: u32 = 40;

/// One write to a custom resource.
struct Task<'a> {
    api: &'a Api,
    group: Group,
    kind: Kind,
    namespace: &'a str,
    /// The object's name.
    name: String,
    /// The key for messages.
    key: String,
    expect: Expect,
}

/// Does one write.
pub(crate) async fn write(api: &Api, write: &Write) -> Result<Revision, WriteError> {
    let TextWrite { name: key, path: _, expect, value: _ } = encode(write)?;
    let Some((ty, _)) = type_of(&write.key) else {
        // The API has no place for reported statuses; as with upstream, they are dropped.
        return Ok(Revision(0));
    };
    let Some(name) = custom::object_name(&write.key) else {
        return Err(WriteError::Invalid(format!("{key}: the Kubernetes API can hold no object of this name")));
    };
    let group = api.group().await.map_err(|fault| fault.of_write(&key, ty, Group::V1))?;
    let Type::Custom(kind) = ty else {
        return derived_write::write(api, group, ty, write).await;
    };
    let namespace = match &write.key {
        Key::Resource { kind: _, namespace, name: _ } => namespace.as_str(),
        Key::Block(_) | Key::Affinity(_) | Key::Handle(_) | Key::IpamConfig | Key::Status(_) | Key::Foreign(_) => "",
    };
    let task = Task { api, group, kind, namespace, name, key, expect };
    let outcome = match &write.value {
        Some(value) => task.put(&write.key, value).await,
        None => task.delete().await,
    };
    outcome.map(Revision)
}

/// How an attempt ended that did not succeed.
enum Missed {
    /// For good.
    Failed(WriteError),
    /// Somebody else was faster: look again.
    Again,
}

impl Task<'_> {
    fn ty(&self) -> Type {
        Type::Custom(self.kind)
    }

    fn failed(&self, fault: Fault) -> Missed {
        Missed::Failed(fault.of_write(&self.key, self.ty(), self.group))
    }

    fn judged(&self, deletes: bool, found: Option<u64>) -> Result<(), Missed> {
        judge(&self.key, self.expect, deletes, found.map(Revision)).map_err(Missed::Failed)
    }

    /// The object that is there for readers. One that is marked as deleted is taken out of the way.
    async fn current(&self) -> Result<Option<Json>, Missed> {
        let Task { api, group, kind, namespace, name, .. } = self;
        let found = custom_object(api, *group, *kind, namespace, name).await.map_err(|fault| self.failed(fault))?;
        match found {
            Some(object) if protocol(*kind) && custom::marked(&object) => {
                finish_deletion(api, *group, *kind, &object).await.map_err(|fault| self.failed(fault))?;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    async fn repeated<F: Future<Output = Result<u64, Missed>>>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<u64, WriteError> {
        for _ in 0..ATTEMPTS {
            match attempt().await {
                Ok(revision) => return Ok(revision),
                Err(Missed::Failed(error)) => return Err(error),
                Err(Missed::Again) => {}
            }
        }
        Err(Fault::Conflict.of_write(&self.key, self.ty(), self.group))
    }

    async fn put(&self, key: &Key, value: &Value) -> Result<u64, WriteError> {
        if let Some(object) = custom::write_ipam(self.group, key, value) {
            return self.repeated(|| self.put_whole(&object)).await;
        }
        let resource = match value {
            Value::Resource(resource) => (**resource).clone(),
            Value::IpamConfig(config) => custom::settings_resource(config).map_err(WriteError::Invalid)?,
            Value::Block(_) | Value::Affinity(_) | Value::Handle(_) | Value::Status(_) => {
                return Err(WriteError::Invalid(format!("{} can't be stored: the value is of another kind", self.key)));
            }
        };
        self.repeated(|| self.put_resource(&resource, matches!(value, Value::IpamConfig(_)))).await
    }

    /// Writes an object of address management, of which nothing but the fact is kept. Nobody applies such objects in
    /// parts, so the server is told, by one empty entry, to keep no account of who wrote which field: with many pods in
    /// a block a tenth of what its write costs there ("Server-Side Apply", clearing managedFields).
    async fn put_whole(&self, object: &Json) -> Result<u64, Missed> {
        let revision = match self.expect {
            Expect::Revision(Revision(0)) | Expect::Any => {
                let found = self.current().await?.as_ref().map(revision_of);
                self.judged(false, found)?;
                found
            }
            Expect::Revision(Revision(revision)) => Some(revision),
            Expect::Absent => None,
        };
        let Some(revision) = revision else { return self.create(object).await };
        let mut object = object.clone();
        object["metadata"]["managedFields"] = json!([{}]);
        self.replace(object, revision).await
    }

    /// Writes a resource, with what this version does not know of it left as it is.
    async fn put_resource(&self, resource: &tortie_api::Resource, keep_metadata: bool) -> Result<u64, Missed> {
        let invalid = |reason| Missed::Failed(WriteError::Invalid(format!("{}: {reason}", self.key)));
        if self.expect == Expect::Absent {
            let object = custom::write_resource(self.group, resource, None).map_err(invalid)?;
            let revision = self.create(&object).await?;
            return self.put_status(&object, revision).await;
        }
        let current = self.current().await?;
        self.judged(false, current.as_ref().map(revision_of))?;
        let mut object = custom::write_resource(self.group, resource, current.as_ref()).map_err(invalid)?;
        let revision = match &current {
            Some(current) => {
                if keep_metadata {
                    object["metadata"] = current["metadata"].clone();
                }
                self.replace(object.clone(), revision_of(current)).await?
            }
            None => self.create(&object).await?,
        };
        self.put_status(&object, revision).await
    }

    /// Where the API keeps the status apart, it is written with a request of its own.
    async fn put_status(&self, object: &Json, revision: u64) -> Result<u64, Missed> {
        let empty = |status: &Json| status.as_object().is_none_or(serde_json::Map::is_empty);
        if !Type::status_apart(self.kind, self.group) || empty(&object["status"]) {
            return Ok(revision);
        }
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        let path = format!("{}/status", self.object_path(&object));
        match self.ask(Verb::Update, path, Some(&object)).await {
            Ok(answer) => Ok(revision_of(&answer)),
            // Somebody wrote in between, or the definition keeps the status with the rest.
            Err(Fault::Conflict | Fault::NotFound { .. }) => Ok(revision),
            Err(fault) => Err(self.failed(fault)),
        }
    }

    fn object_path(&self, object: &Json) -> String {
        // A policy of an older version may be stored under another name.
        let name = object["metadata"]["name"].as_str().unwrap_or(&self.name);
        format!("{}/{name}", self.ty().path(self.group, self.namespace))
    }

    async fn create(&self, object: &Json) -> Result<u64, Missed> {
        match self.ask(Verb::Create, self.ty().path(self.group, self.namespace), Some(object)).await {
            Ok(answer) => Ok(revision_of(&answer)),
            Err(Fault::Conflict) => {
                let found = self.current().await?.as_ref().map(revision_of);
                self.judged(false, found)?;
                Err(Missed::Again)
            }
            Err(Fault::NotFound { no_type: false }) => Err(Missed::Failed(WriteError::Invalid(format!(
                "{}: the namespace {} does not exist",
                self.key, self.namespace
            )))),
            Err(fault) => Err(self.failed(fault)),
        }
    }

    async fn replace(&self, mut object: Json, revision: u64) -> Result<u64, Missed> {
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        match self.ask(Verb::Update, self.object_path(&object), Some(&object)).await {
            Ok(answer) => Ok(revision_of(&answer)),
            Err(Fault::Conflict | Fault::NotFound { no_type: false }) => {
                let found = self.current().await?.as_ref().map(revision_of);
                self.judged(false, found)?;
                Err(Missed::Again)
            }
            Err(fault) => Err(self.failed(fault)),
        }
    }

    async fn delete(&self) -> Result<u64, WriteError> {
        self.repeated(|| self.delete_once()).await
    }

    async fn delete_once(&self) -> Result<u64, Missed> {
        let current = self.current().await?;
        self.judged(true, current.as_ref().map(revision_of))?;
        let Some(mut object) = current else { return Err(Missed::Again) };
        if protocol(self.kind) {
            custom::mark(self.kind, self.group, &mut object);
            return match self.ask(Verb::Update, self.object_path(&object), Some(&object)).await {
                Ok(answer) => {
                    // For readers it is gone by now; whoever comes next finishes what fails here.
                    if let Err(fault) = finish_deletion(self.api, self.group, self.kind, &answer).await {
                        tracing::debug!(key = self.key, ?fault, "marked as deleted, but not deleted yet");
                    }
                    Ok(revision_of(&answer))
                }
                Err(Fault::Conflict | Fault::NotFound { no_type: false }) => Err(Missed::Again),
                Err(fault) => Err(self.failed(fault)),
            };
        }
        match remove(self.api, self.ty(), self.object_path(&object), &object).await {
            Ok(()) => {}
            Err(Fault::Conflict | Fault::NotFound { no_type: false }) => return Err(Missed::Again),
            Err(fault) => return Err(self.failed(fault)),
        }
        // The answer does not tell the revision of a deletion.
        read::now(self.api, self.group, self.ty()).await.map_err(|fault| self.failed(fault))
    }

    async fn ask(&self, verb: Verb, path: String, object: Option<&Json>) -> Result<Json, Fault> {
        send(self.api, self.ty(), verb, path, object).await
    }
}

/// Sends an object and reads the one that comes back.
pub(crate) async fn send(api: &Api, ty: Type, verb: Verb, path: String, object: Option<&Json>) -> Result<Json, Fault> {
    let body = object.map(|object| object.to_string().into_bytes());
    let answer = api.send(Ask { verb, ty: Some(ty), path, body, urgency: urgency(ty) }).await?;
    serde_json::from_slice(&answer).map_err(|error| Fault::Unavailable(format!("an answer that is no JSON: {error}")))
}

/// Whether objects of this kind are marked before they are deleted.
fn protocol(kind: Kind) -> bool {
    matches!(kind, Kind::IpamBlock | Kind::IpamHandle | Kind::BlockAffinity)
}

/// Deletes exactly this object at exactly this revision.
async fn remove(api: &Api, ty: Type, path: String, object: &Json) -> Result<(), Fault> {
    let metadata = &object["metadata"];
    let options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
    });
    send(api, ty, Verb::Delete, path, Some(&options)).await.map(|_| ())
}

/// Deletes what is marked as deleted, unless it is another object by now.
pub(crate) async fn finish_deletion(api: &Api, group: Group, kind: Kind, object: &Json) -> Result<(), Fault> {
    let ty = Type::Custom(kind);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match remove(api, ty, format!("{}/{name}", ty.path(group, "")), object).await {
        Err(Fault::Conflict | Fault::NotFound { no_type: false }) | Ok(()) => Ok(()),
        Err(fault) => Err(fault),
    }
}
