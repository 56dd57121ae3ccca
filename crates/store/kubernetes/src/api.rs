//! Requests to the API server: deadline, limit, repetition, and renewal of credentials, in one place.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use tokio::time::{Instant, sleep, timeout_at};
use tortie_facts::{Key, Revision};
use tortie_kubernetes::PodCidrs;

use crate::config::{self, chain};
use crate::connect;
use crate::fault::{Fault, Status, Verb};
use crate::limit::{Limiter, Urgency};
use crate::object::Lens;
use crate::types::Type;
use crate::{Group, Options, Recent};

/// Pauses between attempts: they double from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// One request.
pub(crate) struct Ask {
    pub(crate) verb: Verb,
    /// What it is about; none for questions about the server itself.
    pub(crate) ty: Option<Type>,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) urgency: Urgency,
}

/// A client of one API server. The client is made at the first request.
pub(crate) struct Api {
    options: Options,
    limiter: Limiter,
    client: Mutex<Option<Client>>,
    group: OnceLock<Group>,
    /// Which pod an endpoint was at a revision; the newest last.
    pods: Mutex<VecDeque<(Key, Revision, String)>>,
}

/// How many pods are remembered: those between a read and a write that builds on it.
const PODS: usize = 512;

impl Api {
    pub(crate) fn new(options: Options) -> Arc<Api> {
        let limiter = Limiter::new(options.qps.unwrap_or(50.0), options.burst.unwrap_or(100));
        let group = options.group.map(OnceLock::from).unwrap_or_default();
        Arc::new(Api { options, limiter, client: Mutex::new(None), group, pods: Mutex::default() })
    }

    /// How long a watch tries to go on by itself.
    pub(crate) fn patience(&self) -> Duration {
        self.options.patience.unwrap_or(Duration::from_secs(10))
    }

    /// The group of the custom resources: the one that was set, or the one that the server has. As upstream, a server
    /// that has both serves v3 from v1.
    pub(crate) async fn group(&self) -> Result<Group, Fault> {
        if let Some(group) = self.group.get() {
            return Ok(*group);
        }
        #[derive(serde::Deserialize)]
        struct Groups {
            groups: Vec<Named>,
        }
        #[derive(serde::Deserialize)]
        struct Named {
            name: String,
        }
        let ask = Ask { verb: Verb::Get, ty: None, path: "/apis".into(), body: None, urgency: Urgency::Pod };
        let body = self.send(ask).await?;
        let Groups { groups } = serde_json::from_slice(&body)
            .map_err(|error| Fault::Unavailable(format!("the list of API groups can't be read: {error}")))?;
        let has = |group: Group| groups.iter().any(|named| named.name == group.name());
        let found = if has(Group::V3) && !has(Group::V1) { Group::V3 } else { Group::V1 };
        tracing::debug!(group = found.api_version(), "found the group of the custom resources");
        Ok(*self.group.get_or_init(|| found))
    }

    /// How objects are to be read.
    pub(crate) async fn lens(&self) -> Result<Lens, Fault> {
        let Options { use_pod_cidr, interface_prefix, .. } = &self.options;
        let prefix = if interface_prefix.is_empty() { "cali" } else { interface_prefix };
        let pod_cidrs = if *use_pod_cidr { PodCidrs::Used } else { PodCidrs::Unused };
        Ok(Lens { group: self.group().await?, pod_cidrs, interface_prefix: Arc::from(prefix) })
    }

    /// Remembers which pod an endpoint was at a revision.
    pub(crate) fn saw_pod(&self, key: &Key, revision: Revision, uid: &str) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.push_back((key.clone(), revision, uid.to_owned()));
        let surplus = pods.len().saturating_sub(PODS);
        pods.drain(..surplus);
    }

    /// Which pod an endpoint was at a revision.
    pub(crate) fn pod_seen(&self, key: &Key, revision: Revision) -> Option<String> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.iter().rev().find(|(k, r, _)| k == key && *r == revision).map(|(_, _, uid)| uid.clone())
    }

    /// What watches told of the node's pods, if that is kept.
    pub(crate) fn recent(&self) -> Option<&Recent> {
        self.options.recent.as_ref()
    }

    fn known_group(&self) -> Group {
        self.group.get().copied().unwrap_or(Group::V1)
    }

    /// What a fault of a type means: a client needs no right to what the server does not know. Older versions had
    /// fewer types, and gave fewer rights. A type of ours that the server has in another version only is not absent.
    pub(crate) async fn settled(&self, ty: Type, fault: Fault) -> Fault {
        let group = self.known_group();
        match fault {
            Fault::Forbidden(_) if !self.has_type(ty, &ty.root(group)).await.unwrap_or(true) => {
                Fault::NotFound { no_type: true }
            }
            Fault::NotFound { no_type: true } if matches!(ty, Type::Custom(_)) => {
                match self.other_version(ty, group).await {
                    Ok(None) => fault,
                    Ok(Some(version)) => Fault::Unusable(format!(
                        "the API server has {} in version {version} only, and {} is needed: apply the custom resource \
                         definitions of this version, or use the program that goes with those",
                        ty.full_name(group),
                        group.api_version()
                    )),
                    Err(other) => other,
                }
            }
            fault => fault,
        }
    }

    /// Whether a group's version at a path has a type.
    async fn has_type(&self, ty: Type, path: &str) -> Result<bool, Fault> {
        #[derive(serde::Deserialize)]
        struct Types {
            resources: Vec<Named>,
        }
        #[derive(serde::Deserialize)]
        struct Named {
            name: String,
        }
        let plural = ty.plural(self.known_group());
        match self.discover::<Types>(ty, path.to_owned()).await? {
            Some(Types { resources }) => Ok(resources.iter().any(|Named { name }| name == plural)),
            None => Ok(false),
        }
    }

    /// A version of the group other than ours in which the server has a type.
    async fn other_version(&self, ty: Type, group: Group) -> Result<Option<String>, Fault> {
        #[derive(serde::Deserialize)]
        struct Versions {
            versions: Vec<Version>,
        }
        #[derive(serde::Deserialize)]
        struct Version {
            version: String,
        }
        let root = format!("/apis/{}", group.name());
        let all = self.discover::<Versions>(ty, root.clone()).await?.map(|Versions { versions }| versions);
        for Version { version } in all.unwrap_or_default() {
            let path = format!("{root}/{version}");
            if path != ty.root(group) && self.has_type(ty, &path).await? {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// What the server tells of its types at a path; `None` where it knows none.
    async fn discover<T: serde::de::DeserializeOwned>(&self, ty: Type, path: String) -> Result<Option<T>, Fault> {
        let ask = Ask { verb: Verb::Get, ty: Some(ty), path, body: None, urgency: Urgency::Other };
        match self.send(ask).await {
            Ok(body) => serde_json::from_slice(&body)
                .map(Some)
                .map_err(|error| Fault::Unavailable(format!("the list of types can't be read: {error}"))),
            Err(Fault::NotFound { no_type: _ }) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Sends a request and reads the whole answer, again where that is safe, until the deadline.
    pub(crate) async fn send(&self, ask: Ask) -> Result<Bytes, Fault> {
        let deadline = Instant::now() + self.options.deadline.unwrap_or(Duration::from_secs(15));
        loop {
            let response = self.open(&ask, deadline).await?;
            let body = timeout_at(deadline, response.into_body().collect()).await;
            match body.map_err(|_| Fault::Unavailable(self.late(&ask)))? {
                Ok(body) => return Ok(body.to_bytes()),
                Err(_) if ask.verb.reads() && Instant::now() + FIRST_PAUSE < deadline => sleep(FIRST_PAUSE).await,
                Err(error) => return Err(self.unreached(&chain(&error))),
            }
        }
    }

    /// Sends a request and gives the answer with its body still to come.
    pub(crate) async fn open(&self, ask: &Ask, deadline: Instant) -> Result<Response<Body>, Fault> {
        let mut pause = FIRST_PAUSE;
        let mut renewed = false;
        loop {
            let attempt = async {
                self.limiter.acquire(ask.urgency).await;
                self.attempt(ask).await
            };
            let outcome = timeout_at(deadline, attempt).await.unwrap_or_else(|_| Err(Attempt::no_more(self.late(ask))));
            let Attempt { fault, again, after } = match outcome {
                Ok(response) => return Ok(response),
                Err(failed) => failed,
            };
            // Credentials are renewed in files: read them again, once.
            if again == Again::Renewed && !renewed {
                renewed = true;
                *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
                continue;
            }
            let wait = after.unwrap_or(pause);
            if again != Again::Yes || Instant::now() + wait >= deadline {
                return Err(fault);
            }
            tracing::debug!(path = ask.path, ?fault, ?wait, "trying again");
            sleep(wait).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn attempt(&self, ask: &Ask) -> Result<Response<Body>, Attempt> {
        let client = self.client().await.map_err(|text| Attempt::no_more_fault(Fault::Unusable(text)))?;
        let request = request(ask).map_err(|error| Attempt::no_more_fault(Fault::Refused(error.to_string())))?;
        let response = client.send(request).await.map_err(|error| {
            // What did not even connect was surely not done.
            let again = ask.verb.reads() || not_sent(&error);
            let fault = match &error {
                kube::Error::Auth(_) => Fault::Unusable(format!("{}: {}", self.options.origin(), chain(&error))),
                _ => self.unreached(&chain(&error)),
            };
            Attempt { fault, again: if again { Again::Yes } else { Again::No }, after: None }
        })?;
        let code = response.status().as_u16();
        if response.status().is_success() {
            return Ok(response);
        }
        let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let after = seconds.map(|seconds: u64| Duration::from_secs(seconds.min(10)));
        let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let again = match code {
            // Too many requests: this one was not looked at.
            429 => Again::Yes,
            401 => Again::Renewed,
            500..=599 if ask.verb.reads() => Again::Yes,
            _ => Again::No,
        };
        let fault = Status::read(code, &body).fault(ask.verb, ask.ty, self.known_group(), &self.options.origin());
        Err(Attempt { fault, again, after })
    }

    async fn client(&self) -> Result<Client, String> {
        if let Some(client) = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(client);
        }
        let config = config::load(&self.options).await?;
        let client = connect::client(config)
            .map_err(|error| format!("the settings of {} can't be used: {error}", self.options.origin()))?;
        Ok(self.client.lock().unwrap_or_else(PoisonError::into_inner).insert(client).clone())
    }

    fn late(&self, ask: &Ask) -> String {
        format!("the API server of {} did not answer {} {} in time", self.options.origin(), ask.verb.word(), ask.path)
    }

    fn unreached(&self, cause: &str) -> Fault {
        let hint = match cause {
            cause if cause.contains("UnknownIssuer") => "; check the CA: K8S_CA_FILE or certificate-authority",
            cause if cause.contains("Expired") => "; a certificate has expired",
            cause if cause.contains("NotValidForName") => "; the server's certificate is for another name",
            _ => "",
        };
        Fault::Unavailable(format!("the API server of {} can't be reached: {cause}{hint}", self.options.origin()))
    }
}

/// A failed attempt.
struct Attempt {
    fault: Fault,
    again: Again,
    after: Option<Duration>,
}

impl Attempt {
    fn no_more_fault(fault: Fault) -> Attempt {
        Attempt { fault, again: Again::No, after: None }
    }

    fn no_more(text: String) -> Attempt {
        Attempt::no_more_fault(Fault::Unavailable(text))
    }
}

/// Whether an attempt may be repeated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Yes,
    /// With credentials that were read anew.
    Renewed,
    No,
}

fn request(ask: &Ask) -> Result<Request<Body>, http::Error> {
    let (method, content) = match ask.verb {
        Verb::Get | Verb::List | Verb::Watch => (Method::GET, None),
        Verb::Create => (Method::POST, Some("application/json")),
        Verb::Update => (Method::PUT, Some("application/json")),
        Verb::Patch => (Method::PATCH, Some("application/merge-patch+json")),
        Verb::PatchLists => (Method::PATCH, Some("application/strategic-merge-patch+json")),
        Verb::Delete => (Method::DELETE, Some("application/json")),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(&ask.path)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("tortie/", env!("CARGO_PKG_VERSION")));
    if let Some(content) = content {
        request = request.header(header::CONTENT_TYPE, content);
    }
    request.body(Body::from(ask.body.clone().unwrap_or_default()))
}

/// Whether the error came before a connection was there.
fn not_sent(error: &kube::Error) -> bool {
    let kube::Error::Service(error) = error else { return false };
    error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(hyper_util::client::legacy::Error::is_connect)
}
