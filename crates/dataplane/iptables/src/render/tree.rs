//! Finding an interface among many: chains that tell names apart by their next letter, as upstream's dispatch chains.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tortie_ruleset::{Name, Side};

use super::conditions::interface_option;
use crate::content::Content;
use crate::error::Error;

/// A chain with up to this many interfaces lists them.
const LEAVES: usize = 8;
/// The longest name of a chain, bytes.
pub const CHAIN_LEN: usize = 28;
/// The longest name of an interface, bytes.
const INTERFACE_LEN: usize = 15;

/// Adds the chain `root`, in which a packet of an interface goes where the map says, and which others leave at its end.
pub(crate) fn add(
    content: &mut Content,
    root: &Name,
    side: Side,
    targets: &BTreeMap<&str, String>,
) -> Result<(), Error> {
    // A longer name is none that the kernel could have.
    let there: Vec<(&str, &str)> =
        targets.iter().filter(|(name, _)| name.len() <= INTERFACE_LEN).map(|(name, to)| (*name, to.as_str())).collect();
    let common = common_prefix(&there);
    let rules = node(content, root, side, common, &there)?;
    content.chains.insert(root.clone(), rules);
    Ok(())
}

/// The rules of the chain for the names, which are sorted and all start with `prefix`.
fn node(
    content: &mut Content,
    root: &Name,
    side: Side,
    common: usize,
    names: &[(&str, &str)],
) -> Result<Vec<String>, Error> {
    let option = interface_option(side);
    let leaf = |(name, target): &(&str, &str)| Ok(format!("{option} {} {target}", interface(name)?));
    if names.len() <= LEAVES {
        return names.iter().map(leaf).collect();
    }
    let depth = common_prefix(names);
    let mut rules = Vec::new();
    for group in names.chunk_by(|(a, _), (b, _)| a.get(..=depth) == b.get(..=depth) && a.len() > depth) {
        let [(first, _), ..] = group else { continue };
        if group.len() == 1 {
            rules.push(leaf(&group[0])?);
            continue;
        }
        let prefix = &first[..common_prefix(group)];
        let chain = child(root, &prefix[common..]);
        rules.push(format!("{option} {}+ -g {chain}", interface(prefix)?));
        let inner = node(content, root, side, common, group)?;
        content.chains.insert(chain, inner);
    }
    Ok(rules)
}

/// Length of what all names start with.
fn common_prefix(names: &[(&str, &str)]) -> usize {
    let (Some((first, _)), Some((last, _))) = (names.first(), names.last()) else { return 0 };
    // Of sorted names, the first and the last have the least in common.
    first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count()
}

fn child(root: &str, suffix: &str) -> Name {
    let plain = format!("{root}-{suffix}");
    if plain.len() <= CHAIN_LEN && suffix.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return plain.into();
    }
    let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(plain.as_bytes()));
    let kept = &root[..root.len().min(CHAIN_LEN - 12)];
    format!("{kept}_{}", &digest[..11]).into()
}

/// An interface's name, or the start of one, if iptables reads it as just that.
pub(crate) fn interface(name: &str) -> Result<&str, Error> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-@~=%,#".contains(&b);
    if name.is_empty() || !name.bytes().all(legal) {
        return Err(Error::Unsupported { what: format!("the interface name {name:?}") });
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Where a packet of an interface ends up, as the kernel would walk the chains.
    fn walk<'a>(content: &'a Content, chain: &str, name: &str) -> Option<&'a str> {
        for rule in &content.chains[chain] {
            let (pattern, target) = rule.strip_prefix("-i ").expect("by interface").split_once(' ').expect("a target");
            let hit = pattern.strip_suffix('+').map_or(pattern == name, |prefix| name.starts_with(prefix));
            match target.strip_prefix("-g ") {
                _ if !hit => {}
                Some(next) if content.chains.contains_key(next) => return walk(content, next, name),
                Some(_) | None => return Some(target),
            }
        }
        None
    }

    proptest! {
        #[test]
        fn each_name_finds_its_target_and_no_other(
            names in proptest::collection::btree_set("cali[a-c]{0,11}|tap[0-9a-f]{1,3}|[a-z]{1,15}", 0..200),
            others in proptest::collection::vec("cali[a-c]{0,11}|[a-z]{1,15}", 20),
        ) {
            let targets: BTreeMap<&str, String> = names.iter().map(|n| (n.as_str(), format!("-g to-{n}"))).collect();
            let mut content = Content::default();
            let root = Name::from("cali-from-wl-dispatch");
            add(&mut content, &root, Side::Source, &targets).expect("legal names");
            for name in names.iter().chain(&others) {
                let found = walk(&content, &root, name);
                prop_assert_eq!(found, targets.get(name.as_str()).map(String::as_str), "{}", name);
            }
            for (chain, rules) in &content.chains {
                prop_assert!(chain.len() <= CHAIN_LEN, "{}", chain);
                prop_assert!(rules.iter().all(|rule| rule.len() < 80));
            }
        }
    }

    #[test]
    fn names_that_iptables_reads_as_patterns_are_refused() {
        for name in ["", "cali+", "a b", "!x", "a\"b"] {
            assert!(interface(name).is_err(), "{name:?}");
        }
    }
}
