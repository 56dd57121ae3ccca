//! What can go wrong with a request, and what it means to a caller of the store.

use serde::Deserialize;
use tortie_store::{StoreError, WatchError, WriteError};

use crate::Group;
use crate::types::Type;

/// What a request wants to do, by the word that roles know it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    /// A patch that merges lists of objects by their keys, where [`Verb::Patch`] replaces them.
    PatchLists,
    Delete,
}

impl Verb {
    /// The word in roles.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch | Verb::PatchLists => "patch",
            Verb::Delete => "delete",
        }
    }

    /// Whether it may be sent twice.
    pub(crate) fn reads(self) -> bool {
        match self {
            Verb::Get | Verb::List | Verb::Watch => true,
            Verb::Create | Verb::Update | Verb::Patch | Verb::PatchLists | Verb::Delete => false,
        }
    }
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There is no such object, or no such type.
    NotFound {
        /// The type itself is unknown to the server.
        no_type: bool,
    },
    /// The object is another one by now, or is there already.
    Conflict,
    /// The history or the page is gone.
    Expired,
    /// The server refuses the object.
    Refused(String),
    /// The client has no right to do this.
    Forbidden(String),
    /// The server refuses this client, or the settings lead nowhere.
    Unusable(String),
    /// Not reached, no answer in time, or an answer that says that the server can't. What was asked may have happened.
    Unavailable(String),
}

/// What is read of a `Status` of the API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Details {
    pub(crate) name: Option<String>,
}

impl Status {
    /// Reads the body of an answer that is no success.
    pub(crate) fn read(code: u16, body: &[u8]) -> Status {
        let mut status: Status = serde_json::from_slice(body).unwrap_or_default();
        if status.code == 0 {
            status.code = code;
        }
        if status.message.is_empty() {
            let text = String::from_utf8_lossy(body);
            status.message = text.chars().take(200).collect::<String>().trim().to_owned();
        }
        status
    }

    /// What it means.
    pub(crate) fn fault(self, verb: Verb, ty: Option<Type>, group: Group, origin: &str) -> Fault {
        let Status { code, reason, message, details } = self;
        match code {
            404 => Fault::NotFound { no_type: details.and_then(|d| d.name).is_none_or(|name| name.is_empty()) },
            409 => Fault::Conflict,
            410 => Fault::Expired,
            400 | 405 | 413 | 415 | 422 => Fault::Refused(message),
            401 => Fault::Unusable(format!(
                "the API server does not accept the credentials ({message}); check the token or certificate of {origin}"
            )),
            403 => Fault::Forbidden(match ty {
                Some(ty) => format!(
                    "this client may not {} {}; give it the verb {} on that resource ({message})",
                    verb.word(),
                    ty.full_name(group),
                    verb.word(),
                ),
                None => message,
            }),
            _ => Fault::Unavailable(format!("the API server answered {code} {reason}: {message}")),
        }
    }
}

impl Fault {
    /// For a reader. What is missing or in conflict is the caller's to decide before.
    pub(crate) fn of_read(self, ty: Type, group: Group) -> StoreError {
        match self {
            Fault::Unusable(text) | Fault::Refused(text) | Fault::Forbidden(text) => StoreError::Unusable(text),
            Fault::NotFound { no_type: _ } => StoreError::Unusable(missing_type(ty, group)),
            Fault::Expired => StoreError::Unavailable("the listing took longer than the server keeps history".into()),
            Fault::Conflict => StoreError::Unavailable("the API server answered with a conflict".into()),
            Fault::Unavailable(text) => StoreError::Unavailable(text),
        }
    }

    /// For a writer of the key of this name.
    pub(crate) fn of_write(self, name: &str, ty: Type, group: Group) -> WriteError {
        match self {
            Fault::Refused(text) => WriteError::Invalid(format!("{name}: the API server refuses it: {text}")),
            Fault::Unusable(text) | Fault::Forbidden(text) => {
                WriteError::Invalid(format!("{name} can't be written: {text}"))
            }
            Fault::NotFound { no_type: true } => WriteError::Invalid(format!("{name}: {}", missing_type(ty, group))),
            Fault::NotFound { no_type: false } => WriteError::Missing(name.to_owned()),
            Fault::Conflict | Fault::Expired => {
                WriteError::Unavailable(format!("{name}: others changed it each time that it was tried"))
            }
            Fault::Unavailable(text) => WriteError::Unavailable(text),
        }
    }

    /// For a watcher.
    pub(crate) fn of_watch(self, ty: Type, group: Group) -> WatchError {
        match self {
            Fault::Expired => WatchError::Gone,
            other => match other.of_read(ty, group) {
                StoreError::Unavailable(text) | StoreError::Unusable(text) | StoreError::Invalid(text) => {
                    WatchError::Unavailable(text)
                }
            },
        }
    }
}

fn missing_type(ty: Type, group: Group) -> String {
    format!("the API server does not know {}; are the custom resource definitions installed?", ty.full_name(group))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_api::Kind;

    const POOL: Type = Type::Custom(Kind::IpPool);

    fn fault(code: u16, body: &str) -> Fault {
        Status::read(code, body.as_bytes()).fault(Verb::List, Some(POOL), Group::V1, "KUBECONFIG /x")
    }

    #[test]
    fn answers_mean_what_a_caller_can_do() {
        assert_eq!(fault(409, "{}"), Fault::Conflict);
        assert_eq!(fault(410, ""), Fault::Expired);
        assert_eq!(fault(404, "404 page not found"), Fault::NotFound { no_type: true });
        assert_eq!(fault(404, r#"{"code":404,"details":{"name":"x"}}"#), Fault::NotFound { no_type: false });
        assert!(
            matches!(fault(500, "oops"), Fault::Unavailable(text) if text.contains("500") && text.contains("oops"))
        );
        assert!(matches!(fault(422, r#"{"message":"spec.x: bad"}"#), Fault::Refused(text) if text == "spec.x: bad"));
    }

    #[test]
    fn refusals_name_the_verb_and_the_credentials() {
        let Fault::Forbidden(text) = fault(403, r#"{"message":"forbidden"}"#) else { panic!("403") };
        assert!(text.contains("the verb list") && text.contains("ippools.crd.projectcalico.org"), "{text}");
        let Fault::Unusable(text) = fault(401, "") else { panic!("401") };
        assert!(text.contains("KUBECONFIG /x"), "{text}");
        let StoreError::Unusable(text) = fault(404, "").of_read(POOL, Group::V3) else { panic!("404") };
        assert!(text.contains("ippools.projectcalico.org") && text.contains("definitions"), "{text}");
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics(code in 0_u16..1000, body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = Status::read(code, &body).fault(Verb::Get, None, Group::V1, "");
        }
    }
}
