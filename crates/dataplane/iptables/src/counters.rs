//! What the rules have counted, read back from the save programs.

use std::collections::BTreeMap;
use std::path::Path;

use tortie_net::Family;

use crate::content::Flavour;
use crate::error::Error;
use crate::programs::run;
use crate::save::is_ours;

/// Packets that the first rule of each of our chains has counted, in both families and all tables together.
///
/// The whole rules are read for this, so it is nothing to do often.
pub fn first_rules(flavour: Flavour) -> Result<BTreeMap<String, u64>, Error> {
    let mut counted = BTreeMap::new();
    let has_v6 = Path::new("/proc/sys/net/ipv6").exists();
    for family in Family::ALL.into_iter().filter(|family| has_v6 || *family == Family::V4) {
        add(&mut counted, &run(&flavour.program(family, "save"), &["-c"], "")?);
    }
    Ok(counted)
}

fn add(counted: &mut BTreeMap<String, u64>, text: &str) {
    let mut last = "";
    for line in text.lines() {
        if line.starts_with('*') {
            last = "";
        }
        let Some((packets, chain)) = rule(line) else { continue };
        if chain != last && is_ours(chain) {
            let sum = counted.entry(chain.to_owned()).or_default();
            *sum = u64::saturating_add(*sum, packets);
        }
        last = chain;
    }
}

/// A rule's packets and its chain.
fn rule(line: &str) -> Option<(u64, &str)> {
    let (counts, rest) = line.strip_prefix('[')?.split_once("] -A ")?;
    let packets = counts.split(':').next()?.parse().ok()?;
    Some((packets, rest.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAVED: &str = "*raw\n:cali-a - [0:0]\n[7:700] -A cali-a -j DROP\nCOMMIT\n*filter\n:FORWARD ACCEPT [9:9]\n\
                         [3:3] -A FORWARD -j cali-a\n[2:84] -A cali-a -m hashlimit -j DROP\n[5:5] -A cali-a -j DROP\n\
                         [1:1] -A cali-b -j DROP\nCOMMIT\n";

    #[test]
    fn the_first_rule_of_each_chain_counts_in_all_tables() {
        let mut counted = BTreeMap::new();
        add(&mut counted, SAVED);
        add(&mut counted, "[4:4] -A cali-b -j DROP\n");
        assert_eq!(counted, BTreeMap::from([("cali-a".to_owned(), 9), ("cali-b".to_owned(), 5)]));
    }

    proptest! {
        #[test]
        fn no_text_ends_it(text in "[*:A-Za-z0-9 \\[\\]\\-\n]{0,200}", at in 0..SAVED.len(), byte in any::<char>()) {
            let mut counted = BTreeMap::new();
            add(&mut counted, &text);
            let mut mutated: Vec<char> = SAVED.chars().collect();
            mutated[at] = byte;
            add(&mut counted, &mutated.into_iter().collect::<String>());
        }
    }
}
