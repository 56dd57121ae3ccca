//! Which chains a table needs, how each is entered, and which of them may decide about a packet.

use std::collections::BTreeMap;

use tortie_net::Family;
use tortie_ruleset::{Base, Chain, Match, Name, Rule, Ruleset, Verdict};

use crate::content::{Table, place};
use crate::error::Error;

/// How a chain is entered, which says what its end means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// By the kernel: its end lets the packet go on, as accepting does.
    Base,
    /// By chains that don't wait for it: its end is the base chain's.
    Tail,
    /// By a jump: its end is back there.
    Call,
}

/// The chains of one table of one family.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Base chains, in the order that packets pass them.
    pub(crate) bases: Vec<(Base, &'a Name)>,
    pub(crate) entries: BTreeMap<&'a Name, Entry>,
    /// Whether a chain may mark packets as done.
    pub(crate) decides: BTreeMap<&'a Name, bool>,
}

pub(crate) fn plan(ruleset: &Ruleset, table: Table, family: Family) -> Result<Plan<'_>, Error> {
    let mut bases: Vec<(Base, &Name)> = ruleset
        .chains
        .iter()
        .filter_map(|(name, chain)| Some((chain.base?, name)))
        .filter(|(base, _)| place(*base).0 == table)
        .collect();
    bases.sort_unstable();
    let mut plan = Plan { bases, entries: BTreeMap::new(), decides: BTreeMap::new() };
    let mut todo: Vec<(&Name, Entry)> = plan.bases.iter().map(|(_, name)| (*name, Entry::Base)).collect();
    while let Some((name, entry)) = todo.pop() {
        match plan.entries.insert(name, entry) {
            None => {}
            Some(before) if before == entry => continue,
            Some(_) => return Err(unsupported(name, "is entered both by jump and by goto")),
        }
        let chain = chain_of(ruleset, name)?;
        for rule in chain.rules.iter().filter(|rule| concerns(rule, family)) {
            for (target, kind) in targets(ruleset, name, rule)? {
                let to = match (kind, entry) {
                    // However it is entered, nobody comes back from there.
                    (Kind::Jump | Kind::Goto | Kind::Dispatch, _) if ends_all(chain_of(ruleset, target)?) => {
                        Entry::Call
                    }
                    (Kind::Jump, _) => Entry::Call,
                    (Kind::Goto, Entry::Call) => Entry::Call,
                    (Kind::Goto | Kind::Dispatch, Entry::Base | Entry::Tail) => Entry::Tail,
                    (Kind::Dispatch, Entry::Call) => {
                        return Err(unsupported(name, "dispatches by interface, but is entered by jump"));
                    }
                };
                todo.push((target, to));
            }
        }
    }
    let names: Vec<&Name> = plan.entries.keys().copied().collect();
    for name in names {
        decides(ruleset, family, &mut plan, name)?;
    }
    Ok(plan)
}

fn decides<'a>(ruleset: &'a Ruleset, family: Family, plan: &mut Plan<'a>, name: &'a Name) -> Result<bool, Error> {
    if let Some(known) = plan.decides.get(name) {
        return Ok(*known);
    }
    // A loop of chains, which the kernel refuses, ends here.
    plan.decides.insert(name, false);
    let entry = plan.entries[name];
    let mut result = entry == Entry::Tail;
    for rule in chain_of(ruleset, name)?.rules.iter().filter(|rule| concerns(rule, family)) {
        result |= entry != Entry::Base && rule.verdict == Some(Verdict::Accept);
        for (target, _) in targets(ruleset, name, rule)? {
            result |= decides(ruleset, family, plan, target)?;
        }
    }
    plan.decides.insert(name, result);
    Ok(result)
}

/// Whether a chain ends every packet, such as one that tells of them.
fn ends_all(chain: &Chain) -> bool {
    let Chain { base: _, rules, literals: _ } = chain;
    let ends = |rule: &Rule| matches!(rule.verdict, Some(Verdict::Drop | Verdict::Reject | Verdict::Reset));
    rules.last().is_some_and(|last| last.matches.is_empty()) && rules.iter().all(ends)
}

pub(crate) fn chain_of<'a>(ruleset: &'a Ruleset, name: &Name) -> Result<&'a Chain, Error> {
    ruleset.chains.get(name).map(|chain| &**chain).ok_or_else(|| unsupported(name, "is entered but not there"))
}

/// Why a chain is refused that the renderer was not asked for.
pub(crate) const CHOOSES: &str = "chooses by a map, which only nftables can";

pub(crate) fn unsupported(chain: &str, why: &str) -> Error {
    Error::Unsupported { what: format!("chain {chain:?}: it {why}") }
}

/// Whether packets of a family can match.
pub(crate) fn concerns(rule: &Rule, family: Family) -> bool {
    rule.matches.iter().all(|condition| match condition {
        Match::Family(of) => *of == family,
        Match::InterfaceAddressIn { family: of, set: _, negate: _ }
        | Match::AddressIn { side: _, family: of, set: _, negate: _ }
        | Match::AddressPortIn { side: _, family: of, set: _, negate: _ } => *of == family,
        Match::Address { side: _, net, negate: _ } => Family::of_net(*net) == family,
        Match::Conntrack(_)
        | Match::Translated
        | Match::Revoked { negate: _ }
        | Match::Protocol { protocol: _, negate: _ }
        | Match::InterfacePrefix { side: _, prefix: _ }
        | Match::InterfaceIn { side: _, set: _ }
        | Match::Port { side: _, range: _, negate: _ }
        | Match::PortIn { side: _, set: _, negate: _ }
        | Match::Icmp { icmp_type: _, code: _, negate: _ }
        | Match::BorrowedSource { interface: _ }
        | Match::Mark(_)
        | Match::Rate { rate: _, over: _ }
        | Match::ConnectionsOver(_) => true,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Jump,
    Goto,
    Dispatch,
}

fn targets<'a>(ruleset: &'a Ruleset, chain: &Name, rule: &'a Rule) -> Result<Vec<(&'a Name, Kind)>, Error> {
    Ok(match &rule.verdict {
        Some(Verdict::Jump(to)) => vec![(to, Kind::Jump)],
        Some(Verdict::Goto(to)) => vec![(to, Kind::Goto)],
        Some(Verdict::Dispatch { side: _, map }) => {
            let map = ruleset.maps.get(map).ok_or_else(|| unsupported(chain, "asks a map that is not there"))?;
            map.values().map(|to| (to, Kind::Dispatch)).collect()
        }
        Some(Verdict::Choose { key: _, map: _ }) => return Err(unsupported(chain, CHOOSES)),
        Some(
            Verdict::Accept
            | Verdict::Drop
            | Verdict::Reject
            | Verdict::Return
            | Verdict::Reset
            | Verdict::SourceNat { address: _, ports: _ }
            | Verdict::DestinationNat(_),
        )
        | None => vec![],
    })
}
