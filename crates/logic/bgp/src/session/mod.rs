//! One connection's session machine (RFC 4271 section 8), a file for each state.
//!
//! | state       | OPEN             | KEEPALIVE     | UPDATE, REFRESH | timer                   |
//! |-------------|------------------|---------------|-----------------|-------------------------|
//! | Connect     | -                | -             | -               | dial gave up            |
//! | OpenSent    | OpenConfirm      | error 5/1     | error 5/1       | error 4/0               |
//! | OpenConfirm | error 5/2        | Established   | error 5/2       | error 4/0, or keepalive |
//! | Established | error 5/3        | restart hold  | to the RIB      | error 4/0, or keepalive |
//!
//! A NOTIFICATION ends every state. Idle and Active have no connection: see `idle`.

pub(crate) mod connect;
pub(crate) mod established;
pub(crate) mod idle;
pub(crate) mod negotiate;
pub(crate) mod open_confirm;
pub(crate) mod open_sent;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tortie_net::Family;

use self::connect::Connect;
use self::established::Established;
use self::negotiate::{LocalSide, Negotiated};
use self::open_confirm::OpenConfirm;
use self::open_sent::OpenSent;
use crate::message::notification::Notification;
use crate::message::route_refresh::Refresh;
use crate::message::{Frame, Kind};

/// A TCP connection, dialled or accepted. Never used twice by one speaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// The state of a connection.
#[derive(Debug)]
pub(crate) enum Phase {
    Connect(Connect),
    OpenSent(OpenSent),
    OpenConfirm(OpenConfirm),
    Established(Established),
}

/// What the speaker has to do after an input.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// Nothing.
    Stay,
    /// The peer's OPEN is fine: look for a collision, then confirm.
    Opened,
    /// The session is up.
    Up,
    /// Routes.
    Update(&'a [u8]),
    /// The peer wants a family again, or tells it again.
    Refresh(Family, Refresh),
    /// Say that we are alive.
    SendKeepalive,
    /// The dial took too long.
    DialTimedOut,
    /// We found a fault: send this and close.
    Fault(Notification),
    /// The peer ended the session.
    Ended(Notification),
}

/// A connection and its state.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    /// The peer dialled it.
    pub(crate) inbound: bool,
    /// Our end, once connected.
    pub(crate) local: Option<SocketAddr>,
    pub(crate) phase: Phase,
    /// The beginning of a message that is not whole yet.
    pub(crate) input: Vec<u8>,
    /// Bytes handed out and not yet reported as sent.
    pub(crate) outstanding: usize,
}

impl Connection {
    /// Feeds one message in.
    pub(crate) fn on_frame<'a>(&mut self, now: Instant, frame: Frame<'a>, local: &LocalSide) -> Step<'a> {
        if frame.kind == Kind::Notification {
            return match Notification::parse(frame.body) {
                Some(notification) => Step::Ended(notification),
                None => Step::Fault(Notification::bad_message_length(0)),
            };
        }
        let (next, step) = match &mut self.phase {
            Phase::Connect(_) => (None, Step::Stay),
            Phase::OpenSent(state) => state.on_frame(now, frame, local),
            Phase::OpenConfirm(state) => state.on_frame(now, frame),
            Phase::Established(state) => (None, state.on_frame(now, frame)),
        };
        if let Some(next) = next {
            self.phase = next;
        }
        step
    }

    /// Runs timers that are due.
    pub(crate) fn on_timeout(&mut self, now: Instant) -> Step<'static> {
        match &mut self.phase {
            Phase::Connect(state) => state.on_timeout(now),
            Phase::OpenSent(state) => state.on_timeout(now),
            Phase::OpenConfirm(state) => state.on_timeout(now),
            Phase::Established(state) => state.timers.on_timeout(now),
        }
    }

    /// When `on_timeout` has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Connect(state) => Some(state.deadline),
            Phase::OpenSent(state) => Some(state.deadline),
            Phase::OpenConfirm(state) => state.timers.deadline(),
            Phase::Established(state) => state.timers.deadline(),
        }
    }

    /// What was negotiated, once the peer's OPEN is in.
    pub(crate) fn negotiated(&self) -> Option<&Negotiated> {
        match &self.phase {
            Phase::Connect(_) | Phase::OpenSent(_) => None,
            Phase::OpenConfirm(state) => Some(&state.negotiated),
            Phase::Established(state) => Some(&state.negotiated),
        }
    }

    pub(crate) fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established(_))
    }
}

/// Hold and keepalive timers; both absent if the hold time is zero.
#[derive(Clone, Debug)]
pub(crate) struct Timers {
    hold: Duration,
    keepalive: Duration,
    hold_at: Option<Instant>,
    keepalive_at: Option<Instant>,
}

impl Timers {
    pub(crate) fn start(now: Instant, hold: Duration, keepalive: Duration) -> Timers {
        let runs = !hold.is_zero();
        Timers { hold, keepalive, hold_at: runs.then(|| now + hold), keepalive_at: runs.then(|| now + keepalive) }
    }

    /// The peer showed that it is alive.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.hold_at = self.hold_at.map(|_| now + self.hold);
    }

    /// The next keepalive is due at `at`, if later than that otherwise.
    pub(crate) fn speak_early(&mut self, at: Instant) {
        self.keepalive_at = self.keepalive_at.map(|due| due.min(at));
    }

    fn on_timeout(&mut self, now: Instant) -> Step<'static> {
        if self.hold_at.is_some_and(|at| at <= now) {
            return Step::Fault(Notification::HOLD_TIMER_EXPIRED);
        }
        if self.keepalive_at.is_some_and(|at| at <= now) {
            self.keepalive_at = Some(now + self.keepalive);
            return Step::SendKeepalive;
        }
        Step::Stay
    }

    fn deadline(&self) -> Option<Instant> {
        [self.hold_at, self.keepalive_at].into_iter().flatten().min()
    }
}
