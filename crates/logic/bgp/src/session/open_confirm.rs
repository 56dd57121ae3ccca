//! OpenConfirm: both OPENs are fine, the peer's KEEPALIVE is awaited.
//!
//! Invariant: `held` means that our own KEEPALIVE was not sent, because an established session of the same peer
//! still looks alive. If the peer confirms a held connection, it has given the other one up, and this one replaces it.

use std::time::Instant;

use super::established::Established;
use super::negotiate::Negotiated;
use super::{Phase, Step, Timers};
use crate::message::notification::Notification;
use crate::message::{Frame, Kind};

/// Waiting for KEEPALIVE.
#[derive(Debug)]
pub(crate) struct OpenConfirm {
    pub(crate) negotiated: Negotiated,
    pub(crate) timers: Timers,
    pub(crate) held: bool,
}

impl OpenConfirm {
    pub(crate) fn start(now: Instant, negotiated: Negotiated) -> OpenConfirm {
        let timers = Timers::start(now, negotiated.hold_time, negotiated.keepalive);
        OpenConfirm { negotiated, timers, held: false }
    }

    pub(crate) fn on_frame(&mut self, now: Instant, frame: Frame<'_>) -> (Option<Phase>, Step<'static>) {
        match frame.kind {
            Kind::Keepalive => {
                let mut timers = self.timers.clone();
                timers.heard(now);
                let state = Established::start(now, self.negotiated.clone(), timers, self.held);
                (Some(Phase::Established(state)), Step::Up)
            }
            Kind::Open | Kind::Update | Kind::Notification | Kind::RouteRefresh => {
                (None, Step::Fault(Notification::UNEXPECTED_IN_OPEN_CONFIRM))
            }
        }
    }

    pub(crate) fn on_timeout(&mut self, now: Instant) -> Step<'static> {
        match self.timers.on_timeout(now) {
            // The peer neither confirmed the held connection nor gave it up: the established one it is.
            Step::SendKeepalive if self.held => Step::Fault(Notification::COLLISION),
            step => step,
        }
    }
}
