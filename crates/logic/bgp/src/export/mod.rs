//! Which routes a peer is told, and with which attributes.
//!
//! Invariant: a decision looks at the route, its source and the peer alone; it keeps no state.

pub(crate) mod pack;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tortie_net::{AsNumber, Family};

use crate::attribute::{Attributes, DEFAULT_LOCAL_PREF, LLGR_STALE, NO_ADVERTISE, NO_EXPORT, NO_EXPORT_SUBCONFED};
use crate::config::NextHopMode;
use crate::rib::SourceId;

/// A route's source as export sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) id: SourceId,
    /// From another AS.
    pub(crate) external: bool,
    /// The cluster in which the source is our client.
    pub(crate) cluster: Option<Ipv4Addr>,
    pub(crate) router_id: Ipv4Addr,
}

/// The peer that is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) id: SourceId,
    pub(crate) external: bool,
    pub(crate) local_as: AsNumber,
    pub(crate) cluster: Option<Ipv4Addr>,
    pub(crate) next_hop: NextHopMode,
    pub(crate) own_v4: Option<IpAddr>,
    pub(crate) own_v6: Option<IpAddr>,
    /// The peer knows long-lived graceful restart.
    pub(crate) long_lived: bool,
    /// Families of the session.
    pub(crate) families: crate::family::Families,
}

impl Target {
    fn own_address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.own_v4,
            Family::V6 => self.own_v6,
        }
    }
}

/// Our address of a family on a session: the session's own end, else the configured one.
pub(crate) fn own_address(family: Family, local: Option<SocketAddr>, configured: Option<IpAddr>) -> Option<IpAddr> {
    let session = local.map(|local| local.ip().to_canonical()).filter(|addr| Family::of(*addr) == family);
    session.filter(|addr| !addr.is_unspecified()).or(configured)
}

/// Whether routes of a source may go to a peer at all.
pub(crate) fn allowed(from: &Origin, to: &Target) -> bool {
    if from.id == to.id {
        return false;
    }
    let internal_both = from.id != SourceId::LOCAL && !from.external && !to.external;
    !internal_both || from.cluster.is_some() || to.cluster.is_some()
}

/// The attributes with which a route of an allowed source goes to a peer, as filters see them; `None` if it must not
/// go. `finished` makes them what is sent.
pub(crate) fn transform(family: Family, route: &Attributes, from: &Origin, to: &Target) -> Option<Attributes> {
    let held_back = if to.external { &[NO_ADVERTISE, NO_EXPORT, NO_EXPORT_SUBCONFED][..] } else { &[NO_ADVERTISE] };
    if held_back.iter().any(|community| route.has_community(*community)) {
        return None;
    }
    if !to.long_lived && route.has_community(LLGR_STALE) {
        return None;
    }
    let own = from.id == SourceId::LOCAL;
    let reflected = !own && !from.external && !to.external;
    let mut out = route.clone();
    let ours = own
        || match to.next_hop {
            NextHopMode::Auto => to.external,
            NextHopMode::SelfAddress => true,
            NextHopMode::Keep => false,
        };
    if ours {
        out.next_hop = to.own_address(family)?;
    }
    if to.external {
        out.as_path = out.as_path.prepended(to.local_as);
        out.originator_id = None;
        out.cluster_list = Box::default();
        if !own {
            out.med = None;
        }
    } else if reflected {
        reflect(&mut out, from, to);
    }
    Some(out)
}

/// LOCAL_PREF is for our AS alone, and always sent within it.
pub(crate) fn finished(mut route: Attributes, to: &Target) -> Attributes {
    route.local_pref = (!to.external).then_some(route.local_pref.unwrap_or(DEFAULT_LOCAL_PREF));
    route
}

/// RFC 4456 section 8: leave a trace, so that the route cannot come back unseen.
fn reflect(out: &mut Attributes, from: &Origin, to: &Target) {
    out.originator_id.get_or_insert(from.router_id);
    if let Some(cluster) = from.cluster.or(to.cluster) {
        out.cluster_list = std::iter::once(u32::from(cluster)).chain(out.cluster_list.iter().copied()).collect();
    }
}

/// Whether a received route has passed us already (RFC 4271 section 9.1.2, RFC 4456 section 8).
pub(crate) fn is_loop(
    route: &Attributes,
    our_as: &[AsNumber],
    allowed_local_as: u8,
    router_id: Ipv4Addr,
    clusters: &[Ipv4Addr],
) -> bool {
    our_as.iter().any(|asn| route.as_path.occurrences(*asn) > usize::from(allowed_local_as))
        || route.originator_id == Some(router_id)
        || clusters.iter().any(|cluster| route.cluster_list.contains(&u32::from(*cluster)))
}
