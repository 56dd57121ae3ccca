//! Which routes pass to and from a BGP peer, with texts read and prefixes checked.
//!
//! Invariant: within a list of rules the first that matches decides; a list without a match says nothing.

use std::fmt;
use std::sync::Arc;

use tortie_net::{AsNumber, Family, IpNet};

/// A community of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Community {
    /// RFC 1997: two halves of 16 bits.
    Standard(u32),
    /// RFC 8092.
    Large([u32; 3]),
}

impl Community {
    /// Reads `AA:NN` or `AA:NN:MM`.
    pub fn parse(text: &str) -> Option<Community> {
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [a, b] => {
                let (a, b): (u16, u16) = (a.parse().ok()?, b.parse().ok()?);
                Some(Community::Standard(u32::from(a) << 16 | u32::from(b)))
            }
            [a, b, c] => Some(Community::Large([a.parse().ok()?, b.parse().ok()?, c.parse().ok()?])),
            _ => None,
        }
    }
}

impl fmt::Display for Community {
    /// As `parse` reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Community::Standard(value) => write!(f, "{}:{}", value >> 16, value & 0xffff),
            Community::Large([a, b, c]) => write!(f, "{a}:{b}:{c}"),
        }
    }
}

/// How a route's prefix is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixOperator {
    /// It is the same.
    Equal,
    /// It is another.
    NotEqual,
    /// It is the same or within.
    In,
    /// It is neither the same nor within.
    NotIn,
}

/// A match of the route's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixMatch {
    /// What it is compared with; host bits zero.
    pub net: IpNet,
    /// How.
    pub operator: PrefixOperator,
    /// Lengths that count as the same or within, shortest and longest.
    pub lengths: Option<(u8, u8)>,
}

impl PrefixMatch {
    /// Whether a prefix fits.
    pub fn holds(&self, prefix: IpNet) -> bool {
        let PrefixMatch { net, operator, lengths } = self;
        let length = prefix.prefix_len();
        let fits = lengths.is_none_or(|(min, max)| (min..=max).contains(&length));
        match operator {
            PrefixOperator::Equal => prefix == *net && fits,
            PrefixOperator::NotEqual => !(prefix == *net && fits),
            PrefixOperator::In => net.contains(&prefix) && fits,
            PrefixOperator::NotIn => !(net.contains(&prefix) && fits),
        }
    }
}

/// A change to a route that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterOperation {
    /// Attach a community.
    AddCommunity(Community),
    /// Put these in front of the AS path, in this order.
    PrependAsPath(Vec<AsNumber>),
    /// Set the priority: lower is preferred.
    SetPriority(u32),
}

/// One rule: all that is given must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRule {
    /// The route's prefix.
    pub prefix: Option<PrefixMatch>,
    /// The route was learned from a peer.
    pub learned: bool,
    /// Name of the route's interface; `*` stands for any text.
    pub interface: Option<Arc<str>>,
    /// The peer is in our AS, or is not.
    pub internal: Option<bool>,
    /// The route carries it.
    pub community: Option<Community>,
    /// The route's AS path begins so.
    pub as_path_prefix: Vec<AsNumber>,
    /// The route's priority.
    pub priority: Option<u32>,
    /// Whether the route passes.
    pub accept: bool,
    /// Changes to a route that passes, in order.
    pub operations: Vec<FilterOperation>,
}

/// A filter of one BGPFilter resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpFilter {
    /// Its name.
    pub name: Arc<str>,
    /// For IPv4 routes that are received.
    pub import_v4: Vec<FilterRule>,
    /// For IPv6 routes that are received.
    pub import_v6: Vec<FilterRule>,
    /// For IPv4 routes that are sent.
    pub export_v4: Vec<FilterRule>,
    /// For IPv6 routes that are sent.
    pub export_v6: Vec<FilterRule>,
}

impl BgpFilter {
    /// Whether a rule looks at the interface of a route.
    pub fn looks_at_interfaces(&self) -> bool {
        let BgpFilter { name: _, import_v4, import_v6, export_v4, export_v6 } = self;
        [import_v4, import_v6, export_v4, export_v6].into_iter().flatten().any(|rule| rule.interface.is_some())
    }

    /// The rules for received routes of a family.
    pub fn import(&self, family: Family) -> &[FilterRule] {
        match family {
            Family::V4 => &self.import_v4,
            Family::V6 => &self.import_v6,
        }
    }

    /// The rules for sent routes of a family.
    pub fn export(&self, family: Family) -> &[FilterRule] {
        match family {
            Family::V4 => &self.export_v4,
            Family::V6 => &self.export_v6,
        }
    }
}

/// Whether a name fits a pattern in which `*` stands for any text.
pub fn wildcard(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_compare_as_upstream_has_it() {
        let net = |text: &str| text.parse::<IpNet>().expect("a literal");
        let is =
            |operator, lengths, prefix| PrefixMatch { net: net("10.0.0.0/8"), operator, lengths }.holds(net(prefix));
        use PrefixOperator::{Equal, In, NotEqual, NotIn};
        assert!(is(Equal, None, "10.0.0.0/8") && !is(Equal, None, "10.0.0.0/9"));
        assert!(!is(NotEqual, None, "10.0.0.0/8") && is(NotEqual, None, "10.0.0.0/9"));
        assert!(is(In, None, "10.0.0.0/8") && is(In, None, "10.1.0.0/16") && !is(In, None, "0.0.0.0/0"));
        assert!(!is(NotIn, None, "10.1.0.0/16") && is(NotIn, None, "11.0.0.0/8"));
        assert!(is(In, Some((16, 24)), "10.1.0.0/16") && !is(In, Some((16, 24)), "10.1.0.0/26"));
        assert!(is(NotIn, Some((16, 24)), "10.1.0.0/26"));
        assert!(!is(In, None, "2001:db8::/64") && is(NotIn, None, "2001:db8::/64"));
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, name) in [("eth0", "eth0"), ("eth*", "eth12"), ("*", "x"), ("*a*b", "xaybb"), ("a*", "a")] {
            assert!(wildcard(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("eth0", "eth01"), ("eth*", "xeth1"), ("a*b", "a"), ("a*a", "a"), ("", "x")] {
            assert!(!wildcard(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn communities_read_and_print() {
        for text in ["65535:666", "1:2:4294967295", "0:0"] {
            assert_eq!(Community::parse(text).expect("valid").to_string(), text);
        }
        for wrong in ["", "1", "65536:1", "1:2:3:4"] {
            assert_eq!(Community::parse(wrong), None, "{wrong}");
        }
    }
}
