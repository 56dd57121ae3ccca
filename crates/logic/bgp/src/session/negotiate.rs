//! Two OPENs make a session: what both sides can do, and why they may not fit.
//!
//! Invariant: the result depends on the two OPENs and the configuration alone.

use std::net::Ipv4Addr;
use std::time::Duration;

use tortie_net::{AsNumber, Family};

use crate::family::{AfiSafi, Families};
use crate::message::capability::{Capability, GracefulRestart};
use crate::message::notification::Notification;
use crate::message::open::Open;

/// What we say to a peer, and what we expect from it.
#[derive(Clone, Debug)]
pub(crate) struct LocalSide {
    pub(crate) asn: AsNumber,
    pub(crate) remote_as: AsNumber,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) hold_time_secs: u16,
    pub(crate) keepalive_secs: Option<u16>,
    pub(crate) families: Families,
    pub(crate) restart_time_secs: u16,
    /// Seconds that the peer shall keep our routes after that.
    pub(crate) long_lived_secs: u32,
    /// R bit: we wait for the peer's End-of-RIB.
    pub(crate) restarted: bool,
    /// F bit: our forwarding state outlived the last session.
    pub(crate) preserved: bool,
}

impl LocalSide {
    /// The OPEN to send.
    pub(crate) fn open(&self) -> Open {
        let offered = self.families.iter().map(AfiSafi::unicast);
        let mut capabilities: Vec<Capability> = offered.clone().map(Capability::Multiprotocol).collect();
        capabilities.push(Capability::RouteRefresh);
        capabilities.push(Capability::EnhancedRefresh);
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarted: self.restarted,
            restart_time_secs: self.restart_time_secs.min(0x0fff),
            families: offered.clone().map(|afi_safi| (afi_safi, self.preserved)).collect(),
        }));
        if self.long_lived_secs > 0 {
            let families = offered.map(|afi_safi| (afi_safi, self.long_lived_secs)).collect();
            capabilities.push(Capability::LongLived(families));
        }
        capabilities.push(Capability::FourByteAs(self.asn));
        Open { asn: self.asn, hold_time_secs: self.hold_time_secs, router_id: self.router_id, capabilities }
    }
}

/// What holds for a session. `Debug` output is no interface; `PeerStatus` copies what users may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's router id.
    pub remote_router_id: Ipv4Addr,
    /// Families that both sides offer.
    pub families: Families,
    /// AS numbers have four bytes.
    pub four_byte_as: bool,
    /// The peer understands ROUTE-REFRESH.
    pub route_refresh: bool,
    /// Both sides mark where a refresh begins and ends.
    pub enhanced_refresh: bool,
    /// Seconds to keep the peer's routes after its restart timer, IPv4 and IPv6; zero unless both sides want it.
    pub long_lived_secs: [u32; 2],
    /// The smaller of both hold times; zero for none.
    pub hold_time: Duration,
    /// Interval of our keepalives.
    pub keepalive: Duration,
    /// The peer's graceful restart capability, if it sent one.
    pub graceful_restart: Option<GracefulRestart>,
}

impl Negotiated {
    /// Families whose routes outlive a loss of this session.
    pub(crate) fn restartable(&self) -> Families {
        self.graceful_restart.as_ref().map_or(Families::NONE, |restart| restart.listed().and(self.families))
    }
}

/// Checks the peer's OPEN against ours.
pub(crate) fn negotiate(local: &LocalSide, open: &Open) -> Result<Negotiated, Notification> {
    if open.asn != local.remote_as {
        return Err(Notification::BAD_PEER_AS);
    }
    if open.router_id == local.router_id && local.asn == local.remote_as {
        return Err(Notification::BAD_BGP_IDENTIFIER);
    }
    let families = local.families.and(open.families());
    if families.is_empty() {
        return Err(Notification::UNSUPPORTED_CAPABILITY);
    }
    let hold_time_secs = local.hold_time_secs.min(open.hold_time_secs);
    let hold_time = Duration::from_secs(u64::from(hold_time_secs));
    let third = hold_time / 3;
    let keepalive = local.keepalive_secs.map_or(third, |secs| Duration::from_secs(u64::from(secs.max(1))).min(third));
    Ok(Negotiated {
        remote_router_id: open.router_id,
        families,
        four_byte_as: open.four_byte_as().is_some(),
        route_refresh: open.route_refresh(),
        enhanced_refresh: open.enhanced_refresh(),
        long_lived_secs: Family::ALL.map(|family| if local.long_lived_secs > 0 { open.long_lived(family) } else { 0 }),
        hold_time,
        keepalive,
        graceful_restart: open.graceful_restart().cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(asn: u32, remote: u32, id: u8, families: Families) -> LocalSide {
        LocalSide {
            asn: AsNumber(asn),
            remote_as: AsNumber(remote),
            router_id: Ipv4Addr::new(10, 0, 0, id),
            hold_time_secs: 90,
            keepalive_secs: None,
            families,
            restart_time_secs: 120,
            long_lived_secs: 0,
            restarted: false,
            preserved: true,
        }
    }

    #[test]
    fn both_sides_agree() {
        let one = side(64512, 70000, 1, Families::ALL);
        let two = LocalSide { hold_time_secs: 30, ..side(70000, 64512, 2, Families { v4: false, v6: true }) };
        let at_one = negotiate(&one, &two.open()).expect("they fit");
        let at_two = negotiate(&two, &one.open()).expect("they fit");
        assert_eq!((at_one.families, at_one.hold_time), (at_two.families, at_two.hold_time));
        assert_eq!(at_one.families, Families { v4: false, v6: true });
        assert_eq!(at_one.keepalive, Duration::from_secs(10));
        assert_eq!(at_one.restartable(), at_one.families);
        assert!(at_one.four_byte_as && at_one.route_refresh);
    }

    #[test]
    fn misfits_are_refused() {
        let one = side(1, 2, 1, Families { v4: true, v6: false });
        let refuse = |two: LocalSide| negotiate(&one, &two.open()).expect_err("a misfit");
        assert_eq!(refuse(side(3, 1, 2, Families::ALL)), Notification::BAD_PEER_AS);
        assert_eq!(refuse(side(2, 1, 2, Families { v4: false, v6: true })), Notification::UNSUPPORTED_CAPABILITY);
        let twin = side(1, 1, 1, Families::ALL);
        assert_eq!(negotiate(&twin, &twin.open()), Err(Notification::BAD_BGP_IDENTIFIER));
    }
}
