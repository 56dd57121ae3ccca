//! What peers were told, and what each still has to be told.
//!
//! Invariant: a prefix that a peer was neither told nor has waiting is unknown to it. Changes merge per prefix, so a
//! slow peer costs one entry per prefix, however often it changes. Peers that hold the same of a prefix share its entry:
//! a reflector's clients, who all do, cost a bit each.

use std::sync::Arc;

use tortie_net::{Family, IpNet};

use super::SourceId;
use super::prefixes::{PrefixMap, PrefixSet, Then};
use crate::attribute::Attributes;
use crate::family::Families;

/// What a peer holds of a prefix; `None` where it shall be told again whatever it holds.
type Held = Option<Arc<Attributes>>;

/// Adj-RIB-Out of all peers with a session.
#[derive(Debug, Default)]
pub(crate) struct AdjOut {
    table: PrefixMap<Holders>,
    /// Prefixes that each peer holds, by peer.
    counts: Vec<usize>,
}

/// Who holds what of one prefix: 16 bytes where it is a single peer.
#[derive(Debug)]
enum Holders {
    One(SourceId, Held),
    #[allow(clippy::box_collection, reason = "a bare Vec would double the size of every prefix with one holder")]
    Many(Box<Vec<(Held, PeerSet)>>),
}

impl AdjOut {
    /// Records that a peer is told a prefix with these attributes; `false` if it holds just that.
    pub(crate) fn tell(&mut self, peer: SourceId, prefix: IpNet, attributes: &Arc<Attributes>) -> bool {
        let held = Some(Arc::clone(attributes));
        let look = |holders: &mut Holders, new| {
            let before = if new { None } else { holders.put(peer, held.clone()) };
            ((before.is_none(), before.as_ref() != Some(&held)), Then::Keep)
        };
        let told = self.table.update(prefix, || Holders::One(peer, held.clone()), look);
        let (first, news) = told.unwrap_or_default();
        self.count(peer, isize::from(first));
        news
    }

    /// Records that a peer does not hold a prefix any more; `false` if it did not.
    pub(crate) fn withdraw(&mut self, peer: SourceId, prefix: IpNet) -> bool {
        let look = |holders: &mut Holders| {
            let had = holders.remove(peer);
            (had, if holders.is_empty() { Then::Remove } else { Then::Keep })
        };
        let had = self.table.revise(prefix, look).unwrap_or(false);
        if had {
            self.count(peer, -1);
        }
        had
    }

    /// Makes telling each of these next faster.
    pub(crate) fn foresee(&self, prefixes: impl Iterator<Item = IpNet> + Clone) {
        self.table.foresee(prefixes);
    }

    /// Who holds a prefix.
    pub(crate) fn holders(&self, prefix: IpNet) -> impl Fn(SourceId) -> bool {
        let holders = self.table.get(prefix);
        move |peer| holders.is_some_and(|holders| holders.held(peer).is_some())
    }

    /// What a peer holds, in no order.
    pub(crate) fn of(&self, peer: SourceId) -> impl Iterator<Item = (IpNet, Option<&Arc<Attributes>>)> {
        let some = if self.len(peer) > 0 { Some(&self.table) } else { None };
        let all = some.into_iter().flat_map(PrefixMap::iter);
        all.filter_map(move |(prefix, holders)| Some((prefix, holders.held(peer)?.as_ref())))
    }

    /// How many prefixes a peer holds.
    pub(crate) fn len(&self, peer: SourceId) -> usize {
        self.counts.get(peer.index()).copied().unwrap_or(0)
    }

    /// Makes a peer be told all of a family again, whatever it holds; returns the prefixes.
    pub(crate) fn doubt(&mut self, peer: SourceId, family: Family) -> Vec<IpNet> {
        let mut all = Vec::new();
        self.table.retain(Some(family), |prefix, holders| {
            if holders.held(peer).is_some() {
                holders.put(peer, None);
                all.push(prefix);
            }
            true
        });
        all
    }

    /// The session is over: the peer holds nothing.
    pub(crate) fn forget(&mut self, peer: SourceId) {
        if self.len(peer) == 0 {
            return;
        }
        self.table.retain(None, |_, holders| {
            holders.remove(peer);
            !holders.is_empty()
        });
        self.counts[peer.index()] = 0;
    }

    fn count(&mut self, peer: SourceId, by: isize) {
        if self.counts.len() <= peer.index() {
            self.counts.resize(peer.index() + 1, 0);
        }
        self.counts[peer.index()] = self.counts[peer.index()].saturating_add_signed(by);
    }
}

impl Holders {
    fn held(&self, peer: SourceId) -> Option<&Held> {
        match self {
            Holders::One(holder, held) => (*holder == peer).then_some(held),
            Holders::Many(all) => all.iter().find(|(_, peers)| peers.has(peer)).map(|(held, _)| held),
        }
    }

    /// Sets what a peer holds; returns what it held.
    fn put(&mut self, peer: SourceId, new: Held) -> Option<Held> {
        match self {
            Holders::One(holder, held) if *holder == peer => Some(std::mem::replace(held, new)),
            Holders::One(holder, held) => {
                let first = (held.take(), PeerSet::of(*holder));
                *self = Holders::Many(Box::new(vec![first]));
                self.put(peer, new)
            }
            Holders::Many(all) => {
                let before = take(all, peer);
                match all.iter_mut().find(|(held, _)| *held == new) {
                    Some((_, peers)) => peers.add(peer),
                    None => all.push((new, PeerSet::of(peer))),
                }
                before
            }
        }
    }

    /// Whether the peer held anything.
    fn remove(&mut self, peer: SourceId) -> bool {
        match self {
            Holders::One(holder, _) if *holder == peer => {
                *self = Holders::Many(Box::default());
                true
            }
            Holders::One(..) => false,
            Holders::Many(all) => take(all, peer).is_some(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Holders::One(..) => false,
            Holders::Many(all) => all.is_empty(),
        }
    }
}

/// Takes a peer out of the set that it is in.
fn take(all: &mut Vec<(Held, PeerSet)>, peer: SourceId) -> Option<Held> {
    let at = all.iter().position(|(_, peers)| peers.has(peer))?;
    let (held, peers) = &mut all[at];
    peers.remove(peer);
    if peers.is_empty() { Some(all.swap_remove(at).0) } else { Some(held.clone()) }
}

/// A set of peers: a bit each.
#[derive(Debug, Default)]
struct PeerSet(Vec<u64>);

impl PeerSet {
    fn of(peer: SourceId) -> PeerSet {
        let mut set = PeerSet::default();
        set.add(peer);
        set
    }

    fn place(peer: SourceId) -> (usize, u64) {
        (peer.index() / 64, 1 << (peer.index() % 64))
    }

    fn has(&self, peer: SourceId) -> bool {
        let (at, bit) = PeerSet::place(peer);
        self.0.get(at).is_some_and(|word| word & bit != 0)
    }

    fn add(&mut self, peer: SourceId) {
        let (at, bit) = PeerSet::place(peer);
        if self.0.len() <= at {
            self.0.reserve_exact(at + 1 - self.0.len());
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= bit;
    }

    fn remove(&mut self, peer: SourceId) {
        let (at, bit) = PeerSet::place(peer);
        if let Some(word) = self.0.get_mut(at) {
            *word &= !bit;
        }
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// What one session still has to say.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Prefixes to look at.
    pub(crate) pending: PrefixSet,
    /// Families whose End-of-RIB is still to be sent.
    pub(crate) end_of_rib_due: Families,
    /// Families whose refresh is to be announced before the next route, and whose end is to be marked (RFC 7313).
    pub(crate) begin_due: Families,
    pub(crate) end_due: Families,
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_holder_takes_sixteen_bytes() {
        assert_eq!(size_of::<Holders>(), 16);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Tell(u32, u8, u32),
        Withdraw(u32, u8),
        Doubt(u32, bool),
        Forget(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Peers on both sides of a word's end.
        let peer = || prop_oneof![1..4_u32, 62..67_u32];
        let step = prop_oneof![
            8 => (peer(), 0..6_u8, 0..3_u32).prop_map(|(peer, net, med)| Step::Tell(peer, net, med)),
            3 => (peer(), 0..6_u8).prop_map(|(peer, net)| Step::Withdraw(peer, net)),
            1 => (peer(), any::<bool>()).prop_map(|(peer, v4)| Step::Doubt(peer, v4)),
            1 => peer().prop_map(Step::Forget),
        ];
        proptest::collection::vec(step, 0..200)
    }

    fn prefix(number: u8) -> IpNet {
        let text =
            if number.is_multiple_of(2) { format!("10.0.{number}.0/24") } else { format!("2001:db8:{number}::/48") };
        text.parse().expect("a literal")
    }

    proptest! {
        /// Beside one map for each peer.
        #[test]
        fn shared_entries_are_as_good_as_own_ones(steps in steps()) {
            let mut shared = AdjOut::default();
            let mut model: BTreeMap<(u32, IpNet), Option<u32>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Tell(peer, net, med) => {
                        let attributes = Arc::new(Attributes { med: Some(med), ..Attributes::default() });
                        let news = model.insert((peer, prefix(net)), Some(med)) != Some(Some(med));
                        prop_assert_eq!(shared.tell(SourceId(peer), prefix(net), &attributes), news);
                    }
                    Step::Withdraw(peer, net) => {
                        let had = model.remove(&(peer, prefix(net))).is_some();
                        prop_assert_eq!(shared.withdraw(SourceId(peer), prefix(net)), had);
                    }
                    Step::Doubt(peer, v4) => {
                        let family = if v4 { Family::V4 } else { Family::V6 };
                        let concerned = |(whose, net): &(u32, IpNet)| *whose == peer && Family::of_net(*net) == family;
                        let mut nets = BTreeSet::new();
                        for (key, med) in model.iter_mut().filter(|(key, _)| concerned(key)) {
                            *med = None;
                            nets.insert(key.1);
                        }
                        let doubted: BTreeSet<IpNet> = shared.doubt(SourceId(peer), family).into_iter().collect();
                        prop_assert_eq!(doubted, nets);
                    }
                    Step::Forget(peer) => {
                        model.retain(|(whose, _), _| *whose != peer);
                        shared.forget(SourceId(peer));
                    }
                }
                for peer in (1..4).chain(62..67) {
                    let wanted: Vec<_> = model.iter().filter(|((whose, _), _)| *whose == peer).map(|((_, net), med)| (*net, *med)).collect();
                    let id = SourceId(peer);
                    let mut held: Vec<_> = shared.of(id).map(|(net, held)| (net, held.and_then(|held| held.med))).collect();
                    held.sort_unstable();
                    prop_assert_eq!(shared.len(id), held.len());
                    prop_assert!(held.iter().all(|(net, _)| shared.holders(*net)(id)));
                    prop_assert_eq!(held, wanted);
                }
            }
            let peers: Vec<u32> = model.keys().map(|(peer, _)| *peer).collect();
            peers.into_iter().for_each(|peer| shared.forget(SourceId(peer)));
            prop_assert_eq!(shared.table.len(), 0);
        }
    }
}
