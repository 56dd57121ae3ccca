//! What tables hold: chains of rule texts, and the rules by which the kernel's own chains enter ours.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha224};
use tortie_net::Family;
use tortie_ruleset::{Base, Name};

/// Which iptables: its own tables in the kernel, or its rules in nf_tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flavour {
    /// `iptables-legacy`.
    Legacy,
    /// `iptables-nft`.
    Nft,
}

impl Flavour {
    /// Both.
    pub const ALL: [Flavour; 2] = [Flavour::Legacy, Flavour::Nft];

    /// Upstream's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Flavour::Legacy => "legacy",
            Flavour::Nft => "nft",
        }
    }

    /// The program for a family; `what`: `save` or `restore`.
    pub(crate) fn program(self, family: Family, what: &str) -> String {
        let six = if family == Family::V6 { "6" } else { "" };
        format!("ip{six}tables-{}-{what}", self.word())
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A table, in the order that changes are made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Raw,
    Mangle,
    Nat,
    Filter,
}

impl Table {
    pub(crate) const ALL: [Table; 4] = [Table::Raw, Table::Mangle, Table::Nat, Table::Filter];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Table::Raw => "raw",
            Table::Mangle => "mangle",
            Table::Nat => "nat",
            Table::Filter => "filter",
        }
    }
}

/// Where a base chain's rules stand: table, the kernel's chain, and the chain of ours that holds them.
pub(crate) fn place(base: Base) -> (Table, &'static str, &'static str) {
    match base {
        Base::RawPrerouting => (Table::Raw, "PREROUTING", "cali-PREROUTING-hep"),
        Base::RawOutput => (Table::Raw, "OUTPUT", "cali-OUTPUT-hep"),
        Base::BeforeNat => (Table::Mangle, "PREROUTING", "cali-PREROUTING-hep"),
        Base::DestinationNat => (Table::Nat, "PREROUTING", "cali-fip-dnat"),
        Base::DestinationNatOutput => (Table::Nat, "OUTPUT", "cali-fip-dnat-own"),
        Base::FromHost => (Table::Filter, "FORWARD", "cali-FORWARD-from-hep"),
        Base::FromWorkload => (Table::Filter, "FORWARD", "cali-FORWARD-from-wl"),
        Base::ToWorkload => (Table::Filter, "FORWARD", "cali-FORWARD-to-wl"),
        Base::ToHost => (Table::Filter, "FORWARD", "cali-FORWARD-to-hep"),
        Base::Input => (Table::Filter, "INPUT", "cali-INPUT-all"),
        Base::Output => (Table::Filter, "OUTPUT", "cali-OUTPUT-hep"),
        Base::Postrouting => (Table::Mangle, "POSTROUTING", "cali-POSTROUTING-hep"),
        Base::Marking => (Table::Mangle, "POSTROUTING", "cali-egress-dscp"),
        Base::SourceNat => (Table::Nat, "POSTROUTING", "cali-nat-outgoing"),
    }
}

/// What one table of one family should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// Rules by chain, each without the chain and without its comment.
    pub(crate) chains: BTreeMap<Name, Vec<String>>,
    /// Our chain that a chain of the kernel enters.
    pub(crate) hooks: BTreeMap<&'static str, Name>,
}

/// The kernel's chains that enter ours.
pub(crate) fn builtins() -> impl Iterator<Item = &'static str> {
    ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].into_iter()
}

/// The hashes of all rules that a table should hold.
pub(crate) fn all_hashes(content: &Content) -> impl Iterator<Item = String> {
    let Content { chains, hooks } = content;
    let entering = hooks.iter().flat_map(|(builtin, chain)| hashes(builtin, &[entrance(chain)]).collect::<Vec<_>>());
    chains.iter().flat_map(|(name, rules)| hashes(name, rules)).chain(entering)
}

fn entrance(chain: &str) -> String {
    format!("-j {chain}")
}

/// The rules of a chain with the comments that say which they are: each hash covers the chain's name and all rules up
/// to its own, so that a rule that is missing, moved or changed shows.
pub(crate) fn commented(chain: &str, rules: &[String]) -> Vec<String> {
    hashes(chain, rules).zip(rules).map(|(hash, rule)| with_comment(&hash, rule)).collect()
}

/// The rule of a kernel's chain that enters ours.
pub(crate) fn hook(builtin: &str, chain: &str) -> String {
    let rule = entrance(chain);
    let hash = hashes(builtin, std::slice::from_ref(&rule)).next().expect("one rule has one hash");
    with_comment(&hash, &rule)
}

fn with_comment(hash: &str, rule: &str) -> String {
    format!("-m comment --comment \"{COMMENT}{hash}\" {rule}")
}

/// What comments of ours, and of upstream, start with.
pub(crate) const COMMENT: &str = "cali:";
/// Length of a hash as text.
pub(crate) const HASH_LEN: usize = 16;

/// The hashes of a chain's rules.
pub(crate) fn hashes(chain: &str, rules: &[String]) -> impl Iterator<Item = String> {
    let mut last = Sha224::digest(chain.as_bytes());
    rules.iter().map(move |rule| {
        let mut state = Sha224::new();
        state.update(last);
        state.update(rule.as_bytes());
        last = state.finalize();
        let mut text = URL_SAFE_NO_PAD.encode(last);
        text.truncate(HASH_LEN);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_covers_the_chain_and_all_rules_before() {
        let of = |chain: &str, rules: &[&str]| -> Vec<String> {
            let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
            hashes(chain, &rules).collect()
        };
        let one = of("a", &["x", "y"]);
        assert_eq!(one, of("a", &["x", "y"]));
        assert!(one.iter().all(|hash| hash.len() == HASH_LEN));
        assert_ne!(one[1], of("a", &["z", "y"])[1]);
        assert_ne!(one[0], of("b", &["x"])[0]);
    }
}
