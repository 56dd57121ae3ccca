//! Source translation of what leaves pools with outgoing NAT.
//!
//! Invariant: without such a pool of a managed family there is no translation chain at all, as even an empty one
//! costs every new connection.

use std::collections::BTreeMap;

use ipnet::IpNet;
use tortie_desired::{Pool, Settings};
use tortie_net::Family;

use crate::model::{Base, Chain, Element, Match, Name, Rule, Set, SetType, Side, Verdict};
use crate::names::Names;
use crate::sets::maximal;

/// Upstream's names of the sets.
const MASQUERADED: &str = "masq-ipam-pools";
const ALL: &str = "all-ipam-pools";

/// Every set that translation may use, with its content if it is in use.
pub(crate) struct Nat {
    pub(crate) sets: Vec<(Name, Option<Set>)>,
    pub(crate) chain: Option<Chain>,
}

pub(crate) fn render(names: Names, settings: &Settings, pools: &BTreeMap<IpNet, Pool>) -> Nat {
    let mut nat = Nat { sets: Vec::new(), chain: None };
    for family in Family::ALL {
        let managed = settings.ipv6 || family == Family::V4;
        let own = || pools.iter().filter(move |(net, _)| managed && Family::of_net(**net) == family);
        let (masqueraded, all) = (names.pools(family, MASQUERADED), names.pools(family, ALL));
        let wanted = own().any(|(_, Pool { nat_outgoing })| *nat_outgoing);
        let set = |elements| wanted.then_some(Set { set_type: SetType::Nets(family), elements });
        let translated: std::collections::BTreeSet<Element> =
            maximal(own().filter(|(_, Pool { nat_outgoing })| *nat_outgoing).map(|(net, _)| *net));
        nat.sets.push((masqueraded.clone(), set(translated)));
        nat.sets.push((all.clone(), set(maximal(own().map(|(net, _)| *net)))));
        if wanted {
            let inside = Match::AddressIn { side: Side::Source, family, set: masqueraded, negate: false };
            let outside = Match::AddressIn { side: Side::Destination, family, set: all, negate: true };
            let rule = Rule::new([Match::Family(family), inside, outside], Verdict::Masquerade);
            let chain = nat.chain.get_or_insert_with(|| Chain { base: Some(Base::SourceNat), ..Chain::default() });
            chain.rules.push(rule);
        }
    }
    nat
}
