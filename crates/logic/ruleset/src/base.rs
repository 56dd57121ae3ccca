//! The chains that the kernel enters, and how they dispatch.
//!
//! Invariants: packets of established flows are accepted by the first rules; a packet from or to an interface with a
//! workload prefix that belongs to no endpoint is dropped; packets that touch neither a workload's interface nor one
//! of a host endpoint fall through. A base chain that would do nothing is not there, as even an empty one costs.

use std::collections::BTreeSet;

use tortie_desired::{HostAction, Settings};
use tortie_net::{Family, IpNet, PortRange, Protocol};

use crate::cause::{Beside, Cause};
use crate::host::{AtPoint, Host, Point};
use crate::literal::Literals;
use crate::model::{Base, Chain, Direction, Match, Name, Rule, Side, Statement, Verdict};
use crate::names::{self, Names};
use crate::policy::ACCEPT_MARK;
use crate::record::end;
use crate::render::sources_of;
use crate::workload::{SPOOFED, accept_established, established, revoked};

/// ICMPv6 types that a workload may send to the host whatever its policy says, as upstream: multicast listener
/// query, report and done; router and neighbour solicitation; neighbour advertisement. Not router advertisements.
const NEIGHBOUR_DISCOVERY_TYPES: [u8; 6] = [130, 131, 132, 133, 135, 136];

/// What shapes the base chains.
pub(crate) struct Shape<'a> {
    pub(crate) names: Names,
    pub(crate) settings: &'a Settings,
    pub(crate) host: &'a Host,
    /// Whether there are workloads with own chains, for each direction.
    pub(crate) own: &'a dyn Fn(Direction) -> bool,
    /// Tunnels of this node.
    pub(crate) tunnels: &'a [Tunnel],
}

/// Outer packets of a tunnel of this node.
pub(crate) struct Tunnel {
    pub(crate) family: Family,
    pub(crate) protocol: Protocol,
    /// The destination's port, of protocols that have such.
    pub(crate) port: Option<u16>,
    /// The nodes that they are exchanged with.
    pub(crate) peers: BTreeSet<IpNet>,
    /// Whether nobody else may send such; otherwise that is for the policy of the host to say.
    pub(crate) closed: bool,
    /// Whether those that are exchanged with them are left out of connection tracking.
    pub(crate) untracked: bool,
}

impl Tunnel {
    fn matches(&self) -> Vec<Match> {
        let Tunnel { family, protocol, port, peers: _, closed: _, untracked: _ } = self;
        let port = port.map(PortRange::single);
        let port = port.map(|range| Match::Port { side: Side::Destination, range, negate: false });
        let protocol = Match::Protocol { protocol: *protocol, negate: false };
        [Some(protocol), port, Some(Match::Family(*family))].into_iter().flatten().collect()
    }

    /// What is exchanged with the peers, if there are any.
    fn with_peers(&self, literals: &mut Literals, side: Side) -> Option<Vec<Match>> {
        let nets: Vec<IpNet> = self.peers.iter().copied().collect();
        let peer = literals.nets(side, self.family, &nets, false)?;
        Some([self.matches(), vec![peer]].concat())
    }

    /// Accepts what is exchanged with the peers.
    fn accept(&self, literals: &mut Literals, side: Side) -> Option<Rule> {
        Some(Rule::new(self.with_peers(literals, side)?, Verdict::Accept))
    }

    /// Leaves it out of connection tracking, and judges nothing.
    fn leave_out(&self, literals: &mut Literals, side: Side) -> Option<Rule> {
        let matches = self.untracked.then(|| self.with_peers(literals, side))??;
        Some(Rule { matches, statements: vec![Statement::NoTrack], verdict: None })
    }

    /// Drops what comes from others, if it is closed to them.
    fn shut(&self, settings: &Settings) -> Option<Rule> {
        let cause = Cause::Beside { what: Beside::ForeignTunnel, direction: Direction::Ingress };
        self.closed.then(|| end(settings, self.matches(), &cause, Verdict::Drop))
    }
}

/// The base chains of the filter, and what only they jump to; `None`: not needed.
pub(crate) fn chains(shape: &Shape<'_>) -> Vec<(Name, Option<Chain>)> {
    let Shape { settings, host, .. } = shape;
    let raw = host.points.contains_key(&Point::RawIn) || host.points.contains_key(&Point::RawOut);
    let early = host.points.contains_key(&Point::RawIn) || host.points.contains_key(&Point::BeforeNat);
    let nd = settings.ipv6.then(neighbour_discovery);
    vec![
        (Name::from(names::RAW_PREROUTING), raw_chain(shape, raw, Base::RawPrerouting, Point::RawIn)),
        (Name::from(names::RAW_OUTPUT), raw_chain(shape, raw, Base::RawOutput, Point::RawOut)),
        (Name::from(names::BEFORE_NAT), before_nat(shape, raw)),
        (Name::from(names::FORWARD_FROM_HOST), from_host(shape, early)),
        (Name::from(names::FORWARD_FROM_WORKLOAD), Some(from_workload(shape))),
        (Name::from(names::FORWARD_TO_WORKLOAD), Some(to_workload(shape))),
        (Name::from(names::FORWARD_TO_HOST), to_host(shape)),
        (Name::from(names::NEIGHBOUR_DISCOVERY), nd),
        (Name::from(names::WORKLOAD_TO_HOST), Some(workload_to_host(shape))),
        (Name::from(names::INPUT), Some(input(shape, early))),
        (Name::from(names::OUTPUT), output(shape, raw)),
        (Name::from(names::AFTER_NAT), judges_after_nat(shape).then(after_nat)),
        (Name::from(names::TRANSLATED), judges_after_nat(shape).then(|| translated(shape))),
    ]
}

fn chain(base: Base, rules: Vec<Rule>) -> Chain {
    Chain { base: Some(base), rules, ..Chain::default() }
}

/// The prefixes of workload interfaces. An empty prefix means none, not all.
fn of_workloads(settings: &Settings, side: Side) -> impl Iterator<Item = Match> {
    let prefixes = settings.interface_prefixes.iter().filter(|p| !p.is_empty());
    prefixes.map(move |p| Match::InterfacePrefix { side, prefix: p.clone() })
}

fn accept_workloads(settings: &Settings, side: Side) -> impl Iterator<Item = Rule> {
    of_workloads(settings, side).map(|m| Rule::new([m], Verdict::Accept))
}

/// Drops what comes from or goes to an interface with the name of a workload's, that is none.
fn cut_off(settings: &Settings, side: Side) -> impl Iterator<Item = Rule> {
    let direction = match side {
        Side::Source => Direction::Egress,
        Side::Destination => Direction::Ingress,
    };
    let cause = Cause::Beside { what: Beside::UnknownInterface, direction };
    of_workloads(settings, side).map(move |m| end(settings, [m], &cause, Verdict::Drop))
}

fn dispatch(side: Side) -> Rule {
    let map = match side {
        Side::Source => names::FROM_WORKLOAD,
        Side::Destination => names::TO_WORKLOAD,
    };
    Rule::new([], Verdict::Dispatch { side, map: Name::from(map) })
}

/// Sends every packet of workloads with own chains there.
fn own_first(shape: &Shape<'_>, side: Side) -> Option<Rule> {
    let (direction, set) = match side {
        Side::Source => (Direction::Egress, names::OWN_EGRESS),
        Side::Destination => (Direction::Ingress, names::OWN_INGRESS),
    };
    let Rule { matches: _, statements, verdict } = dispatch(side);
    let matches = vec![Match::InterfaceIn { side, set: Name::from(set) }];
    (shape.own)(direction).then_some(Rule { matches, statements, verdict })
}

/// To the chains of a point's host endpoints.
fn to_point(shape: &Shape<'_>, point: Point) -> Vec<Rule> {
    let Some(AtPoint { map, default }) = shape.host.points.get(&point) else { return vec![] };
    // Of the host's own packets, IPv6 is left alone where it is not managed, as upstream.
    let unmanaged = (!shape.settings.ipv6).then(|| Rule::new([Match::Family(Family::V6)], Verdict::Accept));
    let by_name = (!map.is_empty()).then(|| Rule::new([], Verdict::Dispatch { side: point.side(), map: point.map() }));
    let to_chains = by_name.into_iter().chain(default.clone().map(|chain| Rule::new([], Verdict::Goto(chain))));
    unmanaged.into_iter().chain(to_chains).collect()
}

fn accepted_before() -> Rule {
    Rule::new([Match::Mark(ACCEPT_MARK)], Verdict::Accept)
}

/// Nobody else's mark counts.
fn forget_mark() -> Rule {
    Rule { statements: vec![Statement::ClearMark(ACCEPT_MARK)], ..Rule::default() }
}

/// What is known before connection tracking. `judges`: whether a host endpoint has a say there.
fn raw_chain(shape: &Shape<'_>, judges: bool, base: Base, point: Point) -> Option<Chain> {
    let mut literals = Literals::new(shape.names);
    let left_out = shape.tunnels.iter().filter_map(|tunnel| tunnel.leave_out(&mut literals, point.side()));
    let mut rules: Vec<Rule> = left_out.collect();
    if judges {
        rules.push(forget_mark());
        if point == Point::RawIn {
            rules.extend(accept_workloads(shape.settings, Side::Source));
        }
        rules.extend(to_point(shape, point));
    }
    (!rules.is_empty()).then_some(Chain { base: Some(base), rules, literals: literals.sets })
}

fn before_nat(shape: &Shape<'_>, raw: bool) -> Option<Chain> {
    shape.host.points.get(&Point::BeforeNat)?;
    let mut rules = if raw { vec![accepted_before()] } else { vec![forget_mark()] };
    rules.extend(established(Direction::Ingress, shape.settings));
    rules.extend(to_point(shape, Point::BeforeNat));
    Some(chain(Base::BeforeNat, rules))
}

fn from_host(shape: &Shape<'_>, early: bool) -> Option<Chain> {
    shape.host.points.get(&Point::ForwardIn)?;
    let mut rules = established(Direction::Ingress, shape.settings);
    rules.extend(early.then(accepted_before));
    rules.extend(to_point(shape, Point::ForwardIn));
    Some(chain(Base::FromHost, rules))
}

fn from_workload(shape: &Shape<'_>) -> Chain {
    let settings = shape.settings;
    let mut rules: Vec<Rule> = own_first(shape, Side::Source).into_iter().collect();
    rules.extend(established_of_workloads(settings, !settings.loose_sources));
    rules.extend(anti_spoof(settings));
    rules.push(dispatch(Side::Source));
    rules.extend(cut_off(settings, Side::Source));
    chain(Base::FromWorkload, rules)
}

/// Accepts established flows. A workload must not slip packets into another one's flow. For IPv4 the kernel's reverse
/// path filter on the interface sees to that where `checked` says so; for IPv6 there is none. What is not in the set
/// meets the check of the sources behind, or comes from elsewhere and falls through.
fn established_of_workloads(settings: &Settings, checked: bool) -> Vec<Rule> {
    let by_source = |family| {
        let own = Match::InterfaceAddressIn { family, set: sources_of(family), negate: false };
        vec![Match::Family(family), own]
    };
    let v4 = if checked { vec![Match::Family(Family::V4)] } else { by_source(Family::V4) };
    let v6 = settings.ipv6.then(|| by_source(Family::V6));
    let of: Vec<Vec<Match>> = [Some(v4), v6].into_iter().flatten().collect();
    accept_established(&of, Direction::Egress, settings)
}

/// Drops what a known workload sends from an address that is not its own.
fn anti_spoof(settings: &Settings) -> Vec<Rule> {
    let sets = [(Family::V4, names::WORKLOAD_SOURCES_V4), (Family::V6, names::WORKLOAD_SOURCES_V6)];
    let managed = sets.into_iter().filter(|(family, _)| settings.ipv6 || *family == Family::V4);
    managed
        .map(|(family, set)| {
            let foreign = Match::InterfaceAddressIn { family, set: Name::from(set), negate: true };
            end(settings, [Match::Family(family), from_known(), foreign], &SPOOFED, Verdict::Drop)
        })
        .collect()
}

fn from_known() -> Match {
    Match::InterfaceIn { side: Side::Source, set: Name::from(names::WORKLOAD_INTERFACES) }
}

fn to_workload(shape: &Shape<'_>) -> Chain {
    let side = Side::Destination;
    let mut rules: Vec<Rule> = own_first(shape, side).into_iter().collect();
    rules.extend(established(Direction::Ingress, shape.settings));
    rules.push(dispatch(side));
    rules.extend(cut_off(shape.settings, side));
    chain(Base::ToWorkload, rules)
}

fn to_host(shape: &Shape<'_>) -> Option<Chain> {
    let Shape { names, settings, .. } = shape;
    let mut literals = Literals::new(*names);
    let mut rules = Vec::new();
    if judges_after_nat(shape) {
        // It is not the host's own packet, which the chain after NAT would judge.
        let statements = vec![Statement::SetMark(ACCEPT_MARK)];
        rules.push(Rule { matches: vec![Match::Translated], statements, verdict: None });
    }
    // In a chain of their own, as policy of the host ends the base chain.
    let loops: Vec<IpNet> = settings.service_loops.iter().copied().collect();
    let ends = if settings.reject_service_loops { Verdict::Reject } else { Verdict::Drop };
    let cause = Cause::Beside { what: Beside::ServiceLoop, direction: Direction::Egress };
    let mut blocked = Vec::new();
    for family in Family::ALL.into_iter().filter(|f| settings.ipv6 || *f == Family::V4) {
        if let Some(inside) = literals.nets(Side::Destination, family, &loops, false) {
            blocked.push(end(settings, [Match::Family(family), inside], &cause, ends.clone()));
        }
    }
    let dispatch = to_point(shape, Point::ForwardOut);
    if rules.is_empty() && blocked.is_empty() && dispatch.is_empty() {
        return None;
    }
    rules.extend(established(Direction::Egress, settings));
    rules.extend(blocked);
    rules.extend(dispatch);
    Some(Chain { base: Some(Base::ToHost), rules, literals: literals.sets })
}

/// Packets to the host. Those of workloads go their own way first: the kernel would take what one of them sends in a
/// node's name for that node's tunnel.
fn input(shape: &Shape<'_>, early: bool) -> Chain {
    let Shape { names, settings, host, .. } = shape;
    let mut literals = Literals::new(*names);
    let mut rules = vec![Rule::new([from_known()], Verdict::Goto(Name::from(names::WORKLOAD_TO_HOST)))];
    rules.extend(cut_off(settings, Side::Source));
    for tunnel in shape.tunnels {
        rules.extend(tunnel.accept(&mut literals, Side::Source));
        rules.extend(tunnel.shut(settings));
    }
    rules.extend(established(Direction::Ingress, settings));
    if host.points.contains_key(&Point::In) {
        rules.extend(early.then(accepted_before));
        rules.extend(to_point(shape, Point::In));
    }
    Chain { base: Some(Base::Input), rules, literals: literals.sets }
}

/// Packets of known workloads to the host. With `HostAction::Drop` the workload's policy need not be asked: they end
/// either way. `Accept` and `Return` are the same here, as accepting in one table leaves a packet to every other table.
fn workload_to_host(shape: &Shape<'_>) -> Chain {
    let Shape { settings, .. } = shape;
    let to_policy = settings.endpoint_to_host != HostAction::Drop;
    let mut rules: Vec<Rule> = shape.tunnels.iter().filter_map(|tunnel| tunnel.shut(settings)).collect();
    rules.extend(own_first(shape, Side::Source).filter(|_| to_policy));
    // The own chains check the sources of workloads that have one, and the kernel does not.
    let checked = !settings.loose_sources && (to_policy || !(shape.own)(Direction::Egress));
    rules.extend(established_of_workloads(settings, checked));
    if settings.ipv6 {
        let icmp = Match::Protocol { protocol: Protocol::ICMPV6, negate: false };
        let matches = [Match::Family(Family::V6), icmp];
        rules.push(Rule::new(matches, Verdict::Jump(Name::from(names::NEIGHBOUR_DISCOVERY))));
    }
    match settings.endpoint_to_host {
        HostAction::Drop => {
            let cause = Cause::Beside { what: Beside::ToHost, direction: Direction::Egress };
            rules.push(end(settings, [], &cause, Verdict::Drop));
        }
        HostAction::Accept | HostAction::Return => {
            rules.extend(anti_spoof(settings));
            rules.push(dispatch(Side::Source));
            let cause = Cause::Beside { what: Beside::UnknownInterface, direction: Direction::Egress };
            rules.push(end(settings, [], &cause, Verdict::Drop));
        }
    }
    Chain { rules, ..Chain::default() }
}

fn output(shape: &Shape<'_>, raw: bool) -> Option<Chain> {
    if !shape.host.points.contains_key(&Point::Out) {
        // What the host sends to a workload belongs to a flow that the workload's policy may have come to deny.
        let revoked = revoked(Direction::Ingress, shape.settings)?;
        return Some(chain(Base::Output, vec![revoked]));
    }
    let mut literals = Literals::new(shape.names);
    let mut rules = if raw { vec![accepted_before()] } else { vec![forget_mark()] };
    rules.extend(never_judged(shape, &mut literals));
    if judges_after_nat(shape) {
        // The interface that they leave by is not known here.
        rules.push(Rule::new([Match::Translated], Verdict::Accept));
    }
    rules.extend(to_point(shape, Point::Out));
    Some(Chain { base: Some(Base::Output), rules, literals: literals.sets })
}

/// Whether the host's own packets with a translated destination are judged when they leave. The kernel can't reject
/// there, so with that setting they are judged earlier, by the interface of their way before translation.
fn judges_after_nat(shape: &Shape<'_>) -> bool {
    shape.host.points.contains_key(&Point::Out) && !shape.settings.reject_denied
}

/// Of packets without a connection the kernel can't say that they were not translated, so what was is singled out.
fn after_nat() -> Chain {
    let rules = vec![Rule::new([Match::Translated], Verdict::Goto(Name::from(names::TRANSLATED)))];
    chain(Base::Postrouting, rules)
}

fn translated(shape: &Shape<'_>) -> Chain {
    let mut literals = Literals::new(shape.names);
    let mut rules = vec![accepted_before()];
    rules.extend(never_judged(shape, &mut literals));
    rules.extend(to_point(shape, Point::Out));
    Chain { base: None, rules, literals: literals.sets }
}

/// What of the host's own packets no host endpoint is asked about: known flows, what goes to workloads, and tunnels to
/// other nodes, translated or not.
fn never_judged(shape: &Shape<'_>, literals: &mut Literals) -> Vec<Rule> {
    let mut rules = established(Direction::Egress, shape.settings);
    rules.extend(accept_workloads(shape.settings, Side::Destination));
    let known = Match::InterfaceIn { side: Side::Destination, set: Name::from(names::WORKLOAD_INTERFACES) };
    rules.push(Rule::new([known], Verdict::Accept));
    rules.extend(shape.tunnels.iter().filter_map(|tunnel| tunnel.accept(literals, Side::Destination)));
    rules
}

fn neighbour_discovery() -> Chain {
    let rules = NEIGHBOUR_DISCOVERY_TYPES
        .into_iter()
        .map(|icmp_type| Rule::new([Match::Icmp { icmp_type, code: None, negate: false }], Verdict::Accept))
        .collect();
    Chain { rules, ..Chain::default() }
}
