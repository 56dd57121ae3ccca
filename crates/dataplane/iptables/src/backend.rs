//! The backend that a node drives: commit batches, read back and repair.
//!
//! Invariant: what is in force stays so, whatever fails; after a refusal the next call reads everything back before it
//! writes.

mod refused;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use tortie_dataplane::{Cause, ForeignChange, PolicyBackend, PolicyReport};
use tortie_desired::{Batch, Tables};
use tortie_net::Family;
use tortie_ruleset::{ChainEdit, Delta, Match, Name, Renderer, Ruleset, Set, SetEdit, SetType};

use crate::content::{Content, Flavour, Table};
use crate::error::Error;
use crate::programs::run;
use crate::render::{self, Allow, CHAIN_LEN, Rendered, Style};
use crate::save::{self, Seen};
use crate::sets::{self, Script, SeenSet, kernel_name};
use crate::transition::{Change, HookPlace, make_all};
use crate::watch::Watch;
use refused::{MOST_REFUSED, named, record};

/// How long sets may stay in use after the last rule that refers to them went.
const PATIENCE: Duration = Duration::from_secs(1);

/// Choices at opening.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which iptables.
    pub flavour: Flavour,
    /// Whether our rules go behind those of others (`chainInsertMode: Append`).
    pub append: bool,
    /// What becomes of packets that policy accepted, in the filter table.
    pub filter_allow: Allow,
    /// The same in the mangle table.
    pub mangle_allow: Allow,
    /// Whether another backend's rules are in force until ours are there, so that workloads need not be cut off first.
    pub covered: bool,
}

impl Options {
    /// Upstream's defaults.
    pub fn new(flavour: Flavour) -> Options {
        Options { flavour, append: false, filter_allow: Allow::Accept, mangle_allow: Allow::Accept, covered: false }
    }
}

/// A table of a family.
type Place = (Family, Table);

/// What the kernel is known to hold.
#[derive(Debug)]
struct Held {
    renderer: Renderer,
    contents: BTreeMap<Place, Content>,
    /// Sets that are there, by their names in the ruleset.
    sets: BTreeSet<Name>,
    /// Chains that end every packet, as what they should say can't be said; and why.
    closed: BTreeMap<Name, String>,
}

/// What all tables should hold.
struct Wanted {
    contents: BTreeMap<Place, Content>,
    sets: BTreeSet<Name>,
    closed: BTreeMap<Name, String>,
}

/// The node's rules in iptables and its sets in ipset, in the network namespace of the calling thread.
#[derive(Debug)]
pub struct Iptables {
    options: Options,
    held: Option<Held>,
    /// Sets whose other name is in use.
    other: BTreeSet<Name>,
    /// Sets that should be gone, but were in use for long.
    stuck: BTreeSet<String>,
    /// Chains and sets that the programs refused, and why: what needs them is closed, the rest goes on.
    refused: BTreeMap<Name, String>,
    /// Who looks out for changes by others, from the first change of ours on.
    watch: Option<Watch>,
}

impl Iptables {
    /// A backend that knows nothing yet. Changes nothing.
    pub fn new(options: Options) -> Iptables {
        Iptables {
            options,
            held: None,
            other: BTreeSet::new(),
            stuck: BTreeSet::new(),
            refused: BTreeMap::new(),
            watch: None,
        }
    }

    /// Commits a batch; `tables` already hold it. On an error everything in force is as it was.
    pub fn commit(&mut self, tables: &Tables, batch: &Batch) -> Result<PolicyReport, Error> {
        let Some(mut held) = self.held.take() else { return self.resync(tables) };
        let delta = held.renderer.update(tables, batch);
        let wrote = match self.step(tables, &mut held, &delta) {
            Ok(wrote) => wrote,
            // Somebody may have changed what the step builds on: compare, and then the refusal is final or gone.
            Err(Error::Refused { program, reason, line: _ }) => {
                tracing::warn!(program, reason, "iptables refused a change; reading all back");
                return self.resync(tables);
            }
            Err(other) => return Err(other),
        };
        let unsupported = named(tables, &held.closed);
        self.held = Some(held);
        Ok(PolicyReport { wrote, unsupported, ..PolicyReport::default() })
    }

    fn step(&mut self, tables: &Tables, held: &mut Held, delta: &Delta) -> Result<bool, Error> {
        if delta.is_empty() {
            return Ok(false);
        }
        let changed = |name: &Name| delta.chains.contains_key(name) || delta.sets.contains_key(name);
        let refused = self.refused.len();
        // What changed may be taken now.
        self.refused.retain(|name, _| !changed(name));
        let retried = self.refused.len() != refused;
        let before = self.other.clone();
        for name in mixed(held, delta) {
            if !self.other.remove(&name) {
                self.other.insert(name);
            }
        }
        let result = self.write(tables, held, delta, (&before, retried));
        if result.is_err() {
            self.other = before;
        }
        result
    }

    /// Sets that come, then rules, then sets that go. `before`: the sets whose other name was in use; `retried`: whether
    /// what was refused may be taken now.
    fn write(
        &mut self,
        tables: &Tables,
        held: &mut Held,
        delta: &Delta,
        (before, retried): (&BTreeSet<Name>, bool),
    ) -> Result<bool, Error> {
        let ruleset = held.renderer.ruleset();
        let rules_change = shapes_rules(delta, ruleset) || *before != self.other || retried;
        let Wanted { contents, sets: wanted, closed } = if rules_change {
            self.render(tables, ruleset)?
        } else {
            Wanted { contents: held.contents.clone(), sets: held.sets.clone(), closed: held.closed.clone() }
        };
        let is_new = |name: &Name| !held.sets.contains(name) || before.contains(name) != self.other.contains(name);
        let mut script = Script::default();
        for name in &wanted {
            let kernel = self.kernel_name(name);
            match (ruleset.sets.get(name), delta.sets.get(name)) {
                (Some(set), _) if is_new(name) => script.create(&kernel, set),
                (Some(_), Some(SetEdit::Change { set_type: _, added, removed })) => {
                    script.change(&kernel, added, removed);
                }
                (Some(_), Some(SetEdit::Create(_) | SetEdit::Remove) | None) | (None, _) => {}
            }
        }
        let changes: Vec<Change> = places()
            .filter_map(|place| {
                let empty = Content::default();
                let old = held.contents.get(&place).unwrap_or(&empty);
                Change::between(place, self.place(), old, contents.get(&place).unwrap_or(&empty))
            })
            .collect();
        script.make()?;
        make_all(self.options.flavour, &changes).inspect_err(|_| script.take_back())?;
        let old_name = |name: &Name| kernel_name(name, before.contains(name));
        let gone = held.sets.iter().filter(|name| !wanted.contains(*name) || is_new(name)).map(old_name).collect();
        self.stuck.append(&mut sets::destroy(gone, PATIENCE));
        if let Some(watch) = self.watch.as_mut().filter(|_| !changes.is_empty()) {
            watch.expect(&contents);
        }
        (held.contents, held.sets, held.closed) = (contents, wanted, closed);
        Ok(!changes.is_empty() || !script.is_empty())
    }

    /// Reads everything back and makes the kernel hold what `tables` say; writes nothing if it does.
    pub fn resync(&mut self, tables: &Tables) -> Result<PolicyReport, Error> {
        self.refused.clear();
        loop {
            let error = match self.resync_without_refused(tables) {
                Ok(report) => return Ok(report),
                Err(error) => error,
            };
            if self.refused.len() >= MOST_REFUSED || !self.leave_out(tables, &error) {
                self.refused.clear();
                return Err(error);
            }
        }
    }

    fn resync_without_refused(&mut self, tables: &Tables) -> Result<PolicyReport, Error> {
        self.held = None;
        if self.watch.is_none() {
            // Before all is read, so that nothing happens unseen.
            self.watch = Watch::open(self.options.flavour);
        }
        let renderer = Renderer::with_runs(tables, CHAIN_LEN, None);
        let ruleset = renderer.ruleset();
        let seen = observe(self.options.flavour)?;
        self.close_first(tables, &seen)?;
        let seen_sets = sets::observe()?;
        self.choose_names(ruleset, &seen_sets);
        let Wanted { contents, sets: wanted, closed } = self.render(tables, ruleset)?;
        let mut report = PolicyReport::default();
        let mut script = Script::default();
        for name in &wanted {
            let Some(set) = ruleset.sets.get(name) else { continue };
            let kernel = self.kernel_name(name);
            let wrong = match seen_sets.get(&kernel) {
                Some(seen) => script.repair(&kernel, seen, set),
                None => {
                    script.create(&kernel, set);
                    true
                }
            };
            report.repaired.extend(wrong.then_some(kernel));
        }
        let seen = if self.options.covered || seen_is_closed(&seen) { seen } else { observe(self.options.flavour)? };
        let changes: Vec<Change> = places()
            .filter_map(|place| {
                let (seen, wanted) = (seen.get(&place).cloned(), contents.get(&place).cloned());
                Change::from_seen(place, self.place(), &seen.unwrap_or_default(), &wanted.unwrap_or_default())
            })
            .collect();
        for change in &changes {
            let (wrong, foreign) = change.names();
            report.repaired.extend(wrong);
            report.foreign.extend(foreign);
        }
        script.make()?;
        make_all(self.options.flavour, &changes).inspect_err(|_| script.take_back())?;
        let kept: BTreeSet<String> = wanted.iter().map(|name| self.kernel_name(name)).collect();
        let gone: BTreeSet<String> = seen_sets.keys().filter(|name| !kept.contains(*name)).cloned().collect();
        // Once is enough for those that were in use for long before.
        let (old, new): (BTreeSet<String>, BTreeSet<String>) =
            gone.into_iter().partition(|name| self.stuck.contains(name));
        let fresh = new.clone();
        self.stuck = sets::destroy(old, Duration::ZERO);
        self.stuck.append(&mut sets::destroy(new, PATIENCE));
        report.foreign.extend(fresh.difference(&self.stuck).cloned());
        report.wrote = !(changes.is_empty() && script.is_empty() && report.foreign.is_empty());
        report.unsupported = named(tables, &closed);
        if let Some(watch) = &mut self.watch {
            watch.expect(&contents);
        }
        self.held = Some(Held { renderer, contents, sets: wanted, closed });
        Ok(report)
    }

    /// On a node where nothing of ours is in force yet, cuts workloads off until all the rest is there.
    fn close_first(&self, tables: &Tables, seen: &BTreeMap<Place, Seen>) -> Result<(), Error> {
        if self.options.covered || seen_is_closed(seen) {
            return Ok(());
        }
        let contents = render::gate(&tables.settings.interface_prefixes)?;
        let changes: Vec<Change> = families()
            .filter_map(|family| {
                let place = (family, Table::Filter);
                Change::from_seen(place, self.place(), &seen.get(&place).cloned().unwrap_or_default(), &contents)
            })
            .collect();
        make_all(self.options.flavour, &changes)
    }

    /// Takes the name of each set under which the kernel has one of the right type, or none.
    fn choose_names(&mut self, ruleset: &Ruleset, seen: &BTreeMap<String, SeenSet>) {
        self.other.clear();
        for (name, set) in &ruleset.sets {
            let [fits, other_fits] =
                [false, true].map(|other| seen.get(&kernel_name(name, other)).map(|seen| seen.is_of(set.set_type)));
            if fits == Some(false) || (fits.is_none() && other_fits == Some(true)) {
                self.other.insert(name.clone());
            }
        }
    }

    fn kernel_name(&self, name: &Name) -> String {
        kernel_name(name, self.other.contains(name))
    }

    fn place(&self) -> HookPlace {
        if self.options.append { HookPlace::Last } else { HookPlace::First }
    }

    fn render(&self, tables: &Tables, ruleset: &Ruleset) -> Result<Wanted, Error> {
        let Options { flavour: _, append: _, filter_allow, mangle_allow, covered: _ } = self.options;
        let style = Style {
            filter_allow,
            mangle_allow,
            prefixes: &tables.settings.interface_prefixes,
            to_host: tables.settings.endpoint_to_host,
            kernel_name: &|name| self.kernel_name(name),
            refused: &self.refused,
            record: &|chain| tables.settings.record_drops.then(|| record(tables, chain)).flatten(),
        };
        let mut wanted = Wanted { contents: BTreeMap::new(), sets: BTreeSet::new(), closed: BTreeMap::new() };
        for family in families() {
            let Rendered { tables, sets, closed } = render::render(ruleset, family, &style)?;
            wanted.contents.extend(tables.into_iter().map(|(table, content)| ((family, table), content)));
            wanted.sets.extend(sets);
            wanted.closed.extend(closed);
        }
        Ok(wanted)
    }

    /// Removes every rule, chain and set of ours, and of upstream, from this flavour of iptables.
    pub fn remove_all(&mut self) -> Result<(), Error> {
        (self.held, self.watch) = (None, None);
        remove(self.options.flavour, false)
    }
}

/// Removes every rule and chain of ours, and of upstream, from a flavour of iptables; and, unless they are kept, the
/// sets that then are not in use.
pub fn remove(flavour: Flavour, keeps_sets: bool) -> Result<(), Error> {
    let changes: Vec<Change> = observe(flavour)?
        .iter()
        .filter_map(|(place, seen)| Change::from_seen(*place, HookPlace::First, seen, &Content::default()))
        .collect();
    make_all(flavour, &changes)?;
    if !keeps_sets {
        let left = sets::destroy(sets::observe()?.into_keys().collect(), PATIENCE);
        if !left.is_empty() {
            tracing::warn!(sets = ?left, "sets are still in use and stay");
        }
    }
    Ok(())
}

fn observe(flavour: Flavour) -> Result<BTreeMap<Place, Seen>, Error> {
    let mut all = BTreeMap::new();
    for family in families() {
        let text = run(&flavour.program(family, "save"), &[], "")?;
        all.extend(save::parse(&text).into_iter().map(|(table, seen)| ((family, table), seen)));
    }
    Ok(all)
}

/// The families that the kernel has.
fn families() -> impl Iterator<Item = Family> {
    let has_v6 = Path::new("/proc/sys/net/ipv6").exists();
    Family::ALL.into_iter().filter(move |family| has_v6 || *family == Family::V4)
}

fn places() -> impl Iterator<Item = Place> {
    Table::ALL.into_iter().flat_map(|table| families().map(move |family| (family, table)))
}

/// Whether forwarded packets of both families come to chains of ours already.
fn seen_is_closed(seen: &BTreeMap<Place, Seen>) -> bool {
    families().all(|family| seen.get(&(family, Table::Filter)).is_some_and(|seen| seen.hooks.contains_key("FORWARD")))
}

/// Whether a delta changes rules, and not just elements of sets.
fn shapes_rules(delta: &Delta, ruleset: &Ruleset) -> bool {
    // Rules that choose by such maps are not asked for.
    let Delta { sets, chains, maps, choices: _ } = delta;
    let in_rules = |set: &Set| matches!(set.set_type, SetType::Interfaces | SetType::Ports);
    let shapes = |(name, edit): (&Name, &SetEdit)| match edit {
        SetEdit::Change { set_type: _, added: _, removed: _ } => {
            ruleset.sets.get(name).is_some_and(|set| in_rules(set))
        }
        SetEdit::Create(_) | SetEdit::Remove => true,
    };
    !chains.is_empty() || !maps.is_empty() || sets.iter().any(shapes)
}

/// Sets that change together with rules that refer to them. Such a set comes anew under its other name, so that no
/// packet meets old rules with new elements, or the other way round.
fn mixed(held: &Held, delta: &Delta) -> Vec<Name> {
    let changed =
        |name: &Name| matches!(delta.sets.get(name), Some(SetEdit::Change { .. })) && held.sets.contains(name);
    let rules = delta.chains.values().filter_map(|edit| match edit {
        ChainEdit::Create(chain) | ChainEdit::Replace { had: _, now: chain } => Some(chain),
        ChainEdit::Remove => None,
    });
    let used: BTreeSet<&Name> = rules
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.matches)
        .filter_map(|condition| match condition {
            Match::AddressIn { side: _, family: _, set, negate: _ }
            | Match::AddressPortIn { side: _, family: _, set, negate: _ }
            | Match::InterfaceAddressIn { family: _, set, negate: _ }
            | Match::PortIn { side: _, set, negate: _ } => Some(set),
            Match::Conntrack(_)
            | Match::Translated
            | Match::Revoked { negate: _ }
            | Match::Family(_)
            | Match::Protocol { protocol: _, negate: _ }
            | Match::InterfacePrefix { side: _, prefix: _ }
            | Match::InterfaceIn { side: _, set: _ }
            | Match::Address { side: _, net: _, negate: _ }
            | Match::Port { side: _, range: _, negate: _ }
            | Match::Icmp { icmp_type: _, code: _, negate: _ }
            | Match::BorrowedSource { interface: _ }
            | Match::Mark(_)
            | Match::Rate { rate: _, over: _ }
            | Match::ConnectionsOver(_) => None,
        })
        .collect();
    used.into_iter().filter(|name| changed(name)).cloned().collect()
}

impl PolicyBackend for Iptables {
    fn name(&self) -> &'static str {
        match self.options.flavour {
            Flavour::Legacy => "iptables-legacy",
            Flavour::Nft => "iptables-nft",
        }
    }

    fn commit(&mut self, tables: &Tables, batch: &Batch) -> Result<PolicyReport, Cause> {
        Ok(Iptables::commit(self, tables, batch)?)
    }

    fn resync(&mut self, tables: &Tables) -> Result<PolicyReport, Cause> {
        Ok(Iptables::resync(self, tables)?)
    }

    fn remove_all(&mut self) -> Result<(), Cause> {
        Ok(Iptables::remove_all(self)?)
    }

    fn is_owned(&self) -> bool {
        false
    }

    fn monitor_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().and_then(Watch::fd)
    }

    fn drain_events(&mut self) -> Vec<ForeignChange> {
        self.watch.as_mut().map(Watch::drain).unwrap_or_default()
    }
}
