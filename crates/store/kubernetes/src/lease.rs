//! Leases of `coordination.k8s.io/v1`: one holder at a time, for programs that elect a leader.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};
use tortie_api::Timestamp;
use tortie_store::StoreError;

use crate::KubernetesStore;
use crate::api::Ask;
use crate::fault::{Fault, Verb};
use crate::limit::Urgency;

/// A Lease, as far as an election needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it; empty if nobody does.
    pub holder: String,
    /// How often it changed hands.
    pub transitions: u64,
    /// Its revision; 0 before it is created.
    pub revision: u64,
}

fn failed(fault: Fault) -> StoreError {
    match fault {
        Fault::Unusable(text) | Fault::Refused(text) | Fault::Forbidden(text) => StoreError::Unusable(text),
        Fault::Unavailable(text) => StoreError::Unavailable(text),
        Fault::NotFound { no_type: _ } => StoreError::Unusable("it, or its namespace, does not exist".to_owned()),
        Fault::Conflict | Fault::Expired => StoreError::Unavailable("others changed it meanwhile".to_owned()),
    }
}

fn parse(body: &[u8]) -> Result<Lease, StoreError> {
    let json: Json =
        serde_json::from_slice(body).map_err(|error| StoreError::Unavailable(format!("no Lease: {error}")))?;
    let revision = json["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
    let spec = &json["spec"];
    Ok(Lease {
        holder: spec["holderIdentity"].as_str().unwrap_or_default().to_owned(),
        transitions: spec["leaseTransitions"].as_u64().unwrap_or_default(),
        revision: revision.unwrap_or_default(),
    })
}

/// The time as Kubernetes writes it with microseconds.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = Timestamp::from_unix_seconds(i64::try_from(since.as_secs()).unwrap_or_default());
    let text = seconds.map(|seconds| seconds.to_string()).unwrap_or_default();
    format!("{}.{:06}Z", text.trim_end_matches('Z'), since.subsec_micros())
}

impl KubernetesStore {
    /// A Lease, if there is one.
    ///
    /// # Errors
    /// If the API server can't be reached, or refuses.
    pub fn lease(&self, namespace: &str, name: &str) -> Result<Option<Lease>, StoreError> {
        let path = format!("{}/{name}", collection(namespace));
        let ask = Ask { verb: Verb::Get, ty: None, path, body: None, urgency: Urgency::Pod };
        match self.wait(|api| async move { api.send(ask).await }) {
            Ok(body) => parse(&body).map(Some),
            Err(Fault::NotFound { no_type: _ }) => Ok(None),
            Err(fault) => Err(failed(fault)),
        }
    }

    /// Writes a Lease over the revision that it names, with the present time; `false`: somebody else was faster.
    ///
    /// # Errors
    /// If the API server can't be reached, or refuses.
    pub fn put_lease(&self, namespace: &str, name: &str, lease: &Lease, seconds: u64) -> Result<bool, StoreError> {
        let Lease { holder, transitions, revision } = lease;
        let mut metadata = json!({"name": name, "namespace": namespace});
        let (verb, path) = match revision {
            0 => (Verb::Create, collection(namespace)),
            revision => {
                metadata["resourceVersion"] = revision.to_string().into();
                (Verb::Update, format!("{}/{name}", collection(namespace)))
            }
        };
        let object = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": holder,
                "leaseTransitions": transitions,
                "leaseDurationSeconds": seconds,
                "renewTime": now(),
            },
        });
        let body = Some(object.to_string().into_bytes());
        let ask = Ask { verb, ty: None, path, body, urgency: Urgency::Pod };
        match self.wait(|api| async move { api.send(ask).await }) {
            Ok(_) => Ok(true),
            Err(Fault::Conflict) => Ok(false),
            Err(Fault::NotFound { no_type: _ }) if *revision != 0 => Ok(false),
            Err(fault) => Err(failed(fault)),
        }
    }
}

fn collection(namespace: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_has_six_digits_of_a_second() {
        let text = now();
        let (_, fraction) = text.split_once('.').expect("a fraction");
        assert_eq!(fraction.len(), 7, "{text}");
        assert!(Timestamp::parse(&text).is_some(), "{text}");
    }

    #[test]
    fn a_lease_is_read_with_what_is_missing_taken_as_nothing() {
        let text = br#"{"metadata":{"resourceVersion":"7"},"spec":{"holderIdentity":"a","leaseTransitions":2}}"#;
        assert_eq!(parse(text), Ok(Lease { holder: "a".into(), transitions: 2, revision: 7 }));
        assert_eq!(parse(b"{}"), Ok(Lease::default()));
        assert!(parse(b"<html>").is_err());
    }
}
