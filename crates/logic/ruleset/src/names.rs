//! Names of chains, sets and maps.
//!
//! They follow upstream's scheme (`cali-tw-`, `cali-pi-`, `cali40…`). Invariant: different things never get one name,
//! and a name is legal in nft's language: letters, digits and `/ - _ .`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tortie_desired::{HostInterface, PolicyId, SetId, SetKind, Tables};
use tortie_net::Family;

use crate::cause::CauseOwner;
use crate::model::{ChoiceKey, Direction, Name};

/// Base chain of packets that arrive, before connection tracking.
pub const RAW_PREROUTING: &str = "raw-PREROUTING";
/// Base chain of packets that the host sends, before connection tracking.
pub const RAW_OUTPUT: &str = "raw-OUTPUT";
/// Base chain of packets that arrive, before destination NAT.
pub const BEFORE_NAT: &str = "mangle-PREROUTING";
/// Base chain of forwarded packets by their incoming interface, where that is the host's.
pub const FORWARD_FROM_HOST: &str = "filter-FORWARD-from-hep";
/// Base chain of forwarded packets by their incoming interface.
pub const FORWARD_FROM_WORKLOAD: &str = "filter-FORWARD-from-wl";
/// Base chain of forwarded packets by their outgoing interface.
pub const FORWARD_TO_WORKLOAD: &str = "filter-FORWARD-to-wl";
/// Base chain of forwarded packets by their outgoing interface, where that is the host's.
pub const FORWARD_TO_HOST: &str = "filter-FORWARD-to-hep";
/// Base chain of packets to the host.
pub const INPUT: &str = "filter-INPUT";
/// Base chain of packets that the host sends.
pub const OUTPUT: &str = "filter-OUTPUT";
/// Base chain of packets that leave after their destination was translated.
pub const AFTER_NAT: &str = "mangle-POSTROUTING";
/// What a host endpoint says of the host's own packets whose destination was translated.
pub const TRANSLATED: &str = "cali-to-hep-translated";
/// Base chain of marks in headers.
pub const MARKING: &str = "mangle-POSTROUTING-dscp";
/// Base chain of source translation.
pub const POSTROUTING: &str = "nat-POSTROUTING";
/// Base chain of destination translation of what arrives.
pub const PREROUTING: &str = "nat-PREROUTING";
/// Base chain of destination translation of what the host sends.
pub const NAT_OUTPUT: &str = "nat-OUTPUT";
/// What IPv6 neighbour discovery needs from workloads.
pub const NEIGHBOUR_DISCOVERY: &str = "cali-wl-nd";
/// What workloads send to the host itself.
pub const WORKLOAD_TO_HOST: &str = "cali-wl-to-host";
/// Map from incoming interface to the workload's egress chain.
pub const FROM_WORKLOAD: &str = "cali-from-wl-dispatch";
/// Map from outgoing interface to the workload's ingress chain.
pub const TO_WORKLOAD: &str = "cali-to-wl-dispatch";
/// Set of the interfaces of known workloads.
pub const WORKLOAD_INTERFACES: &str = "cali-wl-interfaces";
/// Set of the interfaces whose every packet goes to the workload's own egress chain.
pub const OWN_EGRESS: &str = "cali-from-wl-own";
/// Set of the interfaces whose every packet goes to the workload's own ingress chain.
pub const OWN_INGRESS: &str = "cali-to-wl-own";
/// Set of the interfaces of known workloads with the IPv4 addresses behind them.
pub const WORKLOAD_SOURCES_V4: &str = "cali-wl-sources-v4";
/// Set of the interfaces of known workloads with the IPv6 addresses behind them.
pub const WORKLOAD_SOURCES_V6: &str = "cali-wl-sources-v6";

/// Makes names that fit a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// The longest name that the backend takes, bytes.
    pub(crate) max_len: usize,
}

impl Names {
    /// A workload's own chain for a direction.
    pub(crate) fn workload(self, direction: Direction, interface: &str) -> Name {
        self.fit(workload_prefix(direction), interface)
    }

    /// The chain of the workloads with one list of policies, of which `interface` is the first; `number` counts the
    /// chains that evaluation goes on in after a tier was left early.
    pub(crate) fn group(self, direction: Direction, interface: &str, number: usize) -> Name {
        let prefix = match direction {
            Direction::Ingress => "cali-gi-",
            Direction::Egress => "cali-go-",
        };
        self.numbered(prefix, interface, number)
    }

    /// A chain of a host endpoint, and those that evaluation goes on in after a tier was left early.
    pub(crate) fn host(self, prefix: &str, interface: &HostInterface, number: usize) -> Name {
        // No interface can have this name, as settings for all interfaces have it.
        self.numbered(prefix, interface.name().unwrap_or("all"), number)
    }

    fn numbered(self, prefix: &str, text: &str, number: usize) -> Name {
        if number == 0 { self.fit(prefix, text) } else { self.fit(prefix, &format!("{text}/{number}")) }
    }

    /// A chain that tells of packets and ends them.
    pub(crate) fn recording(self, prefix: &str, cause: &str) -> Name {
        self.fit(prefix, cause)
    }

    /// A policy's chain.
    pub(crate) fn policy(self, direction: Direction, id: &PolicyId) -> Name {
        let prefix = match direction {
            Direction::Ingress => "cali-pi-",
            Direction::Egress => "cali-po-",
        };
        self.fit(prefix, &id.to_string())
    }

    /// A profile's chain.
    pub(crate) fn profile(self, direction: Direction, name: &str) -> Name {
        let prefix = match direction {
            Direction::Ingress => "cali-pri-",
            Direction::Egress => "cali-pro-",
        };
        self.fit(prefix, name)
    }

    /// One family's part of a desired set. The kind is part of the name: a set that changes its kind is a new set.
    pub(crate) fn set(self, family: Family, kind: SetKind, id: &SetId) -> Name {
        let kind = match kind {
            SetKind::Addresses => '0',
            SetKind::Nets => 'n',
            SetKind::Ports => 'p',
        };
        let prefix = format!("cali{}{kind}", family.version());
        match id.0.split_once(':') {
            Some((tag, rest)) if tag.bytes().all(|b| b.is_ascii_alphanumeric()) && is_legal(rest) => {
                self.fit(&prefix, &format!("{tag}-{rest}"))
            }
            _ => hashed(&prefix, &id.0),
        }
    }

    /// A set that holds a rule's own list; lists that are known by the same text share a set.
    pub(crate) fn literal(self, family: Option<Family>, known_by: &str) -> Name {
        let family = family.map_or(0, Family::version);
        hashed(&format!("cali{family}l"), known_by)
    }

    /// The map of a chain that its rules choose by, with what key it has; `number` counts them.
    pub(crate) fn choices(self, owner: &Name, key: ChoiceKey, number: usize) -> Name {
        hashed("cali-by-", &format!("{owner} {key:?} {number}"))
    }

    /// A chain of jumps to these chains, on behalf of another.
    pub(crate) fn part(self, owner: &Name, targets: &[Name]) -> Name {
        hashed("cali-some-", &format!("{owner} {}", targets.join(" ")))
    }

    /// A set of pool prefixes.
    pub(crate) fn pools(self, family: Family, what: &str) -> Name {
        self.fit(&format!("cali{}-", family.version()), what)
    }

    fn fit(self, prefix: &str, text: &str) -> Name {
        if prefix.len() + text.len() <= self.max_len && is_legal(text) {
            Arc::from(format!("{prefix}{text}"))
        } else {
            let mut name = hashed(prefix, text).to_string();
            name.truncate(self.max_len);
            Arc::from(name)
        }
    }
}

/// Whose rules a chain holds, of the policies and profiles that are there; `max_name_len` is that of the renderer.
pub fn owner_of(tables: &Tables, chain: &str, max_name_len: usize) -> Option<(CauseOwner, Direction)> {
    let names = Names { max_len: max_name_len };
    let policies = tables.policies.keys().map(|id| CauseOwner::Policy(id.clone()));
    let mut owners = policies.chain(tables.profiles.keys().map(|name| CauseOwner::Profile(name.clone())));
    owners.find_map(|owner| {
        let of = |direction| match &owner {
            CauseOwner::Policy(id) => names.policy(direction, id),
            CauseOwner::Profile(name) => names.profile(direction, name),
        };
        let found = [Direction::Ingress, Direction::Egress].into_iter().find(|way| *of(*way) == *chain)?;
        Some((owner, found))
    })
}

fn workload_prefix(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "cali-tw-",
        Direction::Egress => "cali-fw-",
    }
}

/// `_` never follows a prefix in a name that is not hashed, as [`is_legal`] refuses it there.
fn hashed(prefix: &str, text: &str) -> Name {
    let digest = Sha256::digest(text.as_bytes());
    Arc::from(format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(&digest[..16])))
}

fn is_legal(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.');
    !text.is_empty() && !text.starts_with('_') && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tortie_desired::PolicyKind;

    const NAMES: Names = Names { max_len: 200 };

    #[test]
    fn names_follow_upstreams_scheme() {
        let id = PolicyId { name: Arc::from("web"), namespace: Arc::from("shop"), kind: PolicyKind::NetworkPolicy };
        assert_eq!(&*NAMES.policy(Direction::Ingress, &id), "cali-pi-np/shop/web");
        assert_eq!(&*NAMES.workload(Direction::Egress, "cali123"), "cali-fw-cali123");
        assert_eq!(&*NAMES.set(Family::V6, SetKind::Addresses, &SetId::new("s:a-b_c")), "cali60s-a-b_c");
    }

    #[test]
    fn long_and_odd_names_are_hashed_and_stay_apart() {
        let short = Names { max_len: 28 };
        let (a, b) = ("x".repeat(40), format!("{}y", "x".repeat(39)));
        assert_ne!(short.profile(Direction::Ingress, &a), short.profile(Direction::Ingress, &b));
        assert!(short.profile(Direction::Ingress, &a).len() <= 28);
        let odd = NAMES.workload(Direction::Ingress, "ca li");
        assert!(odd.starts_with("cali-tw-_") && !odd.contains(' '));
        assert_ne!(
            NAMES.set(Family::V4, SetKind::Nets, &SetId::new("s:x")),
            NAMES.set(Family::V4, SetKind::Nets, &SetId::new("s-x"))
        );
    }
}
