//! AS_PATH: the ASes that a route passed (RFC 4271 section 5.1.2, RFC 6793 for four-byte numbers).
//!
//! Invariant: no segment is empty or longer than 255 members.

use std::fmt;

use tortie_net::AsNumber;

use crate::message::open::AS_TRANS;
use crate::wire::Reader;

/// Whether a segment's order means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SegmentKind {
    /// Unordered; counts as one hop.
    Set,
    /// Ordered, nearest first.
    Sequence,
}

/// A run of ASes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Its kind.
    pub kind: SegmentKind,
    /// Its members: 1 to 255.
    pub members: Box<[AsNumber]>,
}

impl Segment {
    fn hops(&self) -> usize {
        match self.kind {
            SegmentKind::Set => 1,
            SegmentKind::Sequence => self.members.len(),
        }
    }
}

/// The path of a route, nearest AS first; empty within the originating AS.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AsPath(pub Box<[Segment]>);

impl AsPath {
    /// The path of one sequence; empty for no member.
    pub fn sequence(members: &[AsNumber]) -> AsPath {
        let segments = members.chunks(255).map(|part| Segment { kind: SegmentKind::Sequence, members: part.into() });
        AsPath(segments.collect())
    }

    /// Hops as best path selection counts them: a set is one (RFC 4271 section 9.1.2.2).
    pub fn hops(&self) -> usize {
        self.0.iter().map(Segment::hops).sum()
    }

    /// The AS that the route came from last, if the path starts with a sequence.
    pub fn neighbor(&self) -> Option<AsNumber> {
        self.0.first().filter(|segment| segment.kind == SegmentKind::Sequence).map(|segment| segment.members[0])
    }

    /// How often an AS is on the path.
    pub fn occurrences(&self, asn: AsNumber) -> usize {
        self.0.iter().flat_map(|segment| segment.members.iter()).filter(|member| **member == asn).count()
    }

    /// Whether the first sequence begins with these numbers; every path begins with none.
    pub fn begins_with(&self, numbers: &[AsNumber]) -> bool {
        let first = self.0.first().filter(|segment| segment.kind == SegmentKind::Sequence);
        numbers.is_empty() || first.is_some_and(|segment| segment.members.starts_with(numbers))
    }

    /// The path with one more AS in front.
    pub fn prepended(&self, asn: AsNumber) -> AsPath {
        let mut segments = self.0.to_vec();
        match segments.first_mut() {
            Some(Segment { kind: SegmentKind::Sequence, members }) if members.len() < 255 => {
                *members = std::iter::once(asn).chain(members.iter().copied()).collect();
            }
            _ => segments.insert(0, Segment { kind: SegmentKind::Sequence, members: Box::new([asn]) }),
        }
        AsPath(segments.into())
    }

    /// Whether a number on the path needs four bytes.
    pub(crate) fn needs_four_bytes(&self) -> bool {
        self.0.iter().flat_map(|segment| segment.members.iter()).any(|asn| asn.0 > u32::from(u16::MAX))
    }

    /// Reads the attribute's value; `None` if it is malformed as RFC 7606 section 7.2 defines it.
    ///
    /// Confederation segments count as malformed: no peer of ours may send them.
    pub(crate) fn parse(value: &[u8], as4: bool) -> Option<AsPath> {
        let mut reader = Reader::new(value);
        let mut segments = Vec::new();
        while !reader.is_empty() {
            let kind = match reader.u8()? {
                1 => SegmentKind::Set,
                2 => SegmentKind::Sequence,
                _ => return None,
            };
            let count = reader.u8().filter(|count| *count > 0)?;
            let mut members = Vec::with_capacity(usize::from(count));
            for _ in 0..count {
                members.push(AsNumber(if as4 { reader.u32()? } else { u32::from(reader.u16()?) }));
            }
            segments.push(Segment { kind, members: members.into() });
        }
        Some(AsPath(segments.into()))
    }

    /// Appends the attribute's value; without `as4`, large numbers become AS_TRANS.
    pub(crate) fn encode(&self, as4: bool, out: &mut Vec<u8>) {
        for Segment { kind, members } in &self.0 {
            let kind = match kind {
                SegmentKind::Set => 1,
                SegmentKind::Sequence => 2,
            };
            out.extend_from_slice(&[kind, u8::try_from(members.len()).expect("a segment has at most 255 members")]);
            for asn in members {
                if as4 {
                    out.extend_from_slice(&asn.0.to_be_bytes());
                } else {
                    out.extend_from_slice(&u16::try_from(asn.0).unwrap_or(AS_TRANS).to_be_bytes());
                }
            }
        }
    }

    /// Puts the true numbers of AS4_PATH behind what two-byte speakers added (RFC 6793 section 4.2.3).
    pub(crate) fn merged(&self, as4_path: &AsPath) -> AsPath {
        let Some(mut lead) = self.hops().checked_sub(as4_path.hops()) else { return self.clone() };
        let mut segments = Vec::new();
        for segment in &self.0 {
            if lead == 0 {
                break;
            }
            let take = segment.hops().min(lead);
            lead -= take;
            match segment.kind {
                SegmentKind::Set => segments.push(segment.clone()),
                SegmentKind::Sequence => {
                    segments.push(Segment { kind: segment.kind, members: segment.members[..take].into() });
                }
            }
        }
        let mut tail = as4_path.0.iter().cloned();
        if let (Some(last), Some(next)) = (segments.last_mut(), as4_path.0.first())
            && (last.kind, next.kind) == (SegmentKind::Sequence, SegmentKind::Sequence)
            && last.members.len() + next.members.len() <= 255
        {
            last.members = last.members.iter().chain(&next.members).copied().collect();
            tail.next();
        }
        segments.extend(tail);
        AsPath(segments.into())
    }
}

impl fmt::Display for AsPath {
    /// Numbers apart by blanks, sets in braces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        for Segment { kind, members } in &self.0 {
            let members: Vec<String> = members.iter().map(ToString::to_string).collect();
            words.push(match kind {
                SegmentKind::Set => format!("{{{}}}", members.join(" ")),
                SegmentKind::Sequence => members.join(" "),
            });
        }
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(numbers: &[u32]) -> AsPath {
        AsPath::sequence(&numbers.iter().copied().map(AsNumber).collect::<Vec<_>>())
    }

    #[test]
    fn prepending_opens_a_new_segment_only_when_it_must() {
        let long = path(&[7; 255]);
        assert_eq!(long.prepended(AsNumber(1)).0.len(), 2);
        assert_eq!(path(&[2, 3]).prepended(AsNumber(1)), path(&[1, 2, 3]));
        assert_eq!(path(&[]).prepended(AsNumber(1)), path(&[1]));
    }

    #[test]
    fn the_true_numbers_return_behind_two_byte_hops() {
        let seen = path(&[10, 23456, 23456]);
        assert_eq!(seen.merged(&path(&[70000, 80000])), path(&[10, 70000, 80000]));
        assert_eq!(path(&[1]).merged(&path(&[70000, 80000])), path(&[1]), "a longer AS4_PATH is ignored");
    }

    #[test]
    fn empty_segments_and_unknown_kinds_are_malformed() {
        for value in [&[2, 0][..], &[5, 1, 0, 0, 0, 1][..], &[2, 2, 0, 0, 0, 1][..], &[2][..]] {
            assert_eq!(AsPath::parse(value, true), None, "{value:?}");
        }
    }
}
