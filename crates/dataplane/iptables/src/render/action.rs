//! What a rule does, as the one target that iptables gives a rule.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tortie_net::{Family, PortRange, Protocol};
use tortie_ruleset::{Match, Name, Rule, Side, Statement, Verdict};

use super::plan::{CHOOSES, Entry, unsupported};
use super::{DONE_MARK, Output, chain_name, clear_mark, set_mark, tree};
use crate::content::Table;
use crate::error::Error;

/// The longest prefix of log lines; a longer one is cut, as it must not cost a policy.
const LOG_PREFIX_LEN: usize = 29;
/// The longest prefix that NFLOG takes.
const NFLOG_PREFIX_LEN: usize = 63;

/// A rule's target.
pub(super) struct Action {
    pub(super) target: String,
    /// Whether the packet may come back as decided.
    pub(super) may_decide: bool,
}

impl Output<'_> {
    /// `None`: the rule does nothing.
    pub(super) fn action(&mut self, chain: &Name, entry: Entry, rule: &Rule) -> Result<Option<Action>, Error> {
        let Rule { matches, statements, verdict } = rule;
        let steps: Vec<String> = statements.iter().filter_map(statement).collect();
        let ends = |target: String| Some(Action { target, may_decide: false });
        Ok(match verdict {
            None => match steps.as_slice() {
                [] => None,
                [one] => ends(one.clone()),
                _ => ends(format!("-j {}", self.helper(steps))),
            },
            Some(Verdict::Accept) => ends(self.leave(entry, true, steps)),
            Some(Verdict::Return) => ends(self.leave(entry, entry == Entry::Tail, steps)),
            Some(Verdict::Jump(to)) => {
                let may_decide = self.plan.decides[to];
                let to = self.name_of(to);
                let target =
                    if steps.is_empty() { format!("-j {to}") } else { self.then("-j", steps, format!("-g {to}")) };
                Some(Action { target, may_decide })
            }
            Some(Verdict::Goto(to)) => {
                let to = format!("-g {}", self.name_of(to));
                ends(self.then("-g", steps, to))
            }
            Some(Verdict::Dispatch { side, map }) => {
                let to = self.dispatch(chain, *side, map)?;
                let target =
                    if steps.is_empty() { format!("-j {to}") } else { self.then("-j", steps, format!("-g {to}")) };
                Some(Action { target, may_decide: true })
            }
            Some(Verdict::Choose { key: _, map: _ }) => return Err(unsupported(chain, CHOOSES)),
            Some(
                end @ (Verdict::Drop
                | Verdict::Reject
                | Verdict::Reset
                | Verdict::SourceNat { address: _, ports: _ }
                | Verdict::DestinationNat(_)),
            ) => {
                // The kernel rejects in its filter table alone.
                let rejects = matches!(end, Verdict::Reject | Verdict::Reset);
                let end = if rejects && self.table != Table::Filter { &Verdict::Drop } else { end };
                // It resets TCP alone, and wants the rule to say so.
                let is_tcp = Match::Protocol { protocol: Protocol::TCP, negate: false };
                let said = steps.is_empty() && matches.contains(&is_tcp);
                let tcp = if *end == Verdict::Reset && !said { "-p 6 " } else { "" };
                let end = format!("{tcp}{}", terminal(end, self.family));
                ends(self.then("-g", steps, end))
            }
        })
    }

    /// Leaves the chain, with the mark that the packet is accepted if the chain is not a base chain.
    fn leave(&mut self, entry: Entry, accepted: bool, mut steps: Vec<String>) -> String {
        if accepted && entry != Entry::Base {
            steps.push(set_mark(DONE_MARK));
        }
        if steps.is_empty() { "-j RETURN".to_owned() } else { format!("-g {}", self.helper(steps)) }
    }

    /// Does the steps, then the last; `how` it is entered if that takes a chain.
    fn then(&mut self, how: &str, mut steps: Vec<String>, last: String) -> String {
        if steps.is_empty() {
            return last;
        }
        steps.push(last);
        format!("{how} {}", self.helper(steps))
    }

    /// A chain of just these rules, which all that need it share.
    pub(super) fn helper(&mut self, rules: Vec<String>) -> Name {
        let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(rules.join("\n")));
        let name = Name::from(format!("cali-do-{}", &digest[..16]));
        self.content.chains.insert(name.clone(), rules);
        name
    }

    fn name_of(&self, chain: &Name) -> Name {
        chain_name(chain, self.ruleset.chains.get(chain).and_then(|chain| chain.base))
    }

    fn dispatch(&mut self, chain: &Name, side: Side, map: &Name) -> Result<Name, Error> {
        let found = self.ruleset.maps.get(map).ok_or_else(|| unsupported(chain, "asks a map that is not there"))?;
        let root = chain_name(map, None);
        if !self.content.chains.contains_key(&root) {
            let targets = found.iter().map(|(name, to)| (&**name, format!("-g {}", self.name_of(to)))).collect();
            tree::add(&mut self.content, &root, side, &targets)?;
        }
        Ok(root)
    }
}

/// The target of a statement; none for what every rule does by itself.
pub(super) fn statement(statement: &Statement) -> Option<String> {
    Some(match statement {
        Statement::Log { prefix } => format!("-j LOG --log-prefix {} --log-level 5", quoted(prefix, LOG_PREFIX_LEN)),
        Statement::Record { group, prefix } => {
            format!("-j NFLOG --nflog-group {group} --nflog-prefix {}", quoted(prefix, NFLOG_PREFIX_LEN))
        }
        // Every rule counts its packets.
        Statement::Count => return None,
        Statement::SetMark(bits) => set_mark(*bits),
        Statement::ClearMark(bits) => clear_mark(*bits),
        Statement::NoTrack => "-j CT --notrack".to_owned(),
        Statement::SetDscp { family: _, value } => format!("-j DSCP --set-dscp {value:#04x}"),
    })
}

/// Text as restore programs read it. They can't read what is no printable ASCII.
fn quoted(text: &str, longest: usize) -> String {
    let printable = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    let kept: String = text.chars().map(printable).take(longest).collect();
    format!("\"{}\"", kept.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The targets that end a packet's way, or its search for a translation.
fn terminal(verdict: &Verdict, family: Family) -> String {
    let range = |ports: &Option<PortRange>| ports.map(|ports| format!("{}-{}", ports.first(), ports.last()));
    match verdict {
        Verdict::Reject if family == Family::V4 => "-j REJECT --reject-with icmp-port-unreachable".to_owned(),
        Verdict::Reject => "-j REJECT --reject-with icmp6-port-unreachable".to_owned(),
        Verdict::Reset => "-j REJECT --reject-with tcp-reset".to_owned(),
        Verdict::SourceNat { address: None, ports } => {
            let ports = range(ports).map(|ports| format!(" --to-ports {ports}")).unwrap_or_default();
            format!("-j MASQUERADE{ports} --random-fully")
        }
        Verdict::SourceNat { address: Some(address), ports } => {
            let to = match (address, range(ports)) {
                (_, None) => address.to_string(),
                (IpAddr::V4(v4), Some(ports)) => format!("{v4}:{ports}"),
                (IpAddr::V6(v6), Some(ports)) => format!("[{v6}]:{ports}"),
            };
            format!("-j SNAT --to-source {to}")
        }
        Verdict::DestinationNat(address) => format!("-j DNAT --to-destination {address}"),
        Verdict::Drop => "-j DROP".to_owned(),
        Verdict::Accept | Verdict::Return => "-j RETURN".to_owned(),
        Verdict::Jump(to) => format!("-j {to}"),
        Verdict::Goto(to) | Verdict::Dispatch { side: _, map: to } | Verdict::Choose { key: _, map: to } => {
            format!("-g {to}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_prefixes_are_cut_and_quoted() {
        assert_eq!(quoted("a \"b\\\n", 29), r#""a \"b\\?""#);
        assert_eq!(quoted(&"x".repeat(40), 29).len(), 31);
    }
}
