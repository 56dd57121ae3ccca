//! Pending prefixes to UPDATE messages: many prefixes of equal attributes share a message.
//!
//! Invariant: a prefix is said once, and only if the peer does not hold just that.

use std::collections::BTreeMap;
use std::sync::Arc;

use tortie_net::{Family, IpNet};

use crate::attribute::Attributes;
use crate::message::update::{encode_announcements, encode_withdrawals};
use crate::rib::SourceId;
use crate::rib::adj_out::AdjOut;

/// Appends the UPDATEs that a peer needs of these prefixes, each given once.
///
/// `route` gives the attributes that the peer is to hold for a prefix; `None` for no route.
pub(crate) fn flush(
    prefixes: Vec<IpNet>,
    (told, peer): (&mut AdjOut, SourceId),
    as4: bool,
    mut route: impl FnMut(IpNet) -> Option<Arc<Attributes>>,
    bytes: &mut Vec<u8>,
) {
    let mut withdrawn = Vec::new();
    let mut groups: Vec<(Family, Arc<Attributes>, Vec<IpNet>)> = Vec::new();
    // Only looked up, never walked: the order of messages must not depend on addresses in memory.
    let mut index: BTreeMap<(Family, *const Attributes), usize> = BTreeMap::new();
    for prefix in prefixes {
        match route(prefix) {
            None => {
                if told.withdraw(peer, prefix) {
                    withdrawn.push(prefix);
                }
            }
            Some(attributes) => {
                if !told.tell(peer, prefix, &attributes) {
                    continue;
                }
                let family = Family::of_net(prefix);
                let at = *index.entry((family, Arc::as_ptr(&attributes))).or_insert(groups.len());
                match groups.get_mut(at) {
                    Some((_, _, prefixes)) => prefixes.push(prefix),
                    None => groups.push((family, attributes, vec![prefix])),
                }
            }
        }
    }
    for (family, attributes, prefixes) in groups {
        if !encode_announcements(family, &attributes, &prefixes, as4, bytes) {
            for prefix in prefixes {
                told.withdraw(peer, prefix);
                withdrawn.push(prefix);
            }
        }
    }
    withdrawn.sort_unstable();
    let split = withdrawn.partition_point(|prefix| Family::of_net(*prefix) == Family::V4);
    let (v4, v6) = withdrawn.split_at(split);
    encode_withdrawals(Family::V4, v4, bytes);
    encode_withdrawals(Family::V6, v6, bytes);
}
