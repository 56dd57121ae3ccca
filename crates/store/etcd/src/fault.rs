//! What an error of etcd means to the user of the store.

use std::error::Error;

use tonic::{Code, Status};
use tortie_store::{StoreError, WatchError, WriteError};

/// Why a call could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It may work later. A write may have happened.
    Unavailable(String),
    /// It won't work until somebody acts.
    Unusable(String),
    /// What was asked for lies before the last compaction.
    Compacted,
    /// A request that etcd finds too large.
    TooLarge,
}

impl Fault {
    pub(crate) fn text(self) -> String {
        match self {
            Fault::Unavailable(text) | Fault::Unusable(text) => text,
            Fault::Compacted => "etcd forgot what was asked for (compaction)".to_owned(),
            Fault::TooLarge => {
                "the value is larger than etcd takes (1.5 MB unless --max-request-bytes says otherwise)".to_owned()
            }
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> StoreError {
        match fault {
            Fault::Unusable(text) => StoreError::Unusable(text),
            other @ (Fault::Unavailable(_) | Fault::Compacted | Fault::TooLarge) => {
                StoreError::Unavailable(other.text())
            }
        }
    }
}

impl From<Fault> for WriteError {
    fn from(fault: Fault) -> WriteError {
        match fault {
            Fault::TooLarge => WriteError::Invalid(Fault::TooLarge.text()),
            other @ (Fault::Unavailable(_) | Fault::Unusable(_) | Fault::Compacted) => {
                WriteError::Unavailable(other.text())
            }
        }
    }
}

impl From<Fault> for WatchError {
    fn from(fault: Fault) -> WatchError {
        match fault {
            Fault::Compacted => WatchError::Gone,
            other @ (Fault::Unavailable(_) | Fault::Unusable(_) | Fault::TooLarge) => {
                WatchError::Unavailable(other.text())
            }
        }
    }
}

/// What an answer other than success asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Nothing was done, and another attempt on this member is of no use.
    Final(Fault),
    /// Nothing was done, but another connection, with a fresh token, may do it.
    NotDone(String),
    /// Nobody knows whether it was done.
    Unknown(String),
}

impl Refusal {
    pub(crate) fn text(self) -> String {
        match self {
            Refusal::Final(fault) => fault.text(),
            Refusal::NotDone(text) | Refusal::Unknown(text) => text,
        }
    }
}

/// What there is to be done about a quota that is full.
const FULL: &str = "etcd's database is full (its quota): free room with `etcdctl compact` and `etcdctl defrag`, raise \
                    --quota-backend-bytes if need be, then `etcdctl alarm disarm`";

/// What a call's failure means. `who` is the member, `user` the user that this client is for etcd.
pub(crate) fn refusal(status: &Status, who: &str, user: &str) -> Refusal {
    let message = status.message();
    if status.source().is_some() {
        return match source::<Broken>(status) {
            Some(Broken::Unsent(_)) => Refusal::NotDone(format!("{who}: {}", chain(status))),
            Some(Broken::Lost(_)) | None => Refusal::Unknown(format!("{who}: {}", chain(status))),
        };
    }
    let unusable = |text: String| Refusal::Final(Fault::Unusable(format!("{who}: {text}")));
    let says = |part: &str| message.contains(part);
    match status.code() {
        Code::OutOfRange if says("compacted") => Refusal::Final(Fault::Compacted),
        Code::ResourceExhausted if says("space exceeded") => {
            Refusal::Final(Fault::Unavailable(format!("{who}: {FULL}")))
        }
        Code::ResourceExhausted if says("larger than max") => Refusal::Final(Fault::TooLarge),
        Code::ResourceExhausted => Refusal::NotDone(format!("{who}: {message}")),
        Code::InvalidArgument if says("request is too large") => Refusal::Final(Fault::TooLarge),
        Code::InvalidArgument if says("user name is empty") => unusable(
            "it asks for a user: set ETCD_USERNAME and ETCD_PASSWORD, or a client certificate whose common name is a user"
                .to_owned(),
        ),
        Code::InvalidArgument if says("authentication failed") => {
            unusable(format!("the user name or the password is wrong ({user})"))
        }
        // The rights were changed since the token was given.
        Code::InvalidArgument if says("revision of auth store") => Refusal::NotDone(format!("{who}: {message}")),
        Code::PermissionDenied => unusable(format!(
            "permission denied ({user}): the user needs a role with readwrite on the prefix /calico/, as of \
             `etcdctl role grant-permission ROLE readwrite --prefix=true /calico/`"
        )),
        Code::Unauthenticated => Refusal::NotDone(format!("{who}: {message}")),
        Code::Unavailable if says("no leader") => Refusal::NotDone(format!("{who}: {message}")),
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented | Code::NotFound => {
            unusable(message.to_owned())
        }
        code => Refusal::Unknown(format!("{who}: {message} ({code:?})")),
    }
}

/// Why a request has no answer of the member.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// It was not sent, as the connection had ended before.
    #[error("the connection ended")]
    Unsent(#[source] hyper::Error),
    /// The connection broke meanwhile.
    #[error("the connection broke")]
    Lost(#[source] hyper::Error),
}

/// The first error of a type in a chain of sources, through I/O errors that wrap others.
pub(crate) fn source<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// An error with its sources, each once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = match error.downcast_ref::<Status>() {
        Some(status) => status.source(),
        None => Some(error),
    };
    while let Some(error) = next {
        let text = error.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, message: &str) -> Refusal {
        refusal(&Status::new(code, message), "http://a:1", "the user \"root\"")
    }

    #[test]
    fn etcds_words_become_what_a_caller_can_do() {
        assert_eq!(
            of(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Refusal::Final(Fault::Compacted)
        );
        assert_eq!(of(Code::InvalidArgument, "etcdserver: request is too large"), Refusal::Final(Fault::TooLarge));
        for (code, message, part) in [
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "alarm disarm"),
            (Code::InvalidArgument, "etcdserver: user name is empty", "ETCD_USERNAME"),
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", "root"),
            (Code::PermissionDenied, "etcdserver: permission denied", "/calico/"),
        ] {
            let Refusal::Final(fault) = of(code, message) else { panic!("{message}") };
            let text = fault.text();
            assert!(text.contains(part) && text.contains("http://a:1"), "{text}");
        }
    }

    #[test]
    fn only_what_was_certainly_not_done_is_said_to_be_so() {
        for (code, message) in [
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
            (Code::Unauthenticated, "etcdserver: invalid auth token"),
        ] {
            assert!(matches!(of(code, message), Refusal::NotDone(_)), "{message}");
        }
        for (code, message) in [
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Internal, "stream ended"),
            (Code::DataLoss, "etcdserver: corrupt cluster"),
        ] {
            assert!(matches!(of(code, message), Refusal::Unknown(_)), "{message}");
        }
    }
}
