//! Which nodes reflect for the others, when there are too many for a mesh.
//!
//! A function of the names alone, so that all nodes agree without talking. Those with the smallest hash are elected: a
//! node that comes or goes moves one of them at most.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

/// Up to so many nodes are a mesh.
pub(super) const MOST_MESHED: usize = 100;
/// So many reflect: one may be restarted while another is away.
const ELECTED: usize = 3;

/// The nodes of these that reflect for the others; none if they are `most_meshed` at most, which are a mesh.
pub fn elect_reflectors<'a>(names: impl Iterator<Item = &'a str>, most_meshed: usize) -> BTreeSet<&'a str> {
    let mut ranked: Vec<_> = names.map(|name| (Sha256::digest(name), name)).collect();
    if ranked.len() <= most_meshed {
        return BTreeSet::new();
    }
    ranked.sort();
    ranked.truncate(ELECTED);
    ranked.into_iter().map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{IpAddr, Ipv4Addr};

    use super::super::settings::BgpSettings;
    use super::super::{Bgp, NodeFacts};
    use super::*;
    use tortie_net::AsNumber;

    fn at(node: usize) -> Ipv4Addr {
        Ipv4Addr::from(0x0a00_0001 + u32::try_from(node).expect("few"))
    }

    #[test]
    fn clients_meet_the_elected_alone_and_those_meet_all() {
        let count = MOST_MESHED + 20;
        let resource: tortie_api::BgpConfiguration = serde_json::from_str(
            r#"{"metadata": {"name": "default", "annotations": {"bgp.tortie/reflectors": "auto"}}, "spec": {}}"#,
        )
        .expect("a resource");
        let node = |at: Ipv4Addr, asn: Option<AsNumber>| NodeFacts {
            speaks: true,
            ipv4: Some(at.into()),
            asn,
            ..NodeFacts::default()
        };
        let peers = |me: usize, auto: bool| {
            let mut bgp = Bgp::default();
            if auto {
                bgp.set_settings("default", Some(BgpSettings::of(&resource, &mut Vec::new())));
            }
            (0..count).for_each(|n| bgp.set_node(&format!("node{n}"), Some(node(at(n), None))));
            // One of another AS meets everybody.
            bgp.set_node("other", Some(node(at(count), Some(AsNumber(65_001)))));
            bgp.take(&format!("node{me}"), None, &[]).expect("news").1.by_address
        };
        assert_eq!(peers(0, false).len(), count);
        let names: Vec<String> = (0..count).map(|n| format!("node{n}")).collect();
        let elected = elect_reflectors(names.iter().map(String::as_str), MOST_MESHED);
        let all: Vec<BTreeMap<IpAddr, _>> = (0..count).map(|me| peers(me, true)).collect();
        for (me, mine) in all.iter().enumerate() {
            let reflects = elected.contains(&*names[me]);
            assert_eq!(mine.len(), if reflects { count } else { ELECTED + 1 }, "node{me}");
            for (address, peer) in mine {
                assert!(peer.lingers);
                let Some(other) = (0..count).find(|n| IpAddr::from(at(*n)) == *address) else {
                    assert_eq!(peer.cluster, None, "another AS is nobody's client");
                    continue;
                };
                assert!(all[other].contains_key(&at(me).into()), "{me} and {other} agree that they meet");
                let client = reflects && !elected.contains(&*names[other]);
                assert_eq!(peer.cluster, client.then_some(at(me)), "{other} is a client of {me}");
            }
        }
    }

    #[test]
    fn a_node_that_comes_or_goes_moves_one_reflector_at_most() {
        let names: Vec<String> = (0..300).map(|n| format!("node{n}")).collect();
        let of = |count: usize| elect_reflectors(names[..count].iter().map(String::as_str), MOST_MESHED);
        assert!(of(MOST_MESHED).is_empty());
        assert_eq!(of(MOST_MESHED + 1).len(), ELECTED);
        for count in MOST_MESHED + 1..300 {
            assert!(of(count).difference(&of(count + 1)).count() <= 1, "{count}");
        }
        let backwards = elect_reflectors(names.iter().rev().map(String::as_str), MOST_MESHED);
        assert_eq!(backwards, of(300), "in whatever order");
    }
}
