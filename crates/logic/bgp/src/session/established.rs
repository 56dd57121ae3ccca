//! Established: routes flow.
//!
//! Invariant: every KEEPALIVE and UPDATE restarts the hold timer before it is looked at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::negotiate::Negotiated;
use super::{Step, Timers};
use crate::attribute::Attributes;
use crate::family::Families;
use crate::message::notification::Notification;
use crate::message::{Frame, Kind, route_refresh};
use crate::rib::adj_out::Queue;

/// One KEEPALIVE follows this soon (RFC 4271 allows one a second): BIRD 2.0 leaves its first UPDATEs queued until
/// something wakes it, and left alone that takes it three seconds.
const EARLY_KEEPALIVE: Duration = Duration::from_secs(1);

/// An established session.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) negotiated: Negotiated,
    pub(crate) timers: Timers,
    /// Our KEEPALIVE is still owed (the connection was held).
    pub(crate) owes_keepalive: bool,
    pub(crate) out: Queue,
    /// Families of which all routes are just being told again, between the marks of RFC 7313.
    pub(crate) refreshing: Families,
    /// Families whose End-of-RIB came.
    pub(crate) synced: Families,
    /// When a peer that does not mark its end counts as having told its routes; `None`: it does, or nobody waits.
    pub(crate) settles_at: Option<Instant>,
    /// The last attribute list without multiprotocol parts, and what it means while peers stay as they are: lists often repeat.
    pub(crate) last_list: Option<(Vec<u8>, Arc<Attributes>)>,
}

impl Established {
    pub(crate) fn start(now: Instant, negotiated: Negotiated, mut timers: Timers, owes_keepalive: bool) -> Established {
        timers.speak_early(now + EARLY_KEEPALIVE);
        Established {
            negotiated,
            timers,
            owes_keepalive,
            out: Queue::default(),
            refreshing: Families::NONE,
            synced: Families::NONE,
            settles_at: None,
            last_list: None,
        }
    }

    /// Whether an End-of-RIB comes that waits for nobody else's restart but ours.
    pub(crate) fn marks_its_end(&self) -> bool {
        self.negotiated.graceful_restart.as_ref().is_some_and(|restart| !restart.restarted)
    }

    /// Whether the End-of-RIBs that come are in.
    pub(crate) fn is_synced(&self) -> bool {
        self.negotiated.restartable().without(self.synced).is_empty()
    }

    pub(crate) fn on_frame<'a>(&mut self, now: Instant, frame: Frame<'a>) -> Step<'a> {
        self.timers.heard(now);
        match frame.kind {
            Kind::Keepalive => Step::Stay,
            Kind::Update => Step::Update(frame.body),
            Kind::RouteRefresh => {
                let said = route_refresh::parse(frame.body);
                let said = said.and_then(|(afi_safi, refresh)| Some((afi_safi.family()?, refresh)));
                let said = said.filter(|(family, _)| self.negotiated.families.contains(*family));
                said.map_or(Step::Stay, |(family, refresh)| Step::Refresh(family, refresh))
            }
            Kind::Open | Kind::Notification => Step::Fault(Notification::UNEXPECTED_IN_ESTABLISHED),
        }
    }
}
