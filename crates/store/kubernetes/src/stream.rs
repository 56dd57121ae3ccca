//! One stream of changes of one type: opened again whenever it ends, always at its place.
//!
//! open -> changes and bookmarks move the place -> end, silence or break -> open at the place.
//! 410, or an error twice at one place -> lost: the history is gone. Away for longer than the client's patience -> lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tortie_facts::Revision;
use tortie_store::Event;

use crate::api::{Api, Ask};
use crate::fault::{Fault, Status, Verb};
use crate::interest::{Interest, Scope};
use crate::limit::Urgency;
use crate::object::{self, Lens};
use crate::types::Type;

/// A stream on which nothing comes for this long, not even a bookmark (one a minute), is taken as dead.
const SILENCE: Duration = Duration::from_secs(100);
/// How long the server may keep one stream, in seconds; it then ends by itself and is opened again.
const TURN: u32 = 300;
/// Between looks for a type that the server does not know.
const UNKNOWN_TYPE: Duration = Duration::from_secs(15);
/// Before a stream that broke at once is opened again; doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// A stream that was open for this long did not break at once.
const STEADY: Duration = Duration::from_secs(5);

/// What a stream says.
pub(crate) enum Message {
    /// It is open for the first time.
    Opened,
    /// Its place moved, with these changes.
    Moved(u64, Vec<Event>),
    /// It can't go on.
    Lost(Fault),
}

/// A stream of one type.
pub(crate) struct Stream {
    pub(crate) api: Arc<Api>,
    pub(crate) lens: Lens,
    pub(crate) ty: Type,
    pub(crate) scope: Scope,
    pub(crate) interest: Arc<Interest>,
    /// Its place: everything up to this revision was told.
    pub(crate) at: u64,
    pub(crate) out: mpsc::Sender<(Type, Message)>,
}

/// How one turn of a stream ended.
enum End {
    /// The server or the line ended it.
    Broken,
    /// The server can't go on from this place, at least not now.
    Error,
    /// Nobody listens any more.
    Unheard,
    /// For good.
    Lost(Fault),
}

impl Stream {
    /// Runs until nobody listens or it is lost.
    pub(crate) async fn run(mut self) {
        let mut opened = false;
        let mut pause = FIRST_PAUSE;
        let mut good = Instant::now();
        let mut errors = 0;
        if let Some(recent) = self.api.recent() {
            recent.forget(self.ty);
        }
        loop {
            let body = match self.open().await {
                Ok(body) => Some(body),
                Err(Fault::NotFound { no_type: true }) => None,
                Err(fault) => return self.say(Message::Lost(fault)).await.unwrap_or(()),
            };
            if !opened && self.say(Message::Opened).await.is_none() {
                return;
            }
            opened = true;
            let Some(body) = body else {
                sleep(UNKNOWN_TYPE).await;
                continue;
            };
            let (place, since) = (self.at, Instant::now());
            // All namespaces are followed, or it would be no picture of the node.
            let recent = self.api.recent().filter(|_| self.scope.namespace.is_empty());
            let open = recent.map(|recent| recent.opened(self.ty));
            let followed = self.follow(body).await;
            drop(open);
            let error = match followed {
                Ok(()) | Err(End::Broken) => false,
                Err(End::Error) => true,
                Err(End::Unheard) => return,
                Err(End::Lost(fault)) => return self.say(Message::Lost(fault)).await.unwrap_or(()),
            };
            if self.at > place || since.elapsed() > STEADY {
                (good, pause, errors) = (Instant::now(), FIRST_PAUSE, 0);
                continue;
            }
            errors += u32::from(error);
            if errors > 1 {
                // The server can't read its history from here: a new listing leads past it.
                return self.say(Message::Lost(Fault::Expired)).await.unwrap_or(());
            }
            if good.elapsed() > self.api.patience() {
                let text = format!("the stream of {} breaks each time", self.ty.full_name(self.lens.group));
                return self.say(Message::Lost(Fault::Unavailable(text))).await.unwrap_or(());
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn say(&self, message: Message) -> Option<()> {
        self.out.send((self.ty, message)).await.ok()
    }

    async fn open(&self) -> Result<Body, Fault> {
        let path = self.ty.path(self.lens.group, &self.scope.namespace);
        let query = format!("watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds={TURN}", self.at);
        let path = format!("{path}?{query}");
        let ask = Ask { verb: Verb::Watch, ty: Some(self.ty), path, body: None, urgency: Urgency::Other };
        match self.api.open(&ask, Instant::now() + self.api.patience()).await {
            Ok(response) => Ok(response.into_body()),
            Err(fault) => Err(self.api.settled(self.ty, fault).await),
        }
    }

    /// Reads one turn to its end.
    async fn follow(&mut self, body: Body) -> Result<(), End> {
        let mut chunks = std::pin::pin!(body.into_data_stream());
        let mut held: Vec<u8> = Vec::new();
        while let Ok(Some(Ok(chunk))) = timeout(SILENCE, chunks.next()).await {
            held.extend_from_slice(&chunk);
            let Some(end) = held.iter().rposition(|byte| *byte == b'\n') else { continue };
            let rest = held.split_off(end + 1);
            let lines = std::mem::replace(&mut held, rest);
            let mut events = Vec::new();
            let mut outcome = Ok(());
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                outcome = self.line(line, &mut events);
                if outcome.is_err() {
                    break;
                }
            }
            self.say(Message::Moved(self.at, events)).await.ok_or(End::Unheard)?;
            outcome?;
        }
        Ok(())
    }

    /// Reads one line.
    fn line(&mut self, line: &[u8], events: &mut Vec<Event>) -> Result<(), End> {
        #[derive(Deserialize)]
        struct Line<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        let Ok(Line { kind, object }) = serde_json::from_slice(line) else { return Err(End::Broken) };
        let object = object.get();
        if kind == "ERROR" {
            let status = Status::read(0, object.as_bytes());
            return Err(match status.fault(Verb::Watch, Some(self.ty), self.lens.group, "") {
                Fault::Expired => End::Lost(Fault::Expired),
                fault => {
                    tracing::debug!(resource = self.ty.full_name(self.lens.group), ?fault, "the server ended a watch");
                    End::Error
                }
            });
        }
        let Some(revision) = object::revision(object) else { return Err(End::Broken) };
        // A server that starts over tells what is known already.
        if revision <= self.at {
            return Ok(());
        }
        if kind != "BOOKMARK" {
            if let Some(recent) = self.api.recent() {
                recent.told(self.ty, object, revision, kind == "DELETED");
            }
            let told = object::read(&self.lens, self.ty, object, self.scope.faces);
            events.extend(object::changed(told, Revision(revision), kind == "DELETED", &self.interest));
        }
        self.at = revision;
        Ok(())
    }
}
