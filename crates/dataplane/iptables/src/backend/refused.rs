//! Going on without what the programs refuse: its policy is closed and named, the rest is in force.

use std::collections::BTreeMap;

use tortie_desired::Tables;
use tortie_ruleset::{Cause, Name, Renderer, owner_of};

use super::Iptables;
use crate::error::Error;
use crate::render::{self, CHAIN_LEN};

/// Chains and sets that are left out, each after another try, before a refusal is final.
pub(super) const MOST_REFUSED: usize = 16;

impl Iptables {
    /// Finds out which chain or set an error is about; whether it is one to go on without.
    pub(super) fn leave_out(&mut self, tables: &Tables, error: &Error) -> bool {
        let Error::Refused { program: _, reason, line: Some(line) } = error else { return false };
        let renderer = Renderer::with_runs(tables, CHAIN_LEN, None);
        let mut words = line.split(' ');
        let names: Vec<Name> = match (words.next(), words.next()) {
            (Some("-A"), Some(chain)) if render::is_closable(chain) => vec![chain.into()],
            // A chain for what a rule does: those whose rules do it.
            (Some("-A"), Some(helper)) => {
                let Ok(wanted) = self.render(tables, renderer.ruleset()) else { return false };
                let enters = |rule: &String| rule.ends_with(&format!(" {helper}"));
                let chains = wanted.contents.into_values().flat_map(|content| content.chains);
                let users = chains.filter(|(_, rules)| rules.iter().any(enters)).map(|(name, _)| name);
                let users: Vec<Name> = users.collect();
                if users.iter().all(|name| render::is_closable(name)) { users } else { vec![] }
            }
            (Some("create" | "add"), Some(set)) => {
                let name = Name::from(set.strip_suffix('~').unwrap_or(set));
                if renderer.ruleset().sets.contains_key(&name) { vec![name] } else { vec![] }
            }
            _ => vec![],
        };
        let before = self.refused.len();
        for name in names {
            tracing::warn!(%name, reason, "this is refused: what needs it is closed, the rest goes on");
            self.refused.insert(name, format!("was refused: {reason}"));
        }
        self.refused.len() > before
    }
}

/// Closed chains by whose rules they should hold.
pub(super) fn named(tables: &Tables, closed: &BTreeMap<Name, String>) -> BTreeMap<String, String> {
    let whose = |chain: &Name| owner_of(tables, chain, CHAIN_LEN).map(|(owner, _)| owner.to_string());
    closed.iter().map(|(chain, why)| (whose(chain).unwrap_or_else(|| chain.to_string()), why.clone())).collect()
}

/// The target that tells of what a closed chain of a policy ends, as of what ends because the policy is not there.
pub(super) fn record(tables: &Tables, chain: &Name) -> Option<String> {
    let (owner, direction) = owner_of(tables, chain, CHAIN_LEN)?;
    let cause = Cause::Missing { owner, direction };
    Some(render::record(&cause))
}
