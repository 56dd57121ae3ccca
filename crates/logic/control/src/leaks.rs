//! Which addresses, nodes and empty blocks seem to be abandoned, for how long, and which of them certainly are.
//!
//! | state     | a look finds it unused            | a look finds it used, or changed | the second look agrees      |
//! |-----------|-----------------------------------|----------------------------------|-----------------------------|
//! | in use    | suspected since now               | in use                           | –                           |
//! | suspected | due once its grace period is over | in use                           | –                           |
//! | due       | due                               | in use                           | released, by its evidence   |
//!
//! Invariant: what is released was unused at every look for a whole grace period, then once more at a look that was made
//! after that, and is still the very same giving-out when it is written. On a datastore that went back in time all
//! suspicion ends, and a whole grace period passes before anything is due again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use tortie_facts::OwnerKind;
use tortie_ipam::{Claimed, Owner, block};
use tortie_net::Family;

use crate::ledger::{Allocation, Ledger};
use crate::users::{Holder, Users, node_of};

/// A moment on a clock that never goes back, such as the time since the process started.
pub type Moment = Duration;

/// How long a node must be away before what is its own may go. Upstream waits for nothing here.
pub const NODE_GRACE: Duration = Duration::from_secs(60);

/// How long a node must be away where addresses have this grace period: never longer than those.
pub fn node_grace(grace: Option<Duration>) -> Duration {
    grace.map_or(NODE_GRACE, |grace| grace.min(NODE_GRACE))
}

/// How long the last empty blocks but one of a node are kept if no grace period is set.
const BLOCK_GRACE: Duration = Duration::from_secs(15 * 60);

/// An empty block that its owner could do without.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Empty {
    /// The block.
    pub block: IpNet,
    /// Its owner.
    pub owner: Owner,
    /// The block's sequence number: any use since then changed it.
    pub sequence: u64,
}

/// What is abandoned as far as one look tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspects {
    /// Addresses.
    pub leaks: Vec<Allocation>,
    /// Nodes that are no more.
    pub nodes: BTreeSet<String>,
    /// Blocks.
    pub empty: Vec<Empty>,
}

impl Suspects {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        let Suspects { leaks, nodes, empty } = self;
        leaks.is_empty() && nodes.is_empty() && empty.is_empty()
    }
}

/// What is certainly abandoned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abandoned {
    /// Addresses to release, by block.
    pub leaks: BTreeMap<IpNet, Vec<Claimed>>,
    /// Nodes that are no more and whose addresses nobody uses.
    pub nodes: BTreeSet<String>,
    /// Empty blocks to give up.
    pub empty: Vec<(Owner, IpNet)>,
}

/// How one look differs from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Onward.
    Forward,
    /// The datastore shows an older state than it did before.
    Back,
}

/// Since when what seems abandoned.
#[derive(Clone, Debug, Default)]
pub struct Leaks {
    leaks: BTreeMap<Allocation, Moment>,
    nodes: BTreeMap<String, Moment>,
    empty: BTreeMap<Empty, Moment>,
    /// The highest sequence number that each block showed.
    numbers: BTreeMap<IpNet, u64>,
    held_until: Moment,
}

/// Nodes on which somebody may use an address.
fn busy(users: &Users, ledger: &Ledger) -> BTreeSet<String> {
    let in_use = ledger.allocations().filter(|(one, attribute)| match Holder::of(attribute) {
        Holder::Reserved => false,
        // A tunnel's address goes with its node.
        Holder::Tunnel { node } => users.has_node(node),
        Holder::Pod { .. } | Holder::Unknown => users.uses(one.address, attribute),
    });
    in_use.map(|(_, attribute)| node_of(attribute).to_owned()).collect()
}

/// Keeps the moments of what is still so, and adds `at` for what is new.
fn carry<K: Ord>(known: &mut BTreeMap<K, Moment>, found: impl IntoIterator<Item = K>, at: Moment) {
    let mut old = std::mem::take(known);
    known.extend(found.into_iter().map(|key| {
        let since = old.remove(&key).unwrap_or(at);
        (key, since)
    }));
}

impl Leaks {
    /// Takes in a look at a picture of the facts, and says what is due. `grace`: how long an address must seem leaked;
    /// `None`: only addresses of nodes that are gone are collected. `seen`: whether a fact was seen to go back to an
    /// older revision since the last look; a block that does so is noticed here.
    pub fn look(
        &mut self,
        users: &Users,
        ledger: &Ledger,
        seen: Course,
        at: Moment,
        grace: Option<Duration>,
    ) -> (Suspects, Course) {
        let course = self.course(ledger, seen);
        if course == Course::Back {
            (self.leaks, self.nodes, self.empty) = Default::default();
            self.held_until = at + grace.unwrap_or(BLOCK_GRACE).max(NODE_GRACE);
        }
        let unused = ledger.allocations().filter(|(one, attribute)| !users.uses(one.address, attribute));
        let mut homeless = BTreeSet::new();
        let unused: Vec<Allocation> = unused
            .map(|(one, attribute)| {
                if !users.has_node(node_of(attribute)) {
                    homeless.insert(one.clone());
                }
                one
            })
            .collect();
        carry(&mut self.leaks, unused, at);
        let busy = busy(users, ledger);
        let gone = ledger.owners.iter().filter(|node| !users.has_node(node) && !busy.contains(*node)).cloned();
        carry(&mut self.nodes, gone, at);
        carry(&mut self.empty, spare(ledger), at);
        if at < self.held_until {
            return (Suspects::default(), course);
        }
        let passed = |since: &Moment, wait: Duration| at.saturating_sub(*since) >= wait;
        let due = |one: &Allocation, since: &Moment| {
            grace.is_some_and(|grace| passed(since, grace))
                || (homeless.contains(one) && passed(since, node_grace(grace)))
        };
        let suspects = Suspects {
            leaks: self.leaks.iter().filter(|(one, since)| due(one, since)).map(|(one, _)| one.clone()).collect(),
            nodes: self
                .nodes
                .iter()
                .filter(|(_, since)| passed(since, node_grace(grace)))
                .map(|(node, _)| node.clone())
                .collect(),
            empty: self
                .empty
                .iter()
                .filter(|(_, since)| passed(since, grace.unwrap_or(BLOCK_GRACE)))
                .map(|(one, _)| one.clone())
                .collect(),
        };
        (suspects, course)
    }

    /// Notes how far the datastore has come.
    fn course(&mut self, ledger: &Ledger, seen: Course) -> Course {
        let lower = |(cidr, number): (&IpNet, u64)| self.numbers.get(cidr).is_some_and(|known| number < *known);
        let mut numbers = ledger.blocks.iter().map(|(cidr, found)| (cidr, found.sequence_number));
        let back = numbers.any(lower);
        self.numbers = ledger.blocks.iter().map(|(cidr, found)| (*cidr, found.sequence_number)).collect();
        if back { Course::Back } else { seen }
    }

    /// Takes in a second look, made after the suspects were told, and says what is certainly abandoned.
    pub fn confirm(&mut self, suspects: Suspects, users: &Users, ledger: &Ledger) -> Abandoned {
        let Suspects { leaks, nodes, empty } = suspects;
        let unused: BTreeSet<Allocation> = ledger
            .allocations()
            .filter(|(one, attribute)| !users.uses(one.address, attribute))
            .map(|(one, _)| one)
            .collect();
        let (certain, refuted): (BTreeSet<Allocation>, BTreeSet<Allocation>) =
            leaks.into_iter().partition(|one| unused.contains(one));
        for one in &refuted {
            self.leaks.remove(one);
        }
        // A handle stands for one workload: as long as one of its addresses may be in use, none goes.
        let others = ledger.allocations().map(|(one, _)| one).filter(|one| !certain.contains(one));
        let alive: BTreeSet<String> = others.map(|one| one.handle).collect();
        let mut abandoned = Abandoned::default();
        for Allocation { block, address, handle, sequence } in certain {
            if !alive.contains(&handle) {
                let claimed = Claimed { address, handle: Some(handle), sequence: Some(sequence) };
                abandoned.leaks.entry(block).or_default().push(claimed);
            }
        }
        let busy = busy(users, ledger);
        abandoned.nodes = nodes.into_iter().filter(|node| !users.has_node(node) && !busy.contains(node)).collect();
        let still: BTreeSet<Empty> = spare(ledger).into_iter().collect();
        let empty = empty.into_iter().filter(|one| still.contains(one));
        abandoned.empty = empty.map(|Empty { block, owner, sequence: _ }| (owner, block)).collect();
        abandoned
    }

    /// How many addresses are suspected, by block and node.
    pub fn suspected(&self) -> impl Iterator<Item = &Allocation> {
        self.leaks.keys()
    }
}

/// Empty blocks of nodes that have another one of the family.
fn spare(ledger: &Ledger) -> Vec<Empty> {
    let mut owned: BTreeMap<(Owner, Family), usize> = BTreeMap::new();
    let mut found = Vec::new();
    for (cidr, held) in &ledger.blocks {
        let Some(owner) = block::owner(held).filter(|owner| owner.kind == OwnerKind::Host) else { continue };
        *owned.entry((owner.clone(), Family::of_net(*cidr))).or_default() += 1;
        if block::is_empty(held) {
            found.push(Empty { block: *cidr, owner, sequence: held.sequence_number });
        }
    }
    found.retain(|one| {
        let left = owned.get_mut(&(one.owner.clone(), Family::of_net(one.block))).expect("it was counted above");
        *left > 1 && {
            *left -= 1;
            true
        }
    });
    found
}
