//! Runs of policies that a packet chooses from by its port or an address, instead of being shown to each.
//!
//! A policy none of whose rules can match a packet does nothing to it. So where neighbouring policies all ask for
//! certain destination ports, or for addresses out of lists of their own, a map leads from there to the policies that
//! may match, and all others are spared. Which policy decides stays the same: those that are asked are asked in order.
//! Policies that do nothing but allow commute, so among them those that ask for the same kind of thing are brought
//! together first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tortie_net::{Family, IpNet, PortRange, Protocol};

use crate::model::{Chain, ChoiceKey, ChoiceMap, Element, KeyRange, Match, Name, Rule, Side, Verdict};
use crate::names::Names;

/// How many policies in a row are worth a map, which costs about as much as asking a few of them.
pub const SHORTEST_RUN: usize = 12;

/// A policy with more ranges than this counts as one that asks for nothing.
const MOST_RANGES: usize = 128;

/// What a packet must be like to have a key: where a map is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Port(Protocol),
    Address(Side, Family),
}

impl Lane {
    fn key(self) -> ChoiceKey {
        match self {
            Lane::Port(_) => ChoiceKey::Port,
            Lane::Address(side, family) => ChoiceKey::Address { side, family },
        }
    }

    fn condition(self) -> Match {
        match self {
            Lane::Port(protocol) => Match::Protocol { protocol, negate: false },
            Lane::Address(_, family) => Match::Family(family),
        }
    }
}

/// The keys in each lane with which a packet may match; one in no lane can't.
type Lanes = BTreeMap<Lane, Vec<KeyRange>>;

/// What a policy's rules ask for: by destination port, by source, by destination. `None`: for nothing of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    lanes: [Option<Lanes>; 3],
    /// Whether all it can do is to allow.
    allows: bool,
}

impl Reach {
    /// What the rules of a chain ask for.
    pub(crate) fn of(chain: &Chain) -> Reach {
        let lanes = [Kind::Port, Kind::Address(Side::Source), Kind::Address(Side::Destination)].map(|kind| {
            let mut all = Lanes::new();
            for rule in &chain.rules {
                let (lane, ranges) = asked(rule, chain, kind)?;
                all.entry(lane).or_default().extend(ranges);
            }
            (all.values().map(Vec::len).sum::<usize>() <= MOST_RANGES).then_some(all)
        });
        let allows = |rule: &Rule| rule.verdict == Some(Verdict::Accept) && rule.statements.is_empty();
        Reach { lanes, allows: chain.rules.iter().all(allows) }
    }

    fn nothing() -> Reach {
        Reach { lanes: [None, None, None], allows: false }
    }

    /// The first kind of thing that it asks for.
    fn first(&self) -> usize {
        self.lanes.iter().position(Option::is_some).unwrap_or(self.lanes.len())
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Port,
    Address(Side),
}

/// The lane and keys that a rule asks for; `None`: it does not.
fn asked(rule: &Rule, chain: &Chain, kind: Kind) -> Option<(Lane, Vec<KeyRange>)> {
    let literal = |set: &Name| chain.literals.get(set).map(|set| set.elements.iter().filter_map(key).collect());
    let protocol = rule.matches.iter().find_map(|m| match m {
        Match::Protocol { protocol, negate: false } if protocol.has_ports() => Some(*protocol),
        _ => None,
    });
    rule.matches.iter().find_map(|condition| match (kind, condition) {
        (Kind::Port, Match::Port { side: Side::Destination, range, negate: false }) => {
            Some((Lane::Port(protocol?), vec![of_ports(*range)]))
        }
        (Kind::Port, Match::PortIn { side: Side::Destination, set, negate: false }) => {
            Some((Lane::Port(protocol?), literal(set)?))
        }
        (Kind::Address(wanted), Match::Address { side, net, negate: false }) if *side == wanted => {
            Some((Lane::Address(wanted, Family::of_net(*net)), vec![of_net(*net)]))
        }
        (Kind::Address(wanted), Match::AddressIn { side, family, set, negate: false }) if *side == wanted => {
            Some((Lane::Address(wanted, *family), literal(set)?))
        }
        _ => None,
    })
}

fn key(element: &Element) -> Option<KeyRange> {
    match element {
        Element::Address(addr) => Some(of_net(IpNet::from(*addr))),
        Element::Net(net) => Some(of_net(*net)),
        Element::Ports(range) => Some(of_ports(*range)),
        Element::AddressPort { .. } | Element::Interface(_) | Element::InterfaceAddress(_) => None,
    }
}

fn of_ports(range: PortRange) -> KeyRange {
    KeyRange { first: range.first().into(), last: range.last().into() }
}

fn of_net(net: IpNet) -> KeyRange {
    let number = |addr| match addr {
        IpAddr::V4(addr) => u32::from(addr).into(),
        IpAddr::V6(addr) => u128::from(addr),
    };
    KeyRange { first: number(net.network()), last: number(net.broadcast()) }
}

/// A policy that a list jumps to.
pub(crate) struct Item {
    pub(crate) chain: Name,
    pub(crate) reach: Reach,
}

impl Item {
    /// Of the policy's chain as rendered; one that is not to be part of a run has none.
    pub(crate) fn new(name: Name, chain: Option<Arc<Chain>>) -> Item {
        Item { chain: name, reach: chain.map_or_else(Reach::nothing, |chain| Reach::of(&chain)) }
    }
}

/// Makes the jumps to policies, and what they need.
pub(crate) struct Runs {
    names: Names,
    /// The chain that the jumps are in.
    owner: Name,
    shortest: usize,
    /// How many maps that chain has.
    count: usize,
    pub(crate) maps: BTreeMap<Name, Arc<ChoiceMap>>,
    /// Chains that ask several policies.
    pub(crate) parts: BTreeMap<Name, Chain>,
}

impl Runs {
    pub(crate) fn new(names: Names, owner: Name, shortest: usize) -> Runs {
        Runs { names, owner, shortest, count: 0, maps: BTreeMap::new(), parts: BTreeMap::new() }
    }

    /// The jumps to come are in another chain.
    pub(crate) fn turn_to(&mut self, owner: Name) {
        self.owner = owner;
        self.count = 0;
    }

    /// The rules that show a packet to policies, in order.
    pub(crate) fn jumps(&mut self, mut items: Vec<Item>) -> Vec<Rule> {
        for stretch in items.chunk_by_mut(|a, b| a.reach.allows && b.reach.allows) {
            stretch.sort_by_key(|item| item.reach.first());
        }
        let mut rules = Vec::new();
        let mut rest = &items[..];
        while let [first, ..] = rest {
            let reaches = |kind: usize| rest.iter().take_while(|item| item.reach.lanes[kind].is_some()).count();
            let (length, kind) =
                (0..first.reach.lanes.len()).map(|kind| (reaches(kind), usize::MAX - kind)).max().unwrap_or_default();
            let run = if length >= self.shortest { self.run(&rest[..length], usize::MAX - kind) } else { None };
            let taken = length.max(1);
            match run {
                Some(run) => rules.extend(run),
                None => rules.extend(rest[..taken].iter().map(|item| jump(item.chain.clone()))),
            }
            rest = &rest[taken..];
        }
        rules
    }

    /// The rules for policies that all ask for one kind of thing; `None`: their maps would be too large.
    fn run(&mut self, items: &[Item], kind: usize) -> Option<Vec<Rule>> {
        let lanes: BTreeSet<Lane> = items
            .iter()
            .filter_map(|item| item.reach.lanes[kind].as_ref())
            .flat_map(|own| own.keys().copied())
            .collect();
        let mut parts = Vec::new();
        let mut room = 4 * items.len() + 64;
        for lane in lanes {
            let ranges = |item: &Item| item.reach.lanes[kind].as_ref().and_then(|own| own.get(&lane)).cloned();
            let wanted: Vec<Vec<KeyRange>> = items.iter().map(|item| ranges(item).unwrap_or_default()).collect();
            parts.push((lane, pieces(&wanted, lane.key().greatest(), &mut room)?));
        }
        Some(parts.into_iter().map(|(lane, pieces)| self.choose(items, lane, pieces)).collect())
    }

    fn choose(&mut self, items: &[Item], lane: Lane, pieces: Vec<(KeyRange, Vec<usize>)>) -> Rule {
        let key = lane.key();
        let mut chains = BTreeMap::new();
        for (range, asked) in pieces {
            let targets: Vec<Name> = asked.into_iter().map(|at| items[at].chain.clone()).collect();
            chains.insert(range, self.part(targets));
        }
        let map = self.names.choices(&self.owner, key, self.count);
        self.count += 1;
        self.maps.insert(map.clone(), Arc::new(ChoiceMap { key, chains }));
        Rule::new([lane.condition()], Verdict::Choose { key, map })
    }

    /// The chain that shows packets to these policies.
    fn part(&mut self, targets: Vec<Name>) -> Name {
        if let [only] = &targets[..] {
            return only.clone();
        }
        let name = self.names.part(&self.owner, &targets);
        let rules = || targets.into_iter().map(jump).collect();
        self.parts.entry(name.clone()).or_insert_with(|| Chain { rules: rules(), ..Chain::default() });
        name
    }
}

fn jump(chain: Name) -> Rule {
    Rule::new([], Verdict::Jump(chain))
}

/// Cuts the keys into ranges within which the same ones of `wanted` hold, and says which; where none does is left out.
/// `room` is how many may be named in all; `None`: there are more.
fn pieces(wanted: &[Vec<KeyRange>], greatest: u128, room: &mut usize) -> Option<Vec<(KeyRange, Vec<usize>)>> {
    let mut changes: BTreeMap<u128, Vec<(usize, bool)>> = BTreeMap::new();
    for (at, ranges) in wanted.iter().enumerate() {
        for KeyRange { first, last } in ranges {
            changes.entry(*first).or_default().push((at, true));
            if let Some(after) = last.checked_add(1) {
                changes.entry(after).or_default().push((at, false));
            }
        }
    }
    // Ranges of one may overlap.
    let mut open: BTreeMap<usize, usize> = BTreeMap::new();
    let mut pieces: Vec<(KeyRange, Vec<usize>)> = Vec::new();
    let starts: Vec<u128> = changes.keys().copied().collect();
    for (number, (first, changed)) in changes.into_iter().enumerate() {
        for (at, begins) in changed {
            let count = open.entry(at).or_default();
            // Within one place an end may come before the begin that it does not belong to.
            *count = if begins { count.wrapping_add(1) } else { count.wrapping_sub(1) };
            if *count == 0 {
                open.remove(&at);
            }
        }
        let last = starts.get(number + 1).map_or(greatest, |next| next - 1);
        let asked: Vec<usize> = open.keys().copied().collect();
        if asked.is_empty() {
            continue;
        }
        match pieces.last_mut() {
            Some((range, before)) if *before == asked && range.last + 1 == first => range.last = last,
            _ => {
                // It bounds the time that this takes too.
                *room = room.checked_sub(asked.len())?;
                pieces.push((KeyRange { first, last }, asked));
            }
        }
    }
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_key_leads_to_just_those_that_want_it(
            wanted in proptest::collection::vec(proptest::collection::vec((0u128..40, 0u128..10), 0..4), 0..6)
        ) {
            let range = |(first, more): (u128, u128)| KeyRange { first, last: (first + more).min(47) };
            let wanted: Vec<Vec<KeyRange>> =
                wanted.into_iter().map(|own| own.into_iter().map(range).collect()).collect();
            let pieces = pieces(&wanted, 47, &mut 10_000).expect("room enough");
            for key in 0..48 {
                let holds = |ranges: &Vec<KeyRange>| ranges.iter().any(|r| r.first <= key && key <= r.last);
                let asked: Vec<usize> = (0..wanted.len()).filter(|at| holds(&wanted[*at])).collect();
                let found: Vec<&Vec<usize>> =
                    pieces.iter().filter(|(r, _)| r.first <= key && key <= r.last).map(|(_, found)| found).collect();
                prop_assert_eq!(found, Vec::from_iter((!asked.is_empty()).then_some(&asked)));
            }
        }
    }

    #[test]
    fn what_everybody_wants_everywhere_is_too_much() {
        let nested: Vec<_> = (0..100).map(|n| vec![KeyRange { first: n, last: 300 - n }]).collect();
        assert_eq!(pieces(&nested, 0xffff, &mut 464), None);
    }
}
