//! The address families of a session, and their numbers on the wire.
//!
//! Invariant: only unicast (SAFI 1) of IPv4 (AFI 1) and IPv6 (AFI 2) has a `Family`.

use tortie_net::Family;

/// An address family and subsequent address family as sent (RFC 4760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AfiSafi {
    /// Address family identifier: 1 is IPv4, 2 is IPv6.
    pub afi: u16,
    /// Subsequent address family identifier: 1 is unicast.
    pub safi: u8,
}

impl AfiSafi {
    /// The unicast pair of a family.
    pub fn unicast(family: Family) -> AfiSafi {
        let afi = match family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        AfiSafi { afi, safi: 1 }
    }

    /// The family that this pair stands for; `None` for all that we do not speak.
    pub fn family(self) -> Option<Family> {
        match (self.afi, self.safi) {
            (1, 1) => Some(Family::V4),
            (2, 1) => Some(Family::V6),
            _ => None,
        }
    }
}

/// A set of families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// IPv4 unicast is in the set.
    pub v4: bool,
    /// IPv6 unicast is in the set.
    pub v6: bool,
}

impl Families {
    /// The empty set.
    pub const NONE: Families = Families { v4: false, v6: false };
    /// Both families.
    pub const ALL: Families = Families { v4: true, v6: true };

    /// The set of one family.
    pub fn only(family: Family) -> Families {
        let mut set = Families::NONE;
        set.set(family, true);
        set
    }

    /// Whether the family is in the set.
    pub fn contains(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// Puts the family in (`true`) or takes it out.
    pub fn set(&mut self, family: Family, present: bool) {
        match family {
            Family::V4 => self.v4 = present,
            Family::V6 => self.v6 = present,
        }
    }

    /// What both sets hold.
    pub fn and(self, other: Families) -> Families {
        Families { v4: self.v4 && other.v4, v6: self.v6 && other.v6 }
    }

    /// What this set holds and the other does not.
    pub fn without(self, other: Families) -> Families {
        Families { v4: self.v4 && !other.v4, v6: self.v6 && !other.v6 }
    }

    /// Whether the set holds nothing.
    pub fn is_empty(self) -> bool {
        !self.v4 && !self.v6
    }

    /// The members, IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = Family> + Clone {
        Family::ALL.into_iter().filter(move |family| self.contains(*family))
    }
}
