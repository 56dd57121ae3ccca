//! Calls to the cluster: one connection at a time to a member that works, another member when it does not.
//!
//! What is certain not to have been done is tried again until the call's patience ends; what only reads, always. A write
//! whose outcome is unknown is never tried again here: its caller reads and decides.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Response, Status};
use tracing::{debug, warn};

use crate::dial::{Connection, dial, user};
use crate::dns;
use crate::endpoint::Endpoint;
use crate::fault::{Fault, Refusal, refusal};
use crate::options::{Members, Options, OptionsError};
use crate::proto;

/// How long one member may take to answer what may be asked of another one too.
const ATTEMPT: Duration = Duration::from_secs(2);
/// The pause between attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a call may be made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// It changes nothing, or nothing that matters.
    Yes,
    /// Only when it is certain that the first was not done.
    IfNotDone,
}

/// What the calls share.
pub(crate) struct Client {
    pub(crate) options: Options,
    members: Members,
    origin: String,
    state: Mutex<State>,
    /// etcd's number of the cluster that was first talked to; 0 before.
    cluster: AtomicU64,
}

#[derive(Default)]
struct State {
    current: Option<Arc<Connection>>,
    /// Counts the members that were tried, to go on with the next.
    turn: usize,
}

impl Client {
    /// A client that has not connected yet.
    pub(crate) fn new(options: Options) -> Result<Client, OptionsError> {
        let (members, origin) = options.members()?;
        // Many clients spread over the members.
        let turn = usize::try_from(RandomState::new().hash_one(0) >> 48).unwrap_or_default();
        let state = Mutex::new(State { current: None, turn });
        Ok(Client { options, members, origin, state, cluster: AtomicU64::new(0) })
    }

    /// A connection that works, as far as is known.
    pub(crate) async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, Fault> {
        let busy = |_| Fault::Unavailable("etcd did not answer in time".to_owned());
        let mut state = timeout_at(deadline, self.state.lock()).await.map_err(busy)?;
        if let Some(current) = state.current.as_ref().filter(|current| !current.closed()) {
            return Ok(current.clone());
        }
        loop {
            let fault = match self.round(&mut state).await {
                Ok(connection) => return Ok(connection),
                Err(fault) => fault,
            };
            // Who never got through to any member most likely has a setting to look at, and is told so at once.
            let known = self.cluster.load(Ordering::Relaxed) != 0;
            if !known || matches!(fault, Fault::Unusable(_)) || Instant::now() + PAUSE >= deadline {
                return Err(fault);
            }
            debug!(fault = fault.text(), "no member of etcd can be reached");
            sleep(PAUSE).await;
        }
    }

    /// Tries each member once.
    async fn round(&self, state: &mut State) -> Result<Arc<Connection>, Fault> {
        state.current = None;
        let endpoints = self.endpoints().await?;
        let mut unusable = true;
        let mut texts = Vec::new();
        for _ in 0..endpoints.len() {
            let endpoint = &endpoints[state.turn % endpoints.len()];
            match dial(endpoint, &self.options).await.and_then(|connection| self.same_cluster(connection)) {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    state.current = Some(connection.clone());
                    return Ok(connection);
                }
                Err(fault) => {
                    unusable &= matches!(fault, Fault::Unusable(_));
                    texts.push(fault.text());
                    state.turn = state.turn.wrapping_add(1);
                }
            }
        }
        let text = format!("etcd ({}): {}", self.origin, texts.join("; "));
        Err(if unusable { Fault::Unusable(text) } else { Fault::Unavailable(text) })
    }

    async fn endpoints(&self) -> Result<Vec<Endpoint>, Fault> {
        match &self.members {
            Members::Named(list) => Ok(list.clone()),
            Members::Srv(domain) => {
                dns::members(domain).await.map_err(|text| Fault::Unavailable(format!("etcd ({}): {text}", self.origin)))
            }
        }
    }

    /// Refuses a member of another cluster than the first that was talked to: its revisions mean something else.
    fn same_cluster(&self, connection: Connection) -> Result<Connection, Fault> {
        let found = connection.cluster;
        if found == 0 {
            return Ok(connection);
        }
        match self.cluster.compare_exchange(0, found, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Ok(connection),
            Err(known) if known == found => Ok(connection),
            Err(known) => Err(Fault::Unusable(format!(
                "{} belongs to the etcd cluster {found:x}, not to {known:x} as before: restart if that is meant",
                connection.endpoint
            ))),
        }
    }

    /// Uses a connection no longer; the next one is to another member.
    pub(crate) async fn forget(&self, connection: &Arc<Connection>) {
        let mut state = self.state.lock().await;
        if state.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, connection)) {
            state.current = None;
            state.turn = state.turn.wrapping_add(1);
        }
    }

    /// What a failed call means.
    pub(crate) fn refusal(&self, status: &Status, connection: &Connection) -> Refusal {
        refusal(status, &connection.endpoint.to_string(), &user(&self.options))
    }

    async fn call<T, F>(&self, again: Again, ask: impl Fn(Arc<Connection>) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.options.patience;
        loop {
            let connection = self.connection(deadline).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            let share = if again == Again::Yes { left.min(ATTEMPT) } else { left };
            let (text, done) = match timeout(share, ask(connection.clone())).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => match self.refusal(&status, &connection) {
                    Refusal::Final(fault) => return Err(fault),
                    Refusal::NotDone(text) => (text, Again::Yes),
                    Refusal::Unknown(text) => (text, again),
                },
                Err(_) => (format!("{} did not answer within {} s", connection.endpoint, share.as_secs_f32()), again),
            };
            self.forget(&connection).await;
            if done == Again::IfNotDone || Instant::now() + PAUSE >= deadline {
                return Err(Fault::Unavailable(text));
            }
            warn!(text, "asking another member of etcd, or again");
            sleep(PAUSE).await;
        }
    }

    pub(crate) async fn range(&self, request: proto::RangeRequest) -> Result<proto::RangeResponse, Fault> {
        self.call(Again::Yes, |connection| {
            let request = connection.request(request.clone());
            async move { connection.kv().range(request).await }
        })
        .await
    }

    pub(crate) async fn txn(&self, request: proto::TxnRequest) -> Result<proto::TxnResponse, Fault> {
        self.call(Again::IfNotDone, |connection| {
            let request = connection.request(request.clone());
            async move { connection.kv().txn(request).await }
        })
        .await
    }

    /// A lease of so many seconds; one that is granted twice by chance just ends.
    pub(crate) async fn lease(&self, seconds: i64) -> Result<i64, Fault> {
        let request = proto::LeaseGrantRequest { ttl: seconds, id: 0 };
        let granted = self
            .call(Again::Yes, |connection| {
                let request = connection.request(request);
                async move { connection.lease().lease_grant(request).await }
            })
            .await?;
        Ok(granted.id)
    }

    /// Forgets what was before a revision.
    pub(crate) async fn compact(&self, revision: i64) -> Result<(), Fault> {
        let request = proto::CompactionRequest { revision, physical: true };
        let done = self
            .call(Again::Yes, |connection| {
                let request = connection.request(request);
                async move { connection.kv().compact(request).await }
            })
            .await;
        match done {
            Ok(_) | Err(Fault::Compacted) => Ok(()),
            Err(fault) => Err(fault),
        }
    }
}
