//! A ruleset as the contents of iptables' tables, for one family.
//!
//! The ruleset's base chains follow each other, and accepting a packet in one leaves it to the next; of them, several
//! share a chain of the kernel here. So each is a chain of ours that another one, which the kernel enters, jumps to in
//! turn. Accepting in such a chain is returning. Deeper, it sets [`DONE_MARK`] and returns, and whoever jumped returns
//! too if the mark is there. What a base chain's policy accepted is accepted for good once all of them agreed.
//! Interfaces are told apart by trees of chains. What a rule does beside its verdict stands in a chain of its own,
//! named by what it does.

mod action;
mod conditions;
mod plan;
#[cfg(test)]
mod tests;
mod tree;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tortie_desired::HostAction;
use tortie_net::Family;
use tortie_ruleset::{
    ACCEPT_MARK, Base, Cause, Chain, Element, Name, RECORD_BURST, RECORD_RATE, Rule, Ruleset, Side, Statement, Verdict,
};

use crate::content::{Content, Table, place};
use crate::error::Error;
use conditions::Conditions;
use plan::{Entry, Plan, chain_of, concerns, unsupported};
pub use tree::CHAIN_LEN;

/// The mark bit that says, until the base chain is left, that it accepted the packet. Upstream's first scratch bit.
pub const DONE_MARK: u32 = 0x80000;
/// The mark bit that says that an earlier base chain's policy accepted the packet. Upstream's second scratch bit.
const AGREED_MARK: u32 = 0x0010_0000;
/// A mark bit of one rule's conditions; never looked at after that rule. Upstream's bit for drops, of no use here.
pub const SCRATCH_MARK: u32 = 0x40000;

/// What becomes of packets that policy accepted (`iptablesFilterAllowAction`, `iptablesMangleAllowAction`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allow {
    /// They are accepted; rules of others behind ours are not asked.
    #[default]
    Accept,
    /// The rules behind ours decide.
    Return,
}

/// How a ruleset is rendered.
pub(crate) struct Style<'a> {
    pub(crate) filter_allow: Allow,
    pub(crate) mangle_allow: Allow,
    /// What the workloads' interfaces start with.
    pub(crate) prefixes: &'a [std::sync::Arc<str>],
    pub(crate) to_host: HostAction,
    /// The name of a set in the kernel.
    pub(crate) kernel_name: &'a dyn Fn(&Name) -> String,
    /// Chains and sets that the programs refused before, and why.
    pub(crate) refused: &'a BTreeMap<Name, String>,
    /// What tells of the packets that a closed chain ends: target of a rule.
    pub(crate) record: &'a dyn Fn(&Name) -> Option<String>,
}

/// The contents of all tables of a family, and the sets that they refer to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) tables: BTreeMap<Table, Content>,
    pub(crate) sets: BTreeSet<Name>,
    /// Chains that can't be said, and so end every packet; and why.
    pub(crate) closed: BTreeMap<Name, String>,
}

pub(crate) fn render(ruleset: &Ruleset, family: Family, style: &Style<'_>) -> Result<Rendered, Error> {
    let mut rendered = Rendered::default();
    for table in Table::ALL {
        let plan = plan::plan(ruleset, table, family)?;
        if plan.bases.is_empty() {
            continue;
        }
        let mut output = Output {
            ruleset,
            family,
            table,
            style,
            plan,
            content: Content::default(),
            sets: BTreeSet::new(),
            closed: BTreeMap::new(),
        };
        output.all()?;
        rendered.tables.insert(table, output.content);
        rendered.sets.append(&mut output.sets);
        rendered.closed.append(&mut output.closed);
    }
    Ok(rendered)
}

/// What a filter table holds that does nothing but cut the workloads of these interfaces off.
pub(crate) fn gate(prefixes: &[std::sync::Arc<str>]) -> Result<Content, Error> {
    let mut content = Content::default();
    for (builtin, options) in [("INPUT", ["-i"].as_slice()), ("FORWARD", &["-i", "-o"])] {
        let chain = Name::from(format!("cali-{builtin}"));
        let mut rules = Vec::new();
        for prefix in prefixes.iter().filter(|prefix| !prefix.is_empty()) {
            let prefix = &tree::interface(prefix)?[..prefix.len().min(14)];
            rules.extend(options.iter().map(|option| format!("{option} {prefix}+ -j DROP")));
        }
        content.chains.insert(chain.clone(), rules);
        content.hooks.insert(builtin, chain);
    }
    Ok(content)
}

/// The rule that tells of packets with a cause, at the rate that holds for each.
pub(crate) fn record(cause: &Cause) -> String {
    let statement = Statement::Record { group: cause.group(), prefix: cause.prefix().into() };
    let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(cause.prefix()));
    let told = action::statement(&statement).unwrap_or_default();
    format!(
        "-m hashlimit --hashlimit-upto {RECORD_RATE}/second --hashlimit-burst {RECORD_BURST} \
         --hashlimit-name cali_{} {told}",
        &digest[..9]
    )
}

/// The name that a chain has in its table, by which it is known as ours: names of the ruleset say a table where iptables
/// needs none.
fn chain_name(name: &Name, base: Option<Base>) -> Name {
    if let Some(base) = base {
        return place(base).2.into();
    }
    let plain = ["raw-", "mangle-"].iter().find_map(|table| name.strip_prefix(table)).unwrap_or(name);
    if plain.starts_with("cali-") { plain.into() } else { format!("cali-{plain}").into() }
}

fn set_mark(bits: u32) -> String {
    format!("-j MARK --set-xmark {bits:#x}/{bits:#x}")
}

fn clear_mark(bits: u32) -> String {
    format!("-j MARK --set-xmark 0x0/{bits:#x}")
}

fn marked(bits: u32, then: &str) -> String {
    format!("-m mark ! --mark 0x0/{bits:#x} {then}")
}

/// One table of one family.
struct Output<'a> {
    ruleset: &'a Ruleset,
    family: Family,
    table: Table,
    style: &'a Style<'a>,
    plan: Plan<'a>,
    content: Content,
    sets: BTreeSet<Name>,
    closed: BTreeMap<Name, String>,
}

/// What policies, profiles and workloads have chains for. One that can't be said ends every packet: what it would have
/// denied is denied, and the others stay as they are. A host endpoint's own chain, which spares the ports that nobody
/// may be locked out from, is none.
const CLOSABLE: [&str; 8] =
    ["cali-pi-", "cali-po-", "cali-pri-", "cali-pro-", "cali-tw-", "cali-fw-", "cali-gi-", "cali-go-"];

pub(crate) fn is_closable(chain: &str) -> bool {
    CLOSABLE.iter().any(|prefix| chain.starts_with(prefix))
}

impl Output<'_> {
    fn all(&mut self) -> Result<(), Error> {
        let names: Vec<(Name, Entry)> =
            self.plan.entries.iter().map(|(name, entry)| ((*name).clone(), *entry)).collect();
        for (name, entry) in names {
            let chain = chain_of(self.ruleset, &name)?;
            let lines = match self.chain(&name, entry, chain) {
                Err(Error::Unsupported { what }) if chain.base.is_none() && is_closable(&name) => {
                    self.closed.insert(name.clone(), what);
                    (self.style.record)(&name).into_iter().chain(["-j DROP".to_owned()]).collect()
                }
                other => other?,
            };
            let there = self.content.chains.insert(chain_name(&name, chain.base), lines);
            if there.is_some() {
                return Err(unsupported(&name, "has the name of another chain"));
            }
        }
        self.entrances();
        Ok(())
    }

    fn chain(&mut self, name: &Name, entry: Entry, chain: &Chain) -> Result<Vec<String>, Error> {
        let Chain { base: _, rules, literals: _ } = chain;
        self.not_refused(name, name)?;
        let mut lines = Vec::new();
        let family = self.family;
        for rule in rules.iter().filter(|rule| concerns(rule, family)) {
            self.rule(name, entry, rule, &mut lines)?;
        }
        if entry == Entry::Tail && !rules.last().is_some_and(always_ends) {
            lines.push(set_mark(DONE_MARK));
        }
        Ok(lines)
    }

    fn not_refused(&self, chain: &Name, part: &Name) -> Result<(), Error> {
        match self.style.refused.get(part) {
            Some(why) => Err(unsupported(chain, why)),
            None => Ok(()),
        }
    }

    /// The chains that the kernel's own enter.
    fn entrances(&mut self) {
        let mut stages: BTreeMap<&'static str, Vec<(Name, bool)>> = BTreeMap::new();
        for (base, name) in &self.plan.bases {
            let (_, builtin, chain) = place(*base);
            stages.entry(builtin).or_default().push((chain.into(), self.plan.decides[*name]));
        }
        for (builtin, stages) in stages {
            let name = Name::from(format!("cali-{builtin}"));
            let mut lines = Vec::new();
            if stages.iter().any(|(_, decides)| *decides) {
                lines.push(clear_mark(DONE_MARK | AGREED_MARK));
            }
            for (at, (stage, decides)) in stages.iter().enumerate() {
                lines.push(format!("-j {stage}"));
                if *decides && at + 1 < stages.len() {
                    let agreed = format!("-j MARK --set-xmark {AGREED_MARK:#x}/{:#x}", DONE_MARK | AGREED_MARK);
                    lines.push(marked(DONE_MARK, &agreed));
                }
            }
            lines.extend(self.finish(builtin, stages.iter().any(|(_, decides)| *decides)));
            self.content.chains.insert(name.clone(), lines);
            self.content.hooks.insert(builtin, name);
        }
    }

    /// What becomes of packets that all base chains of a hook let pass.
    fn finish(&self, builtin: &str, decides: bool) -> Vec<String> {
        let Style { filter_allow, mangle_allow, prefixes, to_host, kernel_name: _, refused: _, record: _ } = self.style;
        let early = [Base::RawPrerouting, Base::RawOutput, Base::BeforeNat];
        // A chain that only leaves packets out of connection tracking accepts none.
        let mut chains = self.ruleset.chains.values().filter(|c| c.rules.iter().any(|rule| rule.verdict.is_some()));
        let mut accepted =
            if chains.any(|c| c.base.is_some_and(|base| early.contains(&base))) { ACCEPT_MARK } else { 0 };
        match (self.table, filter_allow, mangle_allow) {
            (Table::Raw, _, _) | (Table::Mangle, _, Allow::Accept) => {}
            (Table::Filter, Allow::Accept, _) => accepted |= if decides { DONE_MARK | AGREED_MARK } else { 0 },
            (Table::Filter, Allow::Return, _) | (Table::Mangle, _, Allow::Return) | (Table::Nat, _, _) => return vec![],
        }
        let own = |option: &str, then: &str| -> Vec<String> {
            let own = prefixes.iter().filter_map(|prefix| tree::interface(prefix).ok());
            own.map(|prefix| format!("{option} {}+ -j {then}", &prefix[..prefix.len().min(14)])).collect()
        };
        let mut lines = match (self.table, builtin, to_host) {
            (Table::Filter, "INPUT", HostAction::Return) => own("-i", "RETURN"),
            (Table::Filter, "INPUT", HostAction::Accept) => own("-i", "ACCEPT"),
            (Table::Filter, "FORWARD", _) => [own("-i", "ACCEPT"), own("-o", "ACCEPT")].concat(),
            _ => vec![],
        };
        if accepted != 0 {
            lines.push(marked(accepted, "-j ACCEPT"));
        }
        lines
    }

    fn rule(&mut self, chain: &Name, entry: Entry, rule: &Rule, lines: &mut Vec<String>) -> Result<(), Error> {
        let kernel_name = self.style.kernel_name;
        let Some(found) = conditions::conditions(chain, &rule.matches, self.family, self.ruleset, kernel_name)? else {
            return Ok(());
        };
        let Conditions { mut text, interfaces, not_protocols, sets } = found;
        sets.iter().try_for_each(|set| self.not_refused(chain, set))?;
        self.sets.extend(sets);
        let mut rule = Cow::Borrowed(rule);
        if text.is_empty() && interfaces.is_none() && not_protocols.is_empty() {
            // What every packet meets needs no chain of its own.
            lines.extend(std::mem::take(&mut rule.to_mut().statements).iter().filter_map(action::statement));
        }
        let Some(action) = self.action(chain, entry, &rule)? else { return Ok(()) };
        if interfaces.is_some() || !not_protocols.is_empty() {
            if let Some((side, set)) = interfaces {
                if !not_protocols.is_empty() {
                    return Err(unsupported(chain, "has a rule with a set of interfaces and several protocols"));
                }
                let tree = self.interfaces(chain, side, &set)?;
                lines.push(clear_mark(SCRATCH_MARK));
                lines.push(format!("{text} -j {tree}").trim_start().to_owned());
                text.clear();
            } else {
                lines.push(set_mark(SCRATCH_MARK));
                lines.extend(not_protocols.iter().map(|p| format!("-p {} {}", p.0, clear_mark(SCRATCH_MARK))));
            }
            text = format!(" -m mark --mark {SCRATCH_MARK:#x}/{SCRATCH_MARK:#x}{text}");
        }
        lines.push(format!("{text} {}", action.target).trim_start().to_owned());
        if action.may_decide {
            lines.push(marked(DONE_MARK, "-j RETURN"));
        }
        Ok(())
    }

    /// The chain that marks packets of the interfaces in a set.
    fn interfaces(&mut self, chain: &Name, side: Side, set: &Name) -> Result<Name, Error> {
        let found = self.ruleset.sets.get(set).ok_or_else(|| unsupported(chain, "asks a set that is not there"))?;
        let suffix = if side == Side::Source { "in" } else { "out" };
        let root = Name::from(format!("{set}-{suffix}"));
        if !self.content.chains.contains_key(&root) {
            let mark = self.helper(vec![set_mark(SCRATCH_MARK)]);
            let names = found.elements.iter().filter_map(|element| match element {
                Element::Interface(name) => Some((&**name, format!("-g {mark}"))),
                Element::Address(_)
                | Element::Net(_)
                | Element::AddressPort { addr: _, protocol: _, port: _ }
                | Element::Ports(_)
                | Element::InterfaceAddress(_) => None,
            });
            let names = names.collect();
            tree::add(&mut self.content, &root, side, &names)?;
        }
        Ok(root)
    }
}

/// Whether every packet that comes to a rule ends with it.
fn always_ends(rule: &Rule) -> bool {
    let Rule { matches, statements: _, verdict } = rule;
    let ends = match verdict {
        Some(Verdict::Accept | Verdict::Drop | Verdict::Goto(_) | Verdict::Return) => true,
        // A reject of the kernel spares some packets, such as other rejections.
        Some(
            Verdict::Reject
            | Verdict::Reset
            | Verdict::Jump(_)
            | Verdict::Dispatch { side: _, map: _ }
            | Verdict::Choose { key: _, map: _ }
            | Verdict::SourceNat { address: _, ports: _ }
            | Verdict::DestinationNat(_),
        )
        | None => false,
    };
    matches.is_empty() && ends
}
