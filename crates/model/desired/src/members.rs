//! All members of a set, in order.

use std::collections::BTreeSet;
use std::ops::RangeFrom;
use std::sync::Arc;

use crate::Member;

/// A run that is longer is cut before a member is put into it or taken out.
const LONG: usize = 512;

/// All members of a set, of which there may be a hundred thousand: clones share them until one of them changes.
///
/// Each member is there once, in ascending order. Those that come as one sorted list stay the list that they are.
#[derive(Clone, Debug, Default)]
pub struct Members(Arc<Runs>);

/// Sorted lists, one after the other; none is empty.
#[derive(Clone, Debug, Default)]
struct Runs {
    runs: Vec<Vec<Member>>,
    count: usize,
}

/// Where a member is, or would be: the run and the place in it. Past the last run if it comes after all.
type Place = Result<(usize, usize), (usize, usize)>;

impl Runs {
    fn of(run: Vec<Member>) -> Runs {
        let count = run.len();
        Runs { runs: if run.is_empty() { Vec::new() } else { vec![run] }, count }
    }

    fn place(&self, member: &Member) -> Place {
        let later = self.runs.partition_point(|run| run.first() <= Some(member));
        let at = later.saturating_sub(1);
        let found = self.runs.get(at).map_or(Err(0), |run| run.binary_search(member));
        found.map(|place| (at, place)).map_err(|place| (at, place))
    }

    /// Cuts a run that is too long to move its members about.
    fn cut(&mut self, at: usize) {
        if self.runs.get(at).is_some_and(|run| run.len() > LONG) {
            let run = std::mem::take(&mut self.runs[at]);
            self.runs.splice(at..=at, run.chunks(LONG / 2).map(<[Member]>::to_vec));
        }
    }

    /// Puts one into the run where it would be.
    fn insert(&mut self, at: usize, member: Member) {
        self.cut(at);
        let Err((at, place)) = self.place(&member) else { return };
        self.count += 1;
        match self.runs.get_mut(at) {
            Some(run) => run.insert(place, member),
            None => self.runs.push(vec![member]),
        }
    }

    /// Takes one out of the run where it is.
    fn remove(&mut self, at: usize, member: &Member) {
        self.cut(at);
        let Ok((at, place)) = self.place(member) else { return };
        self.count -= 1;
        self.runs[at].remove(place);
        self.join(at);
    }

    /// Brings a short run together with the next one, so that a set that shrinks has few.
    fn join(&mut self, at: usize) {
        if self.runs[at].is_empty() {
            self.runs.remove(at);
            return;
        }
        let next = self.runs.get(at + 1).map_or(LONG, Vec::len);
        if self.runs[at].len() + next <= LONG / 4 {
            let next = self.runs.remove(at + 1);
            self.runs[at].extend(next);
        }
    }
}

impl Members {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.count == 0
    }

    /// In ascending order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { run: [].iter(), runs: self.0.runs.iter() }
    }

    /// Whether this is a member.
    pub fn contains(&self, member: &Member) -> bool {
        self.0.place(member).is_ok()
    }

    /// Those from this one on, in ascending order.
    pub fn range(&self, RangeFrom { start }: RangeFrom<Member>) -> Iter<'_> {
        let (at, place) = self.0.place(&start).unwrap_or_else(|place| place);
        let mut runs = self.0.runs.get(at..).unwrap_or_default().iter();
        let run = runs.next().and_then(|run| run.get(place..)).unwrap_or_default().iter();
        Iter { run, runs }
    }

    /// The last one before this.
    pub fn last_before(&self, member: &Member) -> Option<&Member> {
        let (at, place) = self.0.place(member).unwrap_or_else(|place| place);
        match place.checked_sub(1) {
            Some(before) => self.0.runs.get(at)?.get(before),
            None => self.0.runs.get(at.checked_sub(1)?)?.last(),
        }
    }

    /// The last of all.
    pub fn last(&self) -> Option<&Member> {
        self.0.runs.last()?.last()
    }

    /// Puts one in, if it is not there.
    pub fn insert(&mut self, member: Member) {
        if let Err((at, _)) = self.0.place(&member) {
            Arc::make_mut(&mut self.0).insert(at, member);
        }
    }

    /// Takes one out, if it is there.
    pub fn remove(&mut self, member: &Member) {
        if let Ok((at, _)) = self.0.place(member) {
            Arc::make_mut(&mut self.0).remove(at, member);
        }
    }
}

/// Members in ascending order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    run: std::slice::Iter<'a, Member>,
    runs: std::slice::Iter<'a, Vec<Member>>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Member;

    fn next(&mut self) -> Option<&'a Member> {
        loop {
            if let Some(member) = self.run.next() {
                return Some(member);
            }
            self.run = self.runs.next()?.iter();
        }
    }
}

impl PartialEq for Members {
    fn eq(&self, other: &Members) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.len() == other.len() && self.iter().eq(other))
    }
}

impl Eq for Members {}

impl From<Vec<Member>> for Members {
    fn from(mut members: Vec<Member>) -> Members {
        if !members.is_sorted_by(|a, b| a < b) {
            members.sort_unstable();
            members.dedup();
        }
        if members.capacity() > members.len() + members.len() / 8 {
            members.shrink_to_fit();
        }
        Members(Arc::new(Runs::of(members)))
    }
}

impl From<BTreeSet<Member>> for Members {
    fn from(members: BTreeSet<Member>) -> Members {
        members.into_iter().collect()
    }
}

impl<const N: usize> From<[Member; N]> for Members {
    fn from(members: [Member; N]) -> Members {
        members.into_iter().collect()
    }
}

impl FromIterator<Member> for Members {
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Members {
        members.into_iter().collect::<Vec<Member>>().into()
    }
}

impl Extend<Member> for Members {
    fn extend<I: IntoIterator<Item = Member>>(&mut self, members: I) {
        members.into_iter().for_each(|member| self.insert(member));
    }
}

impl<'a> IntoIterator for &'a Members {
    type Item = &'a Member;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn net(number: u32) -> Member {
        Member::Net(IpAddr::from(Ipv4Addr::from(number)).into())
    }

    #[test]
    fn members_are_shared_until_one_changes() {
        let members = Members::from([net(1), net(2)]);
        let mut other = members.clone();
        other.insert(net(2));
        other.remove(&net(7));
        assert!(Arc::ptr_eq(&members.0, &other.0));
        other.insert(net(3));
        assert_eq!((members.len(), other.len()), (2, 3));
    }

    /// Puts in and takes out at random, in waves so that runs are cut and joined.
    #[test]
    fn they_are_a_set_whatever_comes_and_goes() {
        let start: Vec<u32> = (0..2_000).map(|n: u32| n * 7).collect();
        let mut model: BTreeSet<Member> = start.iter().copied().map(net).collect();
        let mut members: Members = start.iter().rev().chain(&start).copied().map(net).collect();
        for step in 0..30_000_u32 {
            let random = step.wrapping_mul(2_654_435_761) >> 16;
            let member = net(random % 16_000);
            if (step / 6_000).is_multiple_of(2) == random.is_multiple_of(4) {
                members.insert(member);
                model.insert(member);
            } else {
                members.remove(&member);
                model.remove(&member);
            }
            let asked = net(random.wrapping_mul(31) % 16_000);
            assert_eq!(members.contains(&asked), model.contains(&asked), "step {step}");
            assert_eq!(members.last_before(&asked), model.range(..asked).next_back(), "step {step}");
            assert!(members.range(asked..).take(3).eq(model.range(asked..).take(3)), "step {step}");
            if step % 500 == 0 {
                assert!(members.iter().eq(&model), "step {step}");
                assert_eq!((members.len(), members.is_empty()), (model.len(), model.is_empty()));
                assert_eq!(members.last(), model.last());
                assert_eq!(members, Members::from(model.clone()));
                assert!(members.0.runs.iter().all(|run| (1..=LONG + 1).contains(&run.len())) || step == 0);
            }
        }
        let all: Vec<Member> = members.iter().copied().collect();
        all.iter().for_each(|member| members.remove(member));
        assert!(members.is_empty() && members.0.runs.is_empty());
        assert_eq!((members.last(), members.last_before(&net(1)), members.range(net(1)..).next()), (None, None, None));
    }
}
