//! A Secret that is followed: told once it is known, and whenever it changed.
//!
//! list -> told -> watch: each change told -> end -> list again. A client needs the verbs list and watch on this one
//! name alone (`resourceNames`). Errors name the Secret, and no text holds what is in it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as Object;
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::api::{Api, Ask};
use crate::cluster::Cluster;
use crate::fault::{Fault, Verb};
use crate::limit::Urgency;
use crate::names::escaped;

/// How long the server may keep one watch, seconds.
const TURN: u32 = 300;
/// A watch on which nothing comes for this long is taken as dead.
const SILENCE: Duration = Duration::from_secs(310);
/// Between two listings at least.
const PAUSE: Duration = Duration::from_secs(1);
/// After an error.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(5);

/// What a Secret holds, by key. Printing it shows the keys alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(BTreeMap<String, Vec<u8>>);

impl Secret {
    /// What is under a key.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A Secret is followed as long as this is there.
#[derive(Debug)]
pub struct Followed(JoinHandle<()>);

impl Drop for Followed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Cluster {
    /// Follows a Secret: `tell` gets what it holds, nothing if there is none, or why it can't be known at present. Called
    /// by a thread of this client; it is not to wait.
    pub fn follow_secret(
        &self,
        namespace: &str,
        name: &str,
        tell: impl Fn(Result<Option<Secret>, String>) + Send + Sync + 'static,
    ) -> Followed {
        let place = Place {
            api: self.api.clone(),
            path: format!(
                "/api/v1/namespaces/{}/secrets?fieldSelector={}",
                escaped(namespace),
                escaped(&format!("metadata.name={name}"))
            ),
            title: format!("Secret {namespace}/{name}"),
        };
        Followed(self.runtime.spawn(async move {
            loop {
                let pause = match place.turn(&tell).await {
                    Ok(()) => PAUSE,
                    Err(problem) => {
                        tell(Err(problem));
                        PAUSE_AFTER_ERROR
                    }
                };
                sleep(pause).await;
            }
        }))
    }
}

/// Where a Secret is.
struct Place {
    api: Arc<Api>,
    /// Path and query of its list of one.
    path: String,
    /// For messages.
    title: String,
}

impl Place {
    /// Lists, and watches until the watch ends.
    async fn turn(&self, tell: &impl Fn(Result<Option<Secret>, String>)) -> Result<(), String> {
        let listed = self.api.send(self.ask(Verb::List, self.path.clone())).await.map_err(|fault| self.told(fault))?;
        let unreadable = |_| format!("{}: the API server's answer can't be read", self.title);
        let List { metadata: Listed { resource_version }, items } =
            serde_json::from_slice(&listed).map_err(unreadable)?;
        tell(Ok(items.into_iter().next().map(read)));
        let query = format!("watch=1&resourceVersion={}&timeoutSeconds={TURN}", escaped(&resource_version));
        let ask = self.ask(Verb::Watch, format!("{}&{query}", self.path));
        let opened = self.api.open(&ask, Instant::now() + self.api.patience()).await;
        let body = opened.map_err(|fault| self.told(fault))?.into_body();
        let mut chunks = std::pin::pin!(body.into_data_stream());
        let mut held: Vec<u8> = Vec::new();
        while let Ok(Some(Ok(chunk))) = timeout(SILENCE, chunks.next()).await {
            held.extend_from_slice(&chunk);
            while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = held.drain(..=end).collect();
                // An error, or what can't be read, ends the turn: the next listing says how things are.
                let Ok(Change { kind, object }) = serde_json::from_slice(&line) else { return Ok(()) };
                match kind.as_str() {
                    "ADDED" | "MODIFIED" => tell(Ok(Some(read(object)))),
                    "DELETED" => tell(Ok(None)),
                    _ => return Ok(()),
                }
            }
        }
        Ok(())
    }

    fn ask(&self, verb: Verb, path: String) -> Ask {
        Ask { verb, ty: None, path, body: None, urgency: Urgency::Other }
    }

    fn told(&self, fault: Fault) -> String {
        let title = &self.title;
        match fault {
            Fault::Forbidden(text) => format!("{title}: the node may not list and watch it ({text})"),
            Fault::NotFound { no_type: _ } => format!("{title}: the API server knows no Secrets"),
            Fault::Conflict | Fault::Expired => format!("{title}: the API server can't list it at present"),
            Fault::Refused(text) | Fault::Unusable(text) | Fault::Unavailable(text) => format!("{title}: {text}"),
        }
    }
}

fn read(object: Object) -> Secret {
    let data = object.data.unwrap_or_default();
    Secret(data.into_iter().map(|(key, ByteString(value))| (key, value)).collect())
}

#[derive(Deserialize)]
struct List {
    metadata: Listed,
    #[serde(default)]
    items: Vec<Object>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    resource_version: String,
}

#[derive(Deserialize)]
struct Change {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_secret_holds_is_not_printed() {
        let object = serde_json::json!({"metadata": {"name": "bgp"}, "data": {"mesh": "c2VjcmV0"}});
        let secret = read(serde_json::from_value(object).expect("a Secret"));
        assert_eq!((secret.get("mesh"), secret.get("other")), (Some(&b"secret"[..]), None));
        assert_eq!(format!("{secret:?}"), r#"{"mesh"}"#);
    }
}
