//! Who can own a block.

use std::fmt;

use ipnet::IpNet;
use tortie_facts::{AffinityKey, OwnerKind};

/// The owner of blocks: a node, or something that is no node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Node or not.
    pub kind: OwnerKind,
    /// Its name.
    pub name: String,
}

impl Owner {
    /// A node.
    pub fn host(name: impl Into<String>) -> Owner {
        Owner { kind: OwnerKind::Host, name: name.into() }
    }

    /// The owner of the blocks from which services get load-balancer addresses.
    pub fn load_balancer() -> Owner {
        Owner { kind: OwnerKind::Virtual, name: "load-balancer".to_owned() }
    }

    /// Reads a block's `affinity`, such as `host:node-1`.
    pub fn parse(text: &str) -> Option<Owner> {
        [OwnerKind::Host, OwnerKind::Virtual].into_iter().find_map(|kind| {
            let name = text.strip_prefix(kind.word())?.strip_prefix(':')?;
            Some(Owner { kind, name: name.to_owned() })
        })
    }

    /// The key of the owner's affinity for a block.
    pub fn affinity_key(&self, cidr: IpNet) -> AffinityKey {
        AffinityKey { kind: self.kind, owner: self.name.clone(), cidr }
    }
}

impl fmt::Display for Owner {
    /// As in a block's `affinity`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word(), self.name)
    }
}
