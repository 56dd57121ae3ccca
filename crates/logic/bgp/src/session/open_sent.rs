//! OpenSent: our OPEN is out, the peer's is awaited.
//!
//! Invariant: nothing but an OPEN that fits the configuration leads on.

use std::time::{Duration, Instant};

use super::negotiate::{LocalSide, negotiate};
use super::open_confirm::OpenConfirm;
use super::{Phase, Step};
use crate::message::notification::Notification;
use crate::message::open::Open;
use crate::message::{Frame, Kind};

/// How long an OPEN may take. RFC 4271 suggests four minutes; a peer that is alive answers at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waiting for OPEN.
#[derive(Debug)]
pub(crate) struct OpenSent {
    pub(crate) deadline: Instant,
}

impl OpenSent {
    pub(crate) fn start(now: Instant) -> OpenSent {
        OpenSent { deadline: now + PATIENCE }
    }

    pub(crate) fn on_frame(
        &mut self,
        now: Instant,
        frame: Frame<'_>,
        local: &LocalSide,
    ) -> (Option<Phase>, Step<'static>) {
        if frame.kind != Kind::Open {
            return (None, Step::Fault(Notification::UNEXPECTED_IN_OPEN_SENT));
        }
        match Open::parse(frame.body).and_then(|open| negotiate(local, &open)) {
            Ok(negotiated) => (Some(Phase::OpenConfirm(OpenConfirm::start(now, negotiated))), Step::Opened),
            Err(notification) => (None, Step::Fault(notification)),
        }
    }

    pub(crate) fn on_timeout(&self, now: Instant) -> Step<'static> {
        if self.deadline <= now { Step::Fault(Notification::HOLD_TIMER_EXPIRED) } else { Step::Stay }
    }
}
