//! A watch: one stream that resumes on another member, never splits a revision, and notices a member that went silent.
//!
//! Several prefixes are one range of etcd's, from the first to the last, and what lies between is left out here: etcd
//! orders the events of one range by revision, but not those of several. Members answer a request for progress out of
//! order with events, so such an answer is a sign of life and nothing else; the progress that members tell by
//! themselves is in order, and counts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_stream::Stream;
use tonic::{Status, Streaming};
use tortie_store::{Event, InvalidEntry, Span, Watch, WatchError, decode_event};
use tracing::debug;

use crate::client::Client;
use crate::dial::{Connection, KEEP_ALIVE, KEEP_ALIVE_TIMEOUT};
use crate::fault::{Fault, Refusal};
use crate::proto::event::EventType;
use crate::proto::watch_request::RequestUnion;
use crate::proto::{self, WatchRequest, WatchResponse};
use crate::read::{now, path, revision};
use crate::runtime;

/// How long a member may take to open a watch.
const OPENING: Duration = Duration::from_secs(2);
/// The pause before a stream that ended is opened anew.
const PAUSE: Duration = Duration::from_millis(50);

/// The requests of a stream, from a channel.
struct Requests(mpsc::Receiver<WatchRequest>);

impl Stream for Requests {
    type Item = WatchRequest;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<WatchRequest>> {
        self.0.poll_recv(context)
    }
}

/// An open stream.
struct Line {
    connection: Arc<Connection>,
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    /// When the member was heard last.
    heard: Instant,
    /// When it was asked for a sign of life, if it has not answered yet.
    asked: Option<Instant>,
}

impl Line {
    /// When something must be done though nothing came.
    fn patience_ends(&self) -> Instant {
        self.asked.map_or(self.heard + KEEP_ALIVE, |asked| asked + KEEP_ALIVE_TIMEOUT)
    }

    /// Asks for a sign of life; false if one was asked for and did not come, or can't be asked for.
    fn check(&mut self) -> bool {
        let progress =
            WatchRequest { request_union: Some(RequestUnion::ProgressRequest(proto::WatchProgressRequest {})) };
        if self.asked.is_some() || self.requests.try_send(progress).is_err() {
            return false;
        }
        self.asked = Some(Instant::now());
        true
    }
}

/// A watch of etcd.
pub(crate) struct EtcdWatch {
    client: Arc<Client>,
    spans: Vec<Span>,
    /// Everything up to and including this revision was told.
    seen: i64,
    line: Option<Line>,
    /// Events of a response of which parts are to come.
    parts: Vec<Event>,
    /// Since when streams have ended without telling anything.
    troubled: Option<Instant>,
}

impl EtcdWatch {
    /// A watch of what comes after a revision.
    pub(crate) fn open(client: &Arc<Client>, spans: Vec<Span>, from: u64) -> Result<EtcdWatch, WatchError> {
        let seen = i64::try_from(from).map_err(|_| WatchError::Gone)?;
        let mut watch =
            EtcdWatch { client: client.clone(), spans, seen, line: None, parts: Vec::new(), troubled: None };
        runtime::wait(watch.reopen())?;
        Ok(watch)
    }

    fn create(&self) -> WatchRequest {
        let first = self.spans.first().map_or(String::new(), |span| span.start.clone());
        let last = self.spans.last().map_or(String::new(), |span| span.end.clone());
        WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(proto::WatchCreateRequest {
                key: first.into(),
                range_end: last.into(),
                start_revision: self.seen + 1,
                progress_notify: true,
                fragment: true,
            })),
        }
    }

    /// Opens a stream behind what was told, on whichever member takes it, within the client's patience.
    async fn reopen(&mut self) -> Result<(), Fault> {
        self.line = None;
        self.parts.clear();
        if self.spans.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + self.client.options.patience;
        loop {
            let connection = self.client.connection(deadline).await?;
            let fault = match self.open_on(&connection).await {
                Ok(()) => return Ok(()),
                Err(Fault::Compacted) => return Err(Fault::Compacted),
                Err(fault) => fault,
            };
            // A token that is no longer good looks like missing rights here, so those too are asked for twice.
            self.client.forget(&connection).await;
            if Instant::now() + PAUSE >= deadline {
                return Err(fault);
            }
            debug!(fault = fault.clone().text(), "a watch of etcd could not be opened");
            sleep(PAUSE).await;
            if matches!(fault, Fault::Unusable(_)) && self.troubled.replace(Instant::now()).is_some() {
                return Err(fault);
            }
        }
    }

    async fn open_on(&mut self, connection: &Arc<Connection>) -> Result<(), Fault> {
        let silent = |_| Fault::Unavailable(format!("{} did not open a watch in time", connection.endpoint));
        let refused = |status: Status| match self.client.refusal(&status, connection) {
            Refusal::Final(fault) => fault,
            Refusal::NotDone(text) | Refusal::Unknown(text) => Fault::Unavailable(text),
        };
        let (requests, receiver) = mpsc::channel(4);
        requests.try_send(self.create()).map_err(|_| Fault::Unavailable("a watch can't be asked for".to_owned()))?;
        let request = connection.request(Requests(receiver));
        let mut client = connection.watch();
        let answer = timeout(OPENING, client.watch(request)).await.map_err(silent)?.map_err(refused)?;
        let mut responses = answer.into_inner();
        let first = timeout(OPENING, responses.message()).await.map_err(silent)?.map_err(refused)?;
        let Some(first) = first.filter(|first| first.created) else {
            return Err(Fault::Unavailable(format!("{} answered a watch with nothing", connection.endpoint)));
        };
        if first.canceled {
            return Err(refused(cancelled(&first)));
        }
        let at = first.header.map_or(0, |header| header.revision);
        // A member may be behind the others; if all are, this is not the store that the revision is of.
        if at < self.seen && now(&self.client).await? < self.seen {
            return Err(Fault::Compacted);
        }
        let heard = Instant::now();
        self.line = Some(Line { connection: connection.clone(), requests, responses, heard, asked: None });
        Ok(())
    }

    /// The next events; empty at the deadline.
    async fn wait(&mut self, deadline: Instant) -> Result<Vec<Event>, Fault> {
        loop {
            let Some(line) = &mut self.line else {
                if self.spans.is_empty() {
                    tokio::time::sleep_until(deadline).await;
                    return Ok(Vec::new());
                }
                self.reopen().await?;
                continue;
            };
            let until = line.patience_ends().min(deadline);
            match timeout_at(until, line.responses.message()).await {
                Ok(Ok(Some(response))) => {
                    line.heard = Instant::now();
                    line.asked = None;
                    if let Some(events) = self.take(response).await? {
                        return Ok(events);
                    }
                }
                Ok(ended) => {
                    let why = ended.err().map_or_else(
                        || "the member ended it".to_owned(),
                        |status| self.client.refusal(&status, &line.connection).text(),
                    );
                    self.lost(why).await?;
                }
                Err(_) if Instant::now() >= deadline => return Ok(Vec::new()),
                Err(_) => {
                    if !line.check() {
                        self.lost("the member went silent".to_owned()).await?;
                    }
                }
            }
        }
    }

    /// What a response tells, if it tells something now.
    async fn take(&mut self, response: WatchResponse) -> Result<Option<Vec<Event>>, Fault> {
        let WatchResponse {
            header, watch_id, created: _, canceled, compact_revision, cancel_reason: _, fragment, ..
        } = &response;
        if *canceled {
            if *compact_revision > 0 {
                return Err(Fault::Compacted);
            }
            self.lost(cancelled(&response).message().to_owned()).await?;
            return Ok(None);
        }
        self.troubled = None;
        let at = match response.events.last().and_then(|event| event.kv.as_ref()) {
            Some(kv) => kv.mod_revision,
            // The answer to a request for progress has no watch's number.
            None if *watch_id < 0 => return Ok(None),
            None => header.map_or(0, |header| header.revision),
        };
        let told = response.events.iter().filter_map(|event| self.decode(event));
        let told: Vec<Event> = told.collect();
        self.parts.extend(told);
        if *fragment {
            return Ok(None);
        }
        self.seen = self.seen.max(at);
        let events = std::mem::take(&mut self.parts);
        Ok((!events.is_empty()).then_some(events))
    }

    fn decode(&self, event: &proto::Event) -> Option<Event> {
        let kv = event.kv.as_ref()?;
        let revision = revision(kv.mod_revision);
        let invalid = |path: &str, what: &str| {
            Some(Event::Invalid(InvalidEntry {
                path: path.to_owned(),
                reason: format!("{what} is not UTF-8"),
                revision,
            }))
        };
        let deleted = event.r#type() == EventType::Delete;
        let path = match path(&kv.key) {
            Ok(path) => path,
            Err(shown) if !deleted && self.covers(&shown) => return invalid(&shown, "the key"),
            Err(_) => return None,
        };
        if !self.covers(path) {
            return None;
        }
        if deleted {
            return decode_event(path, None, revision);
        }
        match std::str::from_utf8(&kv.value) {
            Ok(text) => decode_event(path, Some(text), revision),
            Err(_) => invalid(path, "the value"),
        }
    }

    fn covers(&self, path: &str) -> bool {
        self.spans.iter().any(|span| span.covers(path))
    }

    /// The stream is of no use any more; an error if that has been so for too long.
    async fn lost(&mut self, why: String) -> Result<(), Fault> {
        debug!(why, "a watch of etcd ended; it goes on with another stream");
        if let Some(Line { connection, .. }) = self.line.take() {
            self.client.forget(&connection).await;
        }
        self.parts.clear();
        let since = *self.troubled.get_or_insert_with(Instant::now);
        if since.elapsed() > self.client.options.patience {
            return Err(Fault::Unavailable(format!("the watch of etcd ends again and again: {why}")));
        }
        sleep(PAUSE).await;
        Ok(())
    }
}

/// Why a watch was ended by the member.
fn cancelled(response: &WatchResponse) -> Status {
    match response.cancel_reason.as_str() {
        reason if reason.contains("permission denied") => Status::permission_denied(reason),
        reason if reason.contains("auth") => Status::unauthenticated(reason),
        "" => Status::unavailable("the member ended the watch"),
        reason => Status::unavailable(reason),
    }
}

impl Watch for EtcdWatch {
    fn next(&mut self, timeout: Duration) -> Result<Vec<Event>, WatchError> {
        let deadline = Instant::now() + timeout;
        Ok(runtime::wait(self.wait(deadline))?)
    }
}
